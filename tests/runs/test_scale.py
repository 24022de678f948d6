"""Studies of scaling curves: their jobs, and what a study records for its report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from bench.experiment.loading import resolve, row_files, sizes_of
from bench.experiment.spec import Experiment
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.runs.scale import Scale, multiplied_parameters
from bench.runs.suite_queue import SuiteQueue
from bench.tracking.reading import STUDY_FILE, STUDY_TAG
from bench.tracking.store import Store

SCHEDULE = {"warmup": 0, "hold": 0, "decay": "linear"}
STUDY: dict[str, Any] = {
    "question": "Which row is ahead?",
    "corpora": ["grammar-en-de"],
    "rows": ["perceptron", "lstm"],
    "pairs": [100, 400],
    "replicates": {"sizes": 1, "seeds": [2, 3]},
    "rules": {"training.optimizer.lr": -0.5, "model.initial": -0.25},
    "rate_checks": [{"pairs": 400, "factors": [0.5, 2.0]}],
    "settings": {"corpus": {"pairs": 400}, "training": {"schedule": SCHEDULE}},
}


def study(tmp_path: Path, **changed: Any) -> Scale:
    file = tmp_path / "curves.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in (STUDY | changed).items() if value is not None}))
    return Scale.read(file)


def described(scale: Scale, jobs: list[Experiment]) -> dict[str, Any]:
    """What `Scale.describe` writes to the store: the run, its tags, the name of the file, and the file's content."""
    written: dict[str, Any] = {}

    class FakeStore:
        def describe_parent(self, parent: str, tags: dict[str, str], content: str, name: str) -> None:
            written.update({"parent": parent, "tags": tags, "name": name, **json.loads(content)})

    scale.describe(jobs, "parent", FakeStore())  # pyright: ignore[reportArgumentType]  # only what is called
    return written


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Scale:
    return study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def jobs(scale: Scale) -> list[Experiment]:
    return scale.experiments([])


def test_every_row_has_every_size_budget_and_seed(jobs: list[Experiment]) -> None:
    lstm = [job for job in jobs if job.row == "lstm"]
    at_400 = [(job.about.size, job.seed) for job in lstm if job.training.max_pairs == 400]
    assert at_400[:7] == [("XS", 1), ("XS", 2), ("XS", 3), ("S", 1), ("M", 1), ("L", 1), ("XL", 1)]
    assert at_400[7:] == [("XL", 1), ("XL", 1)]  # the check of the learning rate
    assert len(jobs) == 2 * (7 + 7 + 2)
    assert [job.training.max_pairs for job in jobs] == [100] * 14 + [400] * 18
    assert lstm[0].name == "lstm XS 100 pairs grammar-en-de demo s1"
    assert lstm[0].run_name == "LSTM seq2seq XS 100 pairs s1"


def test_large_sizes_and_further_seeds_may_end_earlier(tmp_path: Path) -> None:
    changed = {"most_pairs": {"L": 100, "XL": 100}, "replicates": {"sizes": 2, "seeds": [2], "most_pairs": 100}}
    scale = study(tmp_path, rows=["lstm"], rate_checks=[{"pairs": 100, "factors": [2.0]}], **changed)
    jobs = [(job.training.max_pairs, job.about.size, job.seed) for job in scale.experiments([])]
    at_100 = [("XS", 1), ("XS", 2), ("S", 1), ("S", 2), ("M", 1), ("L", 1), ("XL", 1), ("XL", 1)]
    assert jobs == [(100, *job) for job in at_100] + [(400, "XS", 1), (400, "S", 1), (400, "M", 1)]


def test_a_rate_may_be_checked_at_chosen_sizes_of_some_rows(tmp_path: Path) -> None:
    checks = [{"pairs": 400, "factors": [0.5]}, {"pairs": 100, "factors": [0.25, 2.0], "sizes": {"lstm": "S"}}]
    jobs = study(tmp_path, rate_checks=checks).experiments([])
    rule = {(job.row, job.about.size): job.training.optimizer.lr for job in reversed(jobs)}
    found = [
        (job.row, job.about.size, job.training.max_pairs, factor)
        for job in jobs
        if (factor := float(f"{job.training.optimizer.lr / rule[job.row, job.about.size]:.3g}")) != 1
    ]
    assert found == [
        ("lstm", "S", 100, 0.25),
        ("lstm", "S", 100, 2.0),
        ("perceptron", "XL", 400, 0.5),
        ("lstm", "XL", 400, 0.5),
    ]


