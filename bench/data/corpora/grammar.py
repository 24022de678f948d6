"""Sentence pairs from a synchronous grammar: one meaning, put into words by two languages.

The engine stands in `_grammar/`, what it knows of languages in `languages/`: meaning.yaml says what can be said,
en.yaml and de.yaml how. Everything is drawn from fixed seeds, so the same settings give the same corpus everywhere.
Drawing takes seconds, so what was drawn is kept in the cache folder.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bench.data import corpus
from bench.data.corpora._cache import cached
from bench.data.corpora._grammar.contrast import MAKERS, Contrast, contrasts
from bench.data.corpora._grammar.language import Language, Word
from bench.data.corpora._grammar.meaning import Meaning, Node, concepts_of
from bench.data.corpus import Corpus, CorpusSettings, Example, Probes, Split

LANGUAGES = Path(__file__).parent / "languages"
TEST_PAIRS = 1000  # and as many for validation
NAMES_PAIRS = 500
FEWEST_LEMMAS = 60  # with fewer, some kinds of sentences have no words
DEEPER = (1, 2)  # levels of clauses below those of the training text
SHARES = {"train": 75, "validation": 87, "test": 100}  # of 100 sentences, summed


Pairs = dict[str, list[tuple[str, str]]]
"""Split -> its sentence pairs."""

Kind = TypeVar("Kind")


class Grammar:
    """Draws sentence pairs in one direction."""

    def __init__(self, source: str, target: str, lemmas: int, depth: int, names: str = "training"):
        data = _read("meaning")
        concepts = concepts_of(data)
        self.content_groups = {
            entry.get("group", category) for category, entry in data["concepts"].items() if entry.get("content")
        }
        order = list(dict.fromkeys((c.group, c.name) for c in concepts if c.group in self.content_groups))
        if not FEWEST_LEMMAS <= lemmas <= len(order):
            most = f"{len(order)}, the largest there is"
            raise ValueError(f"corpus.lemmas: {lemmas} is not between {FEWEST_LEMMAS} and {most}")
        if depth < 0:
            raise ValueError(f"corpus.depth: {depth} is negative; choose 0 for no relative clauses")
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
            raise ValueError(f"corpus.name: {source!r} stands there twice; choose two languages, such as grammar-en-de")
        self.source = _language(source)
        self.target = _language(target)

    def draw(self, rng: random.Random) -> Node:
        """A meaning that says no word twice."""
        while True:
            meaning = self.meaning.draw(rng, "Sentence", self.depth)
            said = [node.concept.name for node in meaning.walk() if node.concept and node.kind in self.content_groups]
            if len(said) == len(set(said)):
                return meaning

    def texts(self, meaning: Node) -> tuple[str, str]:
        """The sentence in both languages."""
        return self.source.text(self.source.words(meaning)), self.target.text(self.target.words(meaning))

    def example(self, meaning: Node) -> Example:
        """The sentence pair with its alignment and labels."""
        source, target = self.source.words(meaning), self.target.words(meaning)
        places: dict[Any, list[int]] = {}
        for index, word in enumerate(target):
            for origin in word.origins:
                places.setdefault(origin, []).append(index)
        alignment = {(i, j) for i, word in enumerate(source) for origin in word.origins for j in places.get(origin, ())}
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
        """How many meanings there are; those that say a word twice are counted, though never drawn."""
        return self.meaning.count("Sentence", self.depth)

    def _content(self, words: list[Word]) -> frozenset[int]:
        return frozenset(i for i, word in enumerate(words) if word.group in self.content_groups)


def load(settings: CorpusSettings, source: str, target: str) -> Corpus:
    """The corpus in one direction.

    A sentence goes to training, validation or test by its hash; a pair is dropped if either side has been seen.

    Raises:
        ValueError: a setting is out of its range or a language is unknown; says the key and the largest value.
    """
    source, target = source or "en", target or "de"

    def drawn() -> Pairs:
        return {name: [pair for pair, _ in pairs] for name, pairs in _drawn(settings, source, target)[1].items()}

    made = {name: _as_split(pairs) for name, pairs in _kept(Pairs, drawn, settings, source, target).items()}
    train, validation = made.pop("train"), made.pop("validation")
    return Corpus(f"grammar-{source}-{target}", source, target, train, validation, made)


def examples(settings: CorpusSettings, source: str = "en", target: str = "de", split: str = "test") -> list[Example]:
    """The sentences of one split, in its order, with alignments and labels."""
    grammar, drawn = _drawn(settings, source, target)
    return [grammar.example(meaning) for _, meaning in drawn[split]]


def nested(
    settings: CorpusSettings, depth: int, source: str = "en", target: str = "de", size: int = 100
) -> list[Example]:
    """Sentences whose clauses nest exactly `depth` deep, none of which is in the training text."""
    seen = {text for pair, _ in _drawn(settings, source, target)[1]["train"] for text in pair}
    grammar = Grammar(source, target, settings.lemmas, depth)
    grammar.meaning.likely = {"relative": min(0.5, 0.15 * depth)}
    found: dict[str, Example] = {}
    for meaning in _meanings(grammar, 3):
        if meaning.depth() == depth:
            example = grammar.example(meaning)
            if not seen.intersection((example.source, example.target)):
                found[example.source] = example
        if len(found) == size:
            break
    return list(found.values())


def contrastive(
    phenomenon: str, settings: CorpusSettings, source: str = "en", target: str = "de", size: int = 420
) -> list[Contrast]:
    """Right and wrong translations that differ in one point; no sentence of them is in the training text.

    Args:
        phenomenon: pronoun, sense, agreement (at distances 0 to 20, so deeper than corpus.depth) or order.
        settings: Those of the corpus that the model was trained on.
        source: The language of the sources.
        target: The language of the translations.
        size: How many at most; fewer where the grammar has no more or where balance asks for it.

    Raises:
        ValueError: the phenomenon is unknown, or the target language does not show it.
    """
    grammar, drawn = _drawn(settings, source, target)
    seen = {text for split in ("train", "validation") for pair, _ in drawn[split] for text in pair}
    return contrasts(phenomenon, grammar.meaning, grammar.source, grammar.target, seen, size, seed=4)


def probes(settings: CorpusSettings, source: str, target: str) -> Probes:
    """Contrasts of each phenomenon, the test set with its alignments, and sentences one and two clauses deeper."""
    return _probes(settings.pairs, settings.lemmas, settings.depth, source or "en", target or "de")


@lru_cache(maxsize=2)  # the rows of a suite ask the same
def _probes(pairs: int, lemmas: int, depth: int, source: str, target: str) -> Probes:
    settings = CorpusSettings(pairs=pairs, lemmas=lemmas, depth=depth)
    return _kept(Probes, lambda: _asked(settings, source, target), settings, source, target)


def _asked(settings: CorpusSettings, source: str, target: str) -> Probes:
    made: list[corpus.Contrast] = []
    for phenomenon in MAKERS:
        with suppress(ValueError):  # the target language may not show it
            made += [
                corpus.Contrast(one.source, one.right, (one.wrong,), phenomenon, one.distance)
                for one in contrastive(phenomenon, settings, source, target)
            ]
    deeper = [one for more in DEEPER for one in nested(settings, settings.depth + more, source, target)]
    test, shown = examples(settings, source, target), _shown(settings, source, target)
    _draw.cache_clear()  # a quarter of a million objects, which have said all that they are asked
    return Probes(tuple(made), tuple(test), tuple(deeper), shown)


def _shown(settings: CorpusSettings, source: str, target: str) -> tuple[corpus.Contrast, ...]:
    """Of languages/SOURCE-TARGET.tsv (source, right, wrong) what is not in the training text."""
    seen = {text for pair, _ in _drawn(settings, source, target)[1]["train"] for text in pair}
    path = LANGUAGES / f"{source}-{target}.tsv"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [line.split("\t") for line in lines]
    return tuple(
        corpus.Contrast(said, right, (wrong,), "shown") for said, right, wrong in rows if not seen & {said, right}
    )


def _drawn(
    settings: CorpusSettings, source: str, target: str
) -> tuple[Grammar, dict[str, list[tuple[tuple[str, str], Node]]]]:
    """The grammar, and every split as pairs with their meanings."""
    if settings.pairs < 1:
        raise ValueError(f"corpus.pairs: {settings.pairs} is not a number of training pairs; choose 1 or more")
    return _draw(settings.pairs, settings.lemmas, settings.depth, source, target)


@lru_cache(maxsize=2)  # a corpus is often followed by its contrastive sets
def _draw(
    pairs: int, lemmas: int, depth: int, source: str, target: str
) -> tuple[Grammar, dict[str, list[tuple[tuple[str, str], Node]]]]:
    sizes = {"train": pairs, "validation": TEST_PAIRS, "test": TEST_PAIRS}
    splits: dict[str, list[tuple[tuple[str, str], Node]]] = {name: [] for name in sizes}
    seen: set[str] = set()
    grammar = Grammar(source, target, lemmas, depth)
    for pair, meaning in _unseen(grammar, 1, seen):
        split = _split(pair[source > target])
        if len(splits[split]) < sizes[split]:
            splits[split].append((pair, meaning))
            if all(len(splits[name]) == size for name, size in sizes.items()):
                break
    named = Grammar(source, target, lemmas, depth, names="test")
    splits["names"] = []
    for pair, meaning in _unseen(named, 2, seen):
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
    """Pairs neither side of which has been seen."""
    tries = 0
    for meaning in _meanings(grammar, seed):
        pair = grammar.texts(meaning)
        tries += 1
        if not seen.intersection(pair):
            seen.update(pair)
            tries = 0
            yield pair, meaning
        elif tries > 1000:
            raise ValueError("corpus.pairs: more than the grammar can say; lower corpus.pairs or raise corpus.lemmas")


def _split(text: str) -> str:
    place = zlib.crc32(text.encode()) % 100
    return next(name for name, share in SHARES.items() if place < share)


def _as_split(pairs: list[tuple[str, str]]) -> Split:
    return Split([source for source, _ in pairs], [target for _, target in pairs])


def _kept(kind: type[Kind], make: Callable[[], Kind], settings: CorpusSettings, source: str, target: str) -> Kind:
    files = (path for path in Path(__file__).parent.rglob("*") if path.suffix in (".py", ".yaml", ".tsv"))
    decides = (settings.pairs, settings.lemmas, settings.depth, source, target)
    return cached(kind, make, "grammar", decides, files)


def _language(code: str) -> Language:
    known = sorted(path.stem for path in LANGUAGES.glob("*.yaml") if path.stem != "meaning")
    if code not in known:
        raise ValueError(f"corpus.name: the grammar speaks no {code!r}; choose two of {', '.join(known)}")
    return Language(code, _read(code))


def _read(name: str) -> Any:
    with open(LANGUAGES / f"{name}.yaml", encoding="utf-8") as file:
        return yaml.load(file, yaml.CSafeLoader)
