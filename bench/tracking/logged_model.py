"""Trained translators in MLflow: one LoggedModel a run, which can be served and registered.

A LoggedModel is the only place where the weights of a finished run are kept. Its folder `translator` is the whole
translator (configuration, weights, vocabularies); around it stands what MLflow needs to serve it.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import mlflow.artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema

SERVED = Path(__file__).parents[1] / "evaluation" / "serving.py"
FOLDER = "translator"
REGISTERED = "models:/"
PACKAGES = ("torch", "pytorch-lightning", "mlflow", "sentencepiece", "jsonargparse", "pandas", "pyyaml", "sacrebleu")


def keep(client: MlflowClient, run_id: str, folder: Path, example: str, beam: int) -> str:
    """Makes the LoggedModel of a run out of the files in `folder`; returns its id.

    A killed process may have begun one before: what is whole is taken as it is, what is not is made anew.

    Args:
        client: Of the store.
        run_id: The run whose model it is.
        folder: What `bench.translator.opened` opens.
        example: A source sentence, the input example.
        beam: Hypotheses kept per sentence unless a request says otherwise.
    """
    run = client.get_run(run_id)
    for model in _of(client, run):
        if model.status == "READY":
            return model.model_id
        client.delete_logged_model(model.model_id)
    tags = {key: run.data.tags[key] for key in ("row", "direction", "corpus", "preset", "seed", "suite", "year")}
    name = "-".join(tags[key] for key in ("row", "corpus", "preset")) + f"-s{tags['seed']}"
    params: Mapping[str, str] = run.data.params
    model = client.create_logged_model(run.info.experiment_id, name, run_id, tags, dict(params), "translator")
    texts = Schema([ColSpec(DataType.string)])
    signature = ModelSignature(texts, texts, ParamSchema([ParamSpec("beam", DataType.long, beam)]))
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")  # MLflow, of itself
        import mlflow.pyfunc  # takes half a second, and only a finished run needs it

        source, packed = Path(temporary) / FOLDER, Path(temporary) / "packed"
        shutil.copytree(folder, source)
        mlflow.pyfunc.save_model(
            packed,
            python_model=str(SERVED),
            artifacts={FOLDER: str(source)},
            signature=signature,
            input_example=([example], {"beam": beam}),
            pip_requirements=[f"{package}=={version(package)}" for package in PACKAGES],
            mlflow_model=Model(artifact_path=model.artifact_location, run_id=run_id, model_id=model.model_id),
        )
        client.log_model_artifacts(model.model_id, str(packed))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model.model_id


def find(client: MlflowClient, run_id: str) -> LoggedModel | None:
    """The whole model of a run, if it has one."""
    return next((model for model in _of(client, client.get_run(run_id)) if model.status == "READY"), None)


def fetch(client: MlflowClient, run_id: str, into: Path) -> Path | None:
    """The folder of a run's translator, copied to below `into`; None if the run has no model."""
    model = find(client, run_id)
    if model is None:
        return None
    uri = f"{model.artifact_location}/artifacts/{FOLDER}"
    return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(into), tracking_uri=client.tracking_uri))


def promote(client: MlflowClient, run_id: str, name: str) -> str:
    """Registers the model of a run under a name; returns its address, models:/NAME/VERSION.

    Raises:
        ValueError: the run has no model, or MLflow does not take the name.
    """
    model = find(client, run_id)
    if model is None:
        raise ValueError(f"run {run_id} has no model yet; finish it, or take another")
    try:
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        known = client.search_model_versions(f"name = '{name}'")
        made = next((each for each in known if each.run_id == run_id), None)
        # By its location: models:/ID is looked up in MLflow's global store, which may be another.
        made = made or client.create_model_version(name, model.artifact_location, run_id, model_id=model.model_id)
    except MlflowException as error:
        raise ValueError(f"--name: {name!r}: {str(error).splitlines()[0]}") from error
    return f"{REGISTERED}{name}/{made.version}"


def run_of(client: MlflowClient, reference: str) -> str:
    """The run whose model stands at models:/NAME/VERSION or models:/NAME@ALIAS.

    Raises:
        ValueError: there is none; lists what is registered.
    """
    name, slash, number = reference.removeprefix(REGISTERED).partition("/")
    name, _, alias = name.partition("@")
    try:
        if slash:
            return client.get_model_version(name, number).run_id or ""
        return client.get_model_version_by_alias(name, alias).run_id or ""
    except MlflowException as error:
        known = [f"{REGISTERED}{each.name}/{each.version}" for each in client.search_model_versions()]
        raise ValueError(
            f"there is no registered model {reference!r}; there are: {', '.join(known) or 'none yet'}; "
            "bench promote registers one"
        ) from error


def _of(client: MlflowClient, run: MlflowRun) -> list[LoggedModel]:
    return list(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"))