def test_rules_carry_the_recipe_to_other_sizes(jobs: list[Experiment]) -> None:
    """At four times the parameters a rate with the exponent -0.5 is half as large; a check has a multiple of it."""
    lstm = [job for job in jobs if job.row == "lstm" and job.training.max_pairs == 400]
    recipe = resolve(row_files()["lstm"], row="lstm")
    for job in lstm[2:7]:
        ratio = multiplied_parameters(job) / multiplied_parameters(recipe)
        assert job.training.optimizer.lr == pytest.approx(recipe.training.optimizer.lr * ratio**-0.5, rel=1e-3)
        assert job.model.initial == pytest.approx(recipe.model.initial * ratio**-0.25, rel=1e-3)
    rates = [job.training.optimizer.lr for job in lstm[6:]]
    assert rates[1:] == [pytest.approx(rates[0] * factor, rel=1e-3) for factor in (0.5, 2.0)]


def test_a_row_does_without_a_setting_that_it_does_not_have(jobs: list[Experiment]) -> None:
    assert {job.model.units for job in jobs if job.row == "perceptron"} == {102, 256, 666, 1700, 4496}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pairs": [400, 100]}, r"curves\.yaml: pairs: \[400, 100\]; expected budgets in sentence pairs, ascending"),
        ({"pairs": None}, r"pairs: \[\]"),
        ({"corpora": ["grammar-en-de", "grammar-en-fr"]}, "corpora: a study has one corpus"),
        ({"baseline": "lstm"}, "baseline: has no effect in a scaling study; remove it"),
        ({"more_seeds": {"lstm": [2]}}, "more_seeds: has no effect in a scaling study; remove it"),
        (
            {"rate_checks": [{"pairs": 300, "factors": [2.0]}]},
            "300 is no budget of the study; expected one of 100, 400",
        ),
        (
            {"rate_checks": [{"pairs": 100, "factors": [2.0], "sizes": {"lstn": "S"}}]},
            "no row 'lstn', did you mean lstm?",
        ),
        (
            {"rate_checks": [{"pairs": 100, "factors": [2.0], "sizes": {"lstm": "XXL"}}]},
            "no size of lstm 'XXL', did you mean XL?",
        ),
        ({"most_pairs": {"XXL": 100}}, "no size of perceptron 'XXL', did you mean XL?"),
        ({"most_pairs": {"XL": 200}}, "most_pairs: XL: 200 is no budget of the study; expected one of 100, 400"),
        ({"most_pairs": {"XL": 100}}, "rate_checks: pairs: 400 is more than the largest budget of perceptron XL, 100"),
        ({"replicates": {"most_pairs": 7}}, "replicates: most_pairs: 7 is no budget of the study"),
        ({"rules": {}}, r"rate_checks: check a rule for training\.optimizer\.lr, but rules: has none"),
        ({"settings": {"training": {"max_pairs": 5}}}, r"settings: training\.max_pairs: has no effect"),
        ({"settings": {"training": {"max_updates": 5}}}, r"settings: training\.max_updates: has no effect"),
        ({"pair": [1]}, "unknown key pair; did you mean pairs?"),
    ],
)
def test_a_file_that_does_not_fit_gives_one_line(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study(tmp_path, **changed)


@pytest.mark.parametrize(
    "flag",
    ["--seed=2", "--training.max_pairs", "--training.max_seconds", "--model.initial", "--about.size", "--model.units"],
)
def test_a_flag_that_would_make_all_jobs_equal_is_refused(scale: Scale, flag: str) -> None:
    with pytest.raises(ValueError, match="would be the same for all jobs, but the study sets it for each"):
        scale.experiments([flag, "1"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corpus": {"pairs": 399}}, "399 is less than the largest budget, 400, so sentences would repeat"),
        ({"corpus": {}}, "corpus.pairs: 8000 is less than the largest budget, 9000"),
        (
            {"model": {"units": 5}},
            "settings: model.units: has no effect, because the sizes of the rows set it; remove it",
        ),
        (
            {"training": {"schedule": {"decay": "inverse_sqrt", "warmup": 10, "warmup_share": None}}},
            "perceptron has the decay inverse_sqrt, which does not end with the budget",
        ),
    ],
)
def test_settings_that_would_break_the_law_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    pairs = [100, 9000] if settings == {"corpus": {}} else [100, 400]
    scale = study(tmp_path, rows=["perceptron"], settings=STUDY["settings"] | settings, pairs=pairs, rate_checks=[])
    with pytest.raises(ValueError, match=message):
        scale.experiments([])


def test_a_row_without_sizes_is_refused_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"bytenet\.yaml: rows\.bytenet\.sizes: missing"):
        study(tmp_path, rows=["bytenet"]).experiments([])


def test_a_study_records_the_hash_of_every_job(scale: Scale, jobs: list[Experiment]) -> None:
    written = described(scale, jobs)
    assert (written["name"], set(written["tags"])) == (STUDY_FILE, {STUDY_TAG})
    assert [job["job_hash"] for job in written["jobs"]] == [job.job_hash for job in jobs]
    assert sorted({job["factor"] for job in written["jobs"]}) == [0.5, 1.0, 2.0]
    assert written["sizes"]["lstm"]["XL"]["model"] == sizes_of(row_files()["lstm"], "lstm")["XL"]
    largest = next(job for job in jobs if job.row == "lstm" and job.about.size == "XL")
    assert written["sizes"]["lstm"]["XL"]["rate"] == largest.training.optimizer.lr


