"""Corpus statistics: sizes, sentence lengths, coverage by the training split, duplicates, leakage, damaged lines.

A word is a run of characters between spaces. Two sentences are near-duplicates if they share at least 70 % of their
word trigrams after lower-casing and removal of punctuation (Jaccard index; sentence boundaries count as words). Equal
sentences are counted separately.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.corpus import Corpus, Split
from bench.data.filters import first_occurrences
from bench.data.languages import OtherLanguage, swapped_sides
from bench.data.words import WORD
from bench.system import terminal
from bench.system.files import write_file

NEAR_DUPLICATE = 0.7
"""Jaccard index of word trigrams from which two sentences count as near-duplicates."""

MAX_LENGTH_RATIO = 3
"""A pair is faulty if its longer side has over 10 words and more than this many times the words of the shorter one."""

MOST_SEARCHED = 200_000
"""Sources among which near-duplicates are searched. The search keeps their trigrams in memory."""

Trigram = tuple[str, str, str]


@dataclass(frozen=True)
class SideStats:
    """Statistics of one language of a split. Lengths are in words.

    Attributes:
        language: Language code.
        words: Running words.
        distinct_words: Different words.
        mean: Mean sentence length.
        median: Median sentence length.
        p99: 99th percentile of the sentence length.
        longest: Length of the longest sentence.
        coverage: Share of the running words that occur in the training split, 0 to 1.
    """

    language: str
    words: int
    distinct_words: int
    mean: float
    median: float
    p99: float
    longest: int
    coverage: float


@dataclass(frozen=True)
class SplitStats:
    """Statistics of one split.

    Attributes:
        name: train, validation, or the name of a test set.
        pairs: Sentence pairs.
        sha256: Hash of the text.
        source: Statistics of the source side.
        target: Statistics of the target side.
        duplicates: Pairs that occur earlier in the same split.
        faults: Kind of fault -> numbers of the lines that have it, from 1.
    """

    name: str
    pairs: int
    sha256: str
    source: SideStats
    target: SideStats
    duplicates: int
    faults: dict[str, list[int]]


@dataclass(frozen=True)
class Overlap:
    """How many sentences of one split also occur in another one.

    Attributes:
        split: The split whose sentences are counted.
        other_split: The split that is searched for them.
        pairs: Pairs whose source and target are both equal to those of one pair.
        sources: Equal sources, including those of equal pairs.
        targets: Equal targets, including those of equal pairs.
        near_duplicates: Sources that are not equal to a source of the other split but a near-duplicate of one.
        searched: Sources of the other split among which near-duplicates were searched: all, or, of more than
            `MOST_SEARCHED`, evenly spaced ones.
    """

    split: str
    other_split: str
    pairs: int
    sources: int
    targets: int
    near_duplicates: int
    searched: int


@dataclass(frozen=True)
class CorpusStats:
    """Statistics of a corpus, computed before anything is trained on it.

    Attributes:
        name: NAME-SRC-TGT.
        splits: Statistics of each split.
        overlaps: Overlap of each split with every split before it.
        thorough: Whether duplicates, faults, overlaps and languages were computed.
        other_language: The sides of splits that do not look like their language.
        removed: Filter of `corpus.filters` -> training pairs that it removed before all this was computed.
    """

    name: str
    splits: list[SplitStats]
    overlaps: list[Overlap]
    thorough: bool
    other_language: list[OtherLanguage] = field(default_factory=list)
    removed: dict[str, int] = field(default_factory=dict)

    @property
    def leaks(self) -> list[str]:
        """One line for each overlap with equal pairs or equal sources."""
        sizes = {split.name: split.pairs for split in self.splits}
        return [
            f"{overlap.split}: {overlap.pairs:,} of {sizes[overlap.split]:,} pairs and {overlap.sources:,} sources "
            f"also occur in {overlap.other_split}, {overlap.near_duplicates:,} more sources are near-duplicates"
            for overlap in self.overlaps
            if overlap.pairs or overlap.sources
        ]

    @property
    def has_faults(self) -> bool:
        """Whether a line is faulty, a side has another language, or the training split has a pair of another split."""
        leaked = any(overlap.pairs for overlap in self.overlaps if overlap.other_split == "train")
        return leaked or bool(self.other_language) or any(split.faults for split in self.splits)


def corpus_stats(corpus: Corpus, thorough: bool = True) -> CorpusStats:
    """Statistics of a corpus. Without `thorough` only the fast ones: sizes, lengths and coverage."""
    splits = {"train": corpus.train, "validation": corpus.validation, **corpus.tests}
    known = [word_counts(texts) for texts in (corpus.train.sources, corpus.train.targets)]
    split_stats = [
        SplitStats(
            name,
            len(split),
            split.hash,
            side_stats(corpus.source_language, split.sources, known[0]),
            side_stats(corpus.target_language, split.targets, known[1]),
            len(split) - int(first_occurrences(split).sum()) if thorough else 0,
            faults(split) if thorough else {},
        )
        for name, split in splits.items()
    ]
    both = combinations(splits, 2) if thorough else ()
    overlaps = [overlap(later, splits[later], first, splits[first]) for first, later in both]
    other_language = swapped_sides(corpus) if thorough else []
    return CorpusStats(corpus.name, split_stats, overlaps, thorough, other_language, dict(corpus.removed))


def cached_stats(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """Corpus statistics with `leaks` as plain data. They are computed once for each text and cached in `folder`."""
    # With the names of the fields, statistics that an earlier version cached without one of them are computed again.
    key = [corpus.hashes, [each.name for each in (*fields(CorpusStats), *fields(Overlap))], dict(corpus.removed)]
    text = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{corpus.name}-{text}.json"

    if not path.exists():
        stats = corpus_stats(corpus)
        content = {**asdict(stats), "leaks": stats.leaks}
        write_file(path, json.dumps(content, ensure_ascii=False, indent=1))
    return json.loads(path.read_text(encoding="utf-8"))


def word_counts(sentences: Iterable[str]) -> Counter[str]:
    """How often each word occurs."""
    return Counter(word for sentence in sentences for word in sentence.split())


def side_stats(language: str, sentences: Sequence[str], known: Container[str]) -> SideStats:
    """Statistics of one side of a split; `known` has the words of the same side of the training split."""
    lengths = np.fromiter((len(sentence.split()) for sentence in sentences), dtype=np.int32, count=len(sentences))
    counts = word_counts(sentences)
    words = counts.total()
    coverage = sum(count for word, count in counts.items() if word in known) / words if words else 1.0
    median, p99 = (float(value) for value in np.percentile(lengths, (50, 99)))
    return SideStats(language, words, len(counts), words / len(sentences), median, p99, int(lengths.max()), coverage)


def faults(split: Split) -> dict[str, list[int]]:
    """Kind of fault -> numbers of the lines that have it, from 1. Kinds that do not occur have no entry."""
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
    if short and long > 10 and long > MAX_LENGTH_RATIO * short:
        yield f"one side has over {MAX_LENGTH_RATIO} times the words of the other"
    both = source + target
    if "\ufffd" in both:
        yield "U+FFFD: characters were lost in a conversion"
    if "\ufeff" in both:
        yield "U+FEFF: a byte-order mark inside the text"
    if not both.isprintable() and any(unicodedata.category(character) == "Cc" for character in both):
        yield "control characters"


def overlap(name: str, split: Split, other_name: str, other: Split) -> Overlap:
    """How many sentences of `split` also occur in `other`."""
    # Sets of what both splits have, not of the whole other split, which can be a large training text.
    pairs = set(split).intersection(other)
    sources = set(split.sources).intersection(other.sources)
    targets = set(split.targets).intersection(other.targets)
    new = [source for source in split.sources if source not in sources]
    searched = other.sources[:: math.ceil(len(other) / MOST_SEARCHED)]
    return Overlap(
        name,
        other_name,
        sum(pair in pairs for pair in split),
        len(split) - len(new),
        sum(target in targets for target in split.targets),
        sum(near_duplicates(new, searched)),
        len(searched),
    )


def near_duplicates(sentences: Sequence[str], others: Sequence[str]) -> list[bool]:
    """For each sentence, whether one of the others is a near-duplicate of it."""
    sentence_trigrams = [trigrams(sentence) for sentence in sentences]
    # An inverted index: trigram -> the other sentences that contain it. It avoids comparing every pair of sentences.
    index: dict[Trigram, list[int]] = {trigram: [] for grams in sentence_trigrams for trigram in grams}
    for number, other in enumerate(others):
        for trigram in trigrams(other):
            if trigram in index:
                index[trigram].append(number)
    return [_has_near_duplicate(grams, index, others) for grams in sentence_trigrams]


def _has_near_duplicate(grams: frozenset[Trigram], index: dict[Trigram, list[int]], others: Sequence[str]) -> bool:
    # A near-duplicate shares at least ceil(r n) of the n trigrams, r = NEAR_DUPLICATE. So it contains at least one of
    # any n - ceil(r n) + 1 of them. Looking up the rarest ones gives the fewest candidates.
    rarest = sorted(grams, key=lambda trigram: (len(index[trigram]), trigram))
    rarest = rarest[: len(grams) - math.ceil(NEAR_DUPLICATE * len(grams)) + 1]
    candidates = {number for trigram in rarest for number in index[trigram]}
    return any(jaccard(grams, trigrams(others[number])) >= NEAR_DUPLICATE for number in candidates)


def trigrams(sentence: str) -> frozenset[Trigram]:
    """Trigrams of the lower-cased words with a boundary mark at each end. A sentence without words has none."""
    words = ["", *WORD.findall(sentence.lower()), ""]
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def jaccard(one: frozenset[Trigram], other: frozenset[Trigram]) -> float:
    """Jaccard index |A and B| / |A or B|; 0 for two empty sets."""
    return len(one & other) / len(one | other) if one or other else 0.0


# --- printing ---------------------------------------------------------------------------------------------------------

MAX_LINES_PRINTED = 8
"""How many line numbers are printed for each kind of fault."""


def show(stats: CorpusStats) -> None:
    """Print corpus statistics as tables."""
    headings = ("words", "distinct", "mean", "median", "p99", "longest", "covered by train")
    columns = [("split", "left"), ("side", "left"), ("sentences", "right"), *((name, "right") for name in headings)]
    rows = []
    for split in stats.splits:
        for side in (split.source, split.target):
            sizes = [f"{split.pairs:,}", f"{side.words:,}", f"{side.distinct_words:,}", f"{side.mean:.1f}"]
            lengths = [f"{side.median:.0f}", f"{side.p99:.0f}", str(side.longest), f"{side.coverage:.2%}"]
            rows.append([split.name, side.language, *sizes, *lengths])
    terminal.table(columns, rows, f"{stats.name}: sizes, and sentence lengths in words")
    for name, count in stats.removed.items():
        terminal.say(f"corpus.filters.{name}: removed {count:,} training pairs")
    if not stats.thorough:
        return
    headings = ("equal pairs", "equal sources", "equal targets", "near-duplicate sources")
    columns = [("of", "left"), ("in", "left"), *((name, "right") for name in headings)]
    rows = [
        [o.split, o.other_split, *(f"{n:,}" for n in (o.pairs, o.sources, o.targets, o.near_duplicates))]
        for o in stats.overlaps
    ]
    threshold = f"near-duplicates share at least {NEAR_DUPLICATE:.0%} of their word trigrams and are not equal"
    terminal.table(columns, rows, f"\noverlap between splits; {threshold}")
    sizes = {split.name: split.pairs for split in stats.splits}
    sampled = {o.other_split: o.searched for o in stats.overlaps if o.searched < sizes[o.other_split]}
    for split, searched in sampled.items():
        terminal.say(f"near-duplicates were searched among {searched:,} of the {sizes[split]:,} sources of {split}")
    terminal.say("")
    for side in stats.other_language:
        terminal.say(f"warning: {side}")
    for split in stats.splits:
        terminal.say(f"{split.name}: {split.duplicates:,} duplicate pairs; sha256 {split.sha256}")
        for fault, lines in split.faults.items():
            more = f" and {len(lines) - MAX_LINES_PRINTED:,} more" if len(lines) > MAX_LINES_PRINTED else ""
            numbers = ", ".join(map(str, lines[:MAX_LINES_PRINTED]))
            terminal.say(f"  {fault}: {len(lines):,}, lines {numbers}{more}")
