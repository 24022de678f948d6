"""The tables after the comparison: scores, paired tests, changes, sweeps, losses, probes, corpus, publications."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.measures import metric_registry
from bench.measures.comparison import Comparison
from bench.measures.quality import BLEU_13A
from bench.system import formatting
from reports.gathering.context import Cell, Context, Number, Row, Track
from reports.tables.comparison_table import DIRECTIONS
from reports.tables.table import EMPTY, Column, Entry, Table, number_entry, score_entry, text_entry
from reports.text import metric_format
from reports.text.findings import paired_seeds

LOSSES = ("validation_loss", "validation_loss_shuffled_sources")


def _leading_columns(context: Context) -> list[Column]:
    """The columns of every table: model, and direction if the suite has several."""
    say = context.catalogue
    columns = [Column(say("table.model"), side="left"), Column(say("scores.direction"), side="left")]
    return columns if len(context.tracks) > 1 else columns[:1]


def _row_start(context: Context, name: str, track: Track) -> list[Entry]:
    """The entries of the leading columns."""
    return [text_entry(name), text_entry(track.label)] if len(context.tracks) > 1 else [text_entry(name)]


def _cells(context: Context) -> Iterator[tuple[Track, Row, Cell]]:
    """Every row that has a finished run, one track after the other."""
    return ((track, row, row.cells[track]) for track in context.tracks for row in context.rows if row.cells[track].runs)


def scores(context: Context) -> Table:
    """Every score on every test set. BLEU with the tokenizer 13a has a column where another one is used."""
    say = context.catalogue
    absent = set() if any(name == BLEU_13A for *_, cell in _cells(context) for _, name in cell.numbers) else {BLEU_13A}
    names = [name for name in metric_registry.TEST_SET_SCORES if name not in absent]
    columns = [
        *_leading_columns(context),
        Column(say("scores.test_set"), side="left"),
        *(Column(say.label(name)) for name in names),
    ]
    rows = [
        (
            *_row_start(context, row.name, track),
            text_entry(test_set),
            *(score_entry(name, row.cells[track].number(name, test_set)) for name in names),
        )
        for track in context.tracks
        for test_set in track.test_sets
        for row in context.rows
        if row.cells[track].runs
    ]
    return Table("scores", say("scores.caption"), tuple(columns), tuple(rows))


def _test_entries(test: Comparison, context: Context) -> list[Entry]:
    """Difference, interval, detectable difference, p over sentences, corrected p over seeds and sentences, verdict."""
    seeds = paired_seeds(context.catalogue, test)
    return [
        Entry(metric_format.difference("bleu", test.difference), (seeds,) if seeds else (), sort=test.difference),
        Entry(metric_format.interval("bleu", test.low, test.high), sort=test.low),
        EMPTY if test.detectable is None else Entry(metric_format.value("bleu", test.detectable), sort=test.detectable),
        EMPTY if test.p is None else Entry(formatting.p_value(test.p), sort=test.p),
        EMPTY if test.corrected is None else Entry(formatting.p_value(test.corrected), sort=test.corrected),
        text_entry(context.catalogue(f"verdict.{test.verdict}")),
    ]


def _test_columns(context: Context) -> list[Column]:
    """The columns of `_test_entries`."""
    names = ("difference", "interval", "detectable", "p", "corrected")
    say = context.catalogue
    return [*(Column(say(f"tests.{name}")) for name in names), Column(say("tests.verdict"), side="left")]


def significance(context: Context) -> Table:
    """The paired test of each row against the baseline."""
    say = context.catalogue
    columns = [*_leading_columns(context), Column(say.label("bleu")), *_test_columns(context)]
    rows = [
        (
            *_row_start(context, row.name, track),
            number_entry("bleu", cell.number("bleu", track.test_set)),
            *_test_entries(test, context),
        )
        for track, row, cell in _cells(context)
        if (test := context.comparison(track, row.id, context.baseline))
    ]
    caption = say("tests.caption", baseline=context.row(context.baseline).name)
    return Table("significance", caption, tuple(columns), tuple(rows))


def changes(context: Context) -> Table | None:
    """Each row against itself in the suite given by --compare; None if none was given."""
    say, before = context.catalogue, context.before
    if before is None:
        return None
    columns = [
        *_leading_columns(context),
        Column(say("changes.before"), group=say.label("bleu")),
        Column(say("changes.now"), group=say.label("bleu")),
        *_test_columns(context),
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
            rows.append(
                (
                    *_row_start(context, row.name, track),
                    *_change_entries(context, now, old, tests.get((track.label, row.id))),
                )
            )
    ids = {row.id for row in context.rows}
    only_before = [row for row in before.rows if row.id not in ids and any(cell.runs for cell in row.cells.values())]
    empty = [EMPTY] * (len(columns) - len(_leading_columns(context)) - 1)
    for row in only_before if context.tracks else ():
        ran = [track for track in context.tracks if (old := track.among(before.tracks)) and row.cells[old].runs]
        rows.append(
            (*_row_start(context, row.name, (ran or context.tracks)[0]), text_entry(say("changes.only_before")), *empty)
        )
    caption = say("changes.caption", suite=context.suite, before=before.suite)
    return Table("changes", caption, tuple(columns), tuple(rows))


def _change_entries(context: Context, now: Cell, old: Cell | None, test: Comparison | None) -> list[Entry]:
    """BLEU before and now, the paired test or why there is none, and the ratios of FLOPs and latency."""
    say = context.catalogue
    # Times that were measured for all rows at once cannot be compared with those of jobs, or of another machine.
    timed_alike = context.before is not None and context.timed_on == context.before.timed_on
    timed_alike = timed_alike and bool(context.timed_on or _machines(now) == _machines(old))
    bleu = [cell.number("bleu", cell.track.test_set) if cell else None for cell in (old, now)]
    if test is not None:
        tested = _test_entries(test, context)
    else:
        if not (old and old.runs):
            why = "changes.only_now"
        elif not now.runs:
            why = "changes.only_before"
        else:
            why = "verdict.other sentences" if now.runs.keys() & old.runs.keys() else "verdict.no common seed"
        tested = [EMPTY] * (len(_test_columns(context)) - 1) + [text_entry(say(why))]
    ratios = [
        EMPTY if not a or not b else Entry(formatting.ratio(a / b), sort=a / b)
        for name in ("train_flops", *(["latency_p50_ms"] if timed_alike else []))
        for a, b in [(now.value(name), old.value(name) if old else None)]
    ]
    ratios += [] if timed_alike else [EMPTY]
    return [*(number_entry("bleu", number) for number in bleu), *tested, *ratios]


def _machines(cell: Cell | None) -> set[tuple[str, ...]]:
    """The processors and numbers of threads on which the runs of a cell were timed."""
    runs = cell.runs.values() if cell else ()
    return {tuple(run.tags.get(tag, "") for tag in ("hardware.cpu", "hardware.gpu", "threads")) for run in runs}


def settings(context: Context) -> Table:
    """The best settings that sweeps found, and the importance of each setting, in decreasing order."""
    say = context.catalogue
    columns = [
        *_leading_columns(context),
        *(Column(say(f"tuning.{name}"), side="left") for name in ("setting", "best")),
    ]
    rows = [
        (
            *_row_start(context, context.row(sweep.row).name, track),
            text_entry(key),
            text_entry(formatting.sampled_setting(value)),
            EMPTY if (part := sweep.importance.get(key)) is None else Entry(formatting.percent(part), sort=part),
        )
        for track, found in context.sweeps.items()
        for sweep in found
        for key, value in sorted(sweep.settings.items(), key=lambda item: -sweep.importance.get(item[0], 0.0))
    ]
    return Table("settings", say("tuning.table"), (*columns, Column(say("tuning.importance"))), tuple(rows))


def fronts(context: Context) -> Table:
    """The Pareto fronts of sweeps with several goals."""
    say = context.catalogue
    with_front = [(track, sweep) for track, found in context.sweeps.items() for sweep in found if sweep.front]
    goals = list(dict.fromkeys(goal for _, sweep in with_front for goal in sweep.goals))
    rows = [
        (
            *_row_start(context, context.row(sweep.row).name, track),
            *(_goal(goal, dict(zip(sweep.goals, values, strict=True))) for goal in goals),
            text_entry(
                ", ".join(f"{key} {formatting.sampled_setting(str(value))}" for key, value in trial_settings.items())
            ),
        )
        for track, sweep in with_front
        for values, trial_settings in sweep.front
    ]
    goal_columns = [Column(say.label(goal)) for goal in goals]
    columns = [*_leading_columns(context), *goal_columns, Column(say("tuning.trial"), side="left")]
    return Table("fronts", say("tuning.front"), tuple(columns), tuple(rows))


def _goal(goal: str, values: Mapping[str, float]) -> Entry:
    return Entry(metric_format.value(goal, values[goal]), sort=values[goal]) if goal in values else EMPTY


def sources(context: Context) -> Table:
    """Validation loss with the true and with shuffled sources, and the increase by shuffling."""
    say = context.catalogue
    columns = [*_leading_columns(context), *(Column(say(f"sources.{name}")) for name in ("true", "shuffled", "lost"))]
    rows = []
    for track, row, cell in _cells(context):
        true, shuffled = (cell.value(name) for name in LOSSES)
        if true is None or shuffled is None:
            continue
        lost = Entry(metric_format.difference(LOSSES[0], shuffled - true), sort=shuffled - true)
        rows.append(
            (*_row_start(context, row.name, track), *(number_entry(name, cell.number(name)) for name in LOSSES), lost)
        )
    return Table("sources", say("sources.table"), tuple(columns), tuple(rows))


def probes(context: Context) -> Table:
    """Accuracy on contrasts by phenomenon and alignment error rate; below the rows the target-only models."""
    say = context.catalogue
    kinds = phenomena(context)
    aligned = any(cell.value("aer") is not None for _, _, cell in _cells(context))
    columns = [
        *_leading_columns(context),
        *(Column(say.recorded(kind), group=say("probes.axis")) for kind in kinds),
        *([Column(say("probes.aer"))] if aligned else []),
    ]
    rows: list[tuple[Entry, ...]] = []
    for track in context.tracks:
        found = [(row, row.cells[track]) for row in context.rows if row.cells[track].runs]
        probed = [(row, cell) for row, cell in found if cell.below("contrastive") or cell.value("aer") is not None]
        rows += [
            (
                *_row_start(context, row.name, track),
                *(score_entry("contrastive", cell.number(f"contrastive/{kind}")) for kind in kinds),
                *([number_entry("aer", cell.number("aer"))] if aligned else []),
            )
            for row, cell in probed
        ]
        rows += [
            (
                *_row_start(context, name, track),
                *(number_entry("target_only", _first_number(cells, f"target_only/{kind}")) for kind in kinds),
                *([number_entry("aer_diagonal", _first_number(cells, "aer_diagonal"))] if aligned else []),
            )
            for name, cells in target_only_models(context, track).items()
        ]
    return Table("probe-table", say("probes.table"), tuple(columns), tuple(rows))


def target_only_models(context: Context, track: Track) -> dict[str, list[Cell]]:
    """Printed name of a target-only model -> the rows that it was measured for.

    Each target vocabulary has its own model; if there are several, the vocabulary stands in the name.
    """
    say, found = context.catalogue, {}
    for cell in (row.cells[track] for row in context.rows):
        if cell.below("target_only") or cell.value("aer_diagonal") is not None:
            recorded = say.recorded(next(iter(cell.runs.values())).tags.get("vocabulary.target", ""))
            found.setdefault(recorded.partition(", sha256")[0] or say("protocol.not_recorded"), []).append(cell)
    name = say("probes.target_only")
    return {f"{name}, {kind}" if len(found) > 1 else name: cells for kind, cells in found.items()}


def _first_number(cells: Sequence[Cell], name: str) -> Number | None:
    """The measured value of a metric in the first cell that has one; None if no cell has."""
    return next((number for cell in cells if (number := cell.number(name))), None)


def phenomena(context: Context, tracks: Sequence[Track] = ()) -> list[str]:
    """The phenomena of the contrasts that were measured, in the order of the runs."""
    cells = [cell for track, _, cell in _cells(context) if not tracks or track in tracks]
    return list(dict.fromkeys(name for cell in cells for name in cell.below("contrastive") if "/" not in name))


def published(context: Context) -> Table:
    """All lines of table 2 of Vaswani et al. 2017."""
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
            text_entry(line.row),
            *(
                EMPTY if (b := line.bleu.get(d)) is None else Entry(formatting.published_score(b), sort=b)
                for d in DIRECTIONS
            ),
            *(
                EMPTY if (c := line.flops.get(d)) is None else Entry(formatting.power_of_ten(c, 1), sort=c)
                for d in DIRECTIONS
            ),
            *(EMPTY if not (t := line.clock.get(d)) else Entry(t.replace(" x ", " × ")) for d in DIRECTIONS),
            text_entry(line.citation),
        )
        for line in context.published
    ]
    return Table("published", say("published.caption"), tuple(columns), tuple(rows))


def corpus_stats(context: Context, track: Track) -> Table | None:
    """The statistics of the corpus, split by split; None if no run has stored them."""
    say, found = context.catalogue, context.corpus_stats.get(track)
    if not found:
        return None
    names = ("pairs", "words_source", "words_target", "mean_length", "covered", "repeated", "leaked", "near")
    columns = [Column(say("protocol.split"), side="left"), *(Column(say(f"protocol.{name}")) for name in names)]
    overlaps = {o["split"]: o for o in found.get("overlaps", ()) if o["other_split"] == "train"}
    thorough = bool(found.get("thorough"))

    def count(number: int | None) -> Entry:
        return EMPTY if number is None else Entry(formatting.count(number), sort=number)

    rows = [
        (
            text_entry(split["name"]),
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
    return Table(f"corpus-statistics-{track.slug}", say("protocol.corpus_stats"), tuple(columns), tuple(rows))
