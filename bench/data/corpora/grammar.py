"""Sentence pairs from a synchronous grammar: one meaning, expressed in two languages.

The engine is in `_grammar/` and its data in `languages/`: meaning.yaml defines the possible meanings, and en.yaml,
de.yaml, fr.yaml and ko.yaml how each language expresses them. Any two of them are a corpus, in both directions. All
random seeds are fixed, so the same settings give the same corpus on every machine. Generation takes seconds, a study's
768,000 pairs minutes, so the result is stored in the cache folder.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bench.data import corpus
from bench.data.corpora._cache import cached
from bench.data.corpora._grammar.contrast import GENERATORS, Contrast, contrasts
from bench.data.corpora._grammar.language import Language, Word
from bench.data.corpora._grammar.meaning import Meaning, Node, concepts_of
from bench.data.corpus import Corpus, CorpusSettings, Example, Probes, Split
from bench.system import terminal

PHENOMENA = tuple(GENERATORS)
LANGUAGES = Path(__file__).parent / "languages"
TEST_PAIRS = 1000  # and as many for validation
NAMES_PAIRS = 500
PROBES_AT_ONCE = 100_000  # from so many training pairs on, `load` makes the probes, too: see there
MIN_LEMMAS = 60  # with fewer, some kinds of sentences cannot be built
EXTRA_DEPTHS = (1, 2)  # nesting levels beyond those of the training text, for the probes
CUMULATIVE_SHARES = {"train": 75, "validation": 87, "test": 100}  # percent


Pairs = dict[str, list[tuple[str, str]]]
"""Split -> its sentence pairs."""

Value = TypeVar("Value")


class Grammar:
    """Generates random sentence pairs in one direction.

    Args:
        source: Code of the source language.
        target: Code of the target language.
        lemmas: Number of lemmas in use, the most frequent ones.
        depth: Largest nesting depth of clauses.
        names: Which proper names are in use: training, or test for names that do not occur in training.

    Raises:
        ValueError: an argument is out of its range, or a language is unknown.
    """

    def __init__(self, source: str, target: str, lemmas: int, depth: int, names: str = "training"):
        data = _read("meaning")
        concepts = concepts_of(data)
        self.content_groups = {
            entry.get("group", category) for category, entry in data["concepts"].items() if entry.get("content")
        }
        order = list(dict.fromkeys((c.group, c.name) for c in concepts if c.group in self.content_groups))
        if not MIN_LEMMAS <= lemmas <= len(order):
            raise ValueError(
                f"corpus.lemmas: {lemmas} is not between {MIN_LEMMAS} and {len(order)}, the number of all lemmas"
            )
        if depth < 0:
            raise ValueError(f"corpus.depth: {depth} is negative; set it to 0 for no relative clauses, or higher")
        self.lemmas = set(order[:lemmas])
        self.depth = depth
        used = [
            concept
            for concept in concepts
            if (concept.group not in self.content_groups or (concept.group, concept.name) in self.lemmas)
            and (concept.group != "name" or names in concept.fields["known"])
        ]
        self.meaning = Meaning(data, used)
        if source == target:
            raise ValueError(f"corpus.name: {source!r} is given twice; choose two languages, such as grammar-en-de")
        self.source = _language(source)
        self.target = _language(target)

    def draw(self, rng: random.Random) -> Node:
        """A random meaning in which no content word occurs twice."""
        while True:
            meaning = self.meaning.draw(rng, "Sentence", self.depth)
            names = [node.concept.name for node in meaning.walk() if node.concept and node.kind in self.content_groups]
            if len(names) == len(set(names)):
                return meaning

    def texts(self, meaning: Node) -> tuple[str, str]:
        """The source and the target sentence of a meaning."""
        return self.source.text(self.source.words(meaning)), self.target.text(self.target.words(meaning))

    def example(self, meaning: Node) -> Example:
        """The sentence pair of a meaning with its alignment and labels."""
        source, target = self.source.words(meaning), self.target.words(meaning)
        target_indices: dict[Any, list[int]] = {}
        for index, word in enumerate(target):
            for origin in word.origins:
                target_indices.setdefault(origin, []).append(index)
        alignment = {
            (i, j) for i, word in enumerate(source) for origin in word.origins for j in target_indices.get(origin, ())
        }
        nodes = list(meaning.walk())
        labels = {node.label for node in nodes if node.label}
        labels |= {f"{name}={value}" for node in nodes for name, value in node.features.items()}
        return Example(
            self.source.text(source),
            self.target.text(target),
            tuple(word.text for word in source),
            tuple(word.text for word in target),
            frozenset(alignment),
            (self._content(source), self._content(target)),
            meaning.depth(),
            frozenset(labels),
        )

    def count(self) -> int:
        """Number of possible meanings, including those with a content word twice, which `draw` never returns."""
        return self.meaning.count("Sentence", self.depth)

    def _content(self, words: list[Word]) -> frozenset[int]:
        return frozenset(i for i, word in enumerate(words) if word.group in self.content_groups)


def load(settings: CorpusSettings, source: str, target: str) -> Corpus:
    """The corpus in one direction.

    The hash of a sentence decides whether it belongs to training, validation or test. A pair is dropped if either of
    its sentences has already been generated.

    Raises:
        ValueError: a setting is out of its range, or a language is unknown. The message names the key and the limits.
    """
    source, target = source or "en", target or "de"

    def generate() -> Pairs:
        _, splits = _generate(settings, source, target)
        texts = {name: [pair for pair, _ in pairs] for name, pairs in splits.items()}
        if settings.pairs >= PROBES_AT_ONCE:  # else every worker would generate the text again, for minutes
            probes(settings, source, target)
        return texts

    splits = {name: _as_split(pairs) for name, pairs in _cached(Pairs, generate, settings, source, target).items()}
    train, validation = splits.pop("train"), splits.pop("validation")
    return Corpus(f"grammar-{source}-{target}", source, target, train, validation, splits)


def examples(settings: CorpusSettings, source: str = "en", target: str = "de", split: str = "test") -> list[Example]:
    """The sentences of one split, in the order of the split, with alignments and labels."""
    grammar, splits = _generate(settings, source, target)
    return [grammar.example(meaning) for _, meaning in splits[split]]


def nested(
    settings: CorpusSettings, depth: int, source: str = "en", target: str = "de", size: int = 100
) -> list[Example]:
    """At most `size` sentences with a nesting depth of exactly `depth`, none of which is in the training text."""
    training = {text for pair, _ in _generate(settings, source, target)[1]["train"] for text in pair}
    grammar = Grammar(source, target, settings.lemmas, depth)
    grammar.meaning.slot_probabilities = {"relative": min(0.5, 0.15 * depth)}
    found: dict[str, Example] = {}
    for meaning in _meanings(grammar, 3):
        if meaning.depth() == depth:
            example = grammar.example(meaning)
            if not training.intersection((example.source, example.target)):
                found[example.source] = example
        if len(found) == size:
            break
    return list(found.values())


def contrastive(
    phenomenon: str, settings: CorpusSettings, source: str = "en", target: str = "de", size: int = 420
) -> list[Contrast]:
    """Contrasts: right and wrong translations that differ in one form. None of the sentences is in the training text.

    Args:
        phenomenon: pronoun, sense, agreement (at distances 0 to 20, so nested deeper than corpus.depth) or order.
        settings: Settings of the corpus on which the model was trained.
        source: The source language.
        target: The target language.
        size: Largest number of contrasts; there are fewer if the grammar has no more or to balance the set.

    Raises:
        ValueError: the phenomenon is unknown, or the pair of languages does not show it.
    """
    grammar, splits = _generate(settings, source, target)
    seen = {text for split in ("train", "validation") for pair, _ in splits[split] for text in pair}
    return contrasts(phenomenon, grammar.meaning, grammar.source, grammar.target, seen, size, seed=4)


def probes(settings: CorpusSettings, source: str, target: str) -> Probes:
    """Probes: contrasts of each phenomenon, the test set with alignments, and sentences one and two levels deeper."""
    return _probes(settings.pairs, settings.lemmas, settings.depth, source or "en", target or "de")


@lru_cache(maxsize=2)  # all rows of a suite use the same probes
def _probes(pairs: int, lemmas: int, depth: int, source: str, target: str) -> Probes:
    settings = CorpusSettings(pairs=pairs, lemmas=lemmas, depth=depth)
    return _cached(Probes, lambda: _generate_probes(settings, source, target), settings, source, target)


def _generate_probes(settings: CorpusSettings, source: str, target: str) -> Probes:
    generated: list[corpus.Contrast] = []
    for phenomenon in GENERATORS:
        with suppress(ValueError):  # the languages may not show the phenomenon; the report then says so
            generated += [
                corpus.Contrast(one.source, one.right, (one.wrong,), phenomenon, one.distance)
                for one in contrastive(phenomenon, settings, source, target)
            ]
    deeper = [one for extra in EXTRA_DEPTHS for one in nested(settings, settings.depth + extra, source, target)]
    test, illustrations = examples(settings, source, target), _illustrations(settings, source, target)
    _generate_splits.cache_clear()  # frees a quarter of a million objects that are no longer needed
    return Probes(tuple(generated), tuple(test), tuple(deeper), illustrations)


def _illustrations(settings: CorpusSettings, source: str, target: str) -> tuple[corpus.Contrast, ...]:
    """The contrasts of languages/SOURCE-TARGET.tsv (source, right, wrong) that are not in the training text."""
    training = {text for pair, _ in _generate(settings, source, target)[1]["train"] for text in pair}
    path = LANGUAGES / f"{source}-{target}.tsv"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [line.split("\t") for line in lines]
    return tuple(
        corpus.Contrast(sentence, right, (wrong,), "shown")
        for sentence, right, wrong in rows
        if not training & {sentence, right}
    )


def _generate(
    settings: CorpusSettings, source: str, target: str
) -> tuple[Grammar, dict[str, list[tuple[tuple[str, str], Node]]]]:
    """The grammar, and split -> its pairs with their meanings."""
    if settings.pairs < 1:
        raise ValueError(f"corpus.pairs: {settings.pairs} is not a number of training pairs; set it to 1 or more")
    return _generate_splits(settings.pairs, settings.lemmas, settings.depth, source, target)


@lru_cache(maxsize=2)  # the probes of a corpus are often generated directly after the corpus
def _generate_splits(
    pairs: int, lemmas: int, depth: int, source: str, target: str
) -> tuple[Grammar, dict[str, list[tuple[tuple[str, str], Node]]]]:
    sizes = {"train": pairs, "validation": TEST_PAIRS, "test": TEST_PAIRS}
    splits: dict[str, list[tuple[tuple[str, str], Node]]] = {name: [] for name in sizes}
    seen: set[str] = set()
    grammar = Grammar(source, target, lemmas, depth)
    line = terminal.CountLine(f"generates grammar-{source}-{target}", "pairs", sum(sizes.values()))
    kept = 0
    for pair, meaning in _unseen(grammar, 1, seen):
        split = _split(pair[source > target])
        if len(splits[split]) < sizes[split]:
            splits[split].append((pair, meaning))
            kept += 1
            line(kept)
            if kept == line.total:
                break
    line.close()
    names_grammar = Grammar(source, target, lemmas, depth, names="test")
    splits["names"] = []
    for pair, meaning in _unseen(names_grammar, 2, seen):
        if any(node.label == "name" for node in meaning.walk()):
            splits["names"].append((pair, meaning))
            if len(splits["names"]) == NAMES_PAIRS:
                break
    return grammar, splits


def _meanings(grammar: Grammar, seed: int) -> Iterator[Node]:
    rng = random.Random(seed)
    while True:
        yield grammar.draw(rng)


def _unseen(grammar: Grammar, seed: int, seen: set[str]) -> Iterator[tuple[tuple[str, str], Node]]:
    """An endless sequence of pairs of which neither sentence is in `seen`; their sentences are added to it."""
    repetitions = 0
    for meaning in _meanings(grammar, seed):
        pair = grammar.texts(meaning)
        repetitions += 1
        if not seen.intersection(pair):
            seen.update(pair)
            repetitions = 0
            yield pair, meaning
        elif repetitions > 1000:
            raise ValueError(
                "corpus.pairs: the grammar has too few different sentences; lower corpus.pairs or raise corpus.lemmas"
            )


def _split(text: str) -> str:
    """The split of a sentence, decided by its hash."""
    percentile = zlib.crc32(text.encode()) % 100
    return next(name for name, share in CUMULATIVE_SHARES.items() if percentile < share)


def _as_split(pairs: list[tuple[str, str]]) -> Split:
    return Split([source for source, _ in pairs], [target for _, target in pairs])


def _cached(
    value_type: type[Value], compute: Callable[[], Value], settings: CorpusSettings, source: str, target: str
) -> Value:
    files = (path for path in Path(__file__).parent.rglob("*") if path.suffix in (".py", ".yaml", ".tsv"))
    key = (settings.pairs, settings.lemmas, settings.depth, source, target)
    return cached(value_type, compute, "grammar", key, files)


@cache  # building a language takes 0.1 s, and the tests and probes use several grammars
def _language(code: str) -> Language:
    known = sorted(path.stem for path in LANGUAGES.glob("*.yaml") if path.stem != "meaning")
    if code not in known:
        raise ValueError(f"corpus.name: the grammar has no language {code!r}; choose two of {', '.join(known)}")
    return Language(code, _read(code))


@cache
def _read(name: str) -> Any:
    with open(LANGUAGES / f"{name}.yaml", encoding="utf-8") as file:
        return yaml.load(file, yaml.CSafeLoader)
