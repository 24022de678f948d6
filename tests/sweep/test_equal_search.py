"""Equal searches: the same points for all rows, trials that another machine continues, and the recipes they give."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from bench.cli.main import main
from bench.experiment import tuned
from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import Experiment
from bench.experiment.tuned import read_trials, read_tuned
from bench.experiment.yaml_layers import EXPERIMENTS, nested_settings
from bench.sweep import equal_search, recipes
from bench.sweep.equal_study import EqualStudy
from bench.sweep.settings import Sweep
from bench.training.budget import Diverged
from tests.helpers import tiny_search, tracking_folder
from tests.helpers.threaded_workers import FakeJobs, WorkerKilled
from tests.helpers.tiny_sweep import better_with_smaller_lr

LR, WARMUP, DROPOUT = "training.optimizer.lr", "training.schedule.warmup_share", "model.dropout"


class KilledOnce:
    """The learning curve of a job; the worker of the first job is killed.

    Attributes:
        killed: Hash of that job.
    """

    killed = ""

    def __call__(self, experiment: Experiment) -> list[float]:
        if not self.killed:
            self.killed = experiment.job_hash
            raise WorkerKilled
        return better_with_smaller_lr(experiment)


@pytest.fixture(autouse=True)
def own_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_search.use_folder(folder, monkeypatch)


# --- points -----------------------------------------------------------------------------------------------------------


def test_all_rows_of_the_demo_get_the_same_points() -> None:
    """Literal values of Optuna's scrambled Sobol sequence with seed 1001, so that another version is noticed."""
    sweep = Sweep.read(EXPERIMENTS / "tune-demo.yaml")
    points = equal_search.points(sweep)
    assert points == equal_search.points(sweep)
    assert len(points) == len({point[LR] for point in points}) == sweep.trials == 20
    assert points[0] == sweep.first
    assert (points[1][LR], points[2][LR]) == (0.000588, 0.0175)
    assert points[16][LR] > 0.02, "the first trial of the extension"
    values = [point[WARMUP] for point in points[1:16]]
    assert all(any(low <= value < low + 0.075 for value in values) for low in (0.0, 0.075, 0.15, 0.225))
    full, lacking = (equal_search.trial_experiments(sweep, row) for row in ("lstm", "perceptron"))
    for number, (one, other) in enumerate(zip(full, lacking, strict=True)):
        assert one[0] == points[number], "the LSTM has every setting of the space"
        assert other[0] == {key: points[number][key] for key in (LR, WARMUP)}, "the perceptron has no setting of model"


def test_a_trial_has_the_settings_that_a_run_with_its_flags_has() -> None:
    sweep = Sweep.read(EXPERIMENTS / "tune-demo.yaml")
    point, experiment = equal_search.trial_experiments(sweep, "mlp")[3]
    training = sweep.settings["training"]
    flags = [f"--training.{key}={training[key]}" for key in ("batch_pairs", "batch_tokens", "clip", "label_smoothing")]
    flags += [f"--training.schedule.{key}={value}" for key, value in training["schedule"].items()]
    flags += [f"--training.optimizer.settings={json.dumps(training['optimizer']['settings'])}", "--seed=1001"]
    flags += [f"--{key}={value}" for key, value in point.items()]
    assert experiment.job_hash == resolve(row_files()["mlp"], row="mlp", flags=flags, tuned=False).job_hash


def test_the_rows_of_a_search_are_those_that_train() -> None:
    paths = sorted(EXPERIMENTS.glob("tune-*.yaml"))
    assert len(paths) == 3
    for path in paths:
        ladder = yaml.safe_load((EXPERIMENTS / "ladder.yaml").read_text())["rows"]
        assert Sweep.read(path).rows == [row for row in ladder if not row.endswith("-ensemble")]


