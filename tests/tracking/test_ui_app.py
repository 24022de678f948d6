"""The start page of `bench ui` (tests/journeys/test_ui.py opens it in a browser)."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message

from bench.tracking import ui_app, ui_view
from tests.helpers.tracking_folder import new_store

MLFLOW = PlainTextResponse("MLflow's own page")


def get(app: ASGIApp, address: str) -> str:
    """Return the text that an application sends for an address."""
    path, _, query = address.partition("?")
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "http_version": "1.1"}
    scope |= {"scheme": "http", "headers": [(b"host", b"localhost")], "server": ("localhost", 80), "root_path": ""}
    body: list[bytes] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        body.append(message.get("body", b""))

    async def answer() -> None:
        await app(scope, receive, send)

    # In a thread, because a browser of other tests keeps an event loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(answer())).result()
    return b"".join(body).decode()


def test_mlflow_finds_the_application_by_its_name() -> None:
    (entry,) = entry_points(group="mlflow.app", name=ui_app.APP_NAME)
    assert entry.load() is ui_app.create_app


def test_the_bare_address_leads_to_the_newest_comparison() -> None:
    page = get(ui_app.StartPage(MLFLOW, lambda: "#/experiments/7/runs?a=b"), "/")
    assert 'location.replace("/?ui" + (location.hash || "#/experiments/7/runs?a=b"))' in page
    assert '(location.hash || "")' in get(ui_app.StartPage(MLFLOW, str), "/")


@pytest.mark.parametrize("address", ["/?ui", "/health", "/static-files/x.js", "/api/2.0/mlflow/runs/get?run_id=1"])
def test_every_other_request_is_for_mlflow(address: str) -> None:
    assert get(ui_app.StartPage(MLFLOW, str), address) == "MLflow's own page"


def test_a_suite_that_starts_later_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = new_store(tmp_path / "runs")
    experiment = store.experiment_id("first")
    monkeypatch.setenv(ui_app.STORE_VARIABLE, store.uri)
    app = ui_app.create_app()
    assert '(location.hash || "")' in get(app, "/")
    store.set_view("first", "suite", ui_view.suite_view(["test/bleu"]), "What?")
    store.begin("first", "job", {"kind": "job"})
    assert json.dumps(ui_view.address("", experiment, "suite")) in get(app, "/")
