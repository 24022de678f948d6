"""The commands that train models, or plan to: run, suite, scale, sweep, plan, tuned."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.cli import reporting
from bench.cli.arguments import PROGRAM

if TYPE_CHECKING:
    from bench.runs.suite import Suite
    from bench.runs.worker_backend import WorkerBackend


def run_command(args: argparse.Namespace, flags: list[str]) -> int:
    from bench.experiment.loading import merge_settings, resolve, settings_parser

    if args.settings:
        _, merged = merge_settings(args.file, args.preset, args.row, [])
        settings_parser(merged["model"]["name"]).print_help()
        return 0
    experiment = resolve(args.file, preset=args.preset, row=args.row, flags=flags)

    from bench.runs.ddp_follower import follow_elsewhere
    from bench.runs.job import failure_reason, run
    from bench.system import terminal
    from bench.tracking.store import Store
    from bench.training.budget import Diverged
    from bench.training.checkpoints import Interrupted

    try:
        terminal.say(experiment.name)
        if node := experiment.machine.node:
            follow_elsewhere(experiment, node)
            return 0
        result = run(experiment, Store(experiment.tracking), "runs", again=args.again)
    except Interrupted as interruption:
        line = str(interruption)
        terminal.say(line.replace("command again", "command without --again") if args.again else line)
        return 128 + interruption.number
    except (Diverged, MemoryError, RuntimeError) as error:  # RuntimeError: too little memory, or a process is gone
        terminal.say(f"failed: {failure_reason(error)}")
        return 1
    result.show()
    return 0


def suite_command(args: argparse.Namespace, flags: list[str]) -> int:
    from bench.runs.scale import is_study
    from bench.runs.suite import Suite

    if is_study(args.file):
        raise ValueError(f"{args.file}: the file of a scaling study; run it with {PROGRAM} scale {args.file}")
    return _run_jobs(args, flags, Suite.read(args.file))


def scale_command(args: argparse.Namespace, flags: list[str]) -> int:
    from bench.runs.scale import Scale

    return _run_jobs(args, flags, Scale.read(args.file))


def _run_jobs(args: argparse.Namespace, flags: list[str], suite: Suite) -> int:
    """Runs the jobs of a suite or a scaling study, then writes its report."""
    from bench.runs import results as results_folder
    from bench.runs.run_suite import NOT_AGAIN, run_suite
    from bench.system import terminal
    from bench.system.files import inside
    from bench.tracking.store import Store
    from bench.training.checkpoints import Interrupted

    suite.seeds = args.seeds or suite.seeds
    backend = _worker_backend(args)
    try:
        results, completed = run_suite(args.file, suite, flags, args.again, backend, args.max_seconds, args.export)
    except Interrupted as interruption:
        terminal.say(str(interruption))
        if args.again:
            terminal.say(NOT_AGAIN)
        return 128 + interruption.number
    if not results:
        return 3
    name, tracking = args.file.stem, results[0].experiment.tracking
    if all(result.state == results_folder.IN_RESULTS for result in results) and completed:
        from reports.report import read

        report = read(results_folder.joined(None, args.file, suite.results), name)
        if args.out:
            reporting.write(report, args.out)
        else:
            reporting.print_table(report)
        return 0
    out = args.out or inside(Path(tracking.folder), "reports", name)
    store = Store(tracking)
    experiment = reporting.publish(store, name, out, results_folder.joined(store, args.file, suite.results))
    reporting.say_where_to_compare(store, experiment, "suite")
    return 1 if any(result.run is None for result in results) else 0 if completed else 3


def sweep_command(args: argparse.Namespace, flags: list[str]) -> int:
    from bench.experiment.loading import row_files
    from bench.experiment.yaml_layers import check_known
    from bench.sweep import equal_search
    from bench.sweep.settings import Sweep

    sweep = Sweep.read(args.file)
    rows, preset = args.row or sweep.rows, args.preset or sweep.preset or "demo"
    if not rows:
        raise ValueError(f"--row: {args.file} names no rows; name those to search for, such as --row gnmt luong")
    for row in rows:
        check_known("row", row, list(row_files()), Path("--row"))
    if sweep.rows:
        equal_search.check_arguments(sweep, args.file, rows, args.preset, args.trials)
    sweep.trials = args.trials or sweep.trials

    from bench.runs.worker_backend import LocalBackend
    from bench.sweep.run_sweep import print_results, run_sweep
    from bench.system import terminal
    from bench.tracking.store import Store
    from bench.training.checkpoints import Interrupted

    backend = _worker_backend(args) or LocalBackend(1)
    try:
        results = run_sweep(args.file, sweep, rows, preset, flags, backend, args.storage, args.max_seconds)
    except Interrupted as interruption:
        terminal.say(str(interruption))
        return 128 + interruption.number
    print_results(results)
    store = Store(results[0].study.base.tracking)
    reporting.say_where_to_compare(store, store.experiment_id(args.file.stem), "sweep")
    if remaining := sum(result.job_counts["remaining"] for result in results):
        terminal.say(f"--max_seconds: the time is up, {remaining} jobs remain; run the same command again to continue")
        return 3
    return 1 if any(result.job_counts["FAILED"] for result in results) else 0


def plan_command(args: argparse.Namespace, flags: list[str]) -> int:
    from bench.checks.plan_file import read_jobs, show
    from bench.planning.gpus import find_gpu
    from bench.planning.plan import Resources
    from bench.runs.worker_count import automatic_workers
    from bench.system.machine import seconds_since_start
    from bench.tracking.exported import read_exports
    from bench.tracking.store import Store

    start_s = seconds_since_start()  # of this process, which has imported what a worker imports
    gpu = find_gpu(args.gpu) if args.gpu else None
    kind, jobs = read_jobs(args.file, flags, args.seeds, args.row, args.preset, args.trials)
    readers = read_exports(args.exported)
    store = Store(jobs[0].experiment.tracking, read_only=True)
    workers = args.workers
    if workers == "auto":
        workers = 1 if gpu else automatic_workers([job.experiment for job in jobs for _ in range(job.count)])
    show(kind, jobs, Resources.of(workers, start_s, gpu), [*readers, store], args.format)
    return 0


def tuned_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.checks import tuning

    return int(not tuning.write(args.file))


def _worker_backend(args: argparse.Namespace) -> WorkerBackend | Literal["auto"] | None:
    """The backend that starts the workers of a command; None if this process executes the jobs itself."""
    if args.cluster:
        from bench.runs.ray_cluster import RayBackend

        workers = None if args.workers == "auto" else args.workers
        return RayBackend(args.cluster, workers, args.cpus_per_trial or 1, args.gpus_per_trial or 0.0)
    for flag in ("gpus_per_trial", "cpus_per_trial"):
        if getattr(args, flag):
            raise ValueError(
                f"--{flag}: only the workers of a cluster have this setting; add --cluster, or remove the flag"
            )
    from bench.runs.worker_backend import LocalBackend

    return "auto" if args.workers == "auto" else LocalBackend(args.workers) if args.workers else None
