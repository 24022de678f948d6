"""The code of a logged model, run by MLflow where `mlflow models serve` or `mlflow.pyfunc.load_model` opens one.

A request holds sentences, the answer as many translations, the same as of `bench translate`:

    curl localhost:5000/invocations -H 'Content-Type: application/json' -d '{"inputs": ["A man is riding a bike."]}'
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from bench.evaluation import trained_model


class Served(PythonModel):
    """A translator behind MLflow's one method."""

    def load_context(self, context: PythonModelContext) -> None:
        self.translator = trained_model.opened(Path(context.artifacts["translator"]))

    # MLflow's own method has neither body nor annotation; a checker concludes that it returns None, and every answer
    # would be a wrong one.
    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, context: Any, model_input: list[str], params: dict[str, Any] | None = None
    ) -> list[str]:
        """The best translation of each sentence; `params` may set the beam."""
        settings = self.translator.searching((params or {}).get("beam"))
        found, _ = self.translator.translate(model_input, settings)
        return [candidates[0].text for candidates in found]


set_model(Served())
