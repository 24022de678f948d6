"""Runs a suite: one job after the other in this process, or several at a time by workers.

Finished jobs are skipped and interrupted jobs continue. The failure of a job is printed and does not stop the others.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from bench.data import learn_vocabularies
from bench.experiment.commands import suite_command
from bench.experiment.job_data import JobData
from bench.experiment.spec import Experiment
from bench.planning.known_runs import KnownRuns
from bench.planning.plan import Resources, seconds_from_runs
from bench.planning.show import predicted_and_real
from bench.runs import best_settings
from bench.runs.job import JobLocked, JobResult, failure_reason, latest_run, run
from bench.runs.results import Exporter, Results
from bench.runs.suite import Suite
from bench.runs.suite_queue import LOCK_RETRY_SECONDS, SuiteQueue
from bench.runs.worker_backend import LocalBackend, WorkerBackend
from bench.runs.worker_count import automatic_backend
from bench.runs.worker_pool import open_pool, schedule
from bench.system import terminal
from bench.system.machine import release_memory, seconds_since_start
from bench.tracking.reading import JOB_DIGITS, JOBS_TAG
from bench.tracking.store import Store, StoreFailure


def is_finished(store: Store, suite: str, experiment: Experiment) -> bool:
    """Whether `job.run` would return a finished run of this job, on the text as it is now."""
    run = latest_run(experiment, store, suite)
    return run is not None and run.status == "FINISHED"


def one_per_dataset(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The first experiment of each group that reads the same text in the same way."""
    first: dict[str, Experiment] = {}
    for experiment in experiments:
        first.setdefault(repr((experiment.corpus, experiment.text, experiment.training.batch_tokens)), experiment)
    return list(first.values())


def run_suite(
    path: Path,
    suite: Suite,
    flags: Sequence[str],
    again: bool,
    backend: WorkerBackend | Literal["auto"] | None = None,
    max_seconds: float | None = None,
    export: bool = False,
) -> tuple[list[JobResult], bool]:
    """Runs every unfinished job of the suite: one after the other in this process, or by the workers of a backend.

    Jobs that are in the results of the suite are finished. If all are, the store is not opened, and of the
    text only files are read, which may have changed.

    Args:
        path: The file of the suite.
        flags: Settings from the command line.
        again: Start a new run of every job, also of finished ones.
        backend: Starts the workers; auto: workers of this machine, as many as suit the jobs.
        max_seconds: No job starts after this time.
        export: Add each finished job to the results of the suite.

    Returns:
        The results of the jobs that ended, and whether these are all jobs.

    Raises:
        ValueError: a setting is invalid; no job was started.
        Interrupted: a signal was received; the jobs in progress are saved.
    """
    began, start_s = time.monotonic(), seconds_since_start() if backend else 0.0
    experiments = suite.experiments(flags)
    if suite.corpora and "--corpus.name" in {flag.partition("=")[0] for flag in flags}:
        terminal.say(f"--corpus.name replaces the corpora of the suite: {', '.join(suite.corpora)}")
    name = path.stem
    kept = Results.of(path, suite.results, export)
    recorded = kept.show(experiments) if kept and not again else []
    whole, in_results = experiments, {result.experiment.job_hash for result in recorded}
    experiments = [experiment for experiment in whole if experiment.job_hash not in in_results]
    if not experiments:
        return recorded, True
    store = None
    if backend == "auto":
        store = Store(experiments[0].tracking)
        to_do = [each for each in experiments if again or not is_finished(store, name, each)]
        backend = automatic_backend(to_do)
    if backend:
        backend.check(experiments)
    # The workers start while this process reads the text and opens the store: creating a store takes seconds.
    with open_pool(backend, len(experiments)) if backend else contextlib.nullcontext() as pool:
        store = store or Store(experiments[0].tracking)
        corpora = dict.fromkeys(experiment.corpus_name for experiment in experiments)
        best = best_settings.find(suite.sweeps, suite.preset, corpora, store)
        if best:
            whole = experiments = suite.experiments(flags, {row: settings.layer for row, settings in best.items()})
        best_settings.check_seeds(best, whole)
        for line in suite.differences(whole):
            terminal.say(f"not equal: {line}")
        if kept:
            kept.check_members(experiments, in_results, store)
        unfinished = [experiment for experiment in experiments if again or not is_finished(store, name, experiment)]
        scores = _prepare_text(unfinished, keep_vocabularies=pool is not None)
        parent = store.start_parent(name, _parent_tags(path, suite, whole, flags))
        suite.describe(whole, parent, store)
        if scores:
            store.set_view(name, "suite", *suite.view(scores, store.experiment_id(name), parent))
        best_settings.log_tuning_costs(best, whole, parent, store)
        resources = Resources.of(backend.count if isinstance(backend, LocalBackend) else None, start_s)
        on_cluster = backend is not None and not isinstance(backend, LocalBackend)
        planned_s = None if on_cluster or not unfinished else _planned_seconds(unfinished, resources, store)
        continued = 0 if again else sum(bool(store.find(name, each.job_hash)) for each in unfinished)
        if unfinished:  # else the numbers of the command that ran the jobs stay
            store.log_plan(parent, planned_s, None)
        ended = Exporter(kept, store, experiments).add if kept and export else lambda _: None
        status = "KILLED"
        try:
            if pool:
                jobs = SuiteQueue(experiments, name, parent, again, pool.backend.threads_per_job(), ended, store)
                schedule(jobs, pool, max_seconds)
                results = list(jobs.results.values())
            else:
                results = _run_sequentially(experiments, store, name, parent, again, max_seconds, ended)
            completed = len(results) == len(experiments)
            failed = any(result.run is None for result in results)
            status = "KILLED" if not completed else "FAILED" if failed else "FINISHED"
            if planned_s and status == "FINISHED":
                took_s = time.monotonic() - began
                if not continued:  # the plan is of whole jobs
                    store.log_plan(parent, planned_s, took_s)
                terminal.say(predicted_and_real(planned_s, took_s, continued))
        finally:
            store.end(parent, status)
    if not completed:
        remaining = len(experiments) - len(results)
        terminal.say(
            f"--max_seconds: the time is up, {remaining} of {len(experiments)} jobs remain; "
            + (NOT_AGAIN if again else "run the same command again to continue")
        )
    return [*recorded, *results], completed


