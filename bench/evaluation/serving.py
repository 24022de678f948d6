"""The code of a logged model. MLflow runs it in `mlflow models serve` and `mlflow.pyfunc.load_model`.

A request contains sentences; the response contains one translation for each, the same as `bench translate` gives:

    curl localhost:5000/invocations -H 'Content-Type: application/json' -d '{"inputs": ["A man is riding a bike."]}'
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from bench.evaluation import trained_model


class ServedTranslator(PythonModel):
    """A translator with the interface that MLflow serves."""

    def load_context(self, context: PythonModelContext) -> None:
        self.translator = trained_model.load_folder(Path(context.artifacts["translator"]))

    # MLflow's method has neither a body nor annotations, so pyright infers that it returns None and would report every
    # other return type.
    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, context: Any, model_input: list[str], params: dict[str, Any] | None = None
    ) -> list[str]:
        """Returns the best translation of each sentence. `params` may set `beam`."""
        settings = self.translator.decoding_settings((params or {}).get("beam"))
        found, _ = self.translator.translate(model_input, settings)
        return [candidates[0].text for candidates in found]


set_model(ServedTranslator())