DIRECT = [
    {"flops": 3e9, "sizes": {"lstm": "S", "perceptron": "XS"}},
    {"flops": 9e9, "sizes": {"perceptron": "M", "lstm": "S"}},
]


def test_a_direct_pair_is_two_runs_with_equal_flops(tmp_path: Path) -> None:
    scale = study(tmp_path, direct=DIRECT)
    jobs = scale.experiments([])
    compared = jobs[-4:]
    assert [(job.row, job.about.size) for job in compared] == [
        ("perceptron", "XS"),
        ("lstm", "S"),
        ("perceptron", "M"),
        ("lstm", "S"),
    ]
    for job, flops in zip(compared, (3e9, 3e9, 9e9, 9e9), strict=True):
        assert (job.training.max_pairs, job.training.max_flops, job.seed) == (None, flops, 1)
        same = next(each for each in jobs if (each.row, each.about.size) == (job.row, job.about.size))
        assert (job.model, job.training.optimizer) == (same.model, same.training.optimizer)
    assert compared[0].name == "perceptron XS 3e+09 FLOPs grammar-en-de demo s1"

    written = described(scale, jobs)
    assert [job["job_hash"] for job in written["jobs"]] == [job.job_hash for job in jobs[:-4]]
    assert [pair["flops"] for pair in written["direct"]] == [3e9, 9e9]
    hashes = [run["job_hash"] for pair in written["direct"] for run in pair["runs"]]
    assert hashes == [job.job_hash for job in compared]


def test_a_direct_pair_has_its_seeds(tmp_path: Path) -> None:
    scale = study(tmp_path, direct=[{"flops": 3e9, "sizes": {"lstm": "S", "perceptron": "XS"}, "seeds": [1, 4]}])
    jobs = scale.experiments([])
    expected = [("perceptron", 1), ("perceptron", 4), ("lstm", 1), ("lstm", 4)]
    assert [(job.row, job.seed) for job in jobs[-4:]] == expected

    written = described(scale, jobs)
    (pair,) = written["direct"]
    assert [(run["row"], run["seed"]) for run in pair["runs"]] == expected


@pytest.mark.parametrize(
    ("direct", "message"),
    [
        (
            {"flops": 3e9, "sizes": {"lstm": "S"}},
            "direct: expected the training FLOPs, above 0, and the sizes of two rows",
        ),
        ({"flops": 0, "sizes": {"lstm": "S", "perceptron": "S"}}, "direct: expected the training FLOPs, above 0"),
        ({"flops": 3e9, "sizes": {"lstm": "S", "moe": "S"}}, "no row 'moe'"),
        ({"flops": 3e9, "sizes": {"lstm": "XXL", "perceptron": "S"}}, "no size of lstm 'XXL'"),
    ],
)
def test_a_direct_pair_needs_two_rows_of_the_study(tmp_path: Path, direct: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study(tmp_path, direct=[direct])


def test_rows_have_equal_label_smoothing(tmp_path: Path) -> None:
    """At preset multi30k the perceptron has none, and its excess loss is another measure than that of the LSTM."""
    with pytest.raises(
        ValueError, match=r"label_smoothing: rows differ \(perceptron 0, lstm 0\.1\), but the excess loss"
    ):
        study(tmp_path, preset="multi30k").experiments([])


def test_rows_differ_at_one_budget_only_if_they_do(scale: Scale, jobs: list[Experiment]) -> None:
    """Budgets differ by design, so each is looked at alone."""
    assert scale.differences(jobs) == []
    first = jobs[0]
    other = replace(first, text=replace(first.text, max_length=30))
    assert scale.differences([other, *jobs[1:]]) == [
        f"perceptron: text.max_length 30, most rows {first.text.max_length}"
    ]


def test_the_ladders_of_the_project_are_comparable() -> None:
    """Sizes of 0.1, 0.26, 0.67, 1.7 and 4.5 M multiplied parameters within 7 %, and one proportion in each ladder."""
    for row in Scale.read(EXPERIMENTS / "scale.yaml").rows:
        path = row_files()[row]
        for (name, model), wanted in zip(
            sizes_of(path, row).items(), (0.1e6, 0.26e6, 0.67e6, 1.7e6, 4.5e6), strict=True
        ):
            found = multiplied_parameters(resolve(path, row=row, suite=[{"model": model}]))
            assert found == pytest.approx(wanted, rel=0.07), (row, name)
            assert set(model) == set(sizes_of(path, row)["XS"])


def test_jobs_of_different_budgets_do_not_tell_each_others_time(jobs: list[Experiment]) -> None:
    queues = [
        SuiteQueue(each, "scale", "parent", False, None, lambda _: None, cast(Store, None)) for each in (jobs, jobs[:1])
    ]
    assert [queue.equal_budgets for queue in queues] == [False, True]
