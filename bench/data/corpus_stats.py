"""The passport of a corpus: sizes, lengths, how much of it training covers, what is doubled, leaked or broken.

Words are what stands between spaces. Two sentences are near if, lower-cased and without punctuation, they share at
least 70 % of their word trigrams (Jaccard index, sentence ends counted as words); equal ones are counted apart.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.corpus import Corpus, Split
from bench.system import terminal
from bench.system.files import write_file

NEAR = 0.7
"""Share of common trigrams above which two sentences are near."""

LONGER = 3
"""A pair is lopsided if one side has more than so many times the words of the other, and over ten."""

Trigram = tuple[str, str, str]


@dataclass(frozen=True)
class Side:
    """One language of a split. Lengths are in words.

    Attributes:
        language: Its code.
        words: Running words.
        distinct: Different words.
        mean: Mean length.
        median: Median length.
        p99: Length that one sentence in a hundred exceeds.
        longest: Largest length.
        covered: Share of the running words that occur in the training split.
    """

    language: str
    words: int
    distinct: int
    mean: float
    median: float
    p99: float
    longest: int
    covered: float


@dataclass(frozen=True)
class SplitStats:
    """One split.

    Attributes:
        name: train, validation, or that of a test set.
        pairs: Sentence pairs.
        sha256: Hash of the text.
        source: The side that is translated.
        target: Its translation.
        repeated: Pairs that stand in this split before.
        bad: Kind of fault -> the lines that have it, counted from 1.
    """

    name: str
    pairs: int
    sha256: str
    source: Side
    target: Side
    repeated: int
    bad: dict[str, list[int]]


@dataclass(frozen=True)
class Overlap:
    """Sentences of one split that occur in another one.

    Attributes:
        split: The split whose sentences are counted.
        within: The split in which they are looked for.
        pairs: Pairs with equal source and target.
        sources: Equal sources, pairs among them.
        targets: Equal targets, pairs among them.
        near: Sources that are not equal but near to one.
    """

    split: str
    within: str
    pairs: int
    sources: int
    targets: int
    near: int


@dataclass(frozen=True)
class CorpusStats:
    """What is known of a corpus before anything is trained on it.

    Attributes:
        name: NAME-SRC-TGT.
        splits: Each split by itself.
        overlaps: Each split in those before it.
        thorough: Whether repeated pairs, bad lines and overlaps have been looked for.
    """

    name: str
    splits: list[SplitStats]
    overlaps: list[Overlap]
    thorough: bool

    @property
    def leaks(self) -> list[str]:
        """One line for each split of which pairs or sources stand in the training text, or in a split before it."""
        sizes = {split.name: split.pairs for split in self.splits}
        return [
            f"{found.split}: {found.pairs:,} of {sizes[found.split]:,} pairs and {found.sources:,} sources stand in "
            f"{found.within}, {found.near:,} more sources are near to one there"
            for found in self.overlaps
            if found.pairs or found.sources
        ]

    @property
    def faulty(self) -> bool:
        """Whether a line is bad, or a pair of a validation or test set stands in the training text."""
        leaked = any(overlap.pairs for overlap in self.overlaps if overlap.within == "train")
        return leaked or any(split.bad for split in self.splits)


def corpus_stats(corpus: Corpus, thorough: bool = True) -> CorpusStats:
    """The passport of a corpus; unless it is `thorough`, only what is quickly found: sizes, lengths, cover."""
    splits = {"train": corpus.train, "validation": corpus.validation, **corpus.tests}
    known = [
        {word for text in texts for word in text.split()} for texts in (corpus.train.sources, corpus.train.targets)
    ]
    passports = [
        SplitStats(
            name,
            len(split),
            split.hash,
            side(corpus.source_language, split.sources, known[0]),
            side(corpus.target_language, split.targets, known[1]),
            len(split) - len(set(split)) if thorough else 0,
            faults(split) if thorough else {},
        )
        for name, split in splits.items()
    ]
    both = combinations(splits, 2) if thorough else ()
    overlaps = [overlap(later, splits[later], first, splits[first]) for first, later in both]
    return CorpusStats(corpus.name, passports, overlaps, thorough)


def kept(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """The passport as plain data, with its leaks; made once for each text and then read from `folder`."""
    text = hashlib.sha256(json.dumps(corpus.hashes, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{corpus.name}-{text}.json"

    if not path.exists():
        found = corpus_stats(corpus)
        content = {**asdict(found), "leaks": found.leaks}
        write_file(path, json.dumps(content, ensure_ascii=False, indent=1))
    return json.loads(path.read_text(encoding="utf-8"))


def side(language: str, sentences: Sequence[str], known: set[str]) -> Side:
    lengths = [len(sentence.split()) for sentence in sentences]
    counts = Counter(word for sentence in sentences for word in sentence.split())
    words = counts.total()
    covered = sum(count for word, count in counts.items() if word in known) / words if words else 1.0
    median, p99 = (float(value) for value in np.percentile(lengths, (50, 99)))
    return Side(language, words, len(counts), words / len(sentences), median, p99, max(lengths), covered)


def faults(split: Split) -> dict[str, list[int]]:
    """Kind of fault -> the lines that have it, counted from 1; kinds that do not occur are left out."""
    found: dict[str, list[int]] = defaultdict(list)
    for line, (source, target) in enumerate(split, start=1):
        for fault in _faults(source, target):
            found[fault].append(line)
    return dict(found)


def _faults(source: str, target: str) -> Iterable[str]:
    if bool(source.strip()) != bool(target.strip()):
        yield "one side is empty"
    elif not source.strip():
        yield "both sides are empty"
    elif source == target and len(source.split()) > 1:
        yield "not translated: both sides are equal"
    short, long = sorted((len(source.split()), len(target.split())))
    if short and long > 10 and long > LONGER * short:
        yield f"one side has over {LONGER} times the words of the other"
    both = source + target
    if "\ufffd" in both:
        yield "U+FFFD: characters were lost in a conversion"
    if not both.isprintable() and any(unicodedata.category(character) == "Cc" for character in both):
        yield "control characters"


def overlap(name: str, split: Split, within: str, other: Split) -> Overlap:
    pairs, sources, targets = set(other), set(other.sources), set(other.targets)
    new = [source for source in split.sources if source not in sources]
    return Overlap(
        name,
        within,
        sum(pair in pairs for pair in split),
        len(split) - len(new),
        sum(target in targets for target in split.targets),
        sum(near(new, other.sources)),
    )


def near(sentences: Sequence[str], others: Sequence[str]) -> list[bool]:
    """For each sentence, whether one of the others is near."""
    wanted = [trigrams(sentence) for sentence in sentences]
    places: dict[Trigram, list[int]] = {trigram: [] for grams in wanted for trigram in grams}
    for place, other in enumerate(others):
        for trigram in trigrams(other):
            if trigram in places:
                places[trigram].append(place)
    return [_has_near(grams, places, others) for grams in wanted]


def _has_near(grams: frozenset[Trigram], places: dict[Trigram, list[int]], others: Sequence[str]) -> bool:
    # Who shares NEAR of all trigrams shares one of any n - ceil(NEAR n) + 1 of them: the rarest are looked up.
    rarest = sorted(grams, key=lambda trigram: (len(places[trigram]), trigram))
    rarest = rarest[: len(grams) - math.ceil(NEAR * len(grams)) + 1]
    candidates = {place for trigram in rarest for place in places[trigram]}
    return any(jaccard(grams, trigrams(others[place])) >= NEAR for place in candidates)


def trigrams(sentence: str) -> frozenset[Trigram]:
    """Of the lower-cased words, with a mark at each end; none of an empty sentence."""
    words = ["", *re.findall(r"\w+", sentence.lower()), ""]
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def jaccard(one: frozenset[Trigram], other: frozenset[Trigram]) -> float:
    return len(one & other) / len(one | other) if one or other else 0.0


# --- printing ---------------------------------------------------------------------------------------------------------

SHOWN = 8
"""Lines of a fault that are listed."""


def show(found: CorpusStats) -> None:
    """Prints a passport as tables."""
    headings = ("words", "distinct", "mean", "median", "p99", "longest", "covered by train")
    columns = [("split", "left"), ("side", "left"), ("sentences", "right"), *((name, "right") for name in headings)]
    rows = []
    for split in found.splits:
        for each in (split.source, split.target):
            sizes = [f"{split.pairs:,}", f"{each.words:,}", f"{each.distinct:,}", f"{each.mean:.1f}"]
            lengths = [f"{each.median:.0f}", f"{each.p99:.0f}", str(each.longest), f"{each.covered:.2%}"]
            rows.append([split.name, each.language, *sizes, *lengths])
    terminal.table(columns, rows, f"{found.name}: sizes, and lengths in words")
    if not found.thorough:
        return
    headings = ("equal pairs", "equal sources", "equal targets", "near sources")
    columns = [("of", "left"), ("in", "left"), *((name, "right") for name in headings)]
    rows = [[o.split, o.within, *(f"{n:,}" for n in (o.pairs, o.sources, o.targets, o.near))] for o in found.overlaps]
    terminal.table(
        columns, rows, f"\noverlap; near: at least {NEAR:.0%} of word trigrams in common, equal ones not counted"
    )
    terminal.say("")
    for split in found.splits:
        terminal.say(f"{split.name}: {split.repeated:,} repeated pairs; sha256 {split.sha256}")
        for fault, lines in split.bad.items():
            more = f" and {len(lines) - SHOWN:,} more" if len(lines) > SHOWN else ""
            terminal.say(f"  {fault}: {len(lines):,}, lines {', '.join(map(str, lines[:SHOWN]))}{more}")
