"""A corpus: splits of sentence pairs in one direction, and annotations that some corpora have of their own text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from bench.data.stored_text import LineWriter


@dataclass
class FilterSettings:
    """Training pairs to remove. Validation and test sets are never filtered. A word is what stands between spaces.

    Attributes:
        min_words: Remove pairs with a side of fewer words.
        max_words: Remove pairs with a side of more words.
        max_ratio: Remove pairs whose longer side has more than this many times the words of the shorter one.
        duplicates: Remove pairs that are equal to an earlier one.
        identical: Remove pairs whose two sides are equal.
        script: Remove pairs with a side most of whose letters are not in the script of its language. A language that is
            written in several scripts removes nothing.
    """

    min_words: int | None = None
    max_words: int | None = None
    max_ratio: float | None = None
    duplicates: bool = False
    identical: bool = False
    script: bool = False


@dataclass
class CorpusSettings:
    """Which sentence pairs to train and test on.

    Attributes:
        name: NAME-SRC-TGT, such as grammar-en-de or multi30k-en-fr; `files` takes its languages from the file endings.
        path: For `multi30k`: its folder; null: that of the environment variable MULTI30K, or the downloaded files.
        train: For `files`: the two text files of the training pairs, source first, or one table with both sides
            (.tsv, .jsonl, .parquet, or a data set of Hugging Face that was saved on disk).
        val: For `files`: the files of the validation pairs.
        test: For `files`: the files of the test pairs.
        columns: For `files` with tables: names of the two columns, source first; null: found by the languages.
        pairs: For `grammar`: the number of training pairs to generate.
        lemmas: For `grammar`: the number of lemmas in use.
        depth: For `grammar`: largest nesting depth of clauses.
        filters: Training pairs to remove, of any corpus.
    """

    name: str = "grammar-en-de"
    path: str | None = None
    train: list[str] | None = None
    val: list[str] | None = None
    test: list[str] | None = None
    columns: list[str] | None = None
    pairs: int = 6000
    lemmas: int = 120
    depth: int = 1
    filters: FilterSettings = field(default_factory=FilterSettings)


@dataclass(frozen=True)
class Split:
    """Sentence pairs: sentence i of `targets` is the translation of sentence i of `sources`.

    Attributes:
        sources: Source sentences: a list, or `StoredLines` if they are many.
        targets: Target sentences.
        known_hash: The hash of the text, if it was computed before.
    """

    sources: Sequence[str]
    targets: Sequence[str]
    known_hash: str | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(zip(self.sources, self.targets, strict=True))

    def mapped(self, change: Callable[[str], str]) -> Split:
        """The split with every sentence changed by a function."""
        return Split(LineWriter.collect(map(change, self.sources)), LineWriter.collect(map(change, self.targets)))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of both sides, line by line: two splits with the same hash have the same text."""
        if self.known_hash:
            return self.known_hash
        digest = hashlib.sha256()
        for source, target in self:
            digest.update(f"{source}\n{target}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Corpus:
    """The splits of one corpus in one direction.

    Attributes:
        name: NAME-SRC-TGT.
        source_language: Source language.
        target_language: Target language.
        train: The training pairs.
        validation: The validation pairs.
        tests: Test sets by name; the first is the one shown in tables.
        removed: Filter -> training pairs that it removed; empty without filters.
    """

    name: str
    source_language: str
    target_language: str
    train: Split
    validation: Split
    tests: dict[str, Split] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)

    def mapped(self, change: Callable[[str], str]) -> Corpus:
        """The corpus with every sentence changed by a function."""
        tests = {name: split.mapped(change) for name, split in self.tests.items()}
        return replace(self, train=self.train.mapped(change), validation=self.validation.mapped(change), tests=tests)

    @property
    def direction(self) -> str:
        return f"{self.source_language}-{self.target_language}"

    @property
    def hashes(self) -> dict[str, str]:
        splits = {"train": self.train, "validation": self.validation, **self.tests}
        return {name: split.hash for name, split in splits.items()}


@dataclass(frozen=True)
class Contrast:
    """A contrastive example: the model must find the right translation more probable than the wrong ones.

    Attributes:
        source: The sentence to translate.
        right: Its translation.
        wrong: Wrong translations; they differ from the right one in one form.
        category: The linguistic phenomenon.
        distance: Distance between the form and the word that determines it, in the unit of the test set; None: unknown.
    """

    source: str
    right: str
    wrong: tuple[str, ...]
    category: str
    distance: int | None = None


@dataclass(frozen=True)
class Example:
    """An annotated sentence pair.

    Attributes:
        source: The source sentence as text.
        target: The target sentence as text.
        source_words: Words and punctuation marks of the source.
        target_words: Words and punctuation marks of the target.
        alignment: (i, j) for each source word i and target word j that express the same part of the meaning.
        content: For source and target, the indices of the content words (nouns, verbs, adjectives, ...).
        depth: Nesting depth of clauses.
        labels: The phenomena in it, such as pronoun, relative, polarity=negative or tense=perfect.
    """

    source: str
    target: str
    source_words: tuple[str, ...]
    target_words: tuple[str, ...]
    alignment: frozenset[tuple[int, int]]
    content: tuple[frozenset[int], frozenset[int]]
    depth: int
    labels: frozenset[str]


@dataclass(frozen=True)
class Probes:
    """Annotated data for questions that a score over a whole test set does not answer.

    Attributes:
        contrasts: Contrasts of every phenomenon that the target language has. None of their sentences is in the
            training text.
        test: The sentences of the first test set.
        deeper: Sentences with a larger nesting depth than any sentence of the training text.
        illustrations: A few contrasts to print or draw for a person; too few to compute a score from.
    """

    contrasts: tuple[Contrast, ...]
    test: tuple[Example, ...]
    deeper: tuple[Example, ...]
    illustrations: tuple[Contrast, ...] = ()
