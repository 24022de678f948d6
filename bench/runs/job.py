"""One job: an experiment trained, judged and tracked. The same command continues it, or prints it when finished."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import pandas as pd
import torch
import yaml

from bench.data import vocabulary
from bench.data.corpus import Corpus
from bench.data.corpus_stats import kept
from bench.decoding.unk_replacement import LEXICON
from bench.evaluation import trained_model
from bench.evaluation.evaluate import judge, spent, together, tuned, validate
from bench.experiment.job_data import JobData, corpus_of, model_of
from bench.experiment.spec import Experiment, flat
from bench.measures import quality
from bench.measures.measure import Measure
from bench.system import terminal
from bench.system.files import fill_file, remove_partial_files
from bench.system.machine import MachineSettings, environment
from bench.system.progress import Status, StatusCallback
from bench.tracking.reading import TrackedRun
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import Store, StoreFailure
from bench.training import checkpoints
from bench.training.budget import Diverged
from bench.training.checkpoints import Interrupted, Signals, save
from bench.training.distributed import ProcessGroup, leading
from bench.training.trainer import CHECKPOINT, Trained, train
from models.parts.translator import Translator

DESCRIBED = "vocabulary.target"
"""The tag that is written last when a run is described: a run without it was killed before."""


class Busy(ValueError):
    """Another process has the job in its hands."""


@dataclass(frozen=True)
class TrialInfo:
    """What makes a job one of a sweep: it is judged by the validation set only, so that no choice sees a test set.

    Its run has the tag `kind` "tuning", and a `state`: RUNNING, COMPLETE, PRUNED or FAILED.

    Attributes:
        study: The study that it belongs to.
        trial: Its number in the study, from 0, which is the preset.
        attempt: How often it has been begun, or went on.
        goals: The metrics that the sweep wants.
    """

    study: str
    trial: int
    attempt: int
    goals: tuple[str, ...]

    @property
    def tags(self) -> dict[str, str]:
        found = {"kind": "tuning", "study": self.study, "trial": str(self.trial), "attempt": str(self.attempt)}
        return found | {"state": "RUNNING"}

    def name(self, experiment: Experiment) -> str:
        return f"{experiment.name} t{self.trial}"


@dataclass(frozen=True)
class JobResult:
    """A job after its command: the run (None if it failed before it had one, or did not finish) and its numbers."""

    experiment: Experiment
    run: TrackedRun | None
    measures: list[Measure]
    state: str  # finished now, finished before, failed

    def show(self) -> None:
        """Prints the final numbers as a table."""
        if self.run is None:
            return
        rows = [
            [
                measure.metric,
                "not measured" if measure.value is None else terminal.quantity(measure.value),
                measure.unit,
                terminal.interval(measure.low, measure.high),
            ]
            for measure in self.measures
            if measure.metric.count("/") < 2  # groups, by length or distance, are in measures.json and bench probe
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
    watch: StatusCallback | None = None,
    tuning: TrialInfo | None = None,
) -> JobResult:
    """Trains, judges and tracks one job.

    An unfinished run of the same job goes on in the same MLflow run, a finished one is returned as it is, unless
    `again` asks for a new one. A run on another text, under the same name, is not of this job. The members of an
    ensemble are jobs of their own, found or run first; `again` is not for them. `watch` is told how far the training
    is, and may stop it; without it a line on the terminal says so. `tuning` makes it a job of a sweep.

    Raises:
        Busy: another process is at this job.
        ValueError: a setting that cannot be trained with; there is no run then, and nothing on the disk.
        Interrupted: a signal came; the run is saved, and its status is KILLED.
        Diverged: the loss became infinite or not a number; the run's status is FAILED.
    """

    def latest_run() -> TrackedRun | None:
        return None if again else latest(experiment, store, suite)

    if (earlier := latest_run()) and earlier.status == "FINISHED":
        return _finished(experiment, earlier, store)
    members = [_member(member, store, suite, parent) for member in experiment.members]
    with experiment.machine.ready(), Signals().listening() as signals:
        job_data = JobData.of(experiment)
        model = model_of(experiment, job_data)
        jobs = experiment.tracking.path / "jobs" / suite
        if earlier:
            checkpoints.check(_folder(jobs, experiment, earlier.id) / CHECKPOINT)
        vocabulary.keep(job_data.vocabularies)
        machine = (
            experiment.machine if not members else MachineSettings()
        )  # nothing is trained: no other process is needed
        with _alone(jobs, experiment):
            earlier = latest_run()  # another process may have had the job in its hands until now
            if earlier and earlier.status == "FINISHED":
                return _finished(experiment, earlier, store)
            tags = _tags(experiment, job_data.corpus) | (tuning.tags if tuning else {})
            if earlier:
                terminal.say(f"  continues run {earlier.id}")
                _warn_of_differences(earlier, tags)
                job = store.resume(earlier.id)
                job.tag(tuning.tags if tuning else {})
            else:
                if not again and (others := store.find(suite, experiment.job_hash)):
                    terminal.say(f"  run {others[0].id} is of another text under the same name; a new run begins")
                name = tuning.name(experiment) if tuning else experiment.name
                job = store.begin(suite, name, tags, parent)
            if watch:  # a driver knows from now on that the job has a run
                watch(Status(1.0 if members else 0.0, 0, 0, 0, 0.0, None, None))
            with _ending(job), job.watched(), leading(machine, experiment.settings) as group:
                if earlier is None or DESCRIBED not in earlier.tags:
                    _describe(job, experiment, job_data)
                folder, whole = Path(group.first(str(_folder(jobs, experiment, job.id)))), True
                if members:
                    model, used = _join(members, store, folder, job)
                else:
                    trained = _train(model, experiment, job_data, folder, job, signals, watch, group)
                    used = spent(trained, model, experiment, job_data)
                    whole = trained.whole
                measures = store.measures(earlier) if earlier else []
                if not measures:  # or it was judged, and killed before it could say so
                    if tuning:
                        measures = tuned(model, used, experiment, job_data, tuning.goals)
                    else:
                        measures = judge(model, used, experiment, job_data, job, group)
                        _keep(model, experiment, job_data, folder, job)
                job.measures(measures)
                if tuning:
                    job.tag({"state": "COMPLETE" if whole else "PRUNED"})
                job.finish("FINISHED")
    return JobResult(experiment, store.run(job.id), measures, "finished now")


def latest(experiment: Experiment, store: Store, suite: str) -> TrackedRun | None:
    """The newest run of a job on the text as it is now; a run that was killed before it was described may be."""
    runs = store.find(suite, experiment.job_hash)
    data = _data(corpus_of(experiment)) if runs else ""  # a job without runs need not read its text for this
    return next((run for run in runs if run.tags.get("data", data) == data), None)


def _finished(experiment: Experiment, run: TrackedRun, store: Store) -> JobResult:
    terminal.say(f"  finished before, run {run.id}")
    return JobResult(experiment, run, store.measures(run), "finished before")


def _data(corpus: Corpus) -> str:
    return json.dumps({split: digest[:16] for split, digest in corpus.hashes.items()})


def _member(experiment: Experiment, store: Store, suite: str, parent: str | None) -> JobResult:
    terminal.say(f"  member {experiment.name}")
    return run(experiment, store, suite, parent=parent)


def _join(members: Sequence[JobResult], store: Store, folder: Path, job: RunWriter) -> tuple[Translator, list[Measure]]:
    """The finished members' models as one, and what their training used; the run names theirs."""
    remove_partial_files(folder)
    runs = [member.run.id for member in members if member.run]
    job.tag({"members": ", ".join(runs)})
    joined = trained_model.join([trained_model.load(store, run_id) for run_id in runs])
    return joined.model, together([member.measures for member in members])


