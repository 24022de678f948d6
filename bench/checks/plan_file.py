"""`bench plan`: the jobs of a file, and what they will cost."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.evaluation.evaluate import SPEED
from bench.experiment.loading import resolve, row_files
from bench.experiment.yaml_layers import check_known, read_yaml
from bench.planning.known_runs import KnownRuns
from bench.planning.plan import Job, Resources, make_plan
from bench.planning.show import as_csv, as_json, print_table
from bench.runs.scale import Scale, is_study
from bench.runs.suite import Suite
from bench.sweep import equal_search
from bench.sweep.settings import Sweep
from bench.system import streams
from bench.tracking.reading import Reader


def read_jobs(
    path: Path,
    flags: Sequence[str],
    seeds: Sequence[int] | None = None,
    rows: Sequence[str] | None = None,
    preset: str | None = None,
    trials: int | None = None,
) -> tuple[str, list[Job]]:
    """The kind of a file (suite, sweep, or study of scaling curves) and its jobs. Corpora are not read.

    Args:
        flags: Settings from the command line.
        seeds: Of a suite or study; None for those of the file.
        rows: Of a sweep; None for those of the file.
        preset: Of a sweep.
        trials: Of a sweep.

    Raises:
        ValueError: the file is neither a suite, a sweep nor a study, or an argument does not fit it.
    """
    content = read_yaml(path)
    if "model" in content:
        raise ValueError(
            f"{path}: the file of an architecture; expected one of a suite, sweep or study; list the row in one"
        )
    suite, sweep = ({each.name for each in dataclasses.fields(kind)} for kind in (Suite, Sweep))
    kind = "study" if is_study(path) else "sweep" if (sweep - suite) & content.keys() else "suite"
    jobs_of_suite = {"--row": rows, "--preset": preset, "--trials": trials}
    arguments = {"sweep": {"--seeds": seeds}, "suite": jobs_of_suite, "study": jobs_of_suite}
    for flag, value in arguments[kind].items():
        if value:
            raise ValueError(f"{flag}: {path} is a {kind}, which has no such flag; remove it")
    if kind == "sweep":
        return kind, _sweep_jobs(path, flags, rows, preset, trials)
    return kind, _suite_jobs((Scale if kind == "study" else Suite).read(path), flags, seeds)


def _suite_jobs(suite: Suite, flags: Sequence[str], seeds: Sequence[int] | None) -> list[Job]:
    suite.seeds = list(seeds or suite.seeds)
    return [Job(experiment) for experiment in suite.experiments(flags)]


def _sweep_jobs(
    path: Path, flags: Sequence[str], rows: Sequence[str] | None, preset: str | None, trials: int | None
) -> list[Job]:
    """One entry for each row: every trial counts as the first, although some may be pruned or have other sizes."""
    sweep = Sweep.read(path)
    chosen, files = list(rows or sweep.rows), row_files()
    if not chosen:
        raise ValueError(f"--row: {path} names no rows; name those to search for, such as --row gnmt luong")
    for row in chosen:
        check_known("row", row, list(files), Path("--row"))
    if sweep.rows:
        equal_search.check_arguments(sweep, path, chosen, preset, trials)
        first = [equal_search.trial_experiments(sweep, row, flags)[0][1] for row in chosen]
    else:
        layers, name = [{"seed": sweep.seed}], preset or sweep.preset or "demo"
        first = [resolve(files[row], preset=name, row=row, suite=layers, flags=flags) for row in chosen]
    is_timed = not {*sweep.goals, *sweep.limits}.isdisjoint(SPEED)
    return [Job(experiment, trials or sweep.trials, is_trial=True, is_timed=is_timed) for experiment in first]


def show(kind: str, jobs: Sequence[Job], resources: Resources, readers: Sequence[Reader], form: str) -> None:
    """Prints the plan of jobs. Progress of the calibration goes to standard error.

    Args:
        form: table, json or csv.
    """

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    plan = make_plan(jobs, resources, KnownRuns(readers), say)
    if form == "table":
        print_table(plan, kind)
        return
    streams.write_utf8()
    sys.stdout.write(as_csv(plan) if form == "csv" else as_json(plan, kind) + "\n")
