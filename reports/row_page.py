"""The content of the page of one row in a site: what the architecture is, its sizes, and its results in every suite."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.measures import quality
from bench.system import formatting
from reports.gathering.context import Cell, Context, Row, Track
from reports.gathering.translations import Translations, mark_differences
from reports.plots import main_plots
from reports.plots.drawing import Plot, why_not_drawn
from reports.tables import detail_tables
from reports.tables.table import EMPTY, Column, Entry, Table, number_entry, score_entry, text_entry
from reports.text import architecture
from reports.text.catalogue import Catalogue

EXAMPLES = 3
"""Number of the best translations that a page shows, and of the worst."""

PERFECT = 100 - 1e-6
"""chrF2 from which on a translation counts as equal to its reference."""

NUMBERS = ("params", "train_flops", "latency_p50_ms")
CURVES = "curves-updates"
"""Learning curves are shown against the updates; the page of the suite has the other axes."""


@dataclass(frozen=True, eq=False)
class Result:
    """The results of one row in one suite.

    Attributes:
        key: What the ids of its plots and tables begin with.
        link: Relative address of the suite's page.
        context: The suite with this row only.
        plots: The plots of the row.
    """

    key: str
    link: str
    context: Context
    plots: tuple[Plot, ...]

    @property
    def row(self) -> Row:
        return self.context.rows[0]

    @property
    def finished(self) -> list[Track]:
        """The tracks on which the row has a finished run."""
        return [track for track in self.context.tracks if self.row.cells[track].runs]

    @property
    def without_text(self) -> bool:
        """Whether the row has scores, but no sentences are stored with them."""
        scored = [track for track in self.finished if track.test_set]
        return bool(scored) and not any(self.context.has_sentences(track) for track in scored)

    def plots_of(self, *kinds: str) -> list[list[Plot]]:
        """The plots whose ids begin with one of the kinds, by figure."""
        figures: dict[str, list[Plot]] = {}
        for plot in self.plots:
            if plot.id.removeprefix(f"{self.key}-").startswith(kinds):
                figures.setdefault(plot.group or plot.id, []).append(plot)
        return list(figures.values())


def result(context: Context, row: Row, number: int, link: str) -> Result:
    """The results of a row in a suite. `number` is the suite's number on the page, which makes ids unique."""
    own = replace(context, rows=(row,), baseline=row.id, comparisons=(), before=None, changes=())
    key = f"s{number}"
    kinds = (CURVES, "attention", "probes", "length", "depth")
    plots = [plot for plot in main_plots.all_plots(own) if plot.id.startswith(kinds)]
    return Result(key, link, own, tuple(_renamed(plot, key) for plot in plots))


def _renamed(plot: Plot, key: str) -> Plot:
    # A figure of curves has one axis here, and a figure of attention one row: nothing is left to choose.
    chosen = plot.id.startswith("probes")
    group = f"{key}-{plot.group}" if chosen and plot.group else ""
    return replace(plot, id=f"{key}-{plot.id}", group=group)


def content(results: Sequence[Result]) -> dict[str, Any]:
    """The variables of the template row.html.j2. The newest suite comes first; it has the row's name."""
    newest = results[0]
    say, row = newest.context.catalogue, newest.row
    known = architecture.architecture(row.id)
    return {
        "t": say,
        "not_drawn": functools.partial(why_not_drawn, say),
        "row": row,
        "what": what(say, row),
        "note": say.recorded(row.note),
        "family": say(f"family.{row.family}") if f"family.{row.family}" in say.texts else row.family,
        "architecture": known,
        "equations": [architecture.equation_html(text) for text in known.equations] if known else [],
        "sizes": _sizes(say, row.id),
        "numbers": _numbers(say, results),
        "parts": [_part(part) for part in results],
        "several": len(results) > 1,
    }


def what(say: Catalogue, row: Row) -> str:
    """What the row is, in plain words; its family if nothing is written of it."""
    key, family = f"row.{row.id}", f"family.{row.family}"
    return say(key) if key in say.texts else say(family) if family in say.texts else row.family


def _part(of: Result) -> dict[str, Any]:
    """What the template needs of one suite."""
    say, probes = of.context.catalogue, detail_tables.probes(of.context)
    none = "row_page.not_run" if not of.finished else ""
    text = none or ("row_page.without_text" if of.without_text else "")
    return {
        "suite": of.context.suite,
        "link": of.link,
        "curves": of.plots_of("curves"),
        "attention": of.plots_of("attention"),
        "probes": of.plots_of("probes", "length", "depth"),
        "probe_table": replace(probes, id=f"{of.key}-{probes.id}"),
        "reasons": {
            "curves": say(none or "row_page.no_curves"),
            "attention": say(text or "row_page.no_attention"),
            "probes": say(none or "row_page.no_probes"),
            "translations": say(text or "row_page.no_translations"),
        },
        "examples": [_examples(of, track) for track in of.finished if _is_shown(of, track)],
    }


