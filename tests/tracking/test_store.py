"""The tracking store: it is created by the first write, and completes the runs that a killed process left."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

import bench.tracking.retry
from bench.measures.measure import Measure
from bench.tracking import export, logged_model, pages
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import Store, TrackingSettings, to_tracked_run
from tests.helpers.tracking_folder import new_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return new_store(tmp_path_factory.mktemp("tracking") / "runs")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def begin(store: Store, suite: str, job: str = "abc", **tags: str) -> RunWriter:
    return store.begin(suite, f"{job} on a corpus", {"job_hash": job, **tags})


def values(store: Store, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in store.client.get_metric_history(run_id, name)]


def test_reading_creates_no_store(tmp_path: Path) -> None:
    store = Store(TrackingSettings(None, str(tmp_path / "runs")))
    assert store.find("suite", "abc") == []
    assert store.suites() == []
    with pytest.raises(ValueError, match=r"--suite: there is no suite 'suite' in sqlite:.*there are: none yet"):
        store.runs("suite")
    assert list(tmp_path.iterdir()) == []


def test_the_runs_of_a_job_are_listed_newest_first(store: Store) -> None:
    first, second = begin(store, "found"), begin(store, "found")
    assert [run.id for run in store.find("found", "abc")] == [second.id, first.id]
    assert store.find("found", "other") == []
    assert store.find("elsewhere", "abc") == []
    assert [run.id for run in store.runs("found")] == [second.id, first.id]
    assert "found" in store.suites()


def test_missing_points_are_sent_when_a_run_is_resumed(store: Store) -> None:
    job = begin(store, "curves")
    points = [(update, name, update / 10) for update in range(1, 6) for name in ("train/loss", "train/lr")]
    job.curve(points[:4])
    job.finish("KILLED")
    resumed = store.resume(job.id)
    assert store.run(job.id).status == "RUNNING"
    assert resumed.missing_points(points) == points[4:]
    resumed.curve(resumed.missing_points(points))
    resumed.finish("FINISHED")
    assert resumed.missing_points(points) == []
    for name in ("train/loss", "train/lr"):
        assert values(store, job.id, name) == [(update, update / 10) for update in range(1, 6)]
    run = store.run(job.id)
    assert (run.status, run.metrics["train/loss"]) == ("FINISHED", 0.5)


def test_more_points_than_one_request_holds(store: Store) -> None:
    job = begin(store, "long")
    job.curve((update, "train/loss", 1.0) for update in range(2500))
    job.finish("FINISHED")
    assert len(values(store, job.id, "train/loss")) == 2500


def test_resuming_a_run_removes_the_reason_of_its_end(store: Store) -> None:
    job = begin(store, "reasons", name="Transformer")
    job.tag({"reason": "SIGTERM: saved"})
    job.finish("KILLED")
    assert store.run(job.id).tags["reason"] == "SIGTERM: saved"
    store.resume(job.id)
    assert "reason" not in store.run(job.id).tags
    assert store.run(job.id).tags["name"] == "Transformer"


def test_a_table_written_twice_contains_its_rows_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With MLflow's log_table, a run that was killed during its evaluation would contain its sentences twice."""
    job = begin(store, "tables")
    for _ in range(2):
        job.table(
            {"source": ["<b>One</b>", 'Two "\n'], "reference": ["a", ""], "hypothesis": ["ä", "b"]}, "h/test.json"
        )
    shown = '[{"path": "h/test.json", "type": "table"}]'
    assert store.run(job.id).tags["mlflow.loggedArtifacts"] == shown
    job.table({"source": ["c"], "reference": ["c"], "hypothesis": ["c"]}, "hypotheses/test.json")
    assert store.hypotheses(store.run(job.id), "test").to_dict("list") == {
        "source": ["c"],
        "reference": ["c"],
        "hypothesis": ["c"],
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)  # load_table uses this variable
    frame = store.client.load_table(store.experiment_id("tables"), "h/test.json", [job.id])
    assert list(frame["source"]) == ["<b>One</b>", 'Two "\n']
    assert store.hypotheses(store.run(job.id), "other").empty


def test_measures_written_twice_have_one_value_each(store: Store, tmp_path: Path) -> None:
    job = begin(store, "measures")
    bleu = Measure("test/bleu", 30.0, "percent", 29.0, 31.0, "signature", count=40, chance=12.5, noisy=True)
    job.measures([bleu])
    job.measures([bleu, Measure("joules", None, "J", provenance="no meter"), Measure("params", 12, "parameters")])
    for name, value in (("test/bleu", 30.0), ("params", 12.0)):
        assert values(store, job.id, name) == [(0, value)]
    assert store.run(job.id).metrics.keys() == {"test/bleu", "params"}, "intervals are in the table only"
    assert '{"path": "measures.json", "type": "table"}' in store.run(job.id).tags["mlflow.loggedArtifacts"]
    found = store.measures(store.run(job.id))
    assert found[0] == bleu
    assert [(measure.metric, measure.value) for measure in found[1:]] == [("joules", None), ("params", 12)]
    job.text('{"columns": ["metric", "value"], "data": [["te', "measures.json")  # incomplete, as after a kill
    assert store.measures(store.run(job.id)) == []
    assert store.measures(store.run(begin(store, "measures").id)) == []
    assert store.download(store.run(job.id), "none.txt", tmp_path) is None


