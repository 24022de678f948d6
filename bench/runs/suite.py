"""Runs a suite: every row of one table, on every corpus, with every seed.

The file of a suite names its rows and their common settings. The stem of the file is the name of the suite and of its
MLflow experiment. Finished jobs are skipped and interrupted jobs continue. The failure of a job is printed and does not
stop the others.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from bench.data import learn_vocabularies
from bench.experiment.commands import suite_command
from bench.experiment.fairness import setting_differences
from bench.experiment.job_data import JobData
from bench.experiment.loading import member_row, read_typed, resolve, row_files
from bench.experiment.spec import Experiment, flatten
from bench.experiment.yaml_layers import check_known
from bench.planning.known_runs import KnownRuns
from bench.planning.plan import Resources, seconds_from_runs
from bench.planning.show import predicted_and_real
from bench.runs import best_settings
from bench.runs.job import JobLocked, JobResult, failure_reason, latest_run, run
from bench.runs.results import Exporter, Results
from bench.runs.worker import Task, TaskResult
from bench.runs.worker_backend import LocalBackend, WorkerBackend
from bench.runs.worker_count import automatic_backend
from bench.runs.worker_pool import MAX_ATTEMPTS, open_pool, schedule
from bench.system import terminal
from bench.system.machine import release_memory, seconds_since_start
from bench.tracking import ui_view
from bench.tracking.store import Store, StoreFailure


@dataclass
class Suite:
    """The rows of one table.

    Attributes:
        question: The question that the table answers, in one sentence.
        rows: Row ids, in the order of the table.
        preset: The preset of every row.
        corpora: Names of corpora; every row is trained on each. Empty for the corpus of the preset.
        seeds: Seeds of every row.
        more_seeds: Row -> further seeds of this row.
        baseline: Id of the row that the others are compared with; the last row if empty.
        settings: Settings of every row, which override its own (groups such as training, decoding, text, corpus).
        sweeps: Row -> name of the sweep whose best settings it takes. They override the settings of the row, and
            `settings` overrides them.
        results: Folder of the runs that other machines have finished, relative to the folder of the file; they are not
            run again (docs/mlflow.md). Empty for none.
    """

    command: ClassVar[str] = "suite"
    """The command of `bench` that runs the file."""

    question: str = ""
    rows: list[str] = field(default_factory=list)
    preset: str = "demo"
    corpora: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [1])
    more_seeds: dict[str, list[int]] = field(default_factory=dict)
    baseline: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    sweeps: dict[str, str] = field(default_factory=dict)
    results: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a suite's file. Raises ValueError for an unknown key, a wrong type or an unknown row."""
        suite = read_typed(path, cls)
        files = row_files()
        known = list(files)
        for row in [*suite.rows, *([suite.baseline] if suite.baseline else []), *suite.sweeps]:
            check_known("row", row, known, path)
        if not suite.rows:
            raise ValueError(f"{path}: rows: the list is empty; name at least one of: {', '.join(known)}")
        if suite.results and suite.sweeps:
            raise ValueError(
                f"{path}: results: cannot be combined with sweeps, whose best settings are in the store of one "
                "machine; write them under settings:, or remove one of the keys"
            )
        members = {member_row(files[row], row) for row in suite.rows}
        for row in suite.sweeps:
            if row not in members | set(suite.rows):
                raise ValueError(
                    f"{path}: sweeps: {row}: has no effect, because the suite trains no row {row}; add it to rows:, or "
                    "remove it"
                )
        for row in suite.more_seeds:
            check_known("row", row, suite.rows, path)
        for key, own in (("seed", "seeds"), ("corpus.name", "corpora")):
            if key in flatten(suite.settings) and getattr(suite, own):
                raise ValueError(
                    f"{path}: settings: {key}: has no effect, because {own} ({getattr(suite, own)}) overrides it; "
                    f"write the value under {own}: instead"
                )
        if not suite.seeds:
            raise ValueError(
                f"{path}: seeds: the list is empty; name at least one seed, or leave the key out for seed 1"
            )
        return suite

    def experiments(
        self, flags: Sequence[str], best: Mapping[str, Mapping[str, Any]] | None = None
    ) -> list[Experiment]:
        """All jobs of the suite, corpus by corpus. Each ensemble comes right after its members.

        So it is evaluated before they are exported, because an export has no weights.

        Args:
            best: Row -> best settings, found by its sweep. An ensemble takes those of its members.

        Raises:
            ValueError: a setting is invalid, or --seed would give all jobs the same seed.
        """
        if "--seed" in {flag.partition("=")[0] for flag in flags}:
            raise ValueError(f"--seed: a suite trains each row with the seeds {self.seeds}; set others with --seeds")
        files, best = row_files(), best or {}
        layers = [{"corpus": {"name": name}} for name in self.corpora] or [{}]
        seeds_of = {row: dict.fromkeys([*self.seeds, *self.more_seeds.get(row, [])]) for row in self.rows}
        jobs: list[Experiment] = []
        for layer in layers:
            resolved = {
                row: resolve(
                    files[row],
                    preset=self.preset,
                    row=row,
                    suite=[
                        best.get(row) or best.get(member_row(files[row], row)) or {},
                        self.settings,
                        layer,
                        {"seed": min(seeds)},  # the smallest one is checked, and the others are set below
                    ],
                    flags=flags,
                )
                for row, seeds in seeds_of.items()
            }
            for seed in dict.fromkeys(seed for seeds in seeds_of.values() for seed in seeds):
                for row in self.rows:
                    if seed in seeds_of[row]:
                        job = replace(resolved[row], seed=seed)
                        jobs += [*job.members, job]
        return list({job.job_hash: job for job in jobs}.values())

    def describe(self, experiments: Sequence[Experiment], parent: str, store: Store) -> None:
        """Writes to the run of the suite what its report needs besides the description of the table."""

    def view(self, scores: Sequence[str], experiment: str, parent: str) -> tuple[str, str]:
        """The view of the jobs in the MLflow UI, and the description of their experiment."""
        return ui_view.suite_view(scores), ui_view.suite_description(self.question, experiment, parent)

    def differences(self, experiments: Sequence[Experiment]) -> list[str]:
        """The settings that all rows should share and do not, one line each."""
        return setting_differences(experiments)


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


