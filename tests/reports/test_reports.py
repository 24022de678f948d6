"""What reports say of synthetic suites: numbers as text, the tidy table, the finding, what is missing."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.measures.measure import Measure
from bench.measures.quality import statistics
from bench.system import formatting
from bench.tracking.store import Store
from reports import write
from reports.gathering import gather_runs
from reports.gathering.comparison import Translations, compare
from reports.gathering.context import Context
from reports.gathering.gather_runs import gather
from reports.plots import detail_plots
from reports.tables import detail_tables
from reports.tables.comparison_table import comparison_table
from reports.tables.table import score_entry
from reports.text import experimental_setup, findings, metric_format
from reports.text.catalogue import load_catalogue
from tests.helpers import synthetic_runs
from tests.helpers.synthetic_runs import HOSTILE, Synthetic

pytestmark = synthetic_runs.quiet_mlflow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic_runs.new_store(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def odd(store: Store) -> Context:
    return synthetic_runs.odd(store)


@pytest.fixture(scope="module")
def level(store: Store) -> Context:
    return synthetic_runs.level(store)


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "number", "text"),
    [
        ("bleu", 27.349, "27.3"),
        ("bleu", -0.5, "−0.5"),
        ("params", 1_234_567, "1.23"),
        ("params", 65e6, "65.0"),
        ("train_flops", 1.234e15, "1.23\u00a0×\u00a010¹⁵"),
        ("latency_p50_ms", 0.01234, "0.0123"),
        ("latency_p50_ms", 999.96, "1,000"),
        ("peak_memory_bytes", 512 * 2**20, "512"),
        ("wall_s", 7.34, "7.3\u00a0s"),
        ("wall_s", 59.97, "1:00"),
        ("wall_s", 3723, "1:02:03"),
        ("validation_loss", 1.25, "1.250"),
        ("bleu", None, "—"),
        ("bleu", float("nan"), "—"),
    ],
)
def test_numbers_as_text(metric: str, number: float | None, text: str):
    assert metric_format.value(metric, number) == text


def test_intervals_differences_and_probabilities():
    assert metric_format.interval("bleu", 1.0, 2.04) == "1.0–2.0"
    assert metric_format.interval("bleu", -2.0, 1.0) == "−2.0 … 1.0"
    assert metric_format.interval("bleu", None, None) == ""
    assert [metric_format.difference("bleu", number) for number in (1.5, -1.5)] == ["+1.5", "−1.5"]
    assert [formatting.p_equals(p) for p in (0.0004, 0.012)] == ["p\u00a0<\u00a00.001", "p\u00a0=\u00a00.012"]
    assert [load_catalogue().compared(a, b, "X") for a, b in ((5, 2), (3, 4), (4, 3), (1, 1))] == [
        "2.5 times those of X",
        "25\u00a0% fewer than X",
        "33\u00a0% more than X",
        "as many as X",
    ]
    assert [formatting.exact(number) for number in (3e12, 0.1, None, float("inf"))] == ["3000000000000", "0.1", "", ""]


# --- the tidy table ---------------------------------------------------------------------------------------------------


def lines(context: Context) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(write.csv(context))))


def test_csv_has_its_columns_and_a_line_for_every_row_and_metric(odd: Context):
    text = write.csv(odd)
    header = "suite,corpus,test_set,row,preset,direction,seeds,metric,value,low,high,unit,run"
    assert text.splitlines()[0] == header
    found = lines(odd)
    run = odd.row("best").cells[odd.tracks[0]].runs[1].id
    flops = [line for line in found if (line["row"], line["metric"]) == ("best", "train_flops")]
    start = ["odd", "toy-en-de", "", "best", "demo", "en-de", "1", "train_flops"]
    assert [list(line.values()) for line in flops] == [[*start, "4000000000000", "", "", "FLOP", run]]
    keys = [(line["row"], line["test_set"], line["metric"]) for line in found]
    assert len(keys) == len(set(keys))
    metrics = ["bleu", "chrf", "ter", "params", "train_flops", "executed_flops", "clock_flops", "energy_j"]
    metrics += ["latency_p50_ms", "latency_p95_ms", "sentences_per_s", "peak_memory_bytes", "wall_s"]
    for row in ("plain", "twin", "broken", "absent", "best"):
        assert [metric for of_row, _, metric in keys if of_row == row][:13] == metrics


def test_csv_leaves_empty_what_was_not_measured(odd: Context):
    for line in lines(odd):
        if line["row"] in ("broken", "absent"):
            assert (line["value"], line["low"], line["high"], line["run"], line["seeds"]) == ("", "", "", "", "")
        if line["metric"] in ("executed_flops", "peak_memory_bytes"):
            assert line["value"] == ""
    values = {(line["row"], line["metric"]): line["value"] for line in lines(odd)}
    assert (values["plain", "latency_p50_ms"], values["twin", "latency_p50_ms"]) == ("", "12.5")


def test_newest_finished_run_of_each_seed_counts(level: Context):
    values = {(line["row"], line["direction"], line["metric"]): line for line in lines(level)}
    assert values["one", "en-de", "train_flops"]["value"] == "1000000000000"
    assert values["two", "en-de", "bleu"]["seeds"] == "1 2"
    assert len(values["two", "en-de", "bleu"]["run"].split()) == 2
    assert values["one", "en-fr", "bleu"]["value"] == ""


# --- what is said -----------------------------------------------------------------------------------------------------


def test_a_row_that_never_ran_has_its_name_and_what_was_published(store: Store):
    about = {"last": {"name": "Transformer (base)", "year": "2017"}}
    parent = store.start_parent("stopped", {"rows": "first,last", "baseline": "last", "about": json.dumps(about)})
    Synthetic("first", "First", 2014, 2, 1e12).write(store, "stopped", parent)
    row = gather_runs.gather(store, "stopped").row("last")
    assert (row.name, row.year) == ("Transformer (base)", 2017)
    assert row.published
    assert [cell.state for cell in row.cells.values()] == ["not run"]


def test_finding_names_the_best_row_and_its_significance(odd: Context):
    (paragraph,) = findings.sentences(odd)
    best = odd.row("best").cells[odd.tracks[0]].number("bleu", "test")
    assert best is not None
    score = f"{metric_format.value('bleu', best.value)} ({metric_format.interval('bleu', best.low, best.high)})"
    assert paragraph.startswith(
        f"Transformer (base) has the highest BLEU on toy-en-de (test), {score}: significantly ab"
    )
    assert "It took 4.00\u00a0×\u00a010¹² training FLOPs, 4.0 times those of Plain" in paragraph
    assert "Holm-corrected for 2\u00a0tests" in findings.caveat(odd)
    assert "One seed per row" in findings.caveat(odd)


def test_best_is_marked_only_where_it_is_significant(odd: Context, level: Context):
    marked = [row[0].sort for row in comparison_table(odd).rows for entry in row if entry.best]
    assert marked == ["Transformer (base)"]
    assert not any(entry.best for row in comparison_table(level).rows for entry in row)


def test_identical_translations_are_called_identical(level: Context):
    test = level.comparison(level.tracks[0], "one", "two")
    assert test is not None
    assert (test.difference, test.p, test.adjusted, test.verdict, test.seeds) == (0, None, None, "identical", (1, 2))
    english_german, english_french = findings.sentences(level)
    assert "with the same translations as Two" in english_german
    assert english_french.endswith("there is nothing to compare it with.")
    assert "p" not in [entry.text for row in detail_tables.significance(level).rows for entry in row]


@pytest.fixture(scope="module")
def mixed(store: Store) -> Context:
    """Three rows, the baseline with one seed of two: highest of all is another one."""
    runs = [
        *(Synthetic("low", "Low", 2014, 2, 1e12, seed) for seed in (1, 2)),
        Synthetic("base", "Base", 2015, 5, 2e12),
        *(Synthetic("high", "High", 2017, 20, 3e12, seed) for seed in (1, 2)),
    ]
    synthetic_runs.suite(store, "mixed", runs, "low,base,high", "base")
    return gather(store, "mixed")


def test_rows_with_one_seed_among_others_are_named(mixed: Context):
    assert "1–2\u00a0seeds per row: values are means" in findings.caveat(mixed)
    assert "One seed: Base; their intervals and tests cover only the choice of test sentences" in findings.caveat(mixed)
    assert dict(experimental_setup.missing(mixed))["Variation between seeds, Base"] == "one seed per row"


def test_the_seeds_that_are_paired_are_printed_where_they_are_not_all(mixed: Context):
    low, high = detail_tables.significance(mixed).rows
    assert low[2].details == high[2].details == ("by seed 1 of 2",)
    below = mixed.comparison(mixed.tracks[0], "low", "high")
    assert below is not None
    assert (below.seeds, below.total_seeds) == ((1, 2), 2)


def test_a_row_picked_after_looking_is_tested_as_all_pairs(mixed: Context):
    """Three rows: two tests against the baseline, three pairs for the highest; the finding and bold use the latter."""
    sizes = {(test.row, test.against): test.corrected_for for test in mixed.comparisons}
    assert sizes == {("low", "base"): 2, ("high", "base"): 2, ("low", "high"): 3, ("base", "high"): 3}
    test = mixed.comparison(mixed.tracks[0], "base", "high")
    assert test is not None
    assert test.adjusted is not None
    assert (
        f"Base ({metric_format.difference('bleu', -test.difference)} by seed 1 of 2, "
        f"{formatting.p_equals(test.adjusted)})" in findings.sentences(mixed)[0]
    )
    assert "Holm-corrected for 2–3\u00a0tests. The highest row was selected" in findings.caveat(mixed)


def test_a_difference_has_to_exceed_what_seeds_make():
    """Whoever has the better seed wins every test on sentences; an interval over seeds says that it may be luck."""
    wrong = {"one": {1: 4, 2: 12, 3: 5}, "two": {1: 30, 2: 6, 3: 28}, "far": {1: 1, 2: 1, 3: 1}}
    references = [f"Der Koch sieht Kanne {number} auf dem Tisch." for number in range(400)]
    runs = {
        row: {
            seed: statistics(
                [line if place % of else "Eine Frau." for place, line in enumerate(references)], references
            )
            for seed, of in seeds.items()
        }
        for row, seeds in wrong.items()
    }
    texts = Translations("en-de", "test", references, references, {}, {"bleu": runs})
    tests = {test.row: test for test in compare("EN-DE", texts, "one", list(runs)) if test.against == "one"}
    assert tests["two"].adjusted is not None
    assert tests["two"].adjusted < 0.01
    assert tests["two"].low < 0 < tests["two"].high
    assert [tests[row].verdict for row in ("two", "far")] == ["no significant difference", "worse"]


def test_several_p_share_the_largest():
    assert [formatting.p_at_most(p) for p in (0.0004, 0.042, 0.0424)] == [
        "p\u00a0<\u00a00.001",
        "p\u00a0≤\u00a00.042",
        "p\u00a0≤\u00a00.043",
    ]


def test_several_seeds_are_averaged_and_printed_one_by_one(level: Context):
    cell = level.row("two").cells[level.tracks[0]]
    number = cell.number("bleu", "test")
    assert number is not None
    assert list(number.seeds) == [1, 2]
    assert number.value == pytest.approx(sum(value or 0 for value in number.seeds.values()) / 2)
    assert "2 seeds and sentences" in number.provenance
    entry = score_entry("bleu", number)
    assert entry.details[1] == ", ".join(metric_format.value("bleu", value) for value in number.seeds.values())
    assert cell.failures == ((3, "interrupted", "SIGTERM: saved"),)


def test_what_was_not_measured_is_said_with_its_reason(odd: Context, level: Context):
    found = dict(experimental_setup.missing(odd))
    assert found["Broken, EN-DE"] == f"seed 1 failed (Diverged: {HOSTILE})"
    assert found["absent, EN-DE"] == "not run"
    assert found[f"Latency p50, Plain {HOSTILE}"] == "no clock"
    assert found["Peak memory, every row"] == "not recorded by the run"
    assert found["EN-FR"].startswith("the suite has no run of it")
    assert dict(experimental_setup.missing(level))["Two, EN-DE, some seeds"] == "seed 3 interrupted (SIGTERM: saved)"


def test_published_numbers_stand_in_columns_of_their_own(odd: Context):
    main = comparison_table(odd)
    own = [column.own for column in main.columns]
    assert own == sorted(own, reverse=True)
    published = [entry.text for entry, ours in zip(main.rows[-1], own, strict=True) if not ours]
    flops = "3.3\u00a0×\u00a010¹⁸"
    assert published == ["27.3", "38.1", flops, flops]


def test_terminal_form_has_a_cell_for_every_column(odd: Context):
    columns, rows, title = write.terminal(odd)
    assert all(len(row) == len(columns) for row in rows)
    assert title == "Transformer vs. traditional models (odd)"
    assert [heading for heading, _ in columns][3:6] == [
        "BLEU\nEN-DE",
        "Training cost\ncounted\nFLOP",
        "Latency\nms\np50",
    ]
    assert rows[2][3] == "failed"


@pytest.mark.parametrize(
    ("name", "ui", "message"),
    [("nowhere", None, "there is no suite 'nowhere'"), ("odd", "javascript:alert(1)", "--ui_url")],
)
def test_wrong_names_and_addresses_are_one_line(odd: Context, store: Store, name: str, ui: str | None, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        gather(store, name, ui)


def test_an_empty_store_says_what_to_do(tmp_path: Path):
    with pytest.raises(ValueError, match="make some with bench suite"):
        gather(synthetic_runs.new_store(tmp_path), None)


def test_recipes_of_all_seeds_are_kept():
    def latency(seed: int, value: float | None, *provenance: str) -> dict[int, Measure]:
        noisy = "NOISY: other processes" in provenance
        return {seed: Measure("latency_p50_ms", value, "ms", provenance="; ".join(provenance), noisy=noisy)}

    quiet, noisy = latency(1, 2.0, "batch 1", "quiet"), latency(2, 4.0, "batch 1", "NOISY: other processes")
    both = gather_runs._number(quiet | noisy)
    assert (both.value, both.provenance) == (3.0, "batch 1; quiet; NOISY: other processes; mean of 2 seeds")
    assert both.noisy
    absent = gather_runs._number(quiet | latency(3, None, "no clock"))
    assert (absent.value, absent.provenance, absent.noisy) == (None, "no clock", False)


def test_a_noisy_timing_adds_a_note_below_the_table(odd: Context, monkeypatch: pytest.MonkeyPatch):
    note = odd.catalogue("table.noisy")
    assert note not in write._main_notes(odd)
    numbers, key = odd.row("twin").cells[odd.tracks[0]].numbers, ("", "latency_p50_ms")
    monkeypatch.setitem(numbers, key, replace(numbers[key], noisy=True))
    assert note in write._main_notes(odd)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_what_was_measured_of_parts_is_no_test_set(odd: Context):
    assert odd.tracks[0].test_sets == ("test",)
    cell = odd.row("best").cells[odd.tracks[0]]
    assert cell.value("test/bleu/length/6-10") == 70
    assert list(cell.below("contrastive")) == ["pronoun", "pronoun/1", "pronoun/4"]


def test_probes_stand_beside_what_the_target_alone_gives_away(odd: Context):
    rows = [[entry.text for entry in row] for row in detail_tables.probes(odd).rows]
    assert rows == [["Transformer (base)", "75.0", "50.0"], ["target only", "60.0", "50.0"]]


def test_attention_is_the_mean_over_heads_of_the_last_layer(odd: Context):
    (looks,) = odd.attention[odd.tracks[0]].values()
    assert looks["weights"][0] == pytest.approx([0.8, 0.2, 0.0])


def test_tuning_rises_to_the_best_trial(odd: Context):
    points = odd.tuning[odd.tracks[0]]["best"]
    assert (points[0].budget, points[0].best) == (1000, pytest.approx(15, abs=1))  # one of the four failed: 0
    assert (points[-1].budget, points[-1].best) == (4000, 30)


def test_tuning_debt_and_its_curve_are_what_the_suite_recorded(store: Store):
    synthetic_runs.suite(store, "tuned", [Synthetic("low", "Low", 2014, 2, 1e12)], "low", "low")
    synthetic_runs.tuned(store, "tuned", "low", 8000.0)
    context = gather(store, "tuned")
    (point,) = context.tuning[context.tracks[0]]["low"]
    assert (point.budget, point.low, point.high) == (1000, 5, 20)
    assert findings.warnings(context)[0].startswith("Tuning debt")
    assert "Low (8,000\u00a0pairs)" in findings.warnings(context)[0]
    facts = {fact.label: fact.values for fact in experimental_setup.facts(context, context.tracks[0])}
    said = "8,000\u00a0pairs granted, 6,000\u00a0pairs spent, debt 8,000\u00a0pairs"
    assert facts["Tuning"] == ((said, ""),)


def test_a_tuning_budget_that_is_not_in_pairs_is_said_to_be_none(store: Store):
    synthetic_runs.suite(store, "timed", [Synthetic("low", "Low", 2014, 2, 1e12)], "low", "low")
    synthetic_runs.tuned(store, "timed", "low", debt=None, granted=None)
    context = gather(store, "timed")
    facts = {fact.label: fact.values for fact in experimental_setup.facts(context, context.tracks[0])}
    assert "not measured in pairs granted" in facts["Tuning"][0][0]
    assert findings.warnings(context) == []


def test_each_vocabulary_has_a_target_alone_of_its_own(store: Store):
    kinds = {"one": "400 subwords", "two": "400 subwords", "letters": "50 characters"}
    runs = [
        Synthetic(row, row, 2017, 4, 1e12, probed=True, tags={"vocabulary.target": f"{kind}, sha256 ab"})
        for row, kind in kinds.items()
    ]
    synthetic_runs.suite(store, "vocabularies", runs, "one,two,letters", "one")
    context = gather(store, "vocabularies")
    names = [row[0].text for row in detail_tables.probes(context).rows]
    assert names == ["one", "two", "letters", "target only, 400 subwords", "target only, 50 characters"]
    plot = next(plot for plot in detail_plots.all_detail_plots(context) if plot.id.startswith("probes"))
    assert "target only, 50 characters: 60.0 % at pronoun" in plot.text


def test_what_a_sweep_found_is_a_table(odd: Context):
    best = odd.row("best").name
    assert [[entry.text for entry in row] for row in detail_tables.settings(odd).rows] == [
        [best, "training.optimizer.lr", "0.00312", formatting.percent(0.75)]
    ]
    assert [[entry.text for entry in row] for row in detail_tables.fronts(odd).rows] == [
        [best, "10.0", "5.00", "training.optimizer.lr 0.001"],
        [best, "30.0", "9.00", "training.optimizer.lr 0.00312"],
    ]


def test_leakage_is_a_warning(odd: Context, level: Context):
    (warning,) = findings.warnings(odd)
    assert warning.startswith("Leakage: 3\u00a0pairs of the split test of toy-en-de")
    assert warning in write.page(odd)
    assert findings.warnings(level) == []
    missing = dict(experimental_setup.missing(level))
    for what in ("Expected best against tuning budget", "BLEU by length", "Attention maps", "Corpus statistics"):
        assert missing[what]
        assert what not in dict(experimental_setup.missing(odd))


def test_a_row_that_is_better_where_both_have_seeds_is_named(store: Store):
    """The highest mean may be that of a row whose one seed is below that of another row, which has no other."""
    runs = [
        Synthetic("one", "One", 2015, 5, 1e12),
        *(Synthetic("top", "Top", 2017, 2 if seed == 1 else 40, 2e12, seed) for seed in range(1, 7)),
    ]
    synthetic_runs.suite(store, "seeds", runs, "one,top", "one")
    context = gather(store, "seeds")
    test = context.comparison(context.tracks[0], "top", "one")
    assert test
    assert test.verdict == "worse"
    (paragraph,) = findings.sentences(context)
    assert paragraph.startswith("Top has the highest BLEU")
    assert re.search(
        r"\): significantly below One \(−\d+\.\d by seed 1 of 6, p.*?\), on the seeds that both have\. It took",
        paragraph,
    )


def test_a_score_over_seeds_says_how_it_was_searched_for(level: Context):
    number = level.row("one").cells[level.tracks[0]].number("bleu", "test")
    assert number
    assert number.provenance.endswith("resamples, 2 seeds and sentences; beam 5, alpha 1.0")


def test_a_sweep_that_asked_for_no_bleu_is_no_curve_of_it(store: Store):
    for number, scored in enumerate(((True, False), (False,)), 1):
        row = f"swept-{number}"
        for of in scored:
            synthetic_runs.sweep(store, row, of)
        synthetic_runs.suite(store, row, [Synthetic(row, "Low", 2014, 2, 1e12)], row, row)
        context = gather(store, row)
        points = context.tuning.get(context.tracks[0], {})
        assert [(point.budget, point.best) for point in points.get(row, [])][-1:] == (
            [(4000, 30)] if number == 1 else []
        )


def test_the_command_of_a_suite_is_the_one_that_was_given(store: Store):
    synthetic_runs.suite(store, "demo", [Synthetic("low", "Low", 2014, 2, 1e12)], "low", "low")
    assert "All rows" not in dict(experimental_setup.commands(gather(store, "demo")))
    command = "bench suite experiments/demo.yaml --seeds 1 2 3"
    store.start_parent("demo", {"command": command})
    assert dict(experimental_setup.commands(gather(store, "demo")))["All rows"] == command
