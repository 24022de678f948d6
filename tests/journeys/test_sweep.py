"""Sweeps through the real command: a killed worker, and PostgreSQL with a tracking server that is killed.

PostgreSQL is the system's own (initdb, under the user postgres if the test runs as root), started here as a temporary
cluster that listens on a Unix socket. Without PostgreSQL the journey is skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bench.sweep.storage import open_storage
from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job
from tests.journeys.commands import BENCH, EXPERIMENTS, finish, free_port, loss_curve, start, wait_until

pytestmark = pytest.mark.journey

SETTINGS = {
    "text.vocabulary_size": 90,
    "training.max_pairs": 6000,
    "training.batch_tokens": 300,
    "training.validations": 4,
    "machine.checkpoint_seconds": 0.2,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_job.write_corpus(tmp_path)
    (tmp_path / "sweep.yaml").write_text((EXPERIMENTS / "sweep.yaml").read_text())
    return tmp_path


def flags(folder: Path, **more: object) -> list[str]:
    settings = SETTINGS | {"tracking.folder": folder / "runs"} | more
    return tiny_job.corpus_flags(folder) + [f"--{key}={value}" for key, value in settings.items()]


def finished_trials(store: Store, study: TrackedRun, trials: int) -> list[TrackedRun]:
    """Return the jobs of a study. None may be missing, and none may have two runs."""
    runs = store.trials("sweep", study.tags["study"])
    assert len(runs) == len({run.tags["job_hash"] for run in runs}) == trials
    assert {(run.status, run.tags["state"]) for run in runs} <= {("FINISHED", "COMPLETE"), ("FINISHED", "PRUNED")}
    assert {run.tags["mlflow.parentRunId"] for run in runs} == {study.id}
    return runs


def test_a_killed_worker_costs_nothing(folder: Path, tracking_folder: Callable[[Path], Path]) -> None:
    tracking_folder(folder / "runs")
    command = [BENCH, "sweep", folder / "sweep.yaml", "--row", "transformer-base", "mlp", "--trials", 3]
    sweep = start(*command, "--workers", 2, *flags(folder))
    assert sweep.stdout
    first = next(line for line in sweep.stdout if "Transformer (base) en-de t0: starts on worker" in line)  # the preset
    wait_until(sweep, lambda: list(folder.glob("runs/jobs/sweep/transformer-base-*/last.ckpt")))
    workers = [child for child in psutil.Process(sweep.pid).children() if "bench.runs.worker" in child.cmdline()]
    victim = next(worker for worker in workers if worker.cmdline()[-1] == first.split()[-1])
    victim.send_signal(signal.SIGKILL)
    printed = finish(sweep)
    assert "lost worker (signal 9); continues with another worker, attempt 2 of 3" in printed
    store = Store(TrackingSettings(None, str(folder / "runs")))
    studies = {study.tags["row"]: study for study in store.studies("sweep")}
    runs = [run for study in studies.values() for run in finished_trials(store, study, 3)]
    preset = next(run for run in runs if (run.tags["row"], run.tags["trial"]) == ("transformer-base", "0"))
    assert preset.tags["attempt"] == "2"
    storage = open_storage(None, folder / "runs")
    attempts = [t for s in storage.get_all_studies() for t in storage.get_all_trials(s._study_id)]
    assert Counter(trial.state.name for trial in attempts)["FAIL"] == 1
    # The same job, undisturbed, gives the same bits.
    finish(start(BENCH, "run", EXPERIMENTS / "transformer.yaml", *flags(folder), "--seed=1001", "--machine.threads=1"))
    (alone,) = store.runs("runs")
    assert alone.tags["job_hash"] == preset.tags["job_hash"]
    assert loss_curve(store, preset) == loss_curve(store, alone)
    assert preset.metrics["validation_bleu"] == alone.metrics["validation_bleu"]


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Return the address of a temporary PostgreSQL with two empty databases, optuna and mlflow."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "")]
    programs = found[-1].parent
    if not found[-1].is_file():
        pytest.skip("PostgreSQL is not installed on this machine: initdb not found")
    pytest.importorskip("psycopg", reason="psycopg is not installed: .venv/bin/pip install --editable '.[cluster]'")
    folder = Path(tempfile.mkdtemp(prefix="ladder-postgres-"))
    as_user: list[str] = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]

    def call(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*as_user, str(programs / program), *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    call("initdb", "-D", f"{folder}/data", "-U", "ladder", "-A", "trust", "--no-sync")
    server = ["-D", f"{folder}/data", "-l", f"{folder}/log", "-w"]
    call("pg_ctl", *server, "-o", f"-c listen_addresses= -k {folder} -c fsync=off", "start")
    try:
        for name in ("optuna", "mlflow"):
            call("createdb", "-h", str(folder), "-U", "ladder", name)
        yield f"postgresql+psycopg://ladder@/{{}}?host={folder}"
    finally:
        call("pg_ctl", *server, "-m", "immediate", "stop")
        shutil.rmtree(folder)


class Server:
    """An MLflow tracking server that can be killed and started again."""

    def __init__(self, backend: str, folder: Path) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", backend, "--workers", "1"]
        self.command += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(self.port)]
        self.start()

    def start(self) -> None:
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = subprocess.Popen(
            self.command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def ready(self) -> None:
        while not self.answers():
            assert self.process.poll() is None, "the server has ended"
            time.sleep(0.2)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(postgres: str, folder: Path) -> Iterator[Server]:
    server = Server(postgres.format("mlflow"), folder)
    try:
        server.ready()
        yield server
    finally:
        server.kill()


def test_postgresql_holds_studies_and_runs(folder: Path, postgres: str, server: Server) -> None:
    command = [BENCH, "sweep", folder / "sweep.yaml", "--row", "transformer-base", "--trials", 3, "--workers", 2]
    command += ["--storage", postgres.format("optuna"), *flags(folder, **{"tracking.uri": server.address})]
    sweep = start(*command)
    wait_until(sweep, lambda: list(folder.glob("runs/jobs/sweep/*/last.ckpt")))
    server.kill()
    before = {path: path.read_text() for path in folder.glob("runs/jobs/sweep/*/progress.json")}
    # Training continues without the tracking server.
    wait_until(sweep, lambda: any(path.read_text() != text for path, text in before.items()))
    server.start()
    printed = finish(sweep)
    store = Store(TrackingSettings(server.address, str(folder / "runs")))
    (study,) = store.studies("sweep")
    for run in finished_trials(store, study, 3):
        kept = store.curves(run).query("name == 'train/loss'")
        assert loss_curve(store, run) == list(zip(kept["update"], kept["value"], strict=True))
    assert not (folder / "runs" / "optuna.db").exists()
    again = finish(start(*command))
    assert "starts on worker" in printed
    assert "starts on worker" not in again  # the storage knows that the sweep is finished