def _folder(jobs: Path, experiment: Experiment, run_id: str) -> Path:
    """Where a run keeps its checkpoints. It bears the run's id: a new run never finds another's weights."""
    return jobs / f"{experiment.row}-{experiment.corpus_name}-s{experiment.seed}-{run_id[:12]}"


@contextlib.contextmanager
def _alone(jobs: Path, experiment: Experiment) -> Iterator[None]:
    """Raises Busy if another process has this job in its hands; the kernel frees the lock of a killed one."""
    jobs.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(jobs / f".{experiment.job_hash}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise Busy(f"{experiment.name}: another process is at this job; wait for it or end it") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _ending(job: RunWriter) -> Iterator[None]:
    """Closes a run that does not come to its end: KILLED by a signal, FAILED by anything else, with the reason."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, Interrupted)
        reason = str(error) if stopped else reason_of(error)
        try:
            job.tag({"reason": reason})
            job.finish("KILLED" if stopped else "FAILED")
        except (*StoreFailure, OSError) as failure:
            terminal.say(f"  the store could not be told that the run has ended: {type(failure).__name__}")
        raise


def reason_of(error: BaseException) -> str:
    """Why a job failed, in a line: out of memory, not a number, or the exception."""
    text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in text:
        return f"out of memory: {text}"
    return f"not a number: {error}" if isinstance(error, Diverged) else text


def _tags(experiment: Experiment, corpus: Corpus) -> dict[str, str]:
    about = experiment.about
    return {
        "row": experiment.row,
        "name": about.name,
        "year": str(about.year),
        "paper": about.paper,
        "family": about.family,
        "note": about.note,
        "direction": corpus.direction,
        "corpus": corpus.name,
        "preset": experiment.preset,
        "seed": str(experiment.seed),
        "job_hash": experiment.job_hash,
        "command": experiment.command,
        "processes": str(experiment.machine.processes),
        "data": _data(corpus),
        "mlflow.note.content": f"**{about.name}** ({about.paper}), {corpus.name}, preset {experiment.preset}, "
        f"seed {experiment.seed}.",
        **environment(experiment.machine.device),
    }


def _warn_of_differences(run: TrackedRun, tags: dict[str, str]) -> None:
    for key in ("mlflow.source.git.commit", "threads", "version.torch", "hardware.cpu", "hardware.gpu"):
        if run.tags.get(key) != tags[key]:
            terminal.say(f"  warning: {key} was {run.tags.get(key)} when the run began and is {tags[key]} now")


def _describe(job: RunWriter, experiment: Experiment, job_data: JobData) -> None:
    corpus = job_data.corpus
    job.text(_settings(experiment), "config.yaml")
    job.params({key: value for key, value in flat(experiment.settings).items() if not key.startswith("about.")})
    splits = {"train": corpus.train, "validation": corpus.validation, **corpus.tests}
    profiles = {name: json.dumps({"pairs": len(split)}) for name, split in splits.items()}
    job.datasets(corpus.hashes, corpus.name, profiles)
    if job_data.train.pairs.left_out:
        terminal.say(f"  left out: {job_data.train.pairs.left_out:,} pairs over {experiment.text.max_length} tokens")
    sides = dict(zip(("source", "target"), job_data.vocabularies, strict=True))
    corpus_stats = kept(corpus, experiment.tracking.path / "passports")
    vocabularies = {side: {"size": len(v), "kind": experiment.text.kind, "sha256": v.hash} for side, v in sides.items()}
    bleu = quality.statistics(["x"], ["x"]).signature
    whole = corpus_stats | {"vocabularies": vocabularies, "signature": bleu}
    job.text(json.dumps(whole, ensure_ascii=False, indent=1), "corpus_stats.json")
    for leak in corpus_stats["leaks"]:
        _warn_of_leak(corpus.name, leak)
    job.tag({"leakage": "; ".join(corpus_stats["leaks"]) or "none"})
    job.tag({f"vocabulary.{side}": f"{len(v)} {experiment.text.kind}, sha256 {v.hash}" for side, v in sides.items()})


@functools.cache
def _warn_of_leak(corpus: str, leak: str) -> None:
    """Once in a process: every row of a suite reads the same text."""
    terminal.say(f"  warning: leakage in {corpus}, {leak}")


def _train(
    model: Translator,
    experiment: Experiment,
    job_data: JobData,
    folder: Path,
    job: RunWriter,
    signals: Signals,
    watch: StatusCallback | None,
    group: ProcessGroup,
) -> Trained:
    """Trains; afterwards the model has the weights that it is judged by."""
    live = terminal.Live(experiment.row)
    try:
        trained = train(
            model,
            job_data.train,
            experiment.training,
            experiment.machine,
            seed=experiment.seed,
            folder=folder,
            signals=signals,
            text=job_data.vocabularies.target.decode,
            score=lambda model: validate(model, job_data),
            flush=job.curve,
            resumed=lambda curve: job.curve(job.missing(curve)),
            report=watch or live,
            group=group,
        )
    finally:
        live.close()
    job.flush()
    job.frame(pd.DataFrame(trained.curve, columns=["update", "name", "value"]), "curves.parquet")
    model.load_state_dict(trained.weights)
    model.to(experiment.machine.device)
    return trained


def _keep(model: Translator, experiment: Experiment, job_data: JobData, folder: Path, job: RunWriter) -> None:
    """What `translator.opened` opens becomes the run's model: configuration, judged weights, vocabularies, lexicon."""
    kept, weights = folder / "translator", {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    fill_file(kept / "weights.pt", lambda path: save(weights, path))
    (kept / "config.yaml").write_text(_settings(experiment), encoding="utf-8")
    for side, words in zip(("source", "target"), job_data.vocabularies, strict=True):
        words.save(kept / f"{side}.vocabulary")
    if job_data.lexicon is not None:
        job_data.lexicon.save(kept / LEXICON)
    example = next((source for source in job_data.validation.sources if source.strip()), "")
    job.model(kept, example, experiment.decoding.beam)


def _settings(experiment: Experiment) -> str:
    return yaml.safe_dump(experiment.settings, sort_keys=False, allow_unicode=True)
