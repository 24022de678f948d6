"""`--workers auto`: how many jobs run at the same time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import bench.runs.run_suite
import bench.runs.worker
from bench.cli.arguments import build_parser
from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import Experiment
from bench.runs import worker_count
from bench.runs.run_suite import run_suite
from bench.runs.suite import Suite
from bench.runs.worker_count import PARAMETERS_PER_THREAD, WORKER_BYTES, automatic_backend, automatic_workers
from tests.helpers import synthetic_runs, tiny_job
from tests.helpers.threaded_workers import FakeJobs, ThreadBackend

pytestmark = [*synthetic_runs.quiet_mlflow]

UseMachine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> UseMachine:
    """A machine with these cores, GPUs and bytes of free memory."""

    def use(cores: int, memory: float = 2.0**50, gpus: int = 0) -> None:
        monkeypatch.setattr(worker_count, "available_cores", lambda: cores)
        monkeypatch.setattr("bench.runs.worker_backend.available_cores", lambda: cores)
        monkeypatch.setattr(worker_count, "visible_gpus", lambda: [str(number) for number in range(gpus)])
        monkeypatch.setattr(worker_count.psutil, "virtual_memory", lambda: SimpleNamespace(available=memory))

    return use


def jobs(count: int, row: str = "transformer-base", **flags: object) -> list[Experiment]:
    given = [f"--{key.replace('__', '.')}={value}" for key, value in flags.items()]
    job = resolve(row_files()[row], preset="demo", row=row, flags=["--machine.accelerator=cpu", *given])
    return [job] * count


def test_small_models_have_one_thread_each(machine: UseMachine, capsys: pytest.CaptureFixture[str]) -> None:
    machine(cores=8)
    assert automatic_workers(jobs(20)) == 8
    assert automatic_workers(jobs(3)) == 3
    backend = automatic_backend(jobs(20))
    assert (backend.count, backend.threads_per_job()) == (8, 1)
    automatic_backend(jobs(1))
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["--workers auto: 8 jobs at a time", "--workers auto: 1 job at a time"]


def test_the_median_model_decides_how_many_threads_a_job_has(machine: UseMachine) -> None:
    machine(cores=8)
    width = 512
    large = jobs(20, model__layers=1, model__width=width, model__inner=int(PARAMETERS_PER_THREAD / width))
    # Encoder and decoder: two feed-forward parts of two matrices each, and some more for attention and softmax.
    assert 4 * PARAMETERS_PER_THREAD < worker_count.model_sizes(large[0])[0] < 5 * PARAMETERS_PER_THREAD
    assert automatic_workers(large) == automatic_workers([*jobs(19), *large]) == 1
    assert automatic_workers([*jobs(21), *large]) == 8
    machine(cores=10)
    assert automatic_workers(large) == 2
    machine(cores=2)
    assert automatic_workers(large) == 1


def test_threads_of_the_settings_decide(machine: UseMachine) -> None:
    machine(cores=8)
    assert automatic_workers(jobs(20, machine__threads=3)) == 2


def test_workers_fit_into_the_free_memory(machine: UseMachine) -> None:
    machine(cores=8, memory=3.5 * WORKER_BYTES)
    assert automatic_workers(jobs(20)) == 3
    machine(cores=8, memory=0.5 * WORKER_BYTES)
    assert automatic_workers(jobs(20)) == 1
    wide = jobs(1, model__layers=0, text__vocabulary_size=125_000, model__width=500, model__heads=1)
    assert worker_count.model_sizes(wide[0])[1] == 125_000 * 500  # 1 GB with gradients and the optimizer
    machine(cores=8, memory=4 * WORKER_BYTES)
    assert automatic_workers([*jobs(20), *wide]) == 2


def test_settings_without_a_model_are_left_to_the_check_of_the_job(machine: UseMachine) -> None:
    machine(cores=8)
    assert automatic_workers(jobs(20, text__vocabulary_size=-5)) == 8
    assert automatic_workers(jobs(20, model__heads=7)) == 8


def test_an_ensemble_waits_for_its_members_and_needs_no_worker(machine: UseMachine) -> None:
    machine(cores=8)
    (ensemble,) = jobs(1, "gnmt-ensemble")
    assert automatic_workers([ensemble, ensemble]) == 1
    assert automatic_workers([ensemble, *ensemble.members]) == 2


def test_one_job_for_each_gpu(machine: UseMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(cores=8, gpus=4)
    assert automatic_workers(jobs(20, machine__accelerator="gpu")) == 4
    assert automatic_workers(jobs(2, machine__accelerator="gpu")) == 2
    assert automatic_workers(jobs(20, machine__accelerator="gpu", machine__devices=2)) == 1


def test_a_suite_chooses_for_the_jobs_that_remain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_job.write_corpus(tmp_path)
    monkeypatch.setattr(bench.runs.worker, "run", FakeJobs(lambda experiment: [1.0]).run)
    seen = list[Experiment]()

    def choose(experiments: list[Experiment]) -> ThreadBackend:
        seen.extend(experiments)
        return ThreadBackend(1)

    monkeypatch.setattr(bench.runs.run_suite, "automatic_backend", choose)
    flags = [*tiny_job.corpus_flags(tmp_path), "--text.vocabulary_size", "90"]
    flags += ["--tracking.folder", str(tmp_path / "runs")]
    for seeds, wanted in (([1], [1]), ([1, 2], [2])):
        seen.clear()
        results, completed = run_suite(tmp_path / "table.yaml", Suite(rows=["mlp"], seeds=seeds), flags, False, "auto")
        assert completed
        assert [result.experiment.seed for result in results] == seeds
        assert [job.seed for job in seen] == wanted


@pytest.mark.parametrize("command", ["suite", "sweep", "scale", "plan"])
def test_every_command_with_jobs_takes_auto(command: str) -> None:
    parser = build_parser()
    assert parser.parse_args([command, "x.yaml", "--workers", "auto"]).workers == "auto"
    assert parser.parse_args([command, "x.yaml", "--workers", "3"]).workers == 3
    for wrong in ("0", "-1", "many", "1.5"):
        with pytest.raises(ValueError, match="is no number of workers; expected 1 or more, or auto"):
            parser.parse_args([command, "x.yaml", f"--workers={wrong}"])
