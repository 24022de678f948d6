"""A corpus: splits of sentence pairs in one direction, and what a corpus knows about its own text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class CorpusSettings:
    """Which sentence pairs to train and test on.

    Attributes:
        name: NAME-SRC-TGT, such as grammar-en-de or multi30k-en-fr; `files` takes its languages from the file endings.
        path: The folder of a corpus that lies on disk (multi30k; default: the environment variable MULTI30K).
        train: For `files`: the two files of the training pairs, source first.
        val: For `files`: the two files of the validation pairs.
        test: For `files`: the two files of the test pairs.
        pairs: For `grammar`: the number of training pairs to generate.
        lemmas: For `grammar`: the number of lemmas in use.
        depth: For `grammar`: how deep relative clauses may nest.
    """

    name: str = "grammar-en-de"
    path: str | None = None
    train: list[str] | None = None
    val: list[str] | None = None
    test: list[str] | None = None
    pairs: int = 6000
    lemmas: int = 120
    depth: int = 1


@dataclass(frozen=True)
class Split:
    """Sentence i of `sources` is translated by sentence i of `targets`."""

    sources: list[str]
    targets: list[str]

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(zip(self.sources, self.targets, strict=True))

    @property
    def hash(self) -> str:
        """SHA-256 over both sides, line by line: two splits with one hash hold the same text."""
        digest = hashlib.sha256()
        for source, target in self:
            digest.update(f"{source}\n{target}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Corpus:
    """The splits of one corpus in one direction. The first of `tests` is the one that a table quotes."""

    name: str
    source_language: str
    target_language: str
    train: Split
    validation: Split
    tests: dict[str, Split] = field(default_factory=dict)

    @property
    def direction(self) -> str:
        return f"{self.source_language}-{self.target_language}"

    @property
    def hashes(self) -> dict[str, str]:
        splits = {"train": self.train, "validation": self.validation, **self.tests}
        return {name: split.hash for name, split in splits.items()}


@dataclass(frozen=True)
class Contrast:
    """A decision that a model has to make.

    Attributes:
        source: The sentence to translate.
        right: Its translation.
        wrong: Translations with one form that does not fit; all of them have to be less probable.
        category: The phenomenon.
        distance: How far what decides the form stands from the form, in the test set's own unit; None: not said.
    """

    source: str
    right: str
    wrong: tuple[str, ...]
    category: str
    distance: int | None = None


@dataclass(frozen=True)
class Example:
    """A sentence pair with what is known about it.

    Attributes:
        source: The sentence as it is written.
        target: Its translation.
        source_words: Words and punctuation marks of the source.
        target_words: The same of the target.
        alignment: (i, j) where source word i and target word j say the same part of the meaning.
        content: For source and target, the words that carry meaning of their own (nouns, verbs, adjectives, ...).
        depth: How deep relative clauses nest.
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
    """What a corpus knows of its own text, for questions that a score over a whole test set does not answer.

    Attributes:
        contrasts: Of every phenomenon that the target language shows; none of their sentences is in the training text.
        test: The first of the corpus's test sets, sentence by sentence.
        deeper: Sentences whose clauses nest deeper than any of the training text.
        illustrations: A few contrasts to print or draw for a person; too few to compute a score from.
    """

    contrasts: tuple[Contrast, ...]
    test: tuple[Example, ...]
    deeper: tuple[Example, ...]
    illustrations: tuple[Contrast, ...] = ()
