"""What is read from the runs of a suite."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from bench.measures.measure import Measure
from bench.tracking.reading import JOBS_TAG
from bench.tracking.speeds import TOGETHER
from bench.tracking.store import Store
from reports import write
from reports.gathering import rows
from reports.gathering.context import Context
from reports.gathering.gather_runs import gather
from reports.tables.table import score_entry
from reports.text import metric_format
from tests.helpers import synthetic_runs
from tests.helpers.synthetic_runs import Synthetic
from tests.helpers.tracking_folder import new_store

pytestmark = synthetic_runs.quiet_mlflow


def csv_lines(context: Context) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(write.csv(context))))


def test_only_the_newest_finished_run_of_each_seed_is_used(level: Context):
    values = {(line["row"], line["direction"], line["metric"]): line for line in csv_lines(level)}
    assert values["one", "en-de", "train_flops"]["value"] == "1000000000000"
    assert values["two", "en-de", "bleu"]["seeds"] == "1 2"
    assert len(values["two", "en-de", "bleu"]["run"].split()) == 2
    assert values["one", "en-fr", "bleu"]["value"] == ""


def test_the_report_shows_the_jobs_of_the_last_command(store: Store):
    """A suite was run, then with a larger budget, and then again as at first: its jobs had been finished."""
    parent = store.start_parent("again", {"rows": "one", "baseline": "one"})
    for job_hash, cost in (("11111111aaaaaaaa", 1e12), ("22222222bbbbbbbb", 2e12)):
        Synthetic("one", "One", 2015, 5, cost, tags={"job_hash": job_hash}).write(store, "again", parent)

    def flops() -> float | None:
        row = gather(store, "again").row("one")
        return next(iter(row.cells.values())).value("train_flops")

    assert flops() == 2e12
    store.start_parent("again", {JOBS_TAG: "11111111 33333333"})
    assert flops() == 1e12
    store.start_parent("again", {JOBS_TAG: "33333333"})
    assert flops() == 2e12, "a job that has not ended has no numbers; the newest run stands for it"


def test_a_row_without_runs_has_its_name_and_published_numbers(store: Store):
    about = {"last": {"name": "Transformer (base)", "year": "2017"}}
    parent = store.start_parent("stopped", {"rows": "first,last", "baseline": "last", "about": json.dumps(about)})
    Synthetic("first", "First", 2014, 2, 1e12).write(store, "stopped", parent)
    row = gather(store, "stopped").row("last")
    assert (row.name, row.year) == ("Transformer (base)", 2017)
    assert row.published
    assert [cell.state for cell in row.cells.values()] == ["not run"]


def test_several_seeds_are_averaged_and_each_is_printed(level: Context):
    cell = level.row("two").cells[level.tracks[0]]
    number = cell.number("bleu", "test")
    assert number is not None
    assert list(number.seeds) == [1, 2]
    assert number.value == pytest.approx(sum(value or 0 for value in number.seeds.values()) / 2)
    assert "Student's t over 2 seeds, and sentences" in number.provenance
    entry = score_entry("bleu", number)
    assert entry.details[1] == ", ".join(metric_format.value("bleu", value) for value in number.seeds.values())
    assert cell.failures == ((3, "interrupted", "SIGTERM: saved"),)


@pytest.mark.parametrize(
    ("name", "ui", "message"),
    [("nowhere", None, "there is no suite 'nowhere'"), ("odd", "javascript:alert(1)", "--ui_url")],
)
def test_wrong_names_and_addresses_raise_one_line(odd: Context, store: Store, name: str, ui: str | None, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        gather(store, name, ui)


def test_an_empty_store_raises_a_message_with_the_next_step(tmp_path: Path):
    with pytest.raises(ValueError, match="make some with bench suite"):
        gather(new_store(tmp_path), None)


def test_provenances_of_all_seeds_are_joined():
    def latency(seed: int, value: float | None, *provenance: str) -> dict[int, Measure]:
        noisy = "NOISY: other processes" in provenance
        return {seed: Measure("latency_p50_ms", value, "ms", provenance="; ".join(provenance), noisy=noisy)}

    quiet, noisy = latency(1, 2.0, "batch 1", "quiet"), latency(2, 4.0, "batch 1", "NOISY: other processes")
    both = rows._number(quiet | noisy)
    assert (both.value, both.provenance) == (3.0, "batch 1; quiet; NOISY: other processes; mean of 2 seeds")
    assert both.noisy
    absent = rows._number(quiet | latency(3, None, "no clock"))
    assert (absent.value, absent.provenance, absent.noisy) == (None, "no clock", False)
    once = rows._number(quiet | latency(2, 3.0, TOGETHER, "batch 1") | latency(3, 3.0, TOGETHER, "batch 1"))
    assert (once.provenance, once.seeds) == (f"{TOGETHER}; batch 1", {2: 3.0}), "one measurement, not a mean"


def test_metrics_of_groups_are_not_taken_for_test_sets(odd: Context):
    assert odd.tracks[0].test_sets == ("test",)
    cell = odd.row("best").cells[odd.tracks[0]]
    assert cell.value("test/bleu/length/6-10") == 70
    assert list(cell.below("contrastive")) == ["pronoun", "pronoun/1", "pronoun/4"]


def test_attention_is_the_mean_over_heads_of_the_last_layer(odd: Context):
    (looks,) = odd.attention[odd.tracks[0]].values()
    assert looks["weights"][0] == pytest.approx([0.8, 0.2, 0.0])


def test_provenance_of_a_score_over_seeds_has_the_beam(level: Context):
    number = level.row("one").cells[level.tracks[0]].number("bleu", "test")
    assert number
    assert number.provenance.endswith("resamples, Student's t over 2 seeds, and sentences; beam 5, alpha 1.0")