LOCK_RETRY_SECONDS = 10.0
"""Seconds until a job that another process executes is tried again; that process may have finished it by then."""


class SuiteQueue:
    """The jobs of a suite as a `worker_pool.JobQueue`. An ensemble waits for its members.

    Args:
        again: Start a new run of each job.
        threads: Threads of a job that does not set `machine.threads`.
        on_end: Gets the result of each job that has ended.
    """

    def __init__(
        self,
        experiments: Sequence[Experiment],
        suite: str,
        parent: str,
        again: bool,
        threads: int | None,
        on_end: Callable[[JobResult], None],
    ):
        self.suite, self.parent, self.again, self.threads, self.on_end = suite, parent, again, threads, on_end
        self.waiting = list(experiments)
        self.job_hashes = [experiment.job_hash for experiment in experiments]
        self.results: dict[str, JobResult] = {}
        self.lost_workers: dict[str, int] = {}
        self.started = set[str]()  # jobs for which this command has created or resumed a run
        self.retry_at: dict[str, float] = {}  # job that another process executes -> time.monotonic() of the next try

    @property
    def remaining(self) -> int:
        return len(self.job_hashes) - len(self.results)

    def next_task(self) -> Task | None:
        unfinished = set(self.job_hashes) - self.results.keys()
        for experiment in self.waiting:
            delayed = time.monotonic() < self.retry_at.get(experiment.job_hash, 0.0)
            if not delayed and unfinished.isdisjoint(member.job_hash for member in experiment.members):
                self.waiting.remove(experiment)
                machine = replace(experiment.machine, threads=experiment.machine.threads or self.threads)
                # A job whose worker was lost continues the run that it started, instead of starting another one.
                again = self.again and experiment.job_hash not in self.started
                return Task(replace(experiment, machine=machine), self.suite, self.parent, again)
        return None

    def on_status(self, task: Task, status: object) -> bool:
        self.started.add(task.experiment.job_hash)
        return False

    def on_result(self, task: Task, result: TaskResult) -> str:
        experiment = task.experiment
        if result.job:
            self.results[experiment.job_hash] = result.job
            self.on_end(result.job)
            return describe_result(result.job)
        if result.state == "stopped":
            self.waiting.insert(0, experiment)
            return result.reason
        if result.state == "locked":
            self.retry_at[experiment.job_hash] = time.monotonic() + LOCK_RETRY_SECONDS
            self.waiting.append(experiment)
            return f"{result.reason}; next try in {LOCK_RETRY_SECONDS:.0f} s"
        if result.state == "lost":
            self.lost_workers[experiment.job_hash] = self.lost_workers.get(experiment.job_hash, 0) + 1
            if self.lost_workers[experiment.job_hash] < MAX_ATTEMPTS:
                self.waiting.insert(0, experiment)
                return f"{result.reason}; continues with another worker"
        self.results[experiment.job_hash] = failed = JobResult(experiment, None, [], "failed")
        self.on_end(failed)
        return f"failed: {result.reason}"


def describe_result(result: JobResult) -> str:
    """The state and BLEU of a job, in a few words."""
    values = {measure.metric: measure.value for measure in result.measures}
    bleu = next((value for name, value in values.items() if name.endswith("/bleu")), None)
    score = f", {bleu:.1f} BLEU" if bleu is not None else ""
    return f"{result.state}{score}"


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

    Jobs that are in the results of the suite are finished. If all are, neither the text nor the store is opened.

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
        if unfinished:  # else the numbers of the command that ran the jobs stay
            store.log_plan(parent, planned_s, None)
        ended = Exporter(kept, store, experiments).add if kept and export else lambda _: None
        status = "KILLED"
        try:
            if pool:
                jobs = SuiteQueue(experiments, name, parent, again, pool.backend.threads_per_job(), ended)
                schedule(jobs, pool, max_seconds)
                results = list(jobs.results.values())
            else:
                results = _run_sequentially(experiments, store, name, parent, again, max_seconds, ended)
            completed = len(results) == len(experiments)
            failed = any(result.run is None for result in results)
            status = "KILLED" if not completed else "FAILED" if failed else "FINISHED"
            if planned_s and status == "FINISHED":
                took_s = time.monotonic() - began
                store.log_plan(parent, planned_s, took_s)
                terminal.say(predicted_and_real(planned_s, took_s))
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
    return {
        "mlflow.note.content": (
            f"{suite.question}\n\nRows: {', '.join(suite.rows)}. Preset: {suite.preset}. Seeds: {suite.seeds}"
            f"{''.join(f', {row} also {seeds}' for row, seeds in suite.more_seeds.items())}."
        ),
        "question": suite.question,
        "command": suite_command(suite.command, path, suite.seeds, flags),
        "rows": ",".join(suite.rows),
        "baseline": suite.baseline or suite.rows[-1],
        "about": json.dumps({row: about[row] for row in suite.rows}),  # needed for rows whose jobs never start
    }


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
