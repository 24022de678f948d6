"""The generated sentences of a report, and its warnings."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.measures.comparison import Comparison
from bench.system import formatting
from bench.tracking.store import Store
from reports.gathering.context import Context
from reports.gathering.gather_runs import gather
from reports.tables import detail_tables
from reports.tables.comparison_table import comparison_table
from reports.text import experimental_setup, findings, metric_format
from tests.helpers import synthetic_runs
from tests.helpers.synthetic_runs import Synthetic

pytestmark = synthetic_runs.quiet_mlflow


def test_one_seed_is_the_highest_on_these_sentences_and_nothing_more(odd: Context):
    (paragraph,) = findings.sentences(odd)
    best = odd.row("best").cells[odd.tracks[0]].number("bleu", "test")
    assert best is not None
    score = f"{metric_format.value('bleu', best.value)} ({metric_format.interval('bleu', best.low, best.high)})"
    test = odd.comparison(odd.tracks[0], odd.scored(odd.tracks[0])[1].id, "best")
    assert test is not None
    assert test.p is not None
    assert test.p < 0.001  # whatever p over sentences is
    assert paragraph.startswith(
        f"Transformer (base) has the highest BLEU on toy-en-de (test), {score}: "
        "highest on these test sentences (one seed), ahead of Plain"
    )
    assert "significantly" not in paragraph
    assert "It took 4.00\u00a0×\u00a010¹² training FLOPs, 4.0 times those of Plain" in paragraph
    assert findings.caveat(odd).startswith("One seed per row")
    assert "no difference is called significant" in findings.caveat(odd)
    assert not [entry for row in comparison_table(odd).rows for entry in row if entry.best]


def test_two_seeds_are_not_enough_either(store: Store):
    runs = [Synthetic(row, row, 2017, wrong, 1e12, seed) for row, wrong in (("a", 2), ("b", 20)) for seed in (1, 2)]
    synthetic_runs.suite(store, "two seeds", runs, "a,b", "a")
    (paragraph,) = findings.sentences(context := gather(store, "two seeds"))
    assert "highest on these test sentences (two seeds), ahead of a (+" in paragraph
    assert "significant" not in paragraph
    assert {row[-1].text for row in detail_tables.significance(context).rows} == {"too few seeds"}


def test_three_seeds_can_be_significant(mixed: Context):
    """High is tested against Low; Base has one seed."""
    test = mixed.comparison(mixed.tracks[0], "low", "high")
    assert test is not None
    assert test.corrected is not None
    assert test.spread is not None
    (paragraph,) = findings.sentences(mixed)
    assert (
        f"significantly above Low ({metric_format.difference('bleu', -test.difference)}, "
        f"{formatting.p_equals(test.corrected)}), higher than Base on these test sentences (one seed)." in paragraph
    )
    caveat = findings.caveat(mixed)
    assert (
        "t-test of the mean difference over seeds and sentences at 5 %, Bonferroni-corrected for 3\u00a0tests" in caveat
    )
    pooled, low, high = (
        metric_format.value("bleu", n) for n in (test.spread.pooled, test.spread.lowest, test.spread.highest)
    )
    assert f"pooled over rows: {pooled} BLEU (4 degrees of freedom; single rows {low} to {high}). If" in caveat


@pytest.mark.parametrize("equal", [True, False])
def test_unequal_deviations_between_seeds_are_said(mixed: Context, equal: bool):
    def changed(test: Comparison) -> Comparison:
        return replace(test, spread=test.spread and replace(test.spread, equal=equal))

    text = findings.caveat(replace(mixed, comparisons=[changed(test) for test in mixed.comparisons]))
    assert ("These deviations are not equal (Bartlett's test)" in text) is not equal


def test_many_rows_that_are_worse_are_counted_and_not_named(store: Store):
    seeds = range(1, 4)
    runs = [Synthetic(f"low{n}", f"Low {n}", 2015, 2, 1e12, seed) for n in range(5) for seed in seeds]
    runs += [Synthetic(row, row, 2017, 40, 2e12, seed) for row in ("top", "twin") for seed in seeds]
    synthetic_runs.suite(store, "many", runs, "low0,low1,low2,low3,low4,top,twin", "top")
    (paragraph,) = findings.sentences(gather(store, "many"))
    assert "significantly above 5 of the 6 other rows (all p\u00a0" in paragraph
    assert "Low" not in paragraph.split(". It took")[0]


def test_the_spread_between_seeds_is_said_once_for_all_directions(store: Store):
    runs = [
        Synthetic(row, row, 2017, good, 2e12, seed, corpus=corpus)
        for corpus in ("toy-en-de", "toy-en-fr")
        for row, good in (("one", 4), ("two", 5))
        for seed in range(1, 4)
    ]
    synthetic_runs.suite(store, "directions", runs, "one,two", "one")
    caveat = findings.caveat(gather(store, "directions"))
    assert caveat.count("Standard deviation between seeds") == 1
    assert re.search(r"rows: EN-DE [\d.]+ BLEU \([^)]*\); EN-FR [\d.]+ BLEU \([^)]*\)\. If two", caveat)


def test_rows_with_only_one_seed_are_named(mixed: Context):
    assert "1–3\u00a0seeds per row: values are means" in findings.caveat(mixed)
    assert "One seed: Base; their intervals cover only the choice of test sentences" in findings.caveat(mixed)
    assert dict(experimental_setup.missing(mixed))["Variation between seeds, Base"] == "one seed per row"


def test_a_single_seed_of_one_direction_is_named_with_it(store: Store):
    runs = [
        Synthetic(row, row.title(), 2017, 4, 1e12, seed, f"toy-{direction}")
        for row in ("one", "two")
        for direction, seeds in (("en-de", (1, 2)), ("en-fr", (1,)))
        for seed in seeds
    ]
    synthetic_runs.suite(store, "unequal seeds", runs, "one,two", "one")
    context = gather(store, "unequal seeds")
    assert "One seed: One (EN-FR) and Two (EN-FR);" in findings.caveat(context)
    assert ("Variation between seeds, One (EN-FR); Two (EN-FR)", "one seed per row") in experimental_setup.missing(
        context
    )


def test_a_row_that_is_better_on_the_common_seeds_is_named(store: Store):
    """A row with the highest mean over its seeds can be worse than another row on the seeds that both have."""
    runs = [
        *(Synthetic("one", "One", 2015, 5, 1e12, seed) for seed in range(1, 4)),
        *(Synthetic("top", "Top", 2017, 2 if seed < 4 else 40, 2e12, seed) for seed in range(1, 20)),
    ]
    synthetic_runs.suite(store, "seeds", runs, "one,top", "one")
    context = gather(store, "seeds")
    test = context.comparison(context.tracks[0], "top", "one")
    assert test
    assert test.verdict == "worse"
    (paragraph,) = findings.sentences(context)
    assert paragraph.startswith("Top has the highest BLEU")
    assert re.search(
        r"\): significantly below One \(−\d+\.\d by seed 1, 2, 3 of 19, p.*?\), on the seeds that both have\. It took",
        paragraph,
    )


def test_a_row_that_is_lower_on_the_only_common_seed_is_not_called_ahead(store: Store):
    runs = [
        Synthetic("one", "One", 2015, 5, 1e12, 1),
        *(Synthetic("top", "Top", 2017, wrong, 2e12, seed) for seed, wrong in enumerate((3, 40, 40, 40, 40), 1)),
    ]
    synthetic_runs.suite(store, "one common seed", runs, "one,top", "one")
    (paragraph,) = findings.sentences(gather(store, "one common seed"))
    assert paragraph.startswith("Top has the highest BLEU")
    assert "not higher than One on these test sentences and the seeds that both have (one seed)" in paragraph
    assert "ahead of" not in paragraph


def test_a_row_is_ahead_of_the_second_only_if_it_is_ahead_of_all(store: Store):
    """Third has the lowest mean but the highest score with the only seed that all three have."""
    runs = [
        *(Synthetic("top", "Top", 2017, wrong, 2e12, seed) for seed, wrong in enumerate((5, 40, 40, 40, 40), 1)),
        Synthetic("second", "Second", 2016, 4, 1e12, 1),
        *(Synthetic("third", "Third", 2015, wrong, 1e12, seed) for seed, wrong in ((1, 9), (6, 2), (7, 2), (8, 2))),
    ]
    synthetic_runs.suite(store, "ahead", runs, "third,second,top", "third")
    context = gather(store, "ahead")
    assert [row.id for row in context.scored(context.tracks[0])] == ["top", "second", "third"]
    (paragraph,) = findings.sentences(context)
    assert "higher than Second on these test sentences" in paragraph
    assert "not higher than Third on these test sentences" in paragraph
    assert "ahead of" not in paragraph


def test_a_failed_seed_beside_finished_ones_is_a_warning(store: Store):
    runs = [
        *(Synthetic("one", "One", 2015, 5, 1e12, seed) for seed in (1, 2)),
        Synthetic("one", "One", 2015, 5, 1e12, 3, status="FAILED", reason="Diverged"),
        Synthetic("two", "Two", 2015, 5, 1e12, 1, status="FAILED", reason="Diverged"),
    ]
    synthetic_runs.suite(store, "failed seed", runs, "one,two", "one")
    (warning,) = findings.warnings(gather(store, "failed seed"))
    assert warning.startswith("Failed seeds: One. Their means are of the seeds that finished")


def test_the_spread_is_said_without_tests_too(store: Store):
    """Two seeds give no verdict, but a pooled variance that widens intervals."""
    runs = [Synthetic(row, row, 2017, wrong, 1e12, seed) for row, wrong in (("a", 2), ("b", 20)) for seed in (1, 2)]
    synthetic_runs.suite(store, "spread of two", runs, "a,b", "a")
    assert "Standard deviation between seeds" in findings.caveat(gather(store, "spread of two"))


def test_seeds_with_different_settings_are_a_warning(mixed: Context):
    """Only settings that determine the result count: another machine has other paths."""
    row, track = mixed.row("low"), mixed.tracks[0]
    changed = {
        seed: replace(run, params={**run.params, "model.layers": str(seed), "corpus.path": f"machine {seed}"})
        for seed, run in row.cells[track].runs.items()
    }
    other = replace(row, cells={**row.cells, track: replace(row.cells[track], runs=changed)})
    rows = tuple(other if one is row else one for one in mixed.rows)
    (warning,) = findings.warnings(replace(mixed, rows=rows))
    assert warning.startswith("The seeds of Low have different settings (model.layers), so their mean")
    assert findings.warnings(mixed) == []


def test_leakage_is_a_warning(odd: Context, level: Context, odd_report: Path):
    (warning,) = findings.warnings(odd)
    assert warning.startswith("Leakage: the split test of toy-en-de shares 3\u00a0pairs with its training data")
    assert warning in (odd_report / "report.html").read_text()
    assert findings.warnings(level) == []
    missing = dict(experimental_setup.missing(level))
    for what in ("Expected best against tuning budget", "BLEU by length", "Attention maps", "Corpus statistics"):
        assert missing[what]
        assert what not in dict(experimental_setup.missing(odd))


@pytest.mark.parametrize(("pairs", "warnings"), [(5, 0), (6, 1)])
def test_a_few_pairs_in_a_large_split_are_no_warning(odd: Context, pairs: int, warnings: int) -> None:
    (track, *_) = odd.corpus_stats
    overlaps = [{"split": "validation", "other_split": "train", "pairs": pairs}]
    stats = {"splits": [{"name": "validation", "pairs": 1000}], "overlaps": overlaps}
    assert len(findings.warnings(replace(odd, corpus_stats={track: stats}))) == warnings


def test_a_side_in_another_language_is_a_warning(odd: Context) -> None:
    (track, *_) = odd.corpus_stats
    side = {"split": "validation", "language": "en", "reason": ""}
    (warning,) = findings.warnings(replace(odd, corpus_stats={track: {"other_language": [side]}}))
    assert warning.startswith("Languages: the en side of the split validation of toy-en-de does not look like en")


def test_pareto_front():
    assert findings.pareto_front(["a", "b", "c", "d"], [9, 8, 7, 6], [5, 7, 2, 2]) == ["c", "a"]
    assert findings.pareto_front(["dear", "cheap"], [5, 5], [2, 1]) == ["cheap"]  # the same score for less
    assert findings.pareto_front([], [], []) == []


def test_a_score_that_could_not_select_is_a_warning(chinese: Context):
    short, constant, other_tokenizer = findings.warnings(chinese)
    assert short.startswith("EN-ZH: most references are too short for BLEU")
    assert constant.startswith("The validation chrF2 of Flat (EN-ZH) was the same at every validation")
    assert other_tokenizer.startswith("BLEU of Old (EN-ZH) was counted with another tokenizer than zh")


def test_the_setup_names_the_validation_score(chinese: Context, odd: Context):
    facts = {fact.label: fact.values for fact in experimental_setup.facts(chinese, chinese.tracks[0])}
    assert ("Validation chrF2; BLEU with the tokenizer zh", "Flat; High") in facts["Validation score"]
    assert "Validation score" not in {fact.label for fact in experimental_setup.facts(odd, odd.tracks[0])}
