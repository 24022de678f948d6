"""The format version of stored data: data of another version is refused with one line, and nothing is written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import optuna
import pytest
import yaml
from mlflow.tracking import MlflowClient

from bench.cli.main import main
from bench.experiment.loading import config_yaml, read_config, resolve
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.sweep.settings import Sweep
from bench.sweep.storage import open_storage
from bench.sweep.study import Study
from bench.tracking.store import Store, TrackingSettings
from bench.tracking.store_format import FORMAT_TAG, STORE_FORMAT
from tests.helpers import tiny_job, tracking_folder

TRANSFORMER = EXPERIMENTS / "transformer.yaml"
JOB_TAGS = {"kind": "job", "row": "transformer-base", "preset": "demo", "suite": "tiny", "job": "0123456789abcdef"}


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def settings(tmp_path: Path) -> TrackingSettings:
    """An empty store. Its URI is given, because MLflow writes the URI of the last store to the environment."""
    folder = tracking_folder.create(tmp_path / "runs")
    return TrackingSettings(f"sqlite:///{folder}/mlflow.db", str(folder))


@pytest.fixture(scope="module")
def old_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a suite and a sweep. runs/ contains a store like those of format 1, without the tag."""
    folder = tmp_path_factory.mktemp("old")
    tiny_job.write_corpus(folder)
    (folder / "tiny.yaml").write_text("rows: [transformer-base]")
    (folder / "sweep.yaml").write_text("trials: 1")
    tracking_folder.create(folder / "runs")
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.create_experiment("tiny", (folder / "runs" / "artifacts" / "tiny").as_uri())
    client.create_run(experiment, tags={"kind": "suite", "suite": "tiny", "rows": "transformer-base"}, run_name="tiny")
    run = client.create_run(experiment, tags=JOB_TAGS, run_name="transformer-base files-en-de demo s1")
    client.set_terminated(run.info.run_id, "FINISHED")
    return folder


def state_of(folder: Path) -> tuple[list[str], list[str]]:
    """The names of all files, without the temporary files of SQLite, and the content of the database."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    database = folder / "runs" / "mlflow.db"
    with sqlite3.connect(database) as connection:
        dump = list(connection.iterdump())
    connection.close()
    return [name for name in files if not name.endswith(("-wal", "-shm", ".lock"))], dump


@pytest.mark.parametrize(
    "command",
    [
        ["run", str(TRANSFORMER), "FLAGS"],
        ["run", str(TRANSFORMER), "--again", "FLAGS"],
        ["suite", "tiny.yaml", "FLAGS"],
        ["plan", "tiny.yaml", "FLAGS"],
        ["sweep", "sweep.yaml", "--row", "transformer-base", "--preset", "demo", "FLAGS"],
        ["report"],
        ["report", "--suite", "tiny", "--format", "csv"],
        ["report", "--suite", "tiny", "--export", "exported"],
        ["store", "export", "exported"],
        ["store", "import", "EXPORT"],
        ["translate", "best:tiny/transformer-base", "A man."],
        ["translate", "models:/nmt/1", "A man."],
        ["probe", "best:tiny/transformer-base"],
        ["attention", "best:tiny/transformer-base", "A man."],
        ["promote", "best:tiny/transformer-base", "--name", "nmt"],
        ["latency", "best:tiny/transformer-base"],
        ["ui"],
    ],
    ids=" ".join,
)
def test_every_command_refuses_an_older_store(
    command: list[str], old_store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(old_store)
    before = state_of(old_store)
    flags = tiny_job.flags(old_store) if command[-1] == "FLAGS" else []
    assert main([*(part for part in command if part != "FLAGS"), *flags]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "tracking.uri: the experiment 'tiny' in sqlite:" in line
    assert (
        f"has format 1, written by another version of attention-ladder; this version reads format {STORE_FORMAT};"
        in line
    )
    assert "choose another --tracking.folder or --tracking.uri" in line
    assert state_of(old_store) == before


def test_a_new_suite_carries_the_format_and_a_later_format_is_refused(settings: TrackingSettings) -> None:
    store = Store(settings)
    store.begin("tiny", "a job", JOB_TAGS)
    experiment = store.client.get_experiment(store.experiment_id("tiny"))
    assert experiment.tags[FORMAT_TAG] == str(STORE_FORMAT)
    assert Store(settings).suites() == ["tiny"]
    store.client.set_experiment_tag(experiment.experiment_id, FORMAT_TAG, "99")
    with pytest.raises(ValueError, match=f"'tiny' in .* has format 99, .* reads format {STORE_FORMAT}; choose another"):
        Store(settings)


def test_experiments_of_other_projects_are_ignored(settings: TrackingSettings) -> None:
    client = Store(settings).client
    foreign = client.create_experiment("foreign")
    for tags in ({}, {"kind": "job"}, {"kind": "suite", "suite": "regression"}, {"row": "7", "preset": "fast"}):
        client.create_run(foreign, tags=tags)
    store = Store(settings)
    assert FORMAT_TAG not in store.client.get_experiment(foreign).tags
    store.begin("foreign", "a job", JOB_TAGS)  # an experiment that somebody created for the suite
    assert store.client.get_experiment(foreign).tags[FORMAT_TAG] == str(STORE_FORMAT)
    assert Store(settings).suites() == ["foreign"]


def test_a_deleted_experiment_of_an_older_format_is_not_restored(settings: TrackingSettings) -> None:
    client = Store(settings).client
    old = client.create_experiment("tiny")
    client.create_run(old, tags=JOB_TAGS)
    client.delete_experiment(old)
    store = Store(settings)
    with pytest.raises(
        ValueError, match=r"'tiny' in .* was deleted and has format 1, .*; give the suite's file another"
    ):
        store.begin("tiny", "a job", JOB_TAGS)
    assert client.get_experiment(old).lifecycle_stage == "deleted"


def test_the_configuration_of_an_older_model_is_refused(tmp_path: Path) -> None:
    experiment = resolve(TRANSFORMER)
    path = tmp_path / "config.yaml"
    path.write_text(config_yaml(experiment), encoding="utf-8")
    assert read_config(path) == experiment
    path.write_text(yaml.safe_dump(experiment.settings), encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml has format 1, .*; train the model again with this version"):
        read_config(path)


def test_a_study_of_an_older_format_is_refused(settings: TrackingSettings) -> None:
    storage = open_storage(None, settings.path)
    study = Study(Sweep(), "transformer-base", "demo", [])
    study.open(storage)
    assert study.optuna_study.user_attrs["format"] == STORE_FORMAT
    study.open(storage)  # continues
    older = Study(Sweep(seed=2), "transformer-base", "demo", [])
    optuna.create_study(storage=storage, study_name=older.name, direction="maximize").enqueue_trial({})
    with pytest.raises(
        ValueError, match=r"--storage: the study 'transformer-base .*' has format 1, .*another --storage"
    ):
        older.open(storage)