def _prepare_text(experiments: Sequence[Experiment], keep_vocabularies: bool) -> list[str]:
    """Reads the text of jobs before anything is written, so that a setting that does not fit it stops the suite.

    Args:
        keep_vocabularies: Write the vocabularies to the cache, once, so that workers need not learn the same one at
            the same time.

    Returns:
        Names of the scores that the MLflow UI shows: BLEU of the first test set of each corpus.

    Raises:
        ValueError: a setting does not fit the text.
    """
    scores: dict[str, None] = {}
    for experiment in one_per_dataset(experiments):
        job_data = JobData.of(experiment)
        scores |= dict.fromkeys(f"{test_set}/bleu" for test_set in list(job_data.corpus.tests)[:1])
        if keep_vocabularies:
            learn_vocabularies.save_to_cache(job_data.vocabularies)
    return list(scores)


def _parent_tags(path: Path, suite: Suite, experiments: Sequence[Experiment], flags: Sequence[str]) -> dict[str, str]:
    """The tags of the run of a suite: what a report needs to know of the whole table."""
    about = {each.row: {"name": each.about.name, "year": str(each.about.year)} for each in experiments}
    jobs = [each.job_hash[:JOB_DIGITS] for each in experiments]
    return {
        "mlflow.note.content": (
            f"{suite.question}\n\nRows: {', '.join(suite.rows)}. Preset: {suite.preset}. Seeds: {suite.seeds}"
            f"{''.join(f', {row} also {seeds}' for row, seeds in suite.more_seeds.items())}."
        ),
        "question": suite.question,
        "command": suite_command(suite.command, path, suite.seeds, flags),
        JOBS_TAG: " ".join(jobs) if len(jobs) <= MAX_JOBS_NAMED else "",
        "rows": ",".join(suite.rows),
        "baseline": suite.baseline or suite.rows[-1],
        "about": json.dumps({row: about[row] for row in suite.rows}),  # needed for rows whose jobs never start
    }


MAX_JOBS_NAMED = 800
"""Jobs whose digits fit into a tag. In a larger suite, its report takes the newest run of each row and seed."""

NOT_AGAIN = (
    "with --again all jobs begin anew each time; without it, interrupted jobs continue, and jobs that had not begun "
    "keep their earlier runs"
)
"""What a command with --again says when it is interrupted."""

SUITES_READ = 3
"""Number of suites whose runs predict the time of a suite at its start, the newest ones: reading takes time."""


def _planned_seconds(experiments: Sequence[Experiment], resources: Resources, store: Store) -> float | None:
    """Seconds that the jobs will take, from the finished runs of the store; None if these do not tell.

    A plan is worth less than the suite, so a store that has a damaged run must not stop it.
    """
    try:
        return seconds_from_runs(experiments, resources, KnownRuns([store], SUITES_READ))
    except (ValueError, *StoreFailure):
        return None


def _run_sequentially(
    experiments: Sequence[Experiment],
    store: Store,
    suite: str,
    parent: str,
    again: bool,
    max_seconds: float | None,
    on_end: Callable[[JobResult], None],
) -> list[JobResult]:
    begin, results = time.monotonic(), list[JobResult]()
    waiting = deque(experiments)
    locked = 0  # jobs in a row that other processes execute
    while waiting and (max_seconds is None or time.monotonic() - begin < max_seconds):
        experiment = waiting.popleft()
        terminal.say(f"[{len(results) + 1}/{len(experiments)}] {experiment.name}")
        try:
            results.append(run(experiment, store, suite, parent=parent, again=again))
        except JobLocked as error:
            waiting.append(experiment)
            locked += 1
            if locked >= len(waiting):  # there is no other job to do meanwhile
                terminal.say(f"  {error}; next try in {LOCK_RETRY_SECONDS:.0f} s")
                time.sleep(LOCK_RETRY_SECONDS)
            continue
        except Exception as error:  # the failure of one row must not stop the others; it is printed and tracked
            terminal.say(f"  failed: {failure_reason(error)}")
            results.append(JobResult(experiment, None, [], "failed"))
        locked = 0
        on_end(results[-1])
        release_memory()
    return results
