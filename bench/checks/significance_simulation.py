"""How often the report's verdicts are wrong: simulated tables of systems whose true BLEU is known.

    python -m bench.checks.significance_simulation --tables 2000 --csv simulation.csv

A table has 12 systems on one test set of 1,000 sentences. The true BLEU of a run is that of its system plus a normal
deviation for its seed. A word of a sentence is right with a probability that depends on the ability of the run, which
gives it its true BLEU, on the difficulty of the sentence, which all runs share, and on how well this sentence suits the
system. The n-grams are counted from the words, and verdicts are those of `contrasts`, which reports call, too: the
first system is the baseline, every system is compared with it and with the highest system.

A table is wrong if it calls a system better or worse whose true mean is equal. With a gap, the last system is truly
better than all others, which are equal, and the gap is found if the report calls it better than the baseline.

The thresholds were fixed before the simulation was run, for tables with equal variances between seeds and three seeds.
Exit code 1: they do not hold, or a table with one or two seeds makes a claim.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest, norm

from bench.measures.comparison import Comparison, contrasts
from bench.measures.quality import Array, Statistics, bleu_of
from bench.system import streams, terminal
from bench.system.files import write_file

MAX_WRONG, MIN_FOUND = 0.05, 0.80
"""Thresholds: share of tables with a false claim, share of true gaps of 8 BLEU that are found."""

SYSTEMS, SENTENCES, BLEU, GAP = 12, 1000, 50.0, 8.0
LENGTHS = np.arange(5, 21)
"""Words of a sentence; all lengths are equally frequent, and a translation has as many words as its reference."""

DIFFICULTY, FIT = 1.0, 0.5
"""Standard deviations, in logits of a word, of the difficulty of a sentence and of how well it suits a system."""

SEED = 20261127


@dataclass(frozen=True)
class Scenario:
    """A kind of table.

    Attributes:
        name: What it shows.
        seeds: Seeds of every system.
        deviations: Standard deviation of the true BLEU between the seeds of each system.
        gap: True BLEU of the last system above that of the others.
        thresholds: Whether the thresholds must hold.
    """

    name: str
    seeds: int
    deviations: tuple[float, ...]
    gap: float = 0.0
    thresholds: bool = True


EQUAL = (2.0,) * SYSTEMS
UNEQUAL = tuple(float(deviation) for deviation in np.linspace(1, 4, SYSTEMS))
LADDER = tuple(float(deviation) for deviation in np.geomspace(3, 0.2, SYSTEMS))
"""About as unequal as in the committed ladder, whose rows have 0.1 to 3.0. Here the baseline varies most."""

SCENARIOS = (
    Scenario("equal systems, SD 2", 3, EQUAL),
    Scenario("gap of 8, SD 2", 3, EQUAL, GAP),
    Scenario("equal systems, SD 1 to 4", 3, UNEQUAL, thresholds=False),
    Scenario("gap of 8, SD 1 to 4 (better system 4)", 3, UNEQUAL, GAP, thresholds=False),
    Scenario("equal systems, last SD 4, others 1", 3, (1.0,) * (SYSTEMS - 1) + (4.0,), thresholds=False),
    Scenario("equal systems, SD 3 to 0.2", 3, LADDER, thresholds=False),
    Scenario("gap of 8, SD 2, two seeds", 2, EQUAL, GAP),
    Scenario("gap of 8, SD 2, one seed", 1, EQUAL, GAP),
)


@dataclass(frozen=True)
class Result:
    """Counts over the tables of a scenario.

    Attributes:
        wrong: Tables with a false claim.
        found: Tables in which the last system is called better than the baseline.
        pairs: Pairs of the last and an equal system, over all tables, called better in either family of tests.
    """

    scenario: Scenario
    tables: int
    wrong: int
    found: int
    pairs: int

    @property
    def holds(self) -> bool:
        """Whether the result is within the thresholds; few seeds must not lead to any claim."""
        if self.scenario.seeds < 3:
            return not (self.wrong or self.pairs)
        enough = not self.scenario.gap or self.found >= MIN_FOUND * self.tables
        return enough and self.wrong <= MAX_WRONG * self.tables

    @property
    def record(self) -> dict[str, object]:
        """One line of the CSV file."""
        return {
            "scenario": self.scenario.name,
            "systems": SYSTEMS,
            "sentences": SENTENCES,
            "seeds": self.scenario.seeds,
            "seed_sds_bleu": " ".join(f"{deviation:.2f}" for deviation in self.scenario.deviations),
            "gap_bleu": self.scenario.gap,
            "tables": self.tables,
            "tables_with_false_claim": self.wrong,
            "tables_with_gap_found_against_baseline": self.found,
            "pairs_with_gap": self.tables * (SYSTEMS - 1) * bool(self.scenario.gap),
            "pairs_with_gap_found": self.pairs,
        }


@functools.cache
def _bleu_by_ability() -> tuple[Array, Array]:
    """Logits of a right word at a sentence of mean difficulty, and for each the BLEU of an endless test set."""
    logits_A = np.linspace(-6, 10, 400)
    difficulties_Q = norm.ppf((np.arange(2000) + 0.5) / 2000) * np.hypot(DIFFICULTY, FIT)
    right_AQ = 1 / (1 + np.exp(-(logits_A[:, None] + difficulties_Q)))
    totals_4 = np.array([np.maximum(LENGTHS - n, 0).mean() for n in range(4)])
    matches_A4 = np.stack([(right_AQ ** (n + 1)).mean(axis=1) for n in range(4)], axis=1) * totals_4
    words_A2 = np.full((len(logits_A), 2), LENGTHS.mean())
    sums_AK = np.concatenate([words_A2, matches_A4, np.broadcast_to(totals_4, matches_A4.shape)], axis=1)
    return logits_A, bleu_of(sums_AK)


def ability(bleu: Array) -> Array:
    """The logit of a right word that gives this BLEU on an endless test set."""
    logits_A, bleu_A = _bleu_by_ability()
    return np.interp(bleu, bleu_A, logits_A)


def table(scenario: Scenario, rng: np.random.Generator) -> dict[str, dict[int, Statistics]]:
    """Draws a table: system -> seed -> statistics. Letters: Y systems  S seeds  N sentences  W words."""
    shape = SYSTEMS, scenario.seeds
    true_YS = BLEU + np.array(scenario.deviations)[:, None] * rng.standard_normal(shape)
    true_YS[-1] += scenario.gap
    fit_YN = DIFFICULTY * rng.standard_normal(SENTENCES) + FIT * rng.standard_normal((SYSTEMS, SENTENCES))
    right_YSN = 1 / (1 + np.exp(-(ability(true_YS)[:, :, None] + fit_YN[:, None])))
    lengths_N = rng.choice(LENGTHS, SENTENCES)
    is_word_NW = np.arange(LENGTHS[-1]) < lengths_N[:, None]
    run_YSNW = (rng.random((*right_YSN.shape, LENGTHS[-1]), dtype=np.float32) < right_YSN[..., None]) & is_word_NW
    matches, ngram_YSNW = [], run_YSNW
    for n in range(4):
        matches.append(ngram_YSNW.sum(axis=-1))
        ngram_YSNW = ngram_YSNW[..., :-1] & run_YSNW[..., n + 1 :]
    totals_N4 = np.maximum(lengths_N[:, None] - np.arange(4), 0)
    words_N2 = np.stack([lengths_N, lengths_N], axis=1)
    return {
        f"system {y}": {
            s: Statistics(
                "bleu",
                "",
                np.concatenate([words_N2, np.stack([of[y, s] for of in matches], 1), totals_N4], 1).astype(np.float64),
                output_hash=f"{y} {s}",
                reference_hash="",
            )
            for s in range(scenario.seeds)
        }
        for y in range(SYSTEMS)
    }


def simulate(scenario: Scenario, tables: int) -> Result:
    """Draws the tables of a scenario and counts the claims."""
    rng = np.random.default_rng([SEED, SCENARIOS.index(scenario) if scenario in SCENARIOS else len(SCENARIOS)])
    wrong = found = pairs = 0
    better = f"system {SYSTEMS - 1}" if scenario.gap else ""
    for _ in range(tables):
        comparisons = contrasts("", table(scenario, rng), "system 0")
        claims = [one for one in comparisons if one.verdict in ("better", "worse")]
        right = {one.row if one.against == better else one.against for one in claims if _is_right(one, better)}
        wrong += not all(_is_right(one, better) for one in claims)
        pairs += len(right)
        found += "system 0" in {one.against for one in claims if one.row == better}
    return Result(scenario, tables, wrong, found, pairs)


def _is_right(claim: Comparison, better: str) -> bool:
    """Whether a claim says that the truly better system is better than another."""
    return (claim.row == better and claim.verdict == "better") or (claim.against == better and claim.verdict == "worse")


def _share(count: int, number: int) -> str:
    """A share in percent with its 95 % interval (Wilson)."""
    ends = binomtest(count, number).proportion_ci(method="wilson")
    return f"{count / number:.1%} [{ends.low:.1%}, {ends.high:.1%}]"


def show(results: Sequence[Result]) -> None:
    """Prints the table of results."""
    columns = [("scenario", "left"), ("seeds", "right"), ("tables", "right"), ("tables with a false claim", "right")]
    columns += [("gap found against the baseline", "right"), ("pairs with the gap found", "right"), ("", "left")]
    lines = []
    for one in results:
        gap = bool(one.scenario.gap)
        found = _share(one.found, one.tables) if gap else ""
        pairs = f"{one.pairs / (one.tables * (SYSTEMS - 1)):.1%}" if gap else ""
        verdict = "within" if one.holds else "BEYOND"
        counts = [str(one.scenario.seeds), f"{one.tables:,}", _share(one.wrong, one.tables), found, pairs]
        lines.append([one.scenario.name, *counts, verdict if one.scenario.thresholds else ""])
    limits = f"at most {MAX_WRONG:.0%} false, at least {MIN_FOUND:.0%} found"
    terminal.table(columns, lines, f"{SYSTEMS} systems, {SENTENCES:,} sentences; {limits}")


def as_csv(results: Sequence[Result]) -> str:
    """The counts as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(results[0].record), lineterminator="\n")
    writer.writeheader()
    writer.writerows(one.record for one in results)
    return text.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    streams.prepare()
    parser = argparse.ArgumentParser(
        prog="python -m bench.checks.significance_simulation", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--tables", type=int, default=1000, help="simulated tables of each scenario")
    parser.add_argument("--csv", type=Path, help="file for the counts")
    options = parser.parse_args(arguments)
    results = [simulate(scenario, options.tables) for scenario in SCENARIOS]
    show(results)
    if options.csv:
        write_file(options.csv, as_csv(results))
    return 0 if all(one.holds for one in results if one.scenario.thresholds) else 1


if __name__ == "__main__":
    sys.exit(main())
