"""The comparison table and the detail tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.measures.other_code import FIRST_LOSSES_TAG, committed
from bench.tracking.store import Store
from reports import write
from reports.gathering.context import Context
from reports.gathering.gather_runs import gather
from reports.plots import detail_plots, main_plots
from reports.tables import detail_tables
from reports.tables.comparison_table import comparison_table, direction_note
from tests.helpers import synthetic_runs
from tests.helpers.synthetic_runs import Synthetic

pytestmark = synthetic_runs.quiet_mlflow


def test_the_best_score_is_marked_only_if_significant(store: Store, odd: Context, level: Context):
    rows = {"low": 2, "high": 20}
    runs = [Synthetic(row, row, 2017, wrong, 1e12, seed) for row, wrong in rows.items() for seed in (1, 2, 3)]
    synthetic_runs.suite(store, "clear", runs, "low,high", "low")
    marked = [row[0].sort for row in comparison_table(gather(store, "clear")).rows for entry in row if entry.best]
    assert marked == ["high"]
    for context in (odd, level):  # one seed; two seeds with equal scores
        assert not any(entry.best for row in comparison_table(context).rows for entry in row)


def test_a_note_says_which_direction_is_better(odd: Context):
    """The registry has the directions."""
    note = direction_note(odd)
    assert note.startswith(
        "Higher is better: BLEU; Throughput. Lower is better: Training FLOPs, counted; Clock estimate"
    )
    assert note in write.table_notes(odd)


def test_published_numbers_have_their_own_columns(odd: Context):
    main = comparison_table(odd)
    own = [column.own for column in main.columns]
    assert own == sorted(own, reverse=True)
    published = [entry.text for entry, ours in zip(main.rows[-1], own, strict=True) if not ours]
    flops = "3.3\u00a0×\u00a010¹⁸"
    assert published == ["27.3", "38.1", flops, flops]


def test_every_form_has_the_columns_that_the_page_opens(odd: Context, odd_report: Path):
    """Markdown has all columns, LaTeX those with numbers."""
    columns = comparison_table(odd).columns
    opened = [column.full_heading for column in columns if column.opened_by]
    assert opened == [
        "Training cost, clock estimate, FLOP",
        "Training cost, energy, J",
        "Latency, ms, p95",
        "Throughput, sentences/s",
        "Peak memory, MiB",
        "Wall time",
        "Published cost, clock estimate, FLOP, EN-DE",
        "Published cost, clock estimate, FLOP, EN-FR",
    ]
    lines = (odd_report / "report.md").read_text().splitlines()
    assert f"| {' | '.join(column.full_heading for column in columns)} |" in lines
    latex = (odd_report / "report.tex").read_text()
    assert "Published cost, clock estimate, FLOP" in latex
    assert "Wall time" in latex


def test_the_paired_seeds_are_printed_if_they_are_not_all(mixed: Context):
    low, high = detail_tables.significance(mixed).rows
    assert low[2].details == high[2].details == ("by seed 1 of 3",)
    below = mixed.comparison(mixed.tracks[0], "low", "high")
    assert below is not None
    assert (below.seeds, below.total_seeds) == ((1, 2, 3), 3)


def test_target_only_accuracy_stands_below_the_rows(odd: Context):
    rows = [[entry.text for entry in row] for row in detail_tables.probes(odd).rows]
    assert rows == [["Transformer (base)", "75.0", "50.0"], ["target only", "60.0", "50.0"]]


def test_each_vocabulary_has_its_own_target_only_model(store: Store):
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


def test_bleu_13a_stands_beside_bleu_with_another_tokenizer(chinese: Context, odd: Context):
    (track,) = chinese.tracks
    table = detail_tables.scores(chinese)
    column = [entry.heading for entry in table.columns].index("BLEU, 13a")
    assert [row[0].text for row in table.rows] == ["Old", "Flat", "High"]
    assert [row[column].text != "—" for row in table.rows] == [False, True, True]
    number = chinese.row("flat").cells[track].number("bleu_13a", "test")
    assert number
    assert number.low is not None
    assert "Student's t over 2 seeds, and sentences" in number.provenance
    assert ",test,high,demo,en-zh,1,bleu_13a," in write.csv(chinese)
    assert "EN-ZH: BLEU is counted with sacreBLEU's tokenizer zh" in "".join(write.table_notes(chinese))
    assert "BLEU, 13a" not in [entry.heading for entry in detail_tables.scores(odd).columns]
    assert "tokenizer" not in "".join(write.table_notes(odd))


def test_bleu_with_another_tokenizer_is_not_tested(chinese: Context):
    (track,) = chinese.tracks
    assert chinese.comparison(track, "flat", "high")
    assert chinese.comparison(track, "old", "high") is None


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_row_that_other_code_has_made_is_marked(store: Store, language: str):
    """In the table with a footnote, beside the mark of a row that still improves, and on the terminal."""
    losses = committed()["perceptron"]
    stored = {1: json.dumps(losses), 2: json.dumps([losses[0] * 1.001, *losses[1:]]), 3: "no losses"}
    runs = [
        *(
            Synthetic("perceptron", "P", 1958, 4, 1e12, seed, best_at=-1, tags={FIRST_LOSSES_TAG: of_seed})
            for seed, of_seed in stored.items()
        ),
        Synthetic("mlp", "Before", 1986, 5, 1e12),
        Synthetic("lstm", "Gone", 1986, 5, 1e12, tags={FIRST_LOSSES_TAG: "[1.0, 2.0, 3.0]"}),
    ]
    suite = f"other code {language}"
    synthetic_runs.suite(store, suite, runs, "perceptron,mlp,lstm", "mlp")
    context = gather(store, suite, language=language)
    assert [row[3].mark for row in comparison_table(context).rows] == ["†‡", "", "‡"]
    mark, note = comparison_table(context).footnotes[1]
    assert mark == "‡"
    assert re.search(r"P, 2/.*; Gone", note)
    _, rows, _ = write.terminal(context)
    assert [" ‡" in row[3] for row in rows] == [True, False, True]
    assert write.terminal_notes(context) == [f"‡ {note}"]
    page = write.page(context)
    assert '<a href="#comparison-†">†</a></sup><sup><a href="#comparison-‡">‡</a>' in page
    assert 'id="comparison-‡"' in page


@pytest.mark.parametrize(("language", "wanted"), [("en", "(8 of 9\u00a0runs)."), ("ko", "(실행 9개 중 8개).")])
def test_a_footnote_counts_the_runs_if_it_would_name_many_rows(store: Store, language: str, wanted: str):
    rows = [f"row{number}" for number in range(8)]
    runs = [Synthetic(row, row, 2000, 4, 1e12, best_at=-1) for row in rows]
    runs.append(Synthetic("level", "Level", 2016, 5, 1e12, best_at=0))
    suite = f"all improving {language}"
    synthetic_runs.suite(store, suite, runs, ",".join([*rows, "level"]), "level")
    table = comparison_table(gather(store, suite, language=language))
    assert [row[3].mark for row in table.rows] == ["†"] * 8 + [""]
    assert table.footnotes[0][1].endswith(wanted)


def test_a_row_whose_best_weights_are_its_last_is_marked(store: Store):
    """In the table with a footnote that names the seeds, and beside the learning curves."""
    runs = [
        *(Synthetic("rising", "Rising", 2015, 4, 1e12, seed, best_at=-1 if seed < 3 else 0) for seed in (1, 2, 3)),
        Synthetic("level", "Level", 2016, 5, 1e12, best_at=0),
        Synthetic("short", "Short", 2016, 5, 1e12, best_at=-1, validations=1),  # one validation does not show a trend
        Synthetic("unknown", "Unknown", 2016, 6, 1e12),
    ]
    synthetic_runs.suite(store, "improving", runs, "rising,level,short,unknown", "level")
    context = gather(store, "improving")
    table = comparison_table(context)
    assert [row[3].mark for row in table.rows] == ["†", "", "", ""]
    ((mark, note),) = table.footnotes
    assert mark == "†"
    assert note.startswith("Still improving at the end of the budget: ")
    assert note.endswith("(Rising, 2/3\u00a0seeds).")
    page = write.page(context)
    assert '<sup><a href="#comparison-†">†</a></sup>' in page
    assert '<li id="comparison-†">' in page
    plot = next(plot for plot in main_plots.all_plots(context) if plot.id.startswith("curves"))
    assert "Rising ends at 40.0 BLEU, still improving; Level ends at 40.0 BLEU; " in plot.text
    assert plot.caption.endswith("†: still improving at the end of the budget.")
    assert plot.svg().count("Rising †") == 2  # one for each panel
    without = next(plot for plot in main_plots.all_plots(gather(store, "mixed")) if plot.id.startswith("curves"))
    assert "†" not in without.caption + without.svg()
