"""Comparisons of translations: paired tests, intervals over seeds, words that differ from the reference."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from bench.measures import quality
from bench.measures.quality import Statistics, comparable
from bench.measures.significance import holm, joined, map_parallel, p_values, paired_tests, verdict

SHOWN_SENTENCES = 5
"""Number of sentences shown side by side. They stand at equal distances in the test set, so nobody selects them."""


@dataclass(frozen=True, eq=False)
class Translations:
    """The translations of a test set: row -> seed -> lines, and metric -> row -> seed -> sentence statistics."""

    direction: str
    test_set: str
    sources: list[str]
    references: list[str]
    hypotheses: dict[str, dict[int, list[str]]]
    statistics: dict[str, dict[str, dict[int, Statistics]]]

    @property
    def shown_sentences(self) -> list[int]:
        """Indices of the sentences shown side by side."""
        last = len(self.references) - 1
        return sorted({round(last * n / (SHOWN_SENTENCES - 1)) for n in range(SHOWN_SENTENCES)})


@dataclass(frozen=True)
class Comparison:
    """A paired test of two rows on BLEU.

    Attributes:
        row, against: Ids of the two rows.
        difference: BLEU of `row` minus that of `against`, mean over the seeds that both have.
        low, high: Its 95 % interval by paired bootstrap over sentences; with several seeds it covers the seeds too.
        p: Two-sided p as computed by sacreBLEU; None if the outputs are identical. It holds for the trained seeds only.
        adjusted: p with ties counted, after Holm's correction.
        verdict: better, worse, no significant difference, identical; by the corrected p at 5 %, and with several seeds
            only if the interval excludes 0, too.
        seeds: The seeds that both rows have; the test pairs by them.
        total_seeds: Number of seeds that at least one of the rows has.
        corrected_for: Number of tests in Holm's correction.
    """

    track: str
    row: str
    against: str
    difference: float
    low: float
    high: float
    p: float | None
    adjusted: float | None
    verdict: str
    seeds: tuple[int, ...]
    total_seeds: int
    corrected_for: int

    def reversed(self) -> Comparison:
        """The same test with the two rows exchanged."""
        verdict = {"better": "worse", "worse": "better"}.get(self.verdict, self.verdict)
        ends = {"difference": -self.difference, "low": -self.high, "high": -self.low}
        return replace(self, row=self.against, against=self.row, verdict=verdict, **ends)


def compare(track: str, texts: Translations, baseline: str, rows: Sequence[str]) -> list[Comparison]:
    """Tests every row against the baseline and, if another row has the highest score, every row against that one.

    The baseline is named before the results are known, so Holm's correction counts the rows. The highest row is
    selected by the results, as if all pairs had been tested, so its correction counts the pairs.
    """
    systems = {row: of for row in rows if (of := texts.statistics["bleu"].get(row))}
    if not systems:
        return []
    found = _against(track, baseline, systems) if baseline in systems else []
    best = max(systems, key=lambda row: fmean(seed.score for seed in systems[row].values()))
    if best != baseline:
        found += _against(track, best, systems, len(systems) * (len(systems) - 1) // 2)
    return found


def _against(
    track: str, against: str, systems: Mapping[str, Mapping[int, Statistics]], tests: int | None = None
) -> list[Comparison]:
    """Tests every other row against `against`; Holm's correction counts `tests` if given, else the rows that differ."""
    theirs = systems[against]
    others = {row: runs for row, runs in systems.items() if row != against and runs.keys() & theirs.keys()}
    found = paired_tests(theirs, others, tests)
    corrected_for = tests or sum(paired.p is not None for paired in found.values())

    def comparison(row: str) -> Comparison:
        paired = found[row]
        return _comparison(track, (row, against), (others[row], theirs), (paired.p, paired.adjusted), corrected_for)

    return map_parallel(comparison, found)


def changes(track: str, now: Translations, before: Translations) -> list[Comparison]:
    """Tests each row against itself in another suite, over the seeds that both have.

    Holm's correction counts the rows whose translations differ. The result is empty if the references or the tokenizers
    of BLEU differ.
    """
    if now.references != before.references:
        return []
    pairs = {
        row: (ours, theirs)
        for row, ours in now.statistics["bleu"].items()
        if (seeds := ours.keys() & (theirs := before.statistics["bleu"].get(row, {})).keys())
        and all(comparable(ours[seed], theirs[seed]) for seed in seeds)
    }
    ps: dict[str, tuple[float, float]] = {}
    for row, (ours, theirs) in pairs.items():
        seeds = sorted(ours.keys() & theirs.keys())
        if any(ours[seed].output_hash != theirs[seed].output_hash for seed in seeds):
            ps[row] = p_values(joined([theirs[seed] for seed in seeds]), joined([ours[seed] for seed in seeds]))
    adjusted = dict(zip(ps, holm([with_ties for _, with_ties in ps.values()]), strict=True))
    return [
        _comparison(track, (row, row), both, (ps[row][0], adjusted[row]) if row in ps else (None, None), len(ps))
        for row, both in pairs.items()
    ]


def _comparison(
    track: str,
    rows: tuple[str, str],
    runs: tuple[Mapping[int, Statistics], Mapping[int, Statistics]],
    p: tuple[float | None, float | None],
    corrected_for: int,
) -> Comparison:
    """The comparison of two rows. `runs` are their statistics by seed; `p` is before and after Holm's correction."""
    ours, theirs = runs
    seeds = sorted(ours.keys() & theirs.keys())
    difference = fmean(ours[seed].score - theirs[seed].score for seed in seeds)
    low, high = _interval([(ours[seed], theirs[seed]) for seed in seeds])
    found = verdict(difference, p[1])
    if found != "identical" and len(seeds) > 1 and low <= 0 <= high:
        found = "no significant difference"
    total_seeds = len(ours.keys() | theirs.keys())
    return Comparison(track, *rows, difference, low, high, *p, found, tuple(seeds), total_seeds, corrected_for)


def _interval(pairs: Sequence[tuple[Statistics, Statistics]]) -> tuple[float, float]:
    """95 % interval of the mean difference over seeds. Both systems are resampled with the same sentences.

    With k > 1 seeds each resample is moved by the standard error over seeds times a draw of Student's t with k - 1
    degrees of freedom. The interval then covers the mean over k other seeds, although two or three seeds estimate their
    variance badly.
    """
    weights_RN = quality.weights_of_resamples(len(pairs[0][0].rows_NK))
    differences_SR = [
        quality.bleu_of(weights_RN @ ours.rows_NK, exact=False)
        - quality.bleu_of(weights_RN @ theirs.rows_NK, exact=False)
        for ours, theirs in pairs
    ]
    means_R = np.mean(differences_SR, axis=0)
    if (k := len(pairs)) > 1:
        error = np.std([ours.score - theirs.score for ours, theirs in pairs], ddof=1) / math.sqrt(k)
        means_R = means_R + error * np.random.default_rng(quality.SEED + 1).standard_t(k - 1, len(means_R))
    return quality.ends(means_R)


def mark_differences(hypothesis: str, reference: str) -> list[tuple[str, bool]]:
    """A translation in pieces: (text, whether it differs from the reference at this position)."""
    ours, theirs = hypothesis.split(), reference.split()
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    pieces = []
    for kind, begin, end, _, _ in matcher.get_opcodes():
        if begin < end:
            pieces.append((" ".join(ours[begin:end]), kind != "equal"))
    return pieces
