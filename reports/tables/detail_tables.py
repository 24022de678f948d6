"""The tables behind the comparison: every score, tests, changes, probes, losses, the corpus, and what was published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.system import formatting
from reports.gathering.comparison import Comparison
from reports.gathering.context import Cell, Context, Number, Row, Track
from reports.tables.table import DIRECTIONS, NONE, Column, Entry, Table, of, score, text
from reports.text import metric_format
from reports.text.findings import paired

SCORES = ("bleu", "chrf", "ter", "bleu_shuffled_references")
LOSSES = ("validation_loss", "validation_loss_shuffled_sources")


def _front(context: Context) -> list[Column]:
    """Model, and direction where there are several."""
    say = context.catalogue
    columns = [Column(say("table.model"), side="left"), Column(say("scores.direction"), side="left")]
    return columns if len(context.tracks) > 1 else columns[:1]


def _begin(context: Context, row: Row, track: Track) -> list[Entry]:
    return [text(row.name), text(track.label)] if len(context.tracks) > 1 else [text(row.name)]


def _cells(context: Context) -> Iterator[tuple[Track, Row, Cell]]:
    """Every row that has a run, one track after the other."""
    return ((track, row, row.cells[track]) for track in context.tracks for row in context.rows if row.cells[track].runs)


def scores(context: Context) -> Table:
    """Every test set with every metric of quality."""
    say = context.catalogue
    columns = [*_front(context), Column(say("scores.test_set"), side="left"), *(Column(say.label(n)) for n in SCORES)]
    rows = [
        (
            *_begin(context, row, track),
            text(test_set),
            *(score(name, row.cells[track].number(name, test_set)) for name in SCORES),
        )
        for track in context.tracks
        for test_set in track.test_sets
        for row in context.rows
        if row.cells[track].runs
    ]
    return Table("scores", say("scores.caption"), tuple(columns), tuple(rows))


def _tested(test: Comparison, context: Context) -> list[Entry]:
    """Difference, interval, p, corrected p, verdict."""
    seeds = paired(context.catalogue, test)
    return [
        Entry(metric_format.difference("bleu", test.difference), (seeds,) if seeds else (), sort=test.difference),
        Entry(metric_format.interval("bleu", test.low, test.high), sort=test.low),
        NONE if test.p is None else Entry(formatting.p_value(test.p), sort=test.p),
        NONE if test.adjusted is None else Entry(formatting.p_value(test.adjusted), sort=test.adjusted),
        text(context.catalogue(f"verdict.{test.verdict}")),
    ]


def _tested_columns(context: Context) -> list[Column]:
    names = ("difference", "interval", "p", "holm")
    say = context.catalogue
    return [*(Column(say(f"tests.{name}")) for name in names), Column(say("tests.verdict"), side="left")]


def significance(context: Context) -> Table:
    """Each row against the baseline."""
    say = context.catalogue
    columns = [*_front(context), Column(say.label("bleu")), *_tested_columns(context)]
    rows = [
        (
            *_begin(context, row, track),
            of("bleu", cell.number("bleu", track.test_set)),
            *_tested(test, context),
        )
        for track, row, cell in _cells(context)
        if (test := context.comparison(track, row.id, context.baseline))
    ]
    caption = say("tests.caption", baseline=context.row(context.baseline).name)
    return Table("significance", caption, tuple(columns), tuple(rows))


def changes(context: Context) -> Table | None:
    """Each row against itself in the suite that this one is compared with; None if there is none."""
    say, before = context.catalogue, context.before
    if before is None:
        return None
    columns = [
        *_front(context),
        Column(say("changes.before"), group=say.label("bleu")),
        Column(say("changes.now"), group=say.label("bleu")),
        *_tested_columns(context),
        Column(say("changes.flops")),
        Column(say("changes.latency")),
    ]
    tests = {(test.track, test.row): test for test in context.changes}
    rows = []
    for track in context.tracks:
        earlier = track.among(before.tracks)
        for row in context.rows:
            then = next((other for other in before.rows if other.id == row.id), None)
            now, old = row.cells[track], then.cells[earlier] if then and earlier else None
            if not now.runs and not (old and old.runs):
                continue
            rows.append((*_begin(context, row, track), *_changed(context, now, old, tests.get((track.label, row.id)))))
    ids = {row.id for row in context.rows}
    gone = [row for row in before.rows if row.id not in ids and any(cell.runs for cell in row.cells.values())]
    blank = [NONE] * (len(columns) - len(_front(context)) - 1)
    for row in gone if context.tracks else ():
        ran = [track for track in context.tracks if (old := track.among(before.tracks)) and row.cells[old].runs]
        rows.append((*_begin(context, row, (ran or context.tracks)[0]), text(say("changes.only_before")), *blank))
    caption = say("changes.caption", suite=context.suite, before=before.suite)
    return Table("changes", caption, tuple(columns), tuple(rows))


def _changed(context: Context, now: Cell, old: Cell | None, test: Comparison | None) -> list[Entry]:
    say = context.catalogue
    bleu = [cell.number("bleu", cell.track.test_set) if cell else None for cell in (old, now)]
    if test is not None:
        tested = _tested(test, context)
    else:
        if not (old and old.runs):
            why = "changes.only_now"
        elif not now.runs:
            why = "changes.only_before"
        else:
            why = "verdict.other sentences" if now.runs.keys() & old.runs.keys() else "verdict.no common seed"
        tested = [NONE] * 4 + [text(say(why))]
    ratios = [
        NONE if not a or not b else Entry(formatting.ratio(a / b), sort=a / b)
        for name in ("train_flops", "latency_p50_ms")
        for a, b in [(now.value(name), old.value(name) if old else None)]
    ]
    return [*(of("bleu", number) for number in bleu), *tested, *ratios]


def settings(context: Context) -> Table:
    """The best settings that sweeps found, and how much each matters."""
    say = context.catalogue
    columns = [*_front(context), *(Column(say(f"tuning.{name}"), side="left") for name in ("setting", "best"))]
    rows = [
        (
            *_begin(context, context.row(swept.row), track),
            text(key),
            text(formatting.sampled_setting(value)),
            NONE if (part := swept.importance.get(key)) is None else Entry(formatting.percent(part), sort=part),
        )
        for track, found in context.sweeps.items()
        for swept in found
        for key, value in sorted(swept.settings.items(), key=lambda item: -swept.importance.get(item[0], 0.0))
    ]
    return Table("settings", say("tuning.table"), (*columns, Column(say("tuning.importance"))), tuple(rows))


def fronts(context: Context) -> Table:
    """The trials of sweeps with several goals that none beats in all of them."""
    say = context.catalogue
    swept = [(track, one) for track, found in context.sweeps.items() for one in found if one.front]
    goals = list(dict.fromkeys(goal for _, one in swept for goal in one.goals))
    rows = [
        (
            *_begin(context, context.row(one.row), track),
            *(_goal(goal, dict(zip(one.goals, values, strict=True))) for goal in goals),
            text(", ".join(f"{key} {formatting.sampled_setting(str(value))}" for key, value in chosen.items())),
        )
        for track, one in swept
        for values, chosen in one.front
    ]
    columns = [*_front(context), *(Column(say.label(goal)) for goal in goals), Column(say("tuning.trial"), side="left")]
    return Table("fronts", say("tuning.front"), tuple(columns), tuple(rows))


def _goal(goal: str, values: Mapping[str, float]) -> Entry:
    return Entry(metric_format.value(goal, values[goal]), sort=values[goal]) if goal in values else NONE


def sources(context: Context) -> Table:
    """Validation loss with the true and with shuffled sources."""
    say = context.catalogue
    columns = [*_front(context), *(Column(say(f"sources.{name}")) for name in ("true", "shuffled", "lost"))]
    rows = []
    for track, row, cell in _cells(context):
        true, shuffled = (cell.value(name) for name in LOSSES)
        if true is None or shuffled is None:
            continue
        lost = Entry(metric_format.difference(LOSSES[0], shuffled - true), sort=shuffled - true)
        rows.append((*_begin(context, row, track), *(of(name, cell.number(name)) for name in LOSSES), lost))
    return Table("sources", say("sources.table"), tuple(columns), tuple(rows))


def probes(context: Context) -> Table:
    """Accuracy on contrasts by phenomenon, those of models that see the target alone below it, and alignment error."""
    say = context.catalogue
    kinds = phenomena(context)
    aligned = any(cell.value("aer") is not None for _, _, cell in _cells(context))
    columns = [
        *_front(context),
        *(Column(say.recorded(kind), group=say("probes.axis")) for kind in kinds),
        *([Column(say("probes.aer"))] if aligned else []),
    ]
    rows: list[tuple[Entry, ...]] = []
    for track in context.tracks:
        found = [(row, row.cells[track]) for row in context.rows if row.cells[track].runs]
        asked = [(row, cell) for row, cell in found if cell.below("contrastive") or cell.value("aer") is not None]
        rows += [
            (
                *_begin(context, row, track),
                *(score("contrastive", cell.number(f"contrastive/{kind}")) for kind in kinds),
                *([of("aer", cell.number("aer"))] if aligned else []),
            )
            for row, cell in asked
        ]
        rows += [
            (
                *([text(name), text(track.label)] if len(context.tracks) > 1 else [text(name)]),
                *(of("target_only", _first(cells, f"target_only/{kind}")) for kind in kinds),
                *([of("aer_diagonal", _first(cells, "aer_diagonal"))] if aligned else []),
            )
            for name, cells in alone(context, track).items()
        ]
    return Table("probe-table", say("probes.table"), tuple(columns), tuple(rows))


def alone(context: Context, track: Track) -> dict[str, list[Cell]]:
    """Name of a model that sees the target alone -> the rows that it was measured beside.

    It is one for each vocabulary of the targets, after which it is named where there are several.
    """
    say, found = context.catalogue, {}
    for cell in (row.cells[track] for row in context.rows):
        if cell.below("target_only") or cell.value("aer_diagonal") is not None:
            recorded = say.recorded(next(iter(cell.runs.values())).tags.get("vocabulary.target", ""))
            found.setdefault(recorded.partition(", sha256")[0] or say("protocol.not_recorded"), []).append(cell)
    name = say("probes.target_only")
    return {f"{name}, {kind}" if len(found) > 1 else name: cells for kind, cells in found.items()}


def _first(cells: Sequence[Cell], name: str) -> Number | None:
    """What the first of them that has it measured."""
    return next((number for cell in cells if (number := cell.number(name))), None)


def phenomena(context: Context, tracks: Sequence[Track] = ()) -> list[str]:
    """The kinds of contrasts that were asked, in the order of the runs."""
    cells = [cell for track, _, cell in _cells(context) if not tracks or track in tracks]
    return list(dict.fromkeys(name for cell in cells for name in cell.below("contrastive") if "/" not in name))


def published(context: Context) -> Table:
    """Table 2 of Vaswani et al. 2017, whole."""
    say = context.catalogue
    names = [(direction, direction.upper()) for direction in DIRECTIONS]
    columns = [
        Column(say("table.model"), side="left"),
        *(Column(name, group=say("published.bleu"), own=False) for _, name in names),
        *(Column(name, group=say("published.cost"), own=False) for _, name in names),
        *(Column(name, group=say("published.clock"), side="left", own=False) for _, name in names),
        Column(say("published.source"), side="left", own=False),
    ]
    rows = [
        (
            text(line.row),
            *(
                NONE if (b := line.bleu.get(d)) is None else Entry(formatting.published_score(b), sort=b)
                for d in DIRECTIONS
            ),
            *(
                NONE if (c := line.flops.get(d)) is None else Entry(formatting.power_of_ten(c, 1), sort=c)
                for d in DIRECTIONS
            ),
            *(NONE if not (t := line.clock.get(d)) else Entry(t.replace(" x ", " × ")) for d in DIRECTIONS),
            text(line.citation),
        )
        for line in context.published
    ]
    return Table("published", say("published.caption"), tuple(columns), tuple(rows))


def corpus_stats(context: Context, track: Track) -> Table | None:
    """The corpus, split by split; None if no run has kept its passport."""
    say, found = context.catalogue, context.passports.get(track)
    if not found:
        return None
    names = ("pairs", "words_source", "words_target", "mean_length", "covered", "repeated", "leaked", "near")
    columns = [Column(say("protocol.split"), side="left"), *(Column(say(f"protocol.{name}")) for name in names)]
    overlaps = {o["split"]: o for o in found.get("overlaps", ()) if o["other_split"] == "train"}
    thorough = bool(found.get("thorough"))

    def count(number: int | None) -> Entry:
        return NONE if number is None else Entry(formatting.count(number), sort=number)

    rows = [
        (
            text(split["name"]),
            count(split["pairs"]),
            count(split["source"]["words"]),
            count(split["target"]["words"]),
            Entry(formatting.fixed(split["source"]["mean"], 1), sort=split["source"]["mean"]),
            Entry(formatting.percent(split["source"]["coverage"]), sort=split["source"]["coverage"]),
            count(split["duplicates"] if thorough else None),
            count(overlaps[split["name"]]["pairs"] if split["name"] in overlaps else None),
            count(overlaps[split["name"]]["near_duplicates"] if split["name"] in overlaps else None),
        )
        for split in found["splits"]
    ]
    return Table(f"passport-{track.slug}", say("protocol.passport"), tuple(columns), tuple(rows))