def _is_shown(of: Result, track: Track) -> bool:
    """Whether the translations of the row on a track are stored, with their scores."""
    if not of.context.has_sentences(track):
        return False
    texts = of.context.translations[track]
    scored = texts.statistics.get("chrf", {}).get(of.row.id, {})
    return next(iter(texts.hypotheses.get(of.row.id, {})), None) in scored


def _sizes(say: Catalogue, row: str) -> Table:
    """Parameters, training FLOPs and vocabulary of the row at each of its presets."""
    columns = (
        Column(say("row_page.preset"), side="left"),
        Column(say.label("params"), say.unit("params")),
        Column(say.label("params_core"), say.unit("params_core")),
        Column(say("row_page.pair_flops", length=architecture.PAIR_LENGTH), say.unit("train_flops")),
        Column(say("protocol.vocabulary"), side="left"),
    )
    rows = []
    for size in architecture.sizes(row):
        vocabulary = " / ".join(map(formatting.count, size.vocabulary))
        rows.append(
            (
                text_entry(size.preset),
                Entry(formatting.fixed(size.parameters / 1e6, 2), sort=size.parameters),
                Entry(formatting.fixed(size.without_embeddings / 1e6, 2), sort=size.without_embeddings),
                Entry(formatting.power_of_ten(size.training_flops, 1), sort=size.training_flops),
                text_entry(f"{vocabulary} {size.kind}"),
            )
        )
    return Table("sizes", say("row_page.sizes"), columns, tuple(rows))


def _numbers(say: Catalogue, results: Sequence[Result]) -> Table:
    """The numbers of the row in every suite and direction. Its first column links to the page of the suite."""
    columns = (
        Column(say("row_page.suite"), side="left"),
        Column(say("row_page.date"), side="left"),
        Column(say("scores.direction"), side="left"),
        Column(say("scores.test_set"), side="left"),
        Column(say("protocol.seeds")),
        Column(say.label("bleu")),
        Column(say.label("chrf")),
        *(Column(say.label(name), say.unit(name)) for name in NUMBERS),
    )
    rows = []
    for of in results:
        for track in of.context.tracks:
            cell = of.row.cells[track]
            start = [
                Entry(of.context.suite, sort=of.context.suite, link=of.link),
                text_entry(of.context.written),
                text_entry(track.label),
                text_entry(track.test_set),
                Entry(formatting.count(len(cell.runs)), sort=len(cell.runs)) if cell.runs else EMPTY,
            ]
            rows.append(
                (*start, _score(say, cell), score_entry("chrf", cell.number("chrf", track.test_set)), *_costs(cell))
            )
    return Table("numbers", say("row_page.numbers"), columns, tuple(rows))


def _score(say: Catalogue, cell: Cell) -> Entry:
    """BLEU, or without a finished run the state of the row."""
    if not cell.runs:
        return Entry(say(f"state.{cell.state}"))
    return score_entry("bleu", cell.number("bleu", cell.track.test_set))


def _costs(cell: Cell) -> list[Entry]:
    return [number_entry(name, cell.number(name)) for name in NUMBERS]


def _examples(of: Result, track: Track) -> dict[str, Any]:
    """The best and the worst translations of the row's first seed, by the chrF2 of each sentence."""
    texts, say = of.context.translations[track], of.context.catalogue
    source, _, target = track.direction.partition("-")
    best, worst = _extremes(texts, of.row.id)

    def shown(chosen: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
        return [_sentence(say, texts, of.row.id, number, score) for number, score in chosen]

    return {"track": track, "from": source, "to": target, "best": shown(best), "worst": shown(worst)}


def _extremes(texts: Translations, row: str) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """The sentences with the highest and with the lowest chrF2: (number, chrF2).

    Of sentences with the same chrF2 the longer reference comes first: an exact translation of it says more. A
    translation that is equal to its reference is never among the worst.
    """
    seed = next(iter(texts.hypotheses[row]))
    scores = [float(score) for score in quality.chrf_of(texts.statistics["chrf"][row][seed].rows_NK)]
    longest_first = sorted(range(len(scores)), key=lambda n: -len(texts.references[n].split()))
    best = sorted(longest_first, key=lambda n: -scores[n])[:EXAMPLES]
    imperfect = [n for n in longest_first if n not in best and scores[n] < PERFECT]
    worst = sorted(imperfect, key=lambda n: scores[n])[:EXAMPLES]
    return [(n, scores[n]) for n in best], [(n, scores[n]) for n in worst]


def _sentence(say: Catalogue, texts: Translations, row: str, number: int, score: float) -> dict[str, Any]:
    """A sentence with its translation, in pieces that agree with the reference or differ from it."""
    hypothesis = next(iter(texts.hypotheses[row].values()))[number]
    heading = say(
        "translations.sentence",
        number=number + 1,
        total=formatting.count(len(texts.references)),
        test_set=texts.test_set,
    )
    return {
        "heading": f"{heading}: {say.number_with_unit('chrf', score)} {say.label('chrf')}",
        "source": texts.sources[number],
        "reference": texts.references[number],
        "pieces": mark_differences(hypothesis, texts.references[number]),
    }