def test_a_parent_run_is_created_once(store: Store) -> None:
    one = store.start_parent("family", {"question": "Why?"})
    assert store.start_parent("family", {"question": "How?"}) == one
    child = store.begin("family", "child", {"job_hash": "abc"}, one)
    assert store.run(child.id).tags["mlflow.parentRunId"] == one
    assert store.run(one).tags["question"] == "How?"
    assert [run.id for run in store.runs("family")] == [child.id]


@pytest.mark.parametrize("study", ["own's", 'own\'s "best"', "a\\", "x' or tags.study != 'y", "50%", "日本"])
def test_a_study_is_found_by_any_name(store: Store, study: str) -> None:
    one = store.start_parent("quoted", {}, study=study)
    assert store.start_parent("quoted", {}, study="another") != one
    assert store.start_parent("quoted", {}, study=study) == one
    trial = store.begin("quoted", "trial", {"kind": "trial", "study": study})
    assert [run.id for run in store.trials("quoted", study)] == [trial.id]
    assert store.trials("quoted", f"{study}x") == []


@pytest.mark.parametrize("suite", ["..", ".", "", "a/b", "../x", "/x"])
def test_a_suite_has_the_name_of_a_file(store: Store, suite: str) -> None:
    with pytest.raises(ValueError, match="is not used as the name of a file"):
        store.start_parent(suite, {})


def test_datasets_written_twice_are_logged_once(store: Store) -> None:
    job = begin(store, "data")
    for _ in range(2):
        job.datasets({"train": "ab" * 32}, "grammar-en-de", {"train": '{"pairs": 3}'})
    inputs = store.client.get_run(job.id).inputs
    assert inputs
    (found,) = inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("grammar-en-de/train", "ab" * 16)


def test_long_and_many_params_are_logged(store: Store) -> None:
    job = begin(store, "params")
    job.params({f"key{n}": n for n in range(230)} | {"long": "x" * 7000})
    run = to_tracked_run(store.client.get_run(job.id))
    assert len(run.params) == 231
    assert len(run.params["long"]) == 6000


def test_a_deleted_suite_is_restored(store: Store) -> None:
    begin(store, "deleted")
    store.client.delete_experiment(store.experiment_id("deleted"))
    begin(store, "deleted", job_hash="new")
    assert {run.tags["job_hash"] for run in store.runs("deleted")} >= {"new"}


def test_an_unreachable_server_is_reported_within_seconds() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    before, retries = time.monotonic(), os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    with pytest.raises(
        ValueError, match=rf"^tracking\.uri: cannot open http://127\.0\.0\.1:{port}: .*start the server"
    ):
        Store(TrackingSettings(f"http://127.0.0.1:{port}"))
    assert time.monotonic() - before < 20
    assert os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES") == retries


class NoExperiments(BaseHTTPRequestHandler):
    """Answers a search for experiments like an empty MLflow server."""

    def do_POST(self) -> None:
        body = b'{"experiments": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_worker_waits_for_a_server_that_its_driver_has_reached(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bench.tracking.retry, "RETRY_SECONDS", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), NoExperiments, bind_and_activate=False) as server:
        server.server_bind()  # reserves the port; connections are still refused

        def messages() -> list[str]:
            return [record.getMessage() for record in caplog.records if record.name == "bench.tracking"]

        def begin() -> None:
            while not messages():
                time.sleep(0.01)
            server.server_activate()
            server.serve_forever(poll_interval=0.01)

        starting = threading.Thread(target=begin)
        starting.start()
        store = Store(TrackingSettings(f"http://127.0.0.1:{server.server_port}"), wait=True)
        assert store.suites() == []
        server.shutdown()
        starting.join()
    first, second = messages()
    assert "does not answer" in first
    assert "answers again" in second


@pytest.mark.parametrize("content", [b"not a database, but long enough for one" * 40, b"SQLite format 3\0"])
def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^tracking\.uri: cannot open sqlite:///{path}: "):
        Store(TrackingSettings(f"sqlite:///{path}"))


def test_the_tracking_uri_comes_from_flag_environment_or_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert TrackingSettings().resolved_uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert TrackingSettings().resolved_uri == "http://tracking:5000"
    assert TrackingSettings("sqlite:////other.db").resolved_uri == "sqlite:////other.db"


def test_every_point_arrives_after_an_outage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job = begin(store, "outage")
    real, failures = job.background.send, [MlflowException("API request to http://x failed with exception refused")] * 3

    def send(metrics: list[Metric]) -> None:
        if failures:
            raise failures.pop()
        real(metrics)

    monkeypatch.setattr(bench.tracking.retry, "RETRY_SECONDS", 0.01)
    job.background.send = send
    points = [(update, "train/loss", update / 10) for update in range(1, 8)]
    job.curve(points[:3])  # returns at once
    job.curve(points[3:])
    job.finish("FINISHED")
    assert failures == []
    assert values(store, job.id, "train/loss") == [(update, value) for update, _, value in points]


