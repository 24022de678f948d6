"""Executes one job: trains, evaluates and tracks an experiment. The same command continues or prints it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import filelock
import pandas as pd
import torch

from bench.data import learn_vocabularies
from bench.decoding.unk_replacement import LEXICON
from bench.evaluation import trained_model
from bench.evaluation.evaluate import ensemble_costs, evaluate_job, evaluate_trial, training_costs, validate
from bench.experiment.job_data import JobData, corpus_of, model_of, selection_of
from bench.experiment.loading import config_yaml
from bench.experiment.spec import Experiment
from bench.measures.measure import Measure
from bench.measures.selection import CONSTANT_SCORE_TAG, Selection, is_constant
from bench.runs.metadata import LAST_METADATA_TAG, corpus_hashes, run_tags, warn_of_differences, write_metadata
from bench.system import formatting, terminal
from bench.system.files import fill_file, inside, remove_partial_files, write_file
from bench.system.machine import MachineSettings
from bench.system.progress import Status, StatusCallback
from bench.tracking.reading import TrackedRun
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import Store, StoreFailure
from bench.training import checkpoints
from bench.training.budget import Diverged
from bench.training.checkpoints import Interrupted, Signals, save_tensors
from bench.training.distributed import ProcessGroup, launch_group
from bench.training.memory_limit import UpdateTooLarge, free_memory
from bench.training.trainer import CHECKPOINT, TrainingHooks, TrainingResult, train
from models.parts.translator import Translator

PARTS_TAG = "accumulate"
"""The tag with the parts of each batch, if they became more than `training.accumulate` because memory ran out."""


class JobLocked(ValueError):
    """Another process executes the job."""


@dataclass(frozen=True)
class TrialInfo:
    """Marks a job as a trial of a sweep. It is evaluated on the validation set only: no choice may see a test set.

    Its run has the tag `kind` "trial", and a tag `state`: RUNNING, COMPLETE, PRUNED or FAILED.

    Attributes:
        study: Name of the study that it belongs to.
        number: Number of the job in the study, from 0, which has the settings of the preset.
        attempt: Number of this attempt at the job, from 1. An attempt that follows a lost one continues its run.
        goals: Metrics that the sweep optimizes or limits.
    """

    study: str
    number: int
    attempt: int
    goals: tuple[str, ...]

    @property
    def tags(self) -> dict[str, str]:
        tags = {"kind": "trial", "study": self.study, "trial": str(self.number), "attempt": str(self.attempt)}
        return tags | {"state": "RUNNING"}

    def can_reuse(self, run: TrackedRun, store: Store) -> bool:
        """Whether a run of the same job serves this trial: one of its study, or one that has all of its goals."""
        if run.status != "FINISHED" or run.tags.get("study") == self.study:
            return True
        measured = {measure.metric for measure in store.measures(run) if measure.value is not None}
        return run.tags.get("state") == "COMPLETE" and measured.issuperset(self.goals)

    def run_name(self, experiment: Experiment) -> str:
        """The name of its run in MLflow, such as Transformer (base) en-de t3."""
        return f"{experiment.about.name} {experiment.direction} t{self.number}"


@dataclass(frozen=True)
class JobResult:
    """The result of a job.

    Attributes:
        run: Its MLflow run; None if the job failed.
        measures: Its final numbers; empty if the job failed.
        state: finished now, finished before (by an earlier command), or failed.
    """

    experiment: Experiment
    run: TrackedRun | None
    measures: list[Measure]
    state: str

    def show(self) -> None:
        """Prints the final numbers as a table."""
        if self.run is None:
            return
        rows = [
            [
                measure.metric,
                "not measured" if measure.value is None else formatting.quantity(measure.value),
                measure.unit,
                formatting.interval(measure.low, measure.high),
            ]
            for measure in self.measures
            if measure.metric.count("/") < 2  # numbers by length or distance are in measures.json and `bench probe`
        ]
        terminal.table([("measure", "left"), ("value", "right"), ("unit", "left"), ("95 % interval", "left")], rows)
        terminal.say(f"run {self.run.id}: {self.state}")


def run(
    experiment: Experiment,
    store: Store,
    suite: str,
    *,
    parent: str | None = None,
    again: bool = False,
    on_status: StatusCallback | None = None,
    trial: TrialInfo | None = None,
) -> JobResult:
    """Trains, evaluates and tracks one job.

    An unfinished run of the same job continues in the same MLflow run; a finished run is returned unchanged. A run of
    the same job hash on another text (files that changed under the same name) counts as another job.

    Args:
        parent: Id of the run of the suite or study, if the job belongs to one.
        again: Start a new run, even if there is an earlier one. Does not apply to the members of an ensemble, which
            are jobs of their own: they are reused if they are finished, and run first if not.
        on_status: Gets the progress of the training and may stop it; without it the progress is printed.
        trial: Makes the job a trial of a sweep.

    Raises:
        JobLocked: another process executes this job.
        ValueError: a setting is invalid; no run was created and nothing was written to disk.
        Interrupted: a signal was received; the run is saved, with the status KILLED.
        Diverged: the loss became infinite or not a number; the run has the status FAILED.
    """

    def find_earlier() -> TrackedRun | None:
        found = None if again else latest_run(experiment, store, suite)
        return found if found and (trial is None or trial.can_reuse(found, store)) else None

    if (earlier := find_earlier()) and earlier.status == "FINISHED":
        return _reuse_finished(experiment, earlier, store)
    members = [_run_member(member, store, suite, parent) for member in experiment.members]
    with experiment.machine.applied(), Signals().installed() as signals:
        job_data = JobData.of(experiment)
        model = model_of(experiment, job_data)
        jobs = inside(experiment.tracking.path, "jobs", suite)
        if earlier:
            checkpoints.check(_checkpoint_folder(jobs, experiment, earlier.id) / CHECKPOINT)
        learn_vocabularies.save_to_cache(job_data.vocabularies)
        # An ensemble is not trained, so it needs one process only.
        machine = MachineSettings() if members else experiment.machine
        with _job_lock(jobs, experiment):
            earlier = find_earlier()  # again: another process may have finished the job before this one got the lock
            if earlier and earlier.status == "FINISHED":
                return _reuse_finished(experiment, earlier, store)
            tags = run_tags(experiment, job_data) | (trial.tags if trial else {})
            if earlier:
                terminal.say(f"  continues run {earlier.id}")
                warn_of_differences(earlier, tags)
                writer = store.resume(earlier.id)
                writer.tag(trial.tags if trial else {})
            else:
                if not again and (others := store.find(suite, experiment.job_hash)):
                    other = "another study" if trial else "another text under the same name"
                    terminal.say(f"  run {others[0].id} is of {other}; a new run begins")
                name = trial.run_name(experiment) if trial else experiment.run_name
                writer = store.begin(suite, name, tags, parent)
                if trial:
                    writer.curve([(0, "trial", trial.number)])  # a tag cannot be the axis of a chart in the UI
            if on_status:
                # Tells the driver that the run exists: if this worker is lost, the next one continues this run.
                on_status(Status(1.0 if members else 0.0, 0, 0, 0, 0.0, None, None))
            metrics, processes = writer.system_metrics(), launch_group(machine, experiment.settings)
            with _close_run_on_error(writer), metrics, processes as group:
                if earlier is None or LAST_METADATA_TAG not in earlier.tags:
                    write_metadata(writer, experiment, job_data)
                folder, completed = Path(group.broadcast(str(_checkpoint_folder(jobs, experiment, writer.id)))), True
                if members:
                    model, costs = _join_members(members, store, folder, writer)
                else:
                    parts = int(earlier.tags.get(PARTS_TAG, 1)) if earlier else 1
                    trained = _train_model(
                        model, experiment, job_data, folder, writer, signals, on_status, group, parts
                    )
                    costs = training_costs(trained, model, experiment, job_data)
                    completed = trained.completed
                measures = store.measures(earlier) if earlier else []
                if not measures:  # otherwise the run was evaluated, and killed before it was closed
                    if trial:
                        measures = evaluate_trial(model, costs, experiment, job_data, trial.goals)
                    else:
                        measures = evaluate_job(model, costs, experiment, job_data, writer, group)
                        writer.record_files()  # a run that is killed after `measures` is not evaluated again
                        _log_model(model, experiment, job_data, folder, writer)
                writer.measures(measures)
                if trial:
                    writer.tag({"state": "COMPLETE" if completed else "PRUNED"})
                writer.finish("FINISHED")
            shutil.rmtree(folder, ignore_errors=True)  # the store has all that is kept of a finished run
    return JobResult(experiment, store.run(writer.id), measures, "finished now")


def latest_run(experiment: Experiment, store: Store, suite: str) -> TrackedRun | None:
    """The newest run of a job on the current text. Includes runs that were killed before their metadata was written.

    A run whose weights were selected by another score or tokenizer is another job: one of an earlier version, or of a
    text whose script tells the tokenizer.
    """
    runs = store.find(suite, experiment.job_hash)
    if not runs:
        return None  # before the text is read, which takes time
    hashes, tags = corpus_hashes(corpus_of(experiment)), selection_of(experiment).tags
    return next(
        (run for run in runs if run.tags.get("data", hashes) == hashes and Selection.of_tags(run.tags).tags == tags),
        None,
    )


def _reuse_finished(experiment: Experiment, run: TrackedRun, store: Store) -> JobResult:
    terminal.say(f"  finished before, run {run.id}")
    return JobResult(experiment, run, store.measures(run), "finished before")


def _run_member(experiment: Experiment, store: Store, suite: str, parent: str | None) -> JobResult:
    terminal.say(f"  member {experiment.name}")
    return run(experiment, store, suite, parent=parent)


def _join_members(
    members: Sequence[JobResult], store: Store, folder: Path, writer: RunWriter
) -> tuple[Translator, list[Measure]]:
    """The ensemble of the finished members' models, and the sum of their training costs; tags the run with theirs."""
    remove_partial_files(folder)
    runs = [member.run.id for member in members if member.run]
    writer.tag({"members": ", ".join(runs)})
    joined = trained_model.join_ensemble([trained_model.load(store, run_id) for run_id in runs])
    return joined.model, ensemble_costs([member.measures for member in members])


