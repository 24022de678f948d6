"""What translations say beyond a score: paired tests, intervals over seeds, words that differ from the reference."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.measures import quality
from bench.measures.quality import Statistics
from bench.measures.significance import holm, joined, p_values, paired_tests, verdict

SHOWN = 5
"""Sentences shown side by side: at equal distances in the test set, so that nobody has chosen them."""


@dataclass(frozen=True, eq=False)
class Translations:
    """What every row made of a test set: row -> seed -> lines, and metric -> row -> seed -> what scores are made of."""

    direction: str
    test_set: str
    sources: list[str]
    references: list[str]
    hypotheses: dict[str, dict[int, list[str]]]
    statistics: dict[str, dict[str, dict[int, Statistics]]]

    @property
    def shown(self) -> list[int]:
        """Numbers of the sentences shown side by side, from 0."""
        last = len(self.references) - 1
        return sorted({round(last * part / (SHOWN - 1)) for part in range(SHOWN)})


@dataclass(frozen=True)
class Comparison:
    """A paired test of two rows on BLEU.

    Attributes:
        row, against: Ids of the two.
        difference: BLEU of the row minus that of the other, over the seeds that both have.
        low, high: Its 95 % interval, by paired bootstrap over sentences.
        p: As sacreBLEU gives it; None where the outputs are identical.
        adjusted: Holm-corrected, ties counted; what the verdict rests on.
        verdict: better, worse, no significant difference, identical.
        size: How many rows were tested together.
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
    seeds: int
    size: int

    def reversed(self) -> Comparison:
        """The other row against this one."""
        verdict = {"better": "worse", "worse": "better"}.get(self.verdict, self.verdict)
        ends = {"difference": -self.difference, "low": -self.high, "high": -self.low}
        return replace(self, row=self.against, against=self.row, verdict=verdict, **ends)


def compare(track: str, texts: Translations, baseline: str, rows: Sequence[str]) -> list[Comparison]:
    """Every row against the baseline; and where another row scores highest, that one against every row.

    Each of the two families of tests is corrected for its own number of tests.
    """
    systems = {row: of for row in rows if (of := texts.statistics["bleu"].get(row))}
    if not systems:
        return []
    best = max(systems, key=lambda row: sum(s.score for s in systems[row].values()) / len(systems[row]))
    found: list[Comparison] = []
    for against in dict.fromkeys((baseline, best)):
        if against in systems:
            found += _against(track, against, systems)
    return found


def _against(track: str, against: str, systems: Mapping[str, Mapping[int, Statistics]]) -> list[Comparison]:
    common = systems[against]
    others = {row: runs for row, runs in systems.items() if row != against and runs.keys() & common.keys()}
    found = []
    for row, paired in paired_tests(common, others).items():
        low, high = _interval([(others[row][seed], common[seed]) for seed in common.keys() & others[row].keys()])
        found.append(
            Comparison(
                track=track,
                row=row,
                against=against,
                difference=paired.difference,
                low=low,
                high=high,
                p=paired.p,
                adjusted=paired.adjusted,
                verdict=paired.verdict,
                seeds=paired.seeds,
                size=len(others),
            )
        )
    return found


def changes(track: str, now: Translations, before: Translations) -> list[Comparison]:
    """Each row against itself in another suite, over the seeds that both have; corrected for the number of rows.

    Empty where the two have not translated the same sentences.
    """
    if now.references != before.references:
        return []
    ours, theirs = (texts.statistics["bleu"] for texts in (now, before))
    pairs = {
        row: [(ours[row][seed], theirs[row][seed]) for seed in sorted(ours[row].keys() & theirs[row].keys())]
        for row in ours
        if ours[row].keys() & theirs.get(row, {}).keys()
    }
    differ = {row: of for row, of in pairs.items() if any(a.output_hash != b.output_hash for a, b in of)}
    tested = {row: p_values(joined([b for _, b in of]), joined([a for a, _ in of])) for row, of in differ.items()}
    adjusted = dict(zip(tested, holm([with_ties for _, with_ties in tested.values()]), strict=True))
    found = []
    for row, of in pairs.items():
        difference, ends = float(np.mean([a.score - b.score for a, b in of])), _interval(of)
        p, corrected = tested[row][0] if row in tested else None, adjusted.get(row)
        found.append(
            Comparison(
                track, row, row, difference, *ends, p, corrected, verdict(difference, corrected), len(of), len(tested)
            )
        )
    return found


def _interval(pairs: Sequence[tuple[Statistics, Statistics]]) -> tuple[float, float]:
    """Of the mean difference over seeds: both systems of a pair are resampled with the same sentences."""
    weights_RN = quality.weights_of_resamples(len(pairs[0][0].rows_NK))
    differences_SR = [
        quality.bleu_of(weights_RN @ ours.rows_NK, exact=False)
        - quality.bleu_of(weights_RN @ theirs.rows_NK, exact=False)
        for ours, theirs in pairs
    ]
    return quality.ends(np.mean(differences_SR, axis=0))


def differing(hypothesis: str, reference: str) -> list[tuple[str, bool]]:
    """A translation in pieces: (text, whether the reference lacks it at this place)."""
    ours, theirs = hypothesis.split(), reference.split()
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    pieces = []
    for kind, begin, end, _, _ in matcher.get_opcodes():
        if begin < end:
            pieces.append((" ".join(ours[begin:end]), kind != "equal"))
    return pieces
