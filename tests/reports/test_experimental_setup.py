"""The experimental setup, and the reasons for missing numbers."""

from __future__ import annotations

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
    assert dict(experimental_setup.missing(level))["Two, EN-DE, some seeds"] == "seed 3 interrupted (SIGTERM: saved)"


def test_the_command_of_a_suite_is_printed(store: Store):
    synthetic_runs.suite(store, "demo", [Synthetic("low", "Low", 2014, 2, 1e12)], "low", "low")
    assert "All rows" not in dict(experimental_setup.commands(gather(store, "demo")))
    command = "bench suite experiments/demo.yaml --seeds 1 2 3"
    store.start_parent("demo", {"command": command})
    assert dict(experimental_setup.commands(gather(store, "demo")))["All rows"] == command
