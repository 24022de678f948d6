"""The experimental setup: settings, hardware, data, commands that repeat each row, and what was not measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.data.corpora.grammar import PHENOMENA
from bench.experiment.fairness import SHARED_SETTINGS
from bench.measures import metric_registry
from bench.measures.selection import Selection
from bench.system import formatting
from bench.system.facts import COMMIT, UNCOMMITTED_CHANGES, UNKNOWN
from bench.tracking.private_paths import public_command
from bench.tracking.reading import LEFT_OUT_TAG, TrackedRun
from reports.gathering.context import Context, Row, Track
from reports.tables.comparison_table import DIRECTIONS
from reports.text.catalogue import Catalogue
from reports.text.findings import single_seed

COUNTS = {"cores": "hardware.cores", "threads": "threads"}
"""Text of the catalogue -> tag of a run."""


@dataclass(frozen=True)
class Fact:
    """A line of the setup: one value that all rows share, or each value with the rows that have it."""

    label: str
    values: tuple[tuple[str, str], ...]  # (value, rows that have it; empty for all)


def facts(context: Context, track: Track) -> list[Fact]:
    """Settings, provenance of the numbers, hardware and software of the runs on a track. Empty lines are left out."""
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
        Fact(say("protocol.filters"), _filters(context, track)),
        fact("text", settings("text", *SHARED_SETTINGS["text"])),
        fact("vocabulary", lambda run: _vocabulary(say, run.tags)),
        fact("budget", settings("training", *SHARED_SETTINGS["training"])),
        fact("selection", lambda run: _selection(say, run.tags)),
        Fact(say("protocol.tuning"), _shared(say, _tuning(context, track))),
        fact("batches", settings("training", "batch_tokens", "batch_pairs", "precision", "clip")),
        fact("search", settings("decoding", *SHARED_SETTINGS["decoding"])),
        Fact(say("protocol.seeds"), _shared(say, seeds)),
        *(_provenance(context, track, name) for name in metric_registry.PRINTED_PROVENANCE),
        fact("hardware", lambda run: _hardware(say, run.tags)),
        fact("software", lambda run: _software(say, run.tags)),
        fact("code", lambda run: _code(say, run.tags)),
    ]
    return [fact for fact in found if any(value for value, _ in fact.values)]


def _filters(context: Context, track: Track) -> tuple[tuple[str, str], ...]:
    """The training pairs that each filter of the corpus removed; none without filters."""
    say, removed = context.catalogue, context.corpus_stats.get(track, {}).get("removed") or {}
    return tuple((f"{name}: {say.count('pair', count)}", "") for name, count in removed.items())


def _tuning(context: Context, track: Track) -> list[tuple[str, str]]:
    """(row, sentence pairs of its tuning); empty if the suite has recorded no tuning."""
    say, tuned = context.catalogue, context.tuned

    def pairs(number: float | None) -> str:
        return say("protocol.other_unit") if number is None else say.count("pair", round(number))

    of = {
        row: say("protocol.no_search")
        if got.get("no_search")
        else say("protocol.tuning_text", **{key: pairs(got[key]) for key in ("granted", "spent", "debt")})
        for row, got in tuned.items()
    }
    rows = [row for row in context.rows if tuned and row.cells[track].runs]
    return [(row.name, of.get(row.id, say("protocol.untuned"))) for row in rows]


def _provenance(context: Context, track: Track, name: str) -> Fact:
    """How a metric was measured, for each row that has a value."""
    say, test_set = context.catalogue, track.test_set if metric_registry.metric(name).score else ""
    numbers = [(row.name, row.cells[track].numbers.get((test_set, name))) for row in context.rows]
    provenances = [
        (row, say.recorded(number.provenance)) for row, number in numbers if number and number.value is not None
    ]
    return Fact(say.label(name), _shared(say, provenances))


def _shared(say: Catalogue, values: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The values of a `Fact` from (row, value)."""
    rows = _rows_by_value(values)
    if len(rows) == 1:
        return ((next(iter(rows)), ""),)
    # Names of rows may contain commas.
    return tuple((value or say("protocol.not_recorded"), "; ".join(names)) for value, names in rows.items())