def _checkpoint_folder(jobs: Path, experiment: Experiment, run_id: str) -> Path:
    """The folder of a run's checkpoints. Its name contains the run id, so that a new run never loads old weights."""
    return inside(jobs, f"{experiment.row}-{experiment.corpus_name}-s{experiment.seed}-{run_id[:12]}")


@contextlib.contextmanager
def _job_lock(jobs: Path, experiment: Experiment) -> Iterator[None]:
    """Raises JobLocked if another process executes this job. The kernel releases the lock of a killed process."""
    jobs.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(inside(jobs, f".{experiment.job_hash}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise JobLocked(
            f"{experiment.name}: another process executes this job; wait until it ends, or stop it"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _close_run_on_error(writer: RunWriter) -> Iterator[None]:
    """On an exception, closes the run with the reason: KILLED after a signal, FAILED after anything else."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, Interrupted)
        reason = str(error) if stopped else failure_reason(error)
        try:
            writer.tag({"reason": reason})
            writer.finish("KILLED" if stopped else "FAILED")
        except (*StoreFailure, OSError) as failure:
            terminal.say(f"  the status of the run could not be written to the store: {type(failure).__name__}")
        raise


def fail_run(store: Store, run_id: str, reason: str, tags: Mapping[str, str] | None = None) -> None:
    """Ends a run as FAILED, with the reason, for a worker that was lost."""
    writer = RunWriter(store.client, run_id)
    writer.tag({"reason": reason, **(tags or {})})
    writer.finish("FAILED")


NOT_A_NUMBER = "not a number"
"""How the reason of a job begins whose loss became infinite or not a number."""


def failure_reason(error: BaseException) -> str:
    """Why a job failed, in one line: out of memory, not a number, or the exception."""
    text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in text:
        return f"out of memory: {text}"
    return f"{NOT_A_NUMBER}: {error}" if isinstance(error, Diverged) else text


def _train_model(
    model: Translator,
    experiment: Experiment,
    job_data: JobData,
    folder: Path,
    writer: RunWriter,
    signals: Signals,
    on_status: StatusCallback | None,
    group: ProcessGroup,
    parts: int,
) -> TrainingResult:
    """Trains the model and then loads the weights that are evaluated into it.

    Args:
        parts: Parts of each batch that an earlier start of this run needed, because the GPU ran out of memory.
    """
    live = terminal.ProgressLine(experiment.row)
    hooks = TrainingHooks(
        decode_text=job_data.vocabularies.target.decode,
        score=lambda model: validate(model, job_data),
        selection=job_data.selection,
        on_points_saved=writer.curve,
        on_resumed=lambda curve: writer.curve(writer.missing_points(curve)),
        on_status=on_status or live,
    )
    training = replace(experiment.training, accumulate=max(experiment.training.accumulate or 1, parts))
    try:
        while True:
            try:
                trained = train(
                    model,
                    job_data.train,
                    training,
                    experiment.machine,
                    hooks,
                    seed=experiment.seed,
                    folder=folder,
                    signals=signals,
                    group=group,
                )
                break
            except UpdateTooLarge:
                training = replace(training, accumulate=2 * (training.accumulate or 1))
            # Here, because the exception kept everything that the failed update had in memory.
            free_memory(model)
            terminal.say(
                f"  the GPU ran out of memory: every batch is now computed in {training.accumulate} parts "
                "(training.accumulate), from the last checkpoint on"
            )
            writer.tag({PARTS_TAG: str(training.accumulate)})
            if not (folder / CHECKPOINT).exists():
                model.load_state_dict(model_of(experiment, job_data).state_dict())
    finally:
        live.close()
    if not experiment.training.average:  # a mean of the last weights selects nothing
        _warn_of_constant_score(trained.scores, job_data.selection, writer)
    if experiment.machine.cuda_graphs:
        writer.tag({"graph_launches": str(trained.graph_launches)})
        if not trained.graph_launches:
            terminal.say("  machine.cuda_graphs: no update was launched as a graph; docs/gpu.md names the reasons")
    writer.flush()
    writer.frame(pd.DataFrame(trained.curve, columns=["update", "name", "value"]), "curves.parquet")
    model.load_state_dict(trained.weights)
    model.to(experiment.machine.device)
    return trained


def _warn_of_constant_score(scores: Sequence[float], selection: Selection, writer: RunWriter) -> None:
    """Prints and records that the validation score was the same at every validation, so that it could not select."""
    if is_constant(scores):
        terminal.say(
            f"  warning: the validation {selection.label} was {scores[0]:g} at all {len(scores)} validations, so it "
            "could not select weights; the lowest loss did"
        )
        writer.tag({CONSTANT_SCORE_TAG: f"{scores[0]:g}"})


def _log_model(model: Translator, experiment: Experiment, job_data: JobData, folder: Path, writer: RunWriter) -> None:
    """Logs the files that a `TrainedTranslator` is loaded from: configuration, weights, vocabularies, lexicon."""
    files = folder / "translator"
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    fill_file(files / "weights.pt", lambda path: save_tensors(weights, path))
    write_file(files / "config.yaml", config_yaml(experiment))
    for side, words in zip(("source", "target"), job_data.vocabularies, strict=True):
        words.save(files / f"{side}.vocabulary")
    if job_data.lexicon is not None:
        job_data.lexicon.save(files / LEXICON)
    example = next((source for source in job_data.validation.sources if source.strip()), "")
    writer.model(files, example, experiment.decoding.beam)