def test_a_long_outage_or_a_refusal_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.tracking.retry, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(bench.tracking.retry, "MAX_OUTAGE_SECONDS", 0.05)
    for error in ("API request failed with exception refused", "Invalid value for parameter"):
        job = begin(store, "away")

        def send(metrics: list[Metric], error: str = error) -> None:
            raise MlflowException(error)

        job.background.send = send
        job.curve([(1, "train/loss", 0.5)])
        with pytest.raises(MlflowException, match=error):
            job.finish("FINISHED")


FULL = "(sqlite3.OperationalError) database or disk is full"


def test_a_store_has_more_experiments_than_a_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pages, "PAGE", 2)
    store = new_store(tmp_path / "runs")
    names = [f"suite {number}" for number in range(5)]
    for name in names:
        store.begin(name, "a job", {"job_hash": name, "kind": "job"})
    assert sorted(store.suites()) == names
    assert sorted(export.exportable(store)) == names
    assert len(store.search([store.experiment_id(name) for name in names], "")) == 5


LOCKED = "(sqlite3.OperationalError) database is locked"


def test_a_full_disk_is_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.tracking.retry, "RETRY_SECONDS", 0.01)
    errors = [MlflowException(FULL), *[MlflowException(LOCKED)] * 3]

    def ask() -> None:
        raise errors.pop()

    with pytest.raises(MlflowException, match="disk is full"):
        bench.tracking.retry.retry_until(ask, lambda: math.inf)
    assert errors == [], "a lock is retried"


def test_a_failed_process_does_not_wait_for_an_unreachable_store() -> None:
    program = """
from mlflow.exceptions import MlflowException
from bench.tracking.retry import BackgroundWriter
def send(metrics):
    raise MlflowException("API request to http://x failed with exception refused")
BackgroundWriter(send).put([])
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True)


def test_calls_are_retried_until_the_server_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bench.tracking.retry, "RETRY_SECONDS", 0.01)
    answers: list[Exception | str] = [MlflowException("API request to http://x failed with exception y"), "run"]

    class Client:
        tracking_uri = "http://x"

        def get_run(self, run_id: str) -> str:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return f"{answer} {run_id}"

    client = bench.tracking.retry.RetryingClient(cast(MlflowClient, Client()))
    assert (client.get_run("abc"), client.tracking_uri) == ("run abc", "http://x")
    assert caplog.messages == ["the tracking store does not answer; waiting for it", "the tracking store answers again"]
    answers.append(MlflowException("no such run"))
    with pytest.raises(MlflowException, match="no such run"):
        client.get_run("abc")


def test_a_machine_that_does_not_tell_its_load_costs_no_run(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a container without a network psutil returns None, and in a sandbox without /proc it raises."""

    def no_file(*_: object) -> None:
        raise FileNotFoundError("/proc/stat")

    writer = begin(store, "sandbox")
    monkeypatch.setattr("psutil.cpu_percent", no_file)
    with writer.system_metrics():
        pass
    assert "CPUMonitor: not recorded: FileNotFoundError: /proc/stat" in capsys.readouterr().out
    monkeypatch.setattr("psutil.net_io_counters", lambda: None)
    with writer.system_metrics():
        pass
    assert "the load of the machine is not recorded: AttributeError:" in capsys.readouterr().out


@pytest.mark.parametrize("call", ["create_run", "create_logged_model"])
def test_a_server_that_dies_before_its_answer_leaves_nothing_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(bench.tracking.retry, "RETRY_SECONDS", 0.01)
    calls = [0]

    class Dying:
        """Carries out every first request to create something, and loses its answer."""

        def __getattr__(self, name: str) -> Any:
            return self.create if name == call else getattr(store.client, name)

        def create(self, *args: Any, **kwargs: Any) -> Any:
            created = getattr(store.client, call)(*args, **kwargs)
            calls[0] += 1
            if calls[0] % 2:
                raise MlflowException("API request to http://x failed with exception Connection reset by peer")
            return created

    served = Store(store.settings)
    served.client = cast(MlflowClient, bench.tracking.retry.RetryingClient(cast(MlflowClient, Dying())))
    suite = f"dies-in-{call}"
    parent = served.start_parent(suite, {})
    tags = {name: name for name in logged_model.COPIED_TAGS} | {"seed": "1"}
    job = served.begin(suite, "job", {"job_hash": "abc", **tags}, parent)
    model = logged_model.create(served.client, served.client.get_run(job.id))
    assert calls == [4 if call == "create_run" else 2]
    experiment = served.experiment_id(suite)
    assert {run.info.run_id for run in served.search([experiment], "")} == {parent, job.id}
    assert [each.model_id for each in served.client.search_logged_models([experiment])] == [model.model_id]
