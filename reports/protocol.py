"""How the numbers came about: settings, hardware, data, the command that repeats each row, and what is missing."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.experiment import EXPERIMENTS, architectures, resolve
from bench.tracking import TrackedRun
from reports import formatting as f
from reports.context import Context, Row, Track

BUDGET = ("max_pairs", "max_updates", "max_flops", "max_seconds")
EQUAL = {
    "training": (*BUDGET, "validations", "average"),
    "text": ("kind", "vocabulary_size", "joint", "max_length"),
    "decoding": ("beam", "alpha", "extra_length"),
}
"""Settings that rows of one table should share; those that do not are named as departures."""

RECIPES = ("bleu", "train_flops", "latency_p50_ms", "sentences_per_s", "peak_memory_bytes", "wall_s", "validation_loss")


@dataclass(frozen=True)
class Fact:
    """A line of the protocol: one value that all rows share, or each value with its rows."""

    label: str
    values: tuple[tuple[str, str], ...]  # (value, rows that have it; empty for all)


def facts(context: Context, track: Track) -> list[Fact]:
    """Settings and surroundings of the runs on a track."""
    runs = [(row.name, run) for row in context.rows for run in row.cells[track].runs.values()]

    def fact(label: str, of: Callable[[TrackedRun], str]) -> Fact:
        return Fact(label, _shared([(name, of(run)) for name, run in runs]))

    def settings(*keys: str) -> Callable[[TrackedRun], str]:
        return lambda run: ", ".join(
            f"{key.partition('.')[2].replace('_', ' ')} {f.setting(run.params[key])}"
            for key in keys
            if run.params.get(key) not in (None, "None", "")
        )

    found = [
        Fact("Corpus", ((f"{track.corpus}, preset {track.preset}, test sets {', '.join(track.test_sets)}", ""),)),
        fact("Data", lambda run: _hashes(run.tags.get("data", ""))),
        fact("Text", settings(*(f"text.{key}" for key in EQUAL["text"]))),
        fact(
            "Vocabulary",
            lambda run: "; ".join(
                f"{s}: {run.tags[k]}" for s in ("source", "target") if (k := f"vocabulary.{s}") in run.tags
            ),
        ),
        fact("Budget", settings(*(f"training.{key}" for key in (*BUDGET, "validations", "average")))),
        fact("Batches", settings("training.batch_tokens", "training.precision", "training.clip")),
        fact("Search", settings(*(f"decoding.{key}" for key in EQUAL["decoding"]))),
        Fact(
            "Seeds",
            _shared(
                [
                    (row.name, ", ".join(map(str, row.cells[track].runs)))
                    for row in context.rows
                    if row.cells[track].runs
                ]
            ),
        ),
        *(_recipe(context, track, name) for name in RECIPES),
        fact("Hardware", lambda run: _hardware(run.tags)),
        fact("Software", lambda run: _software(run.tags)),
        fact(
            "Code",
            lambda run: (
                run.tags.get("mlflow.source.git.commit", "")[:12]
                + (" with uncommitted changes" if run.tags.get("git.dirty") == "true" else "")
            ),
        ),
    ]
    return [fact for fact in found if any(value for value, _ in fact.values)]


def _recipe(context: Context, track: Track, name: str) -> Fact:
    metric = f.metric(name)
    numbers = [
        (row.name, row.cells[track].numbers.get((track.test_set if metric.score else "", name))) for row in context.rows
    ]
    return Fact(
        metric.label,
        _shared([(name, number.recipe) for name, number in numbers if number and number.value is not None]),
    )


def _shared(values: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    rows: dict[str, list[str]] = {}
    for name, value in values:
        of_value = rows.setdefault(value, [])
        if name not in of_value:
            of_value.append(name)
    if len(rows) == 1:
        return ((next(iter(rows)), ""),)
    return tuple((value or "not recorded", ", ".join(names)) for value, names in rows.items())


def _hashes(tag: str) -> str:
    try:
        hashes = json.loads(tag)
    except ValueError:
        return tag
    return "SHA-256 " + ", ".join(f"{split} {digest}" for split, digest in hashes.items())


def _hardware(tags: dict[str, str]) -> str:
    if "hardware.cpu" not in tags:
        return ""
    gpu = tags.get("hardware.gpu", "none")
    parts = [tags["hardware.cpu"], f"{tags.get('hardware.cores', '?')} cores", f"{tags.get('threads', '?')} threads"]
    return ", ".join([*parts, "no GPU" if gpu == "none" else gpu])


def _software(tags: dict[str, str]) -> str:
    packages = [f"{key.removeprefix('version.')} {value}" for key, value in tags.items() if key.startswith("version.")]
    return ", ".join([*([f"Python {tags['python']}"] if "python" in tags else []), *sorted(packages)])


def departures(context: Context) -> list[tuple[str, str]]:
    """(row, in what it departs): its own note, and settings in which it differs from most rows of its track."""
    found = [(row.name, row.note) for row in context.rows if row.note]
    for track in context.tracks:
        runs = [(row.name, run) for row in context.rows for run in row.cells[track].runs.values()]
        for group, keys in EQUAL.items():
            for key in (f"{group}.{key}" for key in keys):
                values = _shared([(name, run.params.get(key, "")) for name, run in runs])
                usual = max(values, key=lambda entry: entry[1].count(",")) if len(values) > 1 else None
                found += [
                    (rows, f"{key} {value}, the others {usual[0]} ({track.label})")
                    for value, rows in values
                    if usual and value != usual[0]
                ]
    return found


def commands(context: Context) -> list[tuple[str, str]]:
    """(row, the command that repeats it): the first seed of each track; others differ in --seed alone."""
    found = []
    if (EXPERIMENTS / f"{context.suite}.yaml").is_file():
        found.append(("All rows", f"bench suite {EXPERIMENTS.name}/{context.suite}.yaml"))
    for row in context.rows:
        for cell in row.cells.values():
            for run in list(cell.runs.values())[:1]:
                found.append((row.name, _command(row, run)))
    return found


def _command(row: Row, run: TrackedRun) -> str:
    """From the row's file, its preset, and a flag for every setting in which the run differs from them."""
    if "command" in run.tags:
        return run.tags["command"]
    path, preset = _files().get(row.id), run.tags.get("preset", "")
    if path is None:
        return f"see config.yaml of run {run.id}"
    try:
        defaults = _defaults(row.id, preset)
    except ValueError:  # the row's file has changed since
        return f"see config.yaml of run {run.id}"
    ours = ("model.", "corpus.", "text.", "training.", "decoding.")
    flags = [
        f"--{key} {shlex.quote('null' if value == 'None' else value)}"
        for key, value in sorted(run.params.items())
        if key.startswith(ours) and key != "model.name" and value != defaults.get(key, "None")
    ]
    words = [f"bench run {EXPERIMENTS.name}/{path} --row {row.id} --preset {preset}", *flags]
    return " ".join([*words, f"--seed {run.tags.get('seed', '1')}"])


