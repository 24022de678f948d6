"""The server of `bench ui`: MLflow's own application, except that its bare address leads to the newest comparison.

MLflow opens at a list of experiments, and every experiment in its view for chat traces. `mlflow server --app-name
attention-ladder` starts this application; pyproject.toml declares the name.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable

from mlflow.tracking import MlflowClient
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bench.tracking import ui_view

APP_NAME = "attention-ladder"
STORE_VARIABLE = "ATTENTION_LADDER_UI_STORE"
"""The environment variable with the tracking URI of the store that is served."""

START_PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>MLflow</title>
<script>
// At the first visit, MLflow covers a third of the window with a chat assistant, unless it has noted that it did.
try { localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true") } catch { /* no storage */ }
location.replace("/?ui" + (location.hash || NEWEST))
</script>
<noscript>The MLflow UI needs JavaScript.</noscript>
</html>
"""


class StartPage:
    """Serves a page at the bare address that leads to the newest comparison, and passes every other request on.

    A link to a page of the UI, /#/experiments/..., requests the bare address, too, because a browser does not send what
    is behind the #; so the decision is taken in the browser. The page goes to /?ui#..., which has a query and so is
    MLflow's own page.

    Args:
        app: The application behind it.
        find_newest: Returns the link to the newest comparison; empty if there is none yet. Called at each request,
            because suites may start while the server runs.
    """

    def __init__(self, app: ASGIApp, find_newest: Callable[[], str]) -> None:
        self.app, self.find_newest = app, find_newest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http" and scope["path"] == "/" and not scope["query_string"]:
            newest = json.dumps(await run_in_threadpool(self.find_newest))
            app = HTMLResponse(START_PAGE.replace("NEWEST", newest), headers={"Cache-Control": "no-store"})
        await app(scope, receive, send)


def create_app() -> ASGIApp:
    """The application, for the store that STORE_VARIABLE names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's import of a deprecated module of Starlette
        from mlflow.server.fastapi_app import app as mlflow_app  # here, because `bench ui` imports this module, too
    client = MlflowClient(os.environ[STORE_VARIABLE])
    return StartPage(mlflow_app, lambda: next((view.address("") for view in ui_view.find(client)), ""))