def test_a_search_around_other_recipes_narrows_the_space(folder: Path) -> None:
    path = tiny_search.write(folder, "tune-next", **{"preset: demo": "preset: multi30k-cpu\naround: demo"})
    sweep = Sweep.read(path)
    assert equal_search.rows_to_wait_for(sweep) == ["mlp", "perceptron"]
    with pytest.raises(
        ValueError, match=r"has no recipe of mlp, perceptron; .* bench tuned experiments/tune-demo.yaml"
    ):
        equal_search.points(sweep)
    values = {"mlp": {LR: 0.002, WARMUP: 0.1, DROPOUT: 0.2}, "perceptron": {LR: 0.008, WARMUP: 0.2}}
    rows = {row: tuned.Recipe(1, 20.0, "abc", nested_settings(point)) for row, point in values.items()}
    recipes.write_recipes("demo", tuned.Tuned("tune-demo", 4, 300, 1001, "", rows))
    ranges = equal_search.space(sweep)
    # Logarithmic: half of the lowest, twice the highest. Linear: a quarter of 0.3 beyond both, and not below 0.
    assert {key: (span.low, span.high) for key, span in ranges.items()} == {
        LR: (0.001, 0.016), WARMUP: (0.025, 0.275), DROPOUT: (0.125, 0.275),
    }  # fmt: skip
    whole = {"space:": "space:\n  model.layers: {low: 1, high: 4}", "first: {": "first: {model.layers: 2, "}
    of_no_recipe = Sweep.read(
        tiny_search.write(folder, "tune-other", **whole, **{"preset: demo": "preset: multi30k-cpu\naround: demo"})
    )
    with pytest.raises(ValueError, match=r"around: demo: no recipe in .*demo.yaml has model.layers"):
        equal_search.points(of_no_recipe)
    first, *drawn = equal_search.points(sweep)
    assert first == {LR: 0.002, WARMUP: 0.1, DROPOUT: 0.2}, "the lower median"
    assert len(drawn) == 3
    assert all(ranges[key].contains(value) for point in drawn for key, value in point.items())


EXTENDED = """
extensions:
  - {trials: 1, space: {model.dropout: {low: 0.3, high: 0.5}}}
  - {trials: 2, space: {training.optimizer.lr: {low: 0.02, high: 0.06, log: true}}}
"""


def test_an_extension_adds_points_beyond_an_edge_and_keeps_the_others(folder: Path) -> None:
    sweep = Sweep.read(tiny_search.write(folder))
    path = tiny_search.write(folder, **{"trials: 4\n": "trials: 7" + EXTENDED})
    extended = Sweep.read(path)
    before, after = equal_search.points(sweep), equal_search.points(extended)
    assert after[:4] == before
    assert len(after) == 7
    assert [key for key, value in after[4].items() if not equal_search.space(sweep)[key].contains(value)] == [DROPOUT]
    for point in after[5:]:
        assert 0.02 <= point[LR] <= 0.06
        assert all(equal_search.space(sweep)[key].contains(point[key]) for key in (WARMUP, DROPOUT))
    for key in (WARMUP, DROPOUT):
        assert len({point[key] for point in after}) == 7, "no value is repeated"
    ranges = equal_search.space(extended)
    assert {key: (span.low, span.high) for key, span in ranges.items()} == {
        LR: (0.0005, 0.06), WARMUP: (0.0, 0.3), DROPOUT: (0.0, 0.5),
    }  # fmt: skip


