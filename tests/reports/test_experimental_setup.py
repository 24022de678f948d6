"""The experimental setup, and the reasons for missing numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.tracking.store import Store
from reports.gathering.context import Context
from reports.gathering.gather_runs import gather
from reports.text import experimental_setup
from tests.helpers import synthetic_runs
from tests.helpers.synthetic_runs import HOSTILE, Synthetic

pytestmark = synthetic_runs.quiet_mlflow


def test_missing_numbers_have_a_reason(odd: Context, level: Context):
    found = dict(experimental_setup.missing(odd))
    assert found["Broken, EN-DE"] == f"seed 1 failed (Diverged: {HOSTILE})"
    assert found["absent, EN-DE"] == "not run"
    assert found[f"Latency p50, Plain {HOSTILE}"] == "no clock"
    assert found["Peak memory, every row"] == "not recorded by the run"
    assert found["EN-FR"].startswith("the suite has no run of it")
    assert found["Probe of order, EN-DE"].startswith("the corpus has no contrasts of it")
    assert "Probe of pronoun, EN-DE" not in found  # measured
    assert not any(what.startswith("Probe of") for what in dict(experimental_setup.missing(level)))  # no probes at all
    assert dict(experimental_setup.missing(level))["Two, EN-DE, some seeds"] == "seed 3 interrupted (SIGTERM: saved)"


def test_the_usual_value_is_that_of_most_rows_whatever_their_names(store: Store):
    """A name with commas counts once."""
    runs = [Synthetic(row, name, 2017, 4, 1e12) for row, name in (("odd", "Odd, one, head"), ("a", "A"), ("b", "B"))]
    synthetic_runs.suite(store, "commas", runs, "odd,a,b", "a")
    context = gather(store, "commas")
    (run,) = context.row("odd").cells[context.tracks[0]].runs.values()
    run.params["decoding.beam"] = "1"
    assert ("Odd, one, head", "decoding.beam 1; most rows: 5 (EN-DE)") in experimental_setup.deviations(context)


def test_a_setting_without_a_majority_has_no_usual_value(store: Store):
    runs = [Synthetic(row, row.upper(), 2017, 4, 1e12) for row in ("a", "b")]
    synthetic_runs.suite(store, "two beams", runs, "a,b", "a")
    context = gather(store, "two beams")
    (run,) = context.row("a").cells[context.tracks[0]].runs.values()
    run.params["decoding.beam"] = "1"
    found = [line for line in experimental_setup.deviations(context) if "beam" in line[1]]
    assert sorted(found) == [("A", "decoding.beam 1 (EN-DE)"), ("B", "decoding.beam 5 (EN-DE)")]


def test_a_number_that_one_direction_lacks_is_missing_there_only(store: Store):
    runs = [
        Synthetic(row, row.upper(), 2017, 4, 1e12, 1, f"toy-{direction}", costs=costs)
        for row in ("a", "b")
        for direction, costs in (("en-de", {}), ("en-fr", {"energy_j": 5.0}))
    ]
    synthetic_runs.suite(store, "half measured", runs, "a,b", "a")
    found = dict(experimental_setup.missing(gather(store, "half measured")))
    assert [what for what in found if what.startswith("Energy")] == ["Energy, A (EN-DE); B (EN-DE)"]


def test_rows_that_cannot_be_compared_with_the_baseline_are_named(store: Store):
    runs = [
        Synthetic("base", "Base", 2017, 4, 1e12, 1),
        Synthetic("apart", "Apart", 2016, 4, 1e12, 2),
        Synthetic("near", "Near", 2016, 4, 1e12, 1),
    ]
    synthetic_runs.suite(store, "apart", runs, "apart,near,base", "base")
    missing = experimental_setup.missing(gather(store, "apart"))
    assert ("Apart, EN-DE: Significance", "the row and the baseline have no seed in common") in missing
    assert not any(what.startswith("Near") and "Significance" in what for what, _ in missing)
    synthetic_runs.suite(store, "no base", runs[1:], "apart,near,base", "base")
    assert ("Significance", "the baseline has no finished run") in experimental_setup.missing(gather(store, "no base"))


def test_trials_that_are_elsewhere_are_no_missing_search(level: Context):
    searched = replace(level, tuned={"two": {"sweep": "tune-demo"}}, tuning={})
    said = [why for _, why in experimental_setup.missing(searched)]
    assert "the trials of the equal search are not among these runs but in experiments/tuned" in said
    assert "no sweep has searched settings of these rows" not in said


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("commit", "dirty", "printed"),
    [
        (COMMIT, "false", "0123456789ab"),
        (COMMIT, "true", "0123456789ab with uncommitted changes"),
        (COMMIT, "unknown", "0123456789ab; unknown whether there were uncommitted changes"),
        ("unknown", "unknown", "unknown"),
        ("", "false", "unknown"),  # what earlier versions recorded where git refused
    ],
)
def test_an_unknown_commit_is_printed_as_unknown(
    store: Store, commit: str, dirty: str, printed: str, request: pytest.FixtureRequest
):
    suite = f"commit-{request.node.name}"
    tags = {"mlflow.source.git.commit": commit, "git.dirty": dirty}
    hardware = {"hardware.cpu": "unknown", "hardware.cores": "unknown", "threads": "2", "hardware.gpu": "unknown"}
    rows = [
        Synthetic("known", "Known", 2014, 2, 1e12, tags={"mlflow.source.git.commit": COMMIT, "git.dirty": "false"}),
        Synthetic("asked", "Asked", 2015, 3, 1e12, tags={**tags, **hardware, "version.torch": "unknown"}),
    ]
    synthetic_runs.suite(store, suite, rows, "known", "known")
    context = gather(store, suite)
    facts = {fact.label: dict(fact.values) for fact in experimental_setup.facts(context, context.tracks[0])}
    code = {"0123456789ab": ""} if printed == "0123456789ab" else {"0123456789ab": "Known", printed: "Asked"}
    assert facts["Code"] == code
    assert facts["Hardware"]["unknown processor, unknown cores, 2 threads, unknown GPU"] == "Asked"
    assert facts["Software"]["torch unknown"] == "Asked"


def test_the_command_of_a_suite_is_printed(store: Store):
    synthetic_runs.suite(store, "demo", [Synthetic("low", "Low", 2014, 2, 1e12)], "low", "low")
    assert "All rows" not in dict(experimental_setup.commands(gather(store, "demo")))
    command = "bench suite experiments/demo.yaml --seeds 1 2 3"
    store.start_parent("demo", {"command": command})
    assert dict(experimental_setup.commands(gather(store, "demo")))["All rows"] == command
