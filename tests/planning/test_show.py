"""The forms of a plan."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import Experiment
from bench.planning import show
from bench.planning.plan import Plan, Resources
from bench.planning.workload import Workload
from tests.helpers.known_runs import planned


@pytest.fixture
def plan(experiment: Experiment, workload: Workload) -> Plan:
    return Plan([planned(experiment, workload)], Resources(workers=1, threads=1))


def test_the_headline(plan: Plan) -> None:
    text = show.headline(plan, "suite").replace("\u00a0", " ")
    assert text.startswith("This suite needs about ")
    assert "of 1 core (1 row, 1 direction, 1 seed), 0." in text
    assert text.endswith("MB of disk.")


def test_seeds_of_the_members_of_an_ensemble_are_not_counted(experiment: Experiment, workload: Workload) -> None:
    ensemble = resolve(row_files()["gnmt-ensemble"], row="gnmt-ensemble", preset="paper")
    assert [member.seed for member in ensemble.members] == [*range(1, 9)]
    for others, seeds in (([], "1 seed"), ([experiment], "1 seed"), ([replace(experiment, seed=9)], "2 seeds")):
        jobs = [planned(each, workload) for each in (*ensemble.members, ensemble, *others)]
        text = show.headline(Plan(jobs, Resources(workers=1, threads=1)), "suite")
        assert f", {seeds})" in text.replace("\u00a0", " ")


def test_a_study_has_a_line_for_each_size(experiment: Experiment, workload: Workload) -> None:
    """The time of a job is the mean over its budgets."""
    sizes = [(size, pairs) for pairs in (1000, 3000) for size in ("S", "M")]
    jobs = [
        planned(
            replace(
                experiment,
                about=replace(experiment.about, size=size),
                training=replace(experiment.training, max_pairs=pairs),
            ),
            workload,
        )
        for size, pairs in sizes
    ]
    plan = Plan(jobs, Resources(workers=1, threads=1))
    assert "(1 row, 1 direction, 2 sizes, 2 budgets, 1 seed)" in show.headline(plan, "study").replace("\u00a0", " ")
    lines = list(csv.DictReader(io.StringIO(show.as_csv(plan))))
    assert [(line["row"], line["size"], line["jobs"]) for line in lines[:2]] == [
        ("transformer-base", "S", "2"),
        ("transformer-base", "M", "2"),
    ]
    assert float(lines[0]["hours_per_job"]) == pytest.approx((jobs[0].seconds + jobs[2].seconds) / 2 / 3600)


def test_planned_and_real() -> None:
    assert show.predicted_and_real(6720, 7380).replace("\u00a0", " ") == "planned 1:52 h, took 2:03 h (+10 %)"
    assert show.predicted_and_real(100, 50).replace("\u00a0", " ") == "planned 2 min, took 50 s (−50 %)"


def test_json_and_csv_have_the_same_numbers(plan: Plan) -> None:
    content = json.loads(show.as_json(plan, "suite"))
    lines = list(csv.DictReader(io.StringIO(show.as_csv(plan))))
    assert [line["row"] for line in lines] == ["transformer-base", "total"]
    assert float(lines[0]["train_flops"]) == content["rows"][0]["train_flops"] == content["total"]["train_flops"] > 0
    assert content["total"]["hours"] == pytest.approx(plan.seconds / 3600)
    assert lines[0]["energy_j"] == "", "not measured, so not 0"


def test_the_table_says_where_the_speed_is_from(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    show.print_table(plan, "suite")
    printed = capsys.readouterr().out
    assert "run x" in printed
    assert "core-hours" in printed