def test_a_finished_search_continues_with_its_extension(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_search.search(tiny_search.write(folder), monkeypatch, FakeJobs(better_with_smaller_lr))
    finished = read_trials("demo")
    path = tiny_search.write(folder, **{"trials: 4\n": "trials: 7" + EXTENDED})
    for runs in ("runs", "other"):  # the storage of the search itself, then that of another machine
        jobs = FakeJobs(better_with_smaller_lr)
        results = tiny_search.search(path, monkeypatch, jobs, runs=runs)
        assert [result.job_counts["COMPLETE"] for result in results] == [7, 7]
        assert len(jobs.started) == (6 if runs == "runs" else 0)
    trials = read_trials("demo")
    assert [trial for trial in trials if trial.number < 4] == finished
    assert [trial.number for trial in trials] == 2 * list(range(7))


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"trials: 4\n": "trials: 3" + EXTENDED}, "extensions: 3 of the 3 trials are in extensions"),
        ({"trials: 4\n": "trials: 7" + EXTENDED.replace("dropout", "size")}, "no setting of extensions 'model.size'"),
        ({"preset: demo": ""}, "preset: missing; an equal search needs rows, preset and space"),
        ({"training.optimizer.lr: 0.003, ": ""}, "first: no value of training.optimizer.lr; the first trial needs one"),
        ({"trial_pairs: 300": "goals: [validation_loss]"}, "an equal search has the goal validation_score"),
        ({"trial_pairs: 300": "trial_pairs: 0"}, "trial_pairs: 0 is too few; at least 1"),
        (
            {"first: {": "first: {model.dropuot: 0.1, "},
            "no setting of first 'model.dropuot', did you mean",
        ),
    ],
)
def test_half_an_equal_search_is_refused(replaced: dict[str, str], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Sweep.read(tiny_search.write(folder, **replaced))


def test_a_default_outside_the_space_and_an_unknown_setting_are_refused(folder: Path) -> None:
    outside = Sweep.read(tiny_search.write(folder, **{"lr: 0.003": "lr: 0.3"}))
    with pytest.raises(ValueError, match=r"first: training.optimizer.lr: 0.3 is not in the space of tune-demo.yaml"):
        equal_search.points(outside)
    unknown = Sweep.read(tiny_search.write(folder, **{"schedule.warmup_share": "schedule.warmup_part"}))
    with pytest.raises(ValueError, match="warmup_part: mlp has no such setting"):
        equal_search.trial_experiments(unknown, "mlp")
    of_no_row = Sweep.read(tiny_search.write(folder, **{"model.dropout": "model.dropuot"}))
    with pytest.raises(ValueError, match=r"space: model.dropuot: no row of tune-demo.yaml has this setting"):
        equal_search.trial_experiments(of_no_row, "perceptron")


def test_a_space_with_fewer_points_than_trials_is_refused(folder: Path) -> None:
    """Its search would never end."""
    steps = {
        "{low: 0.0005, high: 0.02, log: true}": "{low: 0.001, high: 0.003, step: 0.002}",
        "{low: 0.0, high: 0.3}\n  model": "{low: 0.1, high: 0.3, step: 0.2}\n  model",
    }
    sweep = Sweep.read(tiny_search.write(folder, **steps))
    with pytest.raises(ValueError, match=r"space: trials \d and \d of perceptron have the same settings"):
        equal_search.trial_experiments(sweep, "perceptron")


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"{low: 0.0, high: 0.3}\n  model": "{choices: [0.1, 0.2]}\n  model"}, "warmup_share: .* draws numbers"),
        ({"trials: 4\n": "trials: 7" + EXTENDED.replace(", log: true", "")}, "extensions: .*lr: log or step differs"),
    ],
)
def test_ranges_that_one_study_cannot_hold_are_refused(replaced: dict[str, str], message: str, folder: Path) -> None:
    sweep = Sweep.read(tiny_search.write(folder, **replaced))
    with pytest.raises(ValueError, match=message):
        equal_search.points(sweep)


# --- trials -----------------------------------------------------------------------------------------------------------


