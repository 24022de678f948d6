"""Trained translators in MLflow: one LoggedModel per run, which can be served and registered.

The weights of a finished run are stored in its LoggedModel only. The folder `translator` of the LoggedModel contains
configuration, weights and vocabularies; the other files are what MLflow needs to serve the model.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote

import mlflow.artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from bench.tracking.reading import MissingFile

SERVING_CODE = Path(__file__).parents[1] / "evaluation" / "serving.py"
TRANSLATOR_FOLDER = "translator"
TRANSLATOR_FILES = ("config.yaml", "weights.pt", "source.vocabulary", "target.vocabulary")
COPIED_TAGS = ("row", "direction", "corpus", "preset", "seed", "suite", "year")
"""Tags of a run that its model has, too."""

MODELS_URI = "models:/"
UNUSABLE_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories of letters that a name cannot have: control characters, surrogates, line and paragraph ends."""

REQUIRED = (
    "torch",
    "pytorch-lightning",
    "mlflow",
    "sentencepiece",
    "jsonargparse",
    "pandas",
    "pyyaml",
    "regex",
    "sacrebleu",
)


def log_model(client: MlflowClient, run_id: str, folder: Path, example: str, beam: int) -> str:
    """Creates the LoggedModel of a run from the files in `folder`; returns its id.

    If an earlier process has already created a complete one, that one is returned. An incomplete one, left by a killed
    process, is deleted and created again.

    Args:
        folder: The files that `bench.evaluation.trained_model.load_folder` reads.
        example: A source sentence, which becomes the input example.
        beam: Beam size of requests that do not set one.
    """
    run = client.get_run(run_id)
    if known := find_or_clear(client, run):
        linked = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
        if known.model_id not in linked:  # the process was killed in `complete`
            client.log_outputs(run_id, [LoggedModelOutput(known.model_id, step=0)])
        return known.model_id
    model = create(client, run)
    texts = Schema([ColSpec(DataType.string)])
    signature = ModelSignature(texts, texts, ParamSchema([ParamSpec("beam", DataType.long, beam)]))
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")  # about MLflow's own code
        import mlflow.pyfunc  # here, because it takes half a second and only a finished run needs it

        source, packed = Path(temporary) / TRANSLATOR_FOLDER, Path(temporary) / "packed"
        shutil.copytree(folder, source)
        mlflow.pyfunc.save_model(
            packed,
            python_model=str(SERVING_CODE),
            artifacts={TRANSLATOR_FOLDER: str(source)},
            signature=signature,
            input_example=([example], {"beam": beam}),
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIRED],
            mlflow_model=Model(artifact_path=model.artifact_location, run_id=run_id, model_id=model.model_id),
        )
        complete(client, model, run_id, packed)
    return model.model_id


def find_or_clear(client: MlflowClient, run: MlflowRun) -> LoggedModel | None:
    """The complete LoggedModel of a run. Deletes incomplete ones, which killed processes left."""
    for model in _models_of_run(client, run):
        if model.status == "READY":
            return model
        client.delete_logged_model(model.model_id)
    return None


def create(client: MlflowClient, run: MlflowRun) -> LoggedModel:
    """Creates the LoggedModel of a run, with its name, tags and params but still without files.

    If a server created it, died before it answered and was asked again, only the last one is kept.
    """
    tags = {key: run.data.tags[key] for key in COPIED_TAGS}
    name = "-".join(tags[key] for key in ("row", "corpus", "preset")) + f"-s{tags['seed']}"
    params: Mapping[str, str] = run.data.params
    info = run.info
    model = client.create_logged_model(info.experiment_id, name, info.run_id, tags, dict(params), "translator")
    for other in _models_of_run(client, run):
        if other.model_id != model.model_id:
            client.delete_logged_model(other.model_id)
    return model


def complete(client: MlflowClient, model: LoggedModel, run_id: str, folder: Path) -> None:
    """Writes the files of a LoggedModel and links it to its run."""
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])


def find(client: MlflowClient, run_id: str) -> LoggedModel | None:
    """The complete LoggedModel of a run; None if it has none."""
    return next((model for model in _models_of_run(client, client.get_run(run_id)) if model.status == "READY"), None)