@functools.cache
def _files() -> dict[str, str]:
    return {row: path.name for row, path in architectures().items()}


@functools.cache
def _defaults(row: str, preset: str) -> dict[str, str]:
    settings = resolve(EXPERIMENTS / _files()[row], preset=preset, row=row).settings
    return {str(key): str(value) for key, value in pd.json_normalize(settings).iloc[0].to_dict().items()}


def missing(context: Context) -> list[tuple[str, str]]:
    """(what was not measured, why)."""
    found: list[tuple[str, str]] = []
    measured = [row for row in context.rows if any(cell.runs for cell in row.cells.values())]
    for row in context.rows:
        for track, cell in row.cells.items():
            place = f"{row.name}, {track.label}"
            if not cell.runs:
                found.append((place, cell.reason or cell.state))
            elif cell.reason:
                found.append((f"{place}, some seeds", cell.reason))
    found += _metrics(context, measured)
    if all(len(cell.runs) < 2 for row in measured for cell in row.cells.values()):
        found.append(("Variation between seeds", "one seed per row"))
    directions = {track.direction for track in context.tracks}
    for direction in ("en-de", "en-fr"):
        if direction not in directions:
            found.append((direction.upper(), "no run of this suite; only the published numbers stand in its columns"))
    return found


def _metrics(context: Context, measured: Sequence[Row]) -> list[tuple[str, str]]:
    """Metrics of the table without a value, rows with the same reason together."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in measured:
        for track, cell in row.cells.items():
            if not cell.runs:
                continue
            for name in f.TABLE:
                for test_set in (track.test_sets or ("",)) if f.metric(name).score else ("",):
                    number = cell.numbers.get((test_set, name))
                    if number is None or number.value is None:
                        reason = number.recipe if number and number.recipe else "not recorded by the run"
                        names = reasons.setdefault((f.metric(name).label, reason), [])
                        if row.name not in names:
                            names.append(row.name)
    everyone = len(measured)
    return [
        (f"{label}, {'every row' if len(names) == everyone > 1 else ', '.join(names)}", reason)
        for (label, reason), names in reasons.items()
    ]