def test_every_row_tries_every_point_with_the_same_budget(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(better_with_smaller_lr)
    results = tiny_search.search(tiny_search.write(folder), monkeypatch, jobs)
    assert [result.job_counts for result in results] == [{"COMPLETE": 4, "PRUNED": 0, "FAILED": 0, "remaining": 0}] * 2
    trials = read_trials("demo")
    assert [(trial.row, trial.number) for trial in trials] == [(row, n) for row in tiny_search.ROWS for n in range(4)]
    assert {trial.pairs for trial in trials} == {300}, "nothing is pruned"
    assert {experiment.training.max_pairs for experiment in jobs.started} == {300}
    for one, other in zip(trials[:4], trials[4:], strict=True):
        assert dict(other.settings) == {key: one.settings[key] for key in (LR, WARMUP)}
    assert {trial.job_hash for trial in trials} == {experiment.job_hash for experiment in jobs.started}
    assert trials[0].validation_bleu == pytest.approx(40 - 1000 * 0.003)
    assert results[0].preset == trials[0].validation_bleu


def test_another_machine_continues_from_the_file_of_trials(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first machine is killed by its third job; the second has neither its store nor its Optuna database."""
    path, started = tiny_search.write(folder), list[Experiment]()

    def stops_in_third(experiment: Experiment) -> list[float]:
        started.append(experiment)
        if len(started) == 3:
            raise KeyError("out of memory, say")
        return better_with_smaller_lr(experiment)

    tiny_search.search(path, monkeypatch, FakeJobs(stops_in_third), rows=["mlp"], workers=1)
    before = read_trials("demo")
    assert [trial.number for trial in before] == [0, 1, 3], "a job that failed there may succeed elsewhere"
    commits = tuned.trials_path("demo").read_text().replace(f",{before[0].commit},", ",theirs,")
    tuned.trials_path("demo").write_text(commits)
    tracking_folder.create(folder / "elsewhere")
    jobs = FakeJobs(better_with_smaller_lr)
    (result,) = tiny_search.search(path, monkeypatch, jobs, rows=["mlp"], runs="elsewhere")
    assert [experiment.job_hash for experiment in jobs.started] == [started[2].job_hash]
    assert result.job_counts == {"COMPLETE": 4, "PRUNED": 0, "FAILED": 0, "remaining": 0}
    after = read_trials("demo")
    assert [trial.number for trial in after] == [0, 1, 2, 3]
    assert [trial.commit for trial in after].count("theirs") == 3, "a line that was there stays as it was"
    (again,) = tiny_search.search(path, monkeypatch, jobs, rows=["mlp"], runs="elsewhere")
    (first,) = tiny_search.search(path, monkeypatch, jobs, rows=["mlp"])
    assert again.job_counts == first.job_counts == result.job_counts, "nor does it count as failed on the first machine"
    assert len(jobs.started) == 1


def test_a_trial_that_failed_is_tried_again_by_the_next_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row without one of its trials would get no recipe."""
    path, failed = tiny_search.write(folder), list[str]()

    def fails_once(experiment: Experiment) -> list[float]:
        if not failed:
            failed.append(experiment.job_hash)
            raise OSError("no space left on device")
        return better_with_smaller_lr(experiment)

    (first,) = tiny_search.search(path, monkeypatch, FakeJobs(fails_once), rows=["mlp"], workers=1)
    assert first.job_counts == {"COMPLETE": 3, "PRUNED": 0, "FAILED": 1, "remaining": 0}
    jobs = FakeJobs(fails_once)
    (second,) = tiny_search.search(path, monkeypatch, jobs, rows=["mlp"], workers=1)
    assert [experiment.job_hash for experiment in jobs.started] == failed
    assert second.job_counts == {"COMPLETE": 4, "PRUNED": 0, "FAILED": 0, "remaining": 0}


def test_jobs_of_an_earlier_plan_are_no_trials(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The points may change while space and default, which name the study, stay the same."""
    tiny_search.search(tiny_search.write(folder), monkeypatch, FakeJobs(better_with_smaller_lr), rows=["mlp"])
    tuned.trials_path("demo").unlink()
    jobs = FakeJobs(better_with_smaller_lr)
    path = tiny_search.write(folder, **{"scramble: true": "scramble: false"})
    (result,) = tiny_search.search(path, monkeypatch, jobs, rows=["mlp"])
    assert len(jobs.started) == 3, "the common default was the same"
    assert result.job_counts == {"COMPLETE": 4, "PRUNED": 0, "FAILED": 0, "remaining": 0}
    points = [point for point, _ in equal_search.trial_experiments(Sweep.read(path), "mlp")]
    assert [trial.settings for trial in read_trials("demo")] == points
    (best,) = result.study.best_trials()
    assert best.value == max(trial.validation_bleu or 0 for trial in read_trials("demo"))
    tracking_folder.create(folder / "elsewhere")
    (alone,) = tiny_search.search(path, monkeypatch, jobs, rows=["mlp"], runs="elsewhere")
    assert result.study.importance() == alone.study.importance()


def test_a_trial_that_another_machine_finished_is_not_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, curve = tiny_search.write(folder), KilledOnce()
    tiny_search.search(path, monkeypatch, FakeJobs(curve), rows=["mlp"], max_seconds=0)
    tracking_folder.create(folder / "elsewhere")
    tiny_search.search(path, monkeypatch, FakeJobs(better_with_smaller_lr), rows=["mlp"], runs="elsewhere")
    jobs = FakeJobs(better_with_smaller_lr)
    (result,) = tiny_search.search(path, monkeypatch, jobs, rows=["mlp"])
    assert (jobs.started, result.job_counts["COMPLETE"]) == ([], 4)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_point_that_another_driver_took_is_not_replaced_by_a_drawn_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_search.write(folder)
    jobs = FakeJobs(better_with_smaller_lr)
    (result,) = tiny_search.search(path, monkeypatch, jobs, rows=["mlp"], max_seconds=0)
    study = result.study
    study.before_new_trial()
    study.optuna_study.ask()  # the other driver
    monkeypatch.setattr(study, "before_new_trial", lambda: None)
    assert study.next_task("suite", "parent", 1) is None
    assert not study.jobs


def test_trials_that_a_kill_kept_from_the_file_are_written_by_the_next_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, jobs = tiny_search.write(folder), FakeJobs(better_with_smaller_lr)
    tiny_search.search(path, monkeypatch, jobs)
    file = tuned.trials_path("demo")
    complete = file.read_text()
    file.write_text("".join(complete.splitlines(keepends=True)[:-1]))
    tiny_search.search(path, monkeypatch, jobs)
    assert len(jobs.started) == 8, "no trial runs again"
    assert file.read_text() == complete


def test_a_stopped_search_continues_with_the_same_points(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, curve = tiny_search.write(folder), KilledOnce()
    tiny_search.search(path, monkeypatch, FakeJobs(curve), rows=["mlp"], max_seconds=0)
    (result,) = tiny_search.search(path, monkeypatch, FakeJobs(curve), rows=["mlp"], workers=2)
    assert result.job_counts["COMPLETE"] == 4
    trials = read_trials("demo")
    points = [point for point, _ in equal_search.trial_experiments(Sweep.read(path), "mlp")]
    assert [trial.settings for trial in trials] == points
    assert curve.killed in {trial.job_hash for trial in trials}


def test_a_default_without_decimals_is_continued_as_the_job_that_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings are hashed as JSON, in which 0 and 0.0 differ."""
    path, curve = tiny_search.write(folder, **{"model.dropout: 0.1}": "model.dropout: 0}"}), KilledOnce()
    tiny_search.search(path, monkeypatch, FakeJobs(curve), rows=["mlp"], max_seconds=0)
    (result,) = tiny_search.search(path, monkeypatch, FakeJobs(curve), rows=["mlp"], workers=1)
    assert result.job_counts == {"COMPLETE": 4, "PRUNED": 0, "FAILED": 0, "remaining": 0}
    assert curve.killed in {trial.job_hash for trial in read_trials("demo")}


def test_an_interrupted_trial_is_continued_before_other_rows_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = KilledOnce()
    jobs = FakeJobs(curve)
    tiny_search.search(tiny_search.write(folder), monkeypatch, jobs, workers=1)
    rows = [experiment.row for experiment in jobs.started]
    assert rows[:4] == ["mlp", "mlp", "perceptron", "mlp"]


def test_a_point_is_enqueued_once_when_a_driver_died_before_it_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_search.write(folder)
    jobs = FakeJobs(better_with_smaller_lr)
    (result,) = tiny_search.search(path, monkeypatch, jobs, rows=["mlp"], max_seconds=0)
    assert isinstance(result.study, EqualStudy)
    result.study.optuna_study.enqueue_trial(dict(result.study.planned[0][0]))
    (result,) = tiny_search.search(path, monkeypatch, jobs, rows=["mlp"], workers=1)
    assert len(jobs.started) == len(result.study.attempts()) == 4


def test_a_trial_that_diverges_is_a_result(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverges(experiment: Experiment) -> list[float]:
        if experiment.training.optimizer.lr > 0.01:
            raise Diverged("the training loss is nan at update 3")
        return better_with_smaller_lr(experiment)

    path = tiny_search.write(folder)
    tiny_search.search(path, monkeypatch, FakeJobs(diverges), rows=["mlp"])
    trials = read_trials("demo")
    assert [trial.state for trial in trials] == ["COMPLETE", "COMPLETE", "DIVERGED", "COMPLETE"]
    assert trials[2].validation_bleu is None
    tracking_folder.create(folder / "elsewhere")
    jobs = FakeJobs(better_with_smaller_lr)
    (result,) = tiny_search.search(path, monkeypatch, jobs, rows=["mlp"], runs="elsewhere")
    assert not jobs.started, "it is not tried again, also not elsewhere"
    assert result.job_counts == {"COMPLETE": 3, "PRUNED": 0, "FAILED": 1, "remaining": 0}
    assert recipes.choose(Sweep.read(path), "tune-demo").rows["mlp"].trial == 1


def test_trials_of_another_search_are_not_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(better_with_smaller_lr)
    tiny_search.search(tiny_search.write(folder), monkeypatch, jobs, rows=["mlp"])
    for replaced in (
        {"trial_pairs: 300": "trial_pairs: 600"},
        {"high: 0.02": "high: 0.04"},
        {"batch_pairs: 64": "clip: 2"},
    ):
        path = tiny_search.write(folder, **replaced)
        with pytest.raises(ValueError, match=r"demo-trials.csv: mlp: trial \d has other settings than this search"):
            tiny_search.search(path, monkeypatch, jobs, rows=["mlp"])
    assert len(jobs.started) == 4


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--trials", "5"], "--trials 5: .* is an equal search, whose trials is 4 for every row; remove the flag"),
        (["--preset", "multi30k"], "--preset multi30k: .* is an equal search, whose preset is demo"),
        (["--row", "lstm"], "no row 'lstm'"),
        (["--seed", "5"], "--seed: the trials of an equal search have the settings of its file"),
        (["--training.clip", "0.5"], "--training.clip: the trials of an equal search have the settings of its file"),
    ],
)
def test_flags_that_make_a_search_unequal_are_refused(
    flags: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_search.write(folder)
    assert main(["sweep", str(path), *flags, "--tracking.folder", str(folder / "runs")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line


def test_a_sweep_without_rows_needs_them_as_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(EXPERIMENTS / "sweep.yaml")]) == 2
    assert "names no rows; name those to search for" in capsys.readouterr().err


def test_an_equal_search_does_not_use_the_recipes_that_it_will_write(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_search.write(folder)
    sweep = Sweep.read(path)
    before = EqualStudy(sweep, "mlp", "demo", []).name
    tiny_search.search(path, monkeypatch, FakeJobs(better_with_smaller_lr))
    recipe = recipes.choose(sweep, "tune-demo").rows["mlp"]
    recipe.settings["training"]["max_updates"] = 7  # a setting that the search does not set
    recipes.write_recipes("demo", tuned.Tuned("tune-demo", 4, 300, 1001, "", {"mlp": recipe}))
    assert read_tuned("demo")
    assert EqualStudy(sweep, "mlp", "demo", []).name == before