def download(client: MlflowClient, run_id: str, folder: Path, locate: Callable[[str], str]) -> Path | None:
    """Copies the translator of a run into a folder below `folder` and returns it; None if the run has no model.

    Args:
        locate: Returns the present address of files, for the address that was recorded.

    Raises:
        MissingFile: the run has a model, but a file of its translator is gone.
    """
    model = find(client, run_id)
    if model is None:
        return None
    location = _check_files(client, model, locate)
    uri = f"{location}/artifacts/{TRANSLATOR_FOLDER}"
    return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder), tracking_uri=client.tracking_uri))


def read_example(client: MlflowClient, run_id: str, locate: Callable[[str], str]) -> str:
    """The source sentence that `log_model` got as the example of the run's model; empty if it cannot be read."""
    model = find(client, run_id)
    if model is None:
        return ""
    uri = f"{locate(model.artifact_location)}/input_example.json"
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = mlflow.artifacts.download_artifacts(uri, dst_path=folder, tracking_uri=client.tracking_uri)
            return str(json.loads(Path(path).read_text(encoding="utf-8"))["inputs"][0])
    except (MlflowException, OSError, ValueError, KeyError, IndexError, TypeError):
        return ""


def _check_files(client: MlflowClient, model: LoggedModel, locate: Callable[[str], str]) -> str:
    """The present address of a model. Raises MissingFile if a file of its translator is gone."""
    location = locate(model.artifact_location)
    repository = get_artifact_repository(location, tracking_uri=client.tracking_uri)
    stored = {file.path.rpartition("/")[2] for file in repository.list_artifacts(f"artifacts/{TRANSLATOR_FOLDER}")}
    for name in TRANSLATOR_FILES:
        if name not in stored:
            path = f"{unquote(location.removeprefix('file://'))}/artifacts/{TRANSLATOR_FOLDER}/{name}"
            raise MissingFile(path, str(model.source_run_id))
    return location


def promote(client: MlflowClient, run_id: str, name: str, locate: Callable[[str], str]) -> str:
    """Registers the model of a run under a name; returns its URI, models:/NAME/VERSION.

    Args:
        locate: Returns the present address of files, for the address that was recorded.

    Raises:
        ValueError: the run has no model, its files are gone, or the name is bad.
    """
    unusable = {letter for letter in name if letter in "/:@" or unicodedata.category(letter) in UNUSABLE_CATEGORIES}
    if unusable or not name.strip() or name != name.strip():
        raise ValueError(
            f"--name: {name!r} cannot be the name of a registered model: a name without / : @, control characters and "
            "spaces at its ends was expected, such as nmt-en-de; choose another"
        )
    model = find(client, run_id)
    if model is None:
        raise ValueError(
            f"run {run_id} has no model; only finished runs have one; run its command again to finish it, or choose "
            "another run"
        )
    location = _check_files(client, model, locate)
    try:
        # No query contains the name, because MLflow's queries have no escape for quotation marks.
        if name not in {each.name for each in _all_registered(client)}:
            client.create_registered_model(name)
        known = client.search_model_versions(f"run_id = '{run_id}'")
        entry = next((each for each in known if each.name == name), None)
        # Registered by its location, because MLflow would look up models:/ID in its global store.
        entry = entry or client.create_model_version(name, location, run_id, model_id=model.model_id)
    except MlflowException as error:
        raise ValueError(f"--name: {name!r}: {str(error).splitlines()[0]}; choose another name") from error
    return f"{MODELS_URI}{name}/{entry.version}"


def _all_registered(client: MlflowClient) -> list[RegisteredModel]:
    found: list[RegisteredModel] = []
    token = None
    while True:
        page = client.search_registered_models(page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def registered_run_id(client: MlflowClient, reference: str) -> str:
    """The id of the run whose model is registered as models:/NAME/VERSION or models:/NAME@ALIAS.

    Raises:
        ValueError: there is none; the message lists the registered models.
    """
    name, slash, number = reference.removeprefix(MODELS_URI).rpartition("/")
    try:
        if slash:
            return client.get_model_version(name, number).run_id or ""
        name, _, alias = number.partition("@")
        return client.get_model_version_by_alias(name, alias).run_id or ""
    except MlflowException as error:
        known = [f"{MODELS_URI}{each.name}/{each.version}" for each in client.search_model_versions()]
        raise ValueError(
            f"there is no registered model {reference!r}; there are: {', '.join(known) or 'none yet'}; "
            "register one with bench promote"
        ) from error


def _models_of_run(client: MlflowClient, run: MlflowRun) -> list[LoggedModel]:
    return list(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"))