def _rows_by_value(values: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Value -> its rows, each once, from (row, value)."""
    return {value: _names(of for of in values if of[1] == value) for value in dict.fromkeys(v for _, v in values)}


def _names(values: Iterable[tuple[str, str]]) -> list[str]:
    """The rows of (row, value), each once."""
    return list(dict.fromkeys(name for name, _ in values))


def _hashes(tag: str) -> str:
    """The SHA-256 of each split, from the tag of a run."""
    try:
        hashes = json.loads(tag)
    except ValueError:
        return tag
    return "SHA-256 " + ", ".join(f"{split} {digest}" for split, digest in hashes.items())


def _vocabulary(say: Catalogue, tags: Mapping[str, str]) -> str:
    """The vocabularies of source and target, as one text if they are equal."""
    source, target = (say.recorded(tags.get(f"vocabulary.{side}", "")) for side in ("source", "target"))
    if source == target:
        return source
    return say("protocol.vocabulary_text", source=source, target=target)


def _selection(say: Catalogue, tags: Mapping[str, str]) -> str:
    """What selected the weights, and the tokenizer of BLEU; empty for a run that has not recorded it."""
    if "validation_score" not in tags:
        return ""
    selection = Selection.of_tags(tags)
    return say("protocol.selection_text", score=say.label(selection.metric), tokenizer=selection.tokenizer)


def _hardware(say: Catalogue, tags: Mapping[str, str]) -> str:
    """CPU, cores, threads and GPU."""
    if "hardware.cpu" not in tags:
        return ""
    cpu, gpu = tags["hardware.cpu"], tags.get("hardware.gpu", "none")
    counts = [say(f"protocol.{key}", number=_known(say, tags.get(tag, UNKNOWN))) for key, tag in COUNTS.items()]
    return ", ".join(
        [
            say("protocol.unknown_cpu") if cpu == UNKNOWN else cpu,
            *counts,
            {"none": say("protocol.no_gpu"), UNKNOWN: say("protocol.unknown_gpu")}.get(gpu, gpu),
        ]
    )


def _known(say: Catalogue, value: str) -> str:
    """A recorded fact, or the word for unknown in the language of the report."""
    return say("protocol.unknown") if value == UNKNOWN else value


def _software(say: Catalogue, tags: Mapping[str, str]) -> str:
    """Versions of Python and of the packages."""
    versions = {key.removeprefix("version."): value for key, value in tags.items() if key.startswith("version.")}
    packages = [f"{package} {_known(say, value)}" for package, value in versions.items()]
    return ", ".join([*([f"Python {tags['python']}"] if "python" in tags else []), *sorted(packages)])


def _code(say: Catalogue, tags: Mapping[str, str]) -> str:
    """The commit, and whether there were uncommitted changes. Both may be unknown; see facts.code_state."""
    if COMMIT not in tags:
        return ""
    commit = tags[COMMIT]
    if commit in ("", UNKNOWN):  # "" is what earlier versions recorded
        return say("protocol.unknown")
    states = {"true": "protocol.dirty", "false": "protocol.clean"}
    return say(states.get(tags.get(UNCOMMITTED_CHANGES, ""), "protocol.unknown_changes"), commit=commit[:12])


def deviations(context: Context) -> list[tuple[str, str]]:
    """(row, deviation): the note of the row, and settings in which it differs from most rows of its track."""
    say = context.catalogue
    found = [(row.name, say.recorded(row.note)) for row in context.rows if row.note]
    for track in context.tracks:
        runs = [(row.name, run) for row in context.rows for run in row.cells[track].runs.values()]
        for group, keys in SHARED_SETTINGS.items():
            for key in (f"{group}.{key}" for key in keys):
                # A run of an earlier version has not recorded a setting that was added later.
                recorded = [(name, run.params[key] or "None") for name, run in runs if key in run.params]
                rows = _rows_by_value(recorded)
                usual = next((value for value, names in rows.items() if 2 * len(names) > len(_names(recorded))), None)
                said = "protocol.different" if usual is None else "protocol.deviation"
                found += [
                    ("; ".join(names), say(said, key=key, value=value, usual=usual, track=track.label))
                    for value, names in rows.items()
                    if len(rows) > 1 and value != usual
                ]
    return found


def commands(context: Context) -> list[tuple[str, str]]:
    """(row, the command that repeats its first seed on a track). Other seeds differ only in --seed."""
    found = []
    if context.command:
        found.append((context.catalogue("protocol.all_rows"), context.command))
    for row in context.rows:
        for cell in row.cells.values():
            for run in list(cell.runs.values())[:1]:
                # A row from a file outside experiments/ has no command that works elsewhere.
                see_config = context.catalogue("protocol.see_config", run=run.id)
                found.append((row.name, public_command(run.tags.get("command", "")) or see_config))
    return found


def missing(context: Context) -> list[tuple[str, str]]:
    """(what was not measured, why): failed seeds, metrics, single seeds, directions and sections."""
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
                found.append(
                    (say("missing.row_and_track", row=row.name, track=track.label), why or say(f"state.{cell.state}"))
                )
            elif why:
                found.append((say("missing.some_seeds", row=row.name, track=track.label), why))
    found += _metrics(context, measured)
    single = single_seed(context)
    if all(len(cell.runs) < 2 for row in measured for cell in row.cells.values()):
        found.append((say("missing.between_seeds"), say("missing.one_seed")))
    elif single:
        label = say("missing.between_seeds")
        found.append((say("missing.rows", label=label, rows="; ".join(single)), say("missing.one_seed")))
    directions = {track.direction for track in context.tracks}
    found += [
        (direction.upper(), say("missing.no_direction")) for direction in DIRECTIONS if direction not in directions
    ]
    return found + _sections(context, measured)


def _sections(context: Context, measured: Sequence[Row]) -> list[tuple[str, str]]:
    """The sections that the report does not have."""
    say = context.catalogue
    names = {metric for row in measured for cell in row.cells.values() for _, metric in cell.numbers}
    absent = {
        "tuning": _no_tuning(context),
        "lengths": "no_lengths" if not any("/bleu/length/" in name for name in names) else "",
        "probes": "no_probes" if not any(name.startswith("contrastive/") for name in names) else "",
        "attention": "no_attention" if not any(context.attention.values()) else "",
        "translations": "",
    }
    runs = (run for row in context.rows for cell in row.cells.values() for run in cell.runs.values())
    if any(LEFT_OUT_TAG in run.tags for run in runs):
        shown = any(texts.references for texts in context.translations.values())
        absent |= {"attention": "left_out" if absent["attention"] else "", "translations": "" if shown else "left_out"}
    found = [(say(f"missing.{what}"), say(f"missing.{why}")) for what, why in absent.items() if why]
    for track in context.tracks:
        measured_kinds = {kind for row in measured for kind in row.cells[track].below("contrastive")}
        found += [
            (say("missing.phenomenon", phenomenon=say.recorded(kind), track=track.label), say("missing.no_contrasts"))
            for kind in PHENOMENA
            if measured_kinds and kind not in measured_kinds
        ]
    found += _not_compared(context, measured)
    without = [track.corpus for track in context.tracks if track not in context.corpus_stats]
    return found + [
        (say("missing.corpus_stats"), say("missing.no_corpus_stats", corpus=corpus))
        for corpus in dict.fromkeys(without)
    ]


def _no_tuning(context: Context) -> str:
    """Why there is no section on the search of settings; "" if there is one."""
    if context.tuning:
        return ""
    searched = any(row.get("sweep") for row in context.tuned.values())
    return "trials_elsewhere" if searched else "no_trials"


def _not_compared(context: Context, measured: Sequence[Row]) -> list[tuple[str, str]]:
    """Rows whose difference from the baseline is missing, on the tracks where both have runs."""
    say, found = context.catalogue, []
    if len(measured) < 2:
        return []
    baseline = context.row(context.baseline)
    if baseline not in measured:
        return [(say("missing.significance"), say("missing.no_baseline"))]
    for track in context.tracks:
        for row in measured:
            both = row.cells[track].runs.keys(), baseline.cells[track].runs.keys()
            if row is not baseline and all(both) and not both[0] & both[1]:
                label = say("missing.no_common_seed", row=row.name, track=track.label)
                found.append((label, say("missing.no_common_seed_why")))
    return found


def _metrics(context: Context, measured: Sequence[Row]) -> list[tuple[str, str]]:
    """Metrics with `in_every_row` that have no value. Rows with the same reason are joined."""
    say = context.catalogue
    reasons: dict[tuple[str, str], dict[str, list[str]]] = {}  # of a label and a reason: row -> tracks
    for row in measured:
        for track, cell in row.cells.items():
            if not cell.runs:
                continue
            for name in metric_registry.IN_EVERY_ROW:
                for test_set in (track.test_sets or ("",)) if metric_registry.metric(name).score else ("",):
                    number = cell.numbers.get((test_set, name))
                    if number is None or number.value is None:
                        known = number.provenance if number else ""
                        reason = say.recorded(known) if known else say("missing.not_recorded")
                        tracks = reasons.setdefault((say.label(name), reason), {}).setdefault(row.name, [])
                        if track.label not in tracks:
                            tracks.append(track.label)
    all_tracks = {row.name: [track.label for track, cell in row.cells.items() if cell.runs] for row in measured}
    return [
        (
            say("missing.every_row", label=label)
            if rows == all_tracks and len(rows) > 1
            else say(
                "missing.rows",
                label=label,
                rows="; ".join(
                    row if tracks == all_tracks[row] else f"{row} ({', '.join(tracks)})" for row, tracks in rows.items()
                ),
            ),
            reason,
        )
        for (label, reason), rows in reasons.items()
    ]
