"""`bench speed train|decode|startup`: measures rows one after another, prints and logs their figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.experiment.loading import member_row, resolve, row_files
from bench.experiment.spec import Experiment, flatten
from bench.experiment.yaml_layers import check_known
from bench.speed import decoding, startup, training
from bench.speed.against import Ratio, compare
from bench.speed.figure import Figure, Measure, Measurement
from bench.system import formatting, streams, terminal
from bench.system.facts import environment_tags
from bench.system.files import write_file
from bench.system.visible_text import visible_line
from bench.tracking.store import Store

What = Literal["train", "decode", "startup"]

EXPERIMENT = "speed"
"""Name of the MLflow experiment."""


@dataclass(frozen=True)
class Request:
    """What is measured.

    Attributes:
        what: Training, decoding, or the start of a run.
        rows: Row ids; empty for every row that trains.
        flags: Settings, as for `bench run`.
        seconds: Time for the figures of a row, beside its warm-up; with `against`, of each round.
        length: For decode: tokens of every output; None for the length of its reference.
        against: A shell command that is measured in turn with the one row; empty for none.
    """

    what: What
    rows: list[str]
    preset: str
    flags: list[str]
    seconds: float
    length: int | None = None
    against: str = ""

    def experiments(self) -> list[Experiment]:
        """The rows with their settings. Raises ValueError for an unknown row or setting, or a wrong combination."""
        files = row_files()
        for row in self.rows:
            check_known("row", row, list(files), Path("bench speed"))
            if member := member_row(files[row], row):
                raise ValueError(f"{row}: an ensemble has no speed of its own; measure its members: {member}")
        rows = self.rows or [row for row, path in files.items() if not member_row(path, row)]
        if self.against and len(rows) != 1:
            raise ValueError("--against: compares one row with the command; name exactly one row")
        if self.length is not None and self.what != "decode":
            raise ValueError(f"--length: bench speed {self.what} writes no sentences; remove the flag")
        return [resolve(files[row], preset=self.preset, row=row, flags=self.flags) for row in rows]

    def prepared(self, experiment: Experiment) -> AbstractContextManager[Measure]:
        """The function that measures a row."""
        if self.what == "train":
            return training.prepared(experiment)
        if self.what == "decode":
            return decoding.prepared(experiment, self.length)
        return startup.prepared(experiment.row, self.preset, self.flags)


@dataclass(frozen=True)
class RowSpeed:
    """The measured speed of a row.

    Attributes:
        machine: Commit, versions and hardware, as in the tags of a run.
        ratios: Beside another program, if there is one.
    """

    experiment: Experiment
    measurement: Measurement
    machine: dict[str, str]
    ratios: list[Ratio] = field(default_factory=list)

    @property
    def record(self) -> dict[str, Any]:
        """Everything as data for JSON; figures as median, spread and samples."""
        experiment, measurement = self.experiment, self.measurement
        return {
            "row": experiment.row,
            "preset": experiment.preset,
            "corpus": experiment.corpus_name,
            "precision": experiment.training.precision,
            "figures": {figure.name: _record(figure) for figure in measurement.figures},
            "other_share": measurement.other_share,
            "quiet": measurement.quiet,
            **measurement.facts,
            "against": {
                ratio.here.name: {"there": ratio.there, "ratios": ratio.ratios, "ratio": ratio.median}
                for ratio in self.ratios
            },
            "machine": self.machine,
        }


def _record(figure: Figure) -> dict[str, Any]:
    return {"median": figure.median, "spread": figure.spread, "samples": figure.samples}


def run(request: Request, form: str, out: Path | None) -> bool:
    """Measures every row, logs its figures to MLflow and prints them. Returns False if a row failed.

    Args:
        form: table or json.
        out: File for the output instead of standard output.

    Raises:
        ValueError: the request is invalid.
    """
    found, failed = list[RowSpeed](), 0
    experiments = request.experiments()
    for position, experiment in enumerate(experiments, start=1):
        note(f"[{position}/{len(experiments)}] {request.what} {experiment.row}")
        try:
            speed = _measured(request, experiment, note)
        except (ValueError, RuntimeError) as error:  # out of memory and CUDA's errors are RuntimeErrors
            if len(experiments) == 1:
                raise
            failed += 1
            note(f"{experiment.row}: {' '.join(str(error).split())}")
            continue
        found.append(speed)
        _log(request, speed)
    content = json.dumps([speed.record for speed in found], indent=1) + "\n"
    if out:
        write_file(out, content)
        terminal.say(str(out))
    if form == "json" and not out:
        streams.write_utf8()
        sys.stdout.write(content)
    elif form == "table" and found:
        print_table(found)
    return not failed


def note(line: str) -> None:
    """Prints progress on standard error, so that standard output has only the figures."""
    print(visible_line(line), file=sys.stderr, flush=True)


def _measured(request: Request, experiment: Experiment, on_progress: Callable[[str], None]) -> RowSpeed:
    with request.prepared(experiment) as measure:
        ratios = list[Ratio]()
        if request.against:
            measurement, ratios = compare(measure, request.seconds, request.against, on_progress)
        else:
            measurement = measure(request.seconds)
        with experiment.machine.applied():
            machine = environment_tags(experiment.machine.device)
    return RowSpeed(experiment, measurement, machine, ratios)


def _log(request: Request, speed: RowSpeed) -> None:
    """Logs the samples of each figure as the steps of a metric of a run, and the record as a file."""
    experiment, store = speed.experiment, Store(speed.experiment.tracking)
    tags = {"kind": "speed", "what": request.what, "row": experiment.row, "preset": experiment.preset, **speed.machine}
    name = f"{request.what} {experiment.row} {experiment.corpus_name} {experiment.preset}"
    writer = store.begin(EXPERIMENT, name, tags)
    writer.params({key: value for key, value in flatten(experiment.settings).items() if not key.startswith("about.")})
    figures = speed.measurement.figures
    writer.curve((step, figure.name, value) for figure in figures for step, value in enumerate(figure.samples))
    writer.text(json.dumps(speed.record, indent=1), "speed.json")
    writer.finish("FINISHED")


def print_table(found: Sequence[RowSpeed]) -> None:
    """Prints medians, and the ratios to another program if there is one."""
    names = list(dict.fromkeys(figure.name for speed in found for figure in speed.measurement.figures))
    has_mfu = "mfu" in found[0].measurement.facts
    columns = [("row", "left"), *((heading(name), "right") for name in names)]
    columns += [*([("MFU", "right")] if has_mfu else []), ("noise", "left")]
    lines = []
    for speed in found:
        measurement = speed.measurement
        medians = {figure.name: formatting.significant(figure.median) for figure in measurement.figures}
        values = [medians.get(name, "—") for name in names]  # a row without a beam has greedy figures only
        mfu = [formatting.percent(float(measurement.facts["mfu"] or 0))] if has_mfu else []
        lines.append([speed.experiment.row, *values, *mfu, measurement.noise])
    terminal.table(columns, lines)
    for speed in found:
        if speed.ratios:
            terminal.table(
                [("figure", "left"), ("here", "right"), ("there", "right"), ("times as fast", "right"), ("", "left")],
                [_ratio_line(ratio) for ratio in speed.ratios],
            )
    machine, facts = found[0].machine, found[0].measurement.facts
    limit = facts.get("ceiling_flops_per_s")
    ceiling = f"; matrix products {float(limit) / 1e9:.0f} GFLOP/s ({facts['ceiling']})" if limit else ""
    where = machine["hardware.gpu"] if machine["hardware.gpu"] != "none" else machine["hardware.cpu"]
    terminal.say(f"medians; {where}, {machine['threads']} threads, torch {machine['version.torch']}{ceiling}")


def _ratio_line(ratio: Ratio) -> list[str]:
    rounds = ", ".join(f"{value:.2f}" for value in ratio.ratios)
    here, there = ratio.here.median, sorted(ratio.there)[len(ratio.there) // 2]
    numbers = [formatting.significant(value) for value in (here, there)]
    return [heading(ratio.here.name), *numbers, f"{ratio.median:.2f}", f"rounds: {rounds}"]


def heading(name: str) -> str:
    """The name of a figure as a heading: target_tokens_per_s -> target tokens (1/s), greedy_ms -> greedy (ms)."""
    if name.endswith("_per_s"):
        return f"{name.removesuffix('_per_s').replace('_', ' ')} (1/s)"
    words, _, unit = name.rpartition("_")
    return f"{words.replace('_', ' ')} ({unit})"
