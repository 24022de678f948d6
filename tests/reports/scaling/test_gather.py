"""A study is read from its runs: points, missing runs, sizes, and checks of the learning rate."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bench.measures.measure import Measure
from bench.scaling.points import Point
from bench.tracking.reading import STUDY_TAG, TrackedRun
from reports.report import StudyReport, read
from reports.scaling.gather import gather, is_study
from reports.scaling.study import RateCheck, Size
from reports.scaling.study_summary import best_points
from reports.site import write_site
from reports.text.catalogue import load_catalogue

START = datetime(2026, 11, 27, tzinfo=UTC)
RATES = {"lstm": {"S": 0.02, "M": 0.01}, "moe": {"S": 0.03}}
JOBS = [
    ("lstm", "S", 100, 1, 1.0),
    ("lstm", "S", 100, 2, 1.0),
    ("moe", "S", 100, 1, 1.0),
    ("lstm", "S", 200, 1, 1.0),
    ("lstm", "M", 200, 1, 1.0),
    ("lstm", "M", 200, 1, 2.0),
    ("moe", "S", 200, 1, 1.0),
]
PLAN: dict[str, Any] = {
    "rules": {"training.optimizer.lr": -0.5},
    "sizes": {
        "lstm": {"S": {"model": {"hidden": 8}, "rate": 0.02}, "M": {"model": {"hidden": 16}, "rate": 0.01}},
        "moe": {"S": {"model": {"width": 4}, "rate": 0.03}},
    },
    "jobs": [
        dict(zip(("row", "size", "pairs", "seed", "factor"), job, strict=True)) | {"job_hash": "-".join(map(str, job))}
        for job in JOBS
    ],
}


def run(number: int, row: str, size: str, pairs: int, seed: int, loss: float | None, **changed: Any) -> TrackedRun:
    tags = {
        "row": row,
        "size": size,
        "seed": str(seed),
        "corpus": "grammar-en-de",
        "hardware.cpu": changed.get("cpu", "Chip"),
        "threads": "1",
        "job_hash": "-".join(map(str, (row, size, pairs, seed, changed.get("factor", 1.0)))),
    }
    params = {"training.max_pairs": str(pairs), "text.vocabulary_size": "90"}
    metrics = {} if loss is None else {"loss": loss}
    started = START + timedelta(minutes=number)
    return TrackedRun(f"run{number}", "", changed.get("status", "FINISHED"), started, tags, params, metrics)


class FakeReader:
    """A `Reader` with one study, newest run first."""

    uri = "memory"

    def __init__(self, *runs: TrackedRun, plan: Any = None) -> None:
        self.found = sorted(runs, key=lambda run: run.started, reverse=True)
        self.plan = PLAN if plan is None else plan

    def suites(self) -> list[str]:
        return ["curves"]

    def runs(self, suite: str) -> list[TrackedRun]:
        return self.found

    def parent_run(self, suite: str) -> TrackedRun:
        about = {"lstm": {"name": "LSTM"}, "moe": {"name": "MoE"}}
        tags = {STUDY_TAG: "true" if self.plan else ""}
        tags |= {"rows": "lstm,moe", "about": json.dumps(about), "question": "Which?"}
        return TrackedRun("parent", "", "FINISHED", START, tags | {"command": "bench scale curves.yaml"}, {}, {})

    def read_json(self, run: TrackedRun, name: str) -> Any:
        return self.plan

    def measures(self, run: TrackedRun) -> list[Measure]:
        if not run.metrics:
            return []
        pairs = float(run.params["training.max_pairs"]) + int(run.tags["seed"])  # the last batch is full
        numbers = {
            "params_core": 10,
            "params_multiplied": 20,
            "params": 30,
            "pairs": pairs,
            "target_tokens": 12 * pairs,
        }
        numbers |= {"train_flops": 1e6 * pairs, "wall_s": 5.0, "validation_excess_loss": run.metrics["loss"]}
        numbers |= {"test/bleu": 7.0, "test/bleu/length/10": 9.0}
        return [Measure(name, value, "") for name, value in numbers.items()]


RUNS = (
    run(1, "lstm", "S", 100, 1, 3.0),
    run(2, "lstm", "S", 100, 2, 3.2),
    run(3, "lstm", "S", 200, 1, 2.5),
    run(4, "lstm", "M", 200, 1, 2.0),
    run(5, "lstm", "M", 200, 1, 2.1, factor=2.0),
    run(6, "moe", "S", 100, 1, 2.9, status="FAILED"),
    run(7, "lstm", "S", 100, 1, 3.1),  # --again: the newest counts
)


def test_finished_runs_of_the_rule_are_points_in_the_order_of_the_study() -> None:
    study = gather(FakeReader(*RUNS), "curves")  # pyright: ignore[reportArgumentType]  # only what is read
    assert [(point.run, point.size, point.pairs, point.seed, point.loss) for point in study.points] == [
        ("run7", "S", 101, 1, 3.1),
        ("run2", "S", 102, 2, 3.2),
        ("run3", "S", 201, 1, 2.5),
        ("run4", "M", 201, 1, 2.0),
    ]
    counts = 10, 20, 30
    assert study.points[0] == Point("lstm", "run7", "S", 1, *counts, 12 * 101, 101, 1.01e8, 5.0, 3.1, 7.0)
    assert study.failed == ("moe S 100 pairs s1", "moe S 200 pairs s1")
    assert study.sizes == (
        Size("lstm", "S", "hidden 8", 10, 20, 30, 0.02, 2),
        Size("lstm", "M", "hidden 16", 10, 20, 30, 0.01, 1),
    )
    assert study.rate_checks == (
        RateCheck("lstm", "M", 200, 1.0, 2.0, 2.01e8, 5.0),
        RateCheck("lstm", "M", 200, 2.0, 2.1, 2.01e8, 5.0),
    )
    assert (study.labels, study.date, study.device) == ({"lstm": "LSTM", "moe": "MoE"}, "2026-11-27", "Chip, 1 threads")
    assert study.rate_rule == "training.optimizer.lr = recipe × (N / N of the recipe)^-0.5"


@pytest.mark.parametrize(
    ("loss", "said"),
    [(None, " (finished without validation_excess_loss: add --again)"), (math.nan, ""), (math.inf, "")],
)
def test_a_run_without_numbers_is_missing(loss: float | None, said: str) -> None:
    study = gather(FakeReader(run(1, "lstm", "S", 100, 1, loss)), "curves")  # pyright: ignore[reportArgumentType]
    assert study.points == ()
    assert f"lstm S 100 pairs s1{said}" in study.failed


def test_an_excess_loss_of_0_is_a_point() -> None:
    """Of a model that knows everything it is 0, or below by rounding; fits take its logarithm."""
    study = gather(FakeReader(run(1, "lstm", "S", 100, 1, -1e-8)), "curves")  # pyright: ignore[reportArgumentType]
    assert [point.loss for point in study.points] == [1e-6]


def test_direct_pairs_are_read_apart_from_the_curves() -> None:
    both = [
        {"row": row, "size": "S", "pairs": None, "seed": seed, "factor": 1.0, "job_hash": f"direct-{row}-{seed}"}
        for row in ("lstm", "moe")
        for seed in (1, 2)
    ]
    missing = [one | {"job_hash": f"other-{one['row']}"} for one in both if one["seed"] == 1]
    plan = PLAN | {"direct": [{"flops": 2e8, "runs": both}, {"flops": 3e8, "runs": missing}]}
    runs = [
        replace(made, tags=made.tags | {"job_hash": f"direct-{row}-{seed}"})
        for number, row, seed, loss in ((8, "lstm", 1, 2.2), (9, "moe", 1, 2.4), (10, "moe", 2, 2.6))
        for made in [run(number, row, "S", 150, seed, loss)]
    ]
    study = gather(FakeReader(*RUNS, *runs, plan=plan), "curves")  # pyright: ignore[reportArgumentType]
    assert len(study.points) == 4
    (pair,) = study.direct
    losses = [[run.loss for run in runs] for runs in (pair.first, pair.second)]
    assert (pair.flops, losses) == (2e8, [[2.2], [2.4, 2.6]])
    assert pair.difference == pytest.approx(2.2 - 2.5)
    assert study.failed[-3:] == ("lstm S 2e+08 FLOPs s2", "lstm S 3e+08 FLOPs s1", "moe S 3e+08 FLOPs s1")
    assert [run.flops for run in study.further_runs] == [2.01e8, 1.51e8, 1.51e8, 1.52e8]
    assert study.score == "test/bleu"


def test_a_suite_is_no_study() -> None:
    assert not is_study(FakeReader(plan={}), "curves")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="curves: not a scaling study in memory; start one with bench scale FILE"):
        gather(FakeReader(plan={}), "curves")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("plan", [{"sizes": {}}, {**PLAN, "jobs": [{"row": "lstm"}]}])
def test_a_damaged_description_gives_one_line(plan: Any) -> None:
    with pytest.raises(ValueError, match=r"curves: the file study\.json of the study's run is damaged"):
        gather(FakeReader(*RUNS, plan=plan), "curves")  # pyright: ignore[reportArgumentType]


def test_a_run_of_another_recipe_is_not_one_of_the_study() -> None:
    """Its job hash differs, although row, size, budget and seed are the same."""
    other = replace(RUNS[0], tags=RUNS[0].tags | {"job_hash": "other"})
    study = gather(FakeReader(other), "curves")  # pyright: ignore[reportArgumentType]
    assert study.points == ()
    assert "lstm S 100 pairs s1" in study.failed


def test_seconds_of_several_devices_are_not_compared() -> None:
    runs = (*RUNS[:3], run(4, "lstm", "M", 200, 1, 2.0, cpu="Other"))
    study = gather(FakeReader(*runs), "curves")  # pyright: ignore[reportArgumentType]
    assert {point.seconds for point in study.points} == {None}
    assert study.device == "Chip, 1 threads; Other, 1 threads"


def test_commands_choose_the_report_by_the_run_of_the_suite() -> None:
    report = read(FakeReader(*RUNS), None)  # pyright: ignore[reportArgumentType]
    assert isinstance(report, StudyReport)
    columns, lines, title = report.table()
    assert title == "Best run of each row (curves)"
    assert len(columns) == 7
    assert lines == [["LSTM", "M", "201", "2.01\u00a0×\u00a010⁸", "2.000", "7.0", "run4"]]
    assert report.metrics()["lstm/lowest_excess_loss"] == 2.0
    assert report.metrics()["runs_missing"] == 2
    assert "/run4)" in report.description("7", "parent", {"run4"})
    assert "/run4)" not in report.description("7", "parent", {"run5"}), "the store has no such run"
    with pytest.raises(ValueError, match="--compare: curves is a scaling study"):
        read(FakeReader(*RUNS), "curves", compare_with="other")  # pyright: ignore[reportArgumentType]


def test_the_best_cell_is_the_one_with_the_lowest_mean_over_seeds() -> None:
    study = gather(FakeReader(*RUNS[:3]), "curves")  # pyright: ignore[reportArgumentType]
    assert [point.run for point in best_points(study)["lstm"]] == ["run3"]


def test_a_report_of_a_study_in_progress_is_written(tmp_path: Any) -> None:
    report = StudyReport(gather(FakeReader(*RUNS), "curves"), load_catalogue("ko"))  # pyright: ignore[reportArgumentType]
    page, *others = report.write(tmp_path, "../index.html")
    assert page.name == "report.html"
    assert "../index.html" in page.read_text(encoding="utf-8")
    assert {"report.md", "report.csv", "points.csv"} <= {path.name for path in others}


def test_the_site_lists_a_study(tmp_path: Any) -> None:
    index, page = write_site([FakeReader(*RUNS)], tmp_path)  # pyright: ignore[reportArgumentType]
    text = index.read_text(encoding="utf-8")
    assert 'href="suites/curves/report.html"' in text
    assert "Which?" in text
    assert page == tmp_path / "suites" / "curves" / "report.html"
