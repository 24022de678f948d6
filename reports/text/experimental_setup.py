"""How the numbers came about: settings, hardware, data, the command that repeats each row, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.experiment.fairness import SHARED
from bench.measures import registry
from bench.system import formatting
from bench.tracking.reading import TrackedRun
from reports.gathering.context import Context, Row, Track
from reports.tables.table import DIRECTIONS
from reports.text.catalogue import Catalogue
from reports.text.findings import single_seed

RECIPES = (
    "bleu",
    "train_flops",
    "clock_flops",
    "energy_j",
    "latency_p50_ms",
    "sentences_per_s",
    "peak_memory_bytes",
    "wall_s",
    "validation_loss",
)


COUNTS = {"cores": "hardware.cores", "threads": "threads"}


@dataclass(frozen=True)
class Fact:
    """A line of the protocol: one value that all rows share, or each value with its rows."""

    label: str
    values: tuple[tuple[str, str], ...]  # (value, rows that have it; empty for all)


def facts(context: Context, track: Track) -> list[Fact]:
    """Settings and surroundings of the runs on a track."""
    say = context.catalogue
    runs = [(row.name, run) for row in context.rows for run in row.cells[track].runs.values()]

    def fact(key: str, of: Callable[[TrackedRun], str]) -> Fact:
        return Fact(say(f"protocol.{key}"), _shared(say, [(name, of(run)) for name, run in runs]))

    def settings(group: str, *names: str) -> Callable[[TrackedRun], str]:
        return lambda run: ", ".join(
            f"{say(f'setting.{name}')} {formatting.setting(value)}"
            for name in names
            if (value := run.params.get(f"{group}.{name}")) not in (None, "None", "")
        )

    seeds = [(row.name, ", ".join(map(str, cell.runs))) for row in context.rows if (cell := row.cells[track]).runs]
    corpus = {"corpus": track.corpus, "preset": track.preset, "test_sets": ", ".join(track.test_sets)}
    found = [
        Fact(say("protocol.corpus"), ((say("protocol.corpus_text", **corpus), ""),)),
        fact("data", lambda run: _hashes(run.tags.get("data", ""))),
        fact("text", settings("text", *SHARED["text"])),
        fact("vocabulary", lambda run: _vocabulary(say, run.tags)),
        fact("budget", settings("training", *SHARED["training"])),
        Fact(say("protocol.tuning"), _shared(say, _tuning(context, track))),
        fact("batches", settings("training", "batch_tokens", "precision", "clip")),
        fact("search", settings("decoding", *SHARED["decoding"])),
        Fact(say("protocol.seeds"), _shared(say, seeds)),
        *(_provenance(context, track, name) for name in RECIPES),
        fact("hardware", lambda run: _hardware(say, run.tags)),
        fact("software", lambda run: _software(run.tags)),
        fact("code", lambda run: _code(say, run.tags)),
    ]
    return [fact for fact in found if any(value for value, _ in fact.values)]


def _tuning(context: Context, track: Track) -> list[tuple[str, str]]:
    """(row, what tuning its settings got); nothing if the suite took no settings from sweeps."""
    say, tuned = context.catalogue, context.tuned

    def pairs(number: float | None) -> str:
        return say("protocol.other_unit") if number is None else say.count("pair", round(number))

    of = {
        row: say("protocol.tuning_text", **{key: pairs(got[key]) for key in ("granted", "spent", "debt")})
        for row, got in tuned.items()
    }
    rows = [row for row in context.rows if tuned and row.cells[track].runs]
    return [(row.name, of.get(row.id, say("protocol.untuned"))) for row in rows]


def _provenance(context: Context, track: Track, name: str) -> Fact:
    say, test_set = context.catalogue, track.test_set if registry.metric(name).score else ""
    numbers = [(row.name, row.cells[track].numbers.get((test_set, name))) for row in context.rows]
    recipes = [(row, say.recorded(number.provenance)) for row, number in numbers if number and number.value is not None]
    return Fact(say.label(name), _shared(say, recipes))


def _shared(say: Catalogue, values: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    rows: dict[str, list[str]] = {}
    for name, value in values:
        of_value = rows.setdefault(value, [])
        if name not in of_value:
            of_value.append(name)
    if len(rows) == 1:
        return ((next(iter(rows)), ""),)
    return tuple((value or say("protocol.not_recorded"), ", ".join(names)) for value, names in rows.items())


def _hashes(tag: str) -> str:
    try:
        hashes = json.loads(tag)
    except ValueError:
        return tag
    return "SHA-256 " + ", ".join(f"{split} {digest}" for split, digest in hashes.items())


def _vocabulary(say: Catalogue, tags: Mapping[str, str]) -> str:
    source, target = (say.recorded(tags.get(f"vocabulary.{side}", "")) for side in ("source", "target"))
    if source == target:
        return source
    return say("protocol.vocabulary_text", source=source, target=target)


def _hardware(say: Catalogue, tags: Mapping[str, str]) -> str:
    if "hardware.cpu" not in tags:
        return ""
    gpu = tags.get("hardware.gpu", "none")
    counts = [say(f"protocol.{key}", number=tags.get(tag, "?")) for key, tag in COUNTS.items()]
    return ", ".join([tags["hardware.cpu"], *counts, say("protocol.no_gpu") if gpu == "none" else gpu])


def _software(tags: Mapping[str, str]) -> str:
    packages = [f"{key.removeprefix('version.')} {value}" for key, value in tags.items() if key.startswith("version.")]
    return ", ".join([*([f"Python {tags['python']}"] if "python" in tags else []), *sorted(packages)])


def _code(say: Catalogue, tags: Mapping[str, str]) -> str:
    commit = tags.get("mlflow.source.git.commit", "")[:12]
    return say("protocol.dirty", commit=commit) if tags.get("git.dirty") == "true" else commit


def departures(context: Context) -> list[tuple[str, str]]:
    """(row, in what it departs): its own note, and settings in which it differs from most rows of its track."""
    say = context.catalogue
    found = [(row.name, say.recorded(row.note)) for row in context.rows if row.note]
    for track in context.tracks:
        runs = [(row.name, run) for row in context.rows for run in row.cells[track].runs.values()]
        for group, keys in SHARED.items():
            for key in (f"{group}.{key}" for key in keys):
                values = _shared(say, [(name, run.params.get(key) or "None") for name, run in runs])
                usual = max(values, key=lambda entry: entry[1].count(",")) if len(values) > 1 else None
                found += [
                    (rows, say("protocol.departure", key=key, value=value, usual=usual[0], track=track.label))
                    for value, rows in values
                    if usual and value != usual[0]
                ]
    return found


def commands(context: Context) -> list[tuple[str, str]]:
    """(row, the command that repeats it): the first seed of each track; others differ in --seed alone."""
    found = []
    if context.command:
        found.append((context.catalogue("protocol.all_rows"), context.command))
    for row in context.rows:
        for cell in row.cells.values():
            for run in list(cell.runs.values())[:1]:
                see = context.catalogue(
                    "protocol.see_config", run=run.id
                )  # a row of somebody's own, in a file elsewhere
                found.append((row.name, run.tags.get("command") or see))
    return found


def missing(context: Context) -> list[tuple[str, str]]:
    """(what was not measured, why)."""
    say, found = context.catalogue, []
    measured = [row for row in context.rows if any(cell.runs for cell in row.cells.values())]
    for row in context.rows:
        for track, cell in row.cells.items():
            why = "; ".join(
                say("missing.seed", seed=seed, state=say(f"state.{state}") if f"state.{state}" in say.texts else state)
                + (f" ({say.recorded(reason)})" if reason else "")
                for seed, state, reason in cell.failures
            )
            if not cell.runs:
                found.append((say("missing.place", row=row.name, track=track.label), why or say(f"state.{cell.state}")))
            elif why:
                found.append((say("missing.some_seeds", row=row.name, track=track.label), why))
    found += _metrics(context, measured)
    single = single_seed(context)
    if len(single) == len(measured):
        found.append((say("missing.between_seeds"), say("missing.one_seed")))
    elif single:
        label = say("missing.between_seeds")
        found.append((say("missing.rows", label=label, rows=", ".join(single)), say("missing.one_seed")))
    directions = {track.direction for track in context.tracks}
    found += [
        (direction.upper(), say("missing.no_direction")) for direction in DIRECTIONS if direction not in directions
    ]
    return found + _sections(context, measured)


def _sections(context: Context, measured: Sequence[Row]) -> list[tuple[str, str]]:
    """Sections that the report lacks."""
    say = context.catalogue
    names = {metric for row in measured for cell in row.cells.values() for _, metric in cell.numbers}
    absent = {
        "tuning": "no_trials" if not context.tuning else "",
        "lengths": "no_lengths" if not any("/bleu/length/" in name for name in names) else "",
        "probes": "no_probes" if not any(name.startswith("contrastive/") for name in names) else "",
        "attention": "no_attention" if not any(context.attention.values()) else "",
    }
    found = [(say(f"missing.{what}"), say(f"missing.{why}")) for what, why in absent.items() if why]
    without = [track.corpus for track in context.tracks if track not in context.passports]
    return found + [
        (say("missing.passport"), say("missing.no_passport", corpus=corpus)) for corpus in dict.fromkeys(without)
    ]


def _metrics(context: Context, measured: Sequence[Row]) -> list[tuple[str, str]]:
    """Metrics of the table without a value, rows with the same reason together."""
    say = context.catalogue
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in measured:
        for track, cell in row.cells.items():
            if not cell.runs:
                continue
            for name in registry.IN_EVERY_ROW:
                for test_set in (track.test_sets or ("",)) if registry.metric(name).score else ("",):
                    number = cell.numbers.get((test_set, name))
                    if number is None or number.value is None:
                        known = number.provenance if number else ""
                        reason = say.recorded(known) if known else say("missing.not_recorded")
                        names = reasons.setdefault((say.label(name), reason), [])
                        if row.name not in names:
                            names.append(row.name)
    everyone = len(measured)
    return [
        (
            say("missing.every_row", label=label)
            if len(names) == everyone > 1
            else say("missing.rows", label=label, rows=", ".join(names)),
            reason,
        )
        for (label, reason), names in reasons.items()
    ]
