"""Plots after the main ones: BLEU by length and depth, probes, tuning, use of the source, and attention maps."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from bench.system import formatting
from reports.gathering.context import Context, Track, slug
from reports.plots.drawing import COLOURS, FONT, LETTER, NARROW, Chart, Datasets, Plot, family_scale
from reports.plots.placement import Axis
from reports.tables import detail_tables
from reports.text import metric_format

MIN_DRAWN_WEIGHT = 0.02
"""Attention weights below this are not drawn, because they would be invisible."""

MAX_NAMES_WIDTH, MIN_CELL_WIDTH = 210, 30
"""In pixels: the width of names beside a plot, beyond which they are cut; and the width of a number such as 88.6."""

HeatCells = Mapping[tuple[str, str], tuple[float, str]]
"""(row, column) -> value and its tooltip."""


def all_detail_plots(context: Context) -> list[Plot]:
    """All plots of this file, in the order of the page."""
    found: list[Plot | None] = []
    for track in context.tracks:
        found += [_tuning(context, track), _lengths(context, track), _depths(context, track)]
    for track in context.tracks:
        found += _probes(context, track)
    found += [_sources(context, track) for track in context.tracks]
    for track in context.tracks:
        found += _attention(context, track)
    return [plot for plot in found if plot]


# --- heat maps: rows by groups of sentences or contrasts --------------------------------------------------------------


def _heat_plot(
    context: Context, track: Track, name: str, key: str, metric: str, cells: HeatCells, **more: Any
) -> Plot | None:
    """A heat map, one line per row. Columns are sorted by the first number in their names. None without cells."""
    if not cells:
        return None
    say = context.catalogue
    return Plot(
        id=f"{name}-{track.slug}",
        title=say(f"{key}title", track=track.label),
        caption=say(f"{key}caption"),
        text="; ".join(hover for _, hover in cells.values()),
        families=(),
        draw=lambda data, width: _heat_chart(data, cells, say(f"{key}axis"), metric, width),
        **more,
    )


def _heat_chart(data: Datasets, cells: HeatCells, title: str, metric: str, total: int) -> Chart:
    """The chart of a heat map: a higher value has a darker cell."""
    rows, parts = (list(dict.fromkeys(cell[n] for cell in cells)) for n in (0, 1))
    side = max(100, min(MAX_NAMES_WIDTH, total - 22 - MIN_CELL_WIDTH * len(parts)))
    names = min(side, max(map(len, rows)) * LETTER) + 12
    step = min(84.0, (total - names - 10) / len(parts))
    steep = max(map(len, parts)) * LETTER > step  # names of columns would overlap
    values = [
        {"row": row, "part": part, "value": value, "text": metric_format.value(metric, value), "hover": hover}
        for (row, part), (value, hover) in cells.items()
    ]
    turned: dict[str, Any] = {"labelAngle": -60, "labelAlign": "left"} if steep else {"labelAngle": 0}
    top = alt.Axis(title=title, orient="top", ticks=False, domain=False, labelLimit=100, **turned)
    base = alt.Chart(data.add(values)).encode(
        x=alt.X("part:N", sort=sorted(parts, key=_first_number), axis=top),
        y=alt.Y("row:N", sort=rows, title=None, axis=_side(names, labelLimit=round(0.9 * side))),
    )
    span = [min(value for value, _ in cells.values()), max(value for value, _ in cells.values())]
    dark = alt.Opacity("value:Q", scale=alt.Scale(domain=span, range=[0.04, 1]), legend=None)
    boxes = base.mark_rect(color=COLOURS["heat"], aria=False).encode(opacity=dark)
    labels = base.mark_text(fontSize=FONT, color=COLOURS["ink"]).encode(
        text=alt.Text("text:N"), description=alt.Description("hover:N")
    )
    return alt.layer(boxes, labels).properties(width=alt.Step(step), height=alt.Step(22))


def _side(room: float, **more: Any) -> alt.Axis:
    """The axis with the names of the rows. Its width is fixed, because Vega underestimates the width of letters."""
    defaults = {
        "ticks": False,
        "domain": False,
        "labelColor": COLOURS["ink"],
        "labelPadding": 8,
        "labelLimit": MAX_NAMES_WIDTH,
    }
    return alt.Axis(minExtent=round(room), **defaults | more)


def _first_number(part: str) -> float:
    """The first number in a name, by which columns are sorted; -1 for a name without a number."""
    digits = re.search(r"\d+", part)
    return float(digits[0]) if digits else -1.0


def _groups(context: Context, track: Track, names: Sequence[str]) -> HeatCells:
    """BLEU of each row by groups of sentences, which are stored below these names."""
    say = context.catalogue
    return {
        (row.name, group): (
            number.value,
            say("length.point", row=row.name, bleu=metric_format.value("bleu", number.value), group=group),
        )
        for row in context.rows
        for name in names
        for group, number in row.cells[track].below(name).items()
        if number.value is not None
    }


def _lengths(context: Context, track: Track) -> Plot | None:
    """BLEU by length of the source."""
    return _heat_plot(
        context, track, "length", "length.", "bleu", _groups(context, track, [f"{track.test_set}/bleu/length"])
    )


def _depths(context: Context, track: Track) -> Plot | None:
    """BLEU by depth in the test set, and in sentences nested deeper than any of the training data."""
    names = [f"{track.test_set}/bleu/depth", "deeper/bleu/depth"]
    return _heat_plot(context, track, "depth", "length.depth_", "bleu", _groups(context, track, names))


def _probes(context: Context, track: Track) -> list[Plot | None]:
    """Accuracy by phenomenon, and for each phenomenon by distance. The target-only models stand below the rows."""
    say, kinds = context.catalogue, detail_tables.phenomena(context, [track])
    share = {"group": f"probes-{track.slug}", "choice": say("page.show")}
    plots = [
        _heat_plot(
            context,
            track,
            "probes",
            "probes.",
            "contrastive",
            _accuracies(context, track, {kind: say.recorded(kind) for kind in kinds}),
            tab=say("probes.all"),
            **share,
        )
    ]
    for number, kind in enumerate(kinds):
        distances = {
            name: name.partition("/")[2]
            for row in context.rows
            for name in row.cells[track].below("contrastive")
            if name.startswith(f"{kind}/")
        }
        if len(distances) > 1:
            cells = _accuracies(context, track, distances)
            more = share | {"tab": say("probes.by_distance", phenomenon=say.recorded(kind))}
            plots.append(
                _heat_plot(context, track, f"probes-{number + 1}", "probes.distance_", "contrastive", cells, **more)
            )
    return plots


def _accuracies(context: Context, track: Track, parts: Mapping[str, str]) -> HeatCells:
    """Accuracy of every row, then of the target-only models. `parts`: stored name -> name in the plot."""
    say, found = context.catalogue, {}
    lines = [(row.name, "contrastive", row.cells[track]) for row in context.rows]
    lines += [
        (name, "target_only", cells[0]) for name, cells in detail_tables.target_only_models(context, track).items()
    ]
    for name, kind, cell in lines:
        for part, shown in parts.items():
            if (value := cell.value(f"{kind}/{part}")) is not None:
                found[name, shown] = (
                    value,
                    say("probes.point", row=name, category=shown, value=metric_format.value(kind, value)),
                )
    return found


# --- tuning ---------------------------------------------------------------------------------------------------------


def _tuning(context: Context, track: Track) -> Plot | None:
    """Expected best validation score against the sentence pairs used for tuning."""
    say, found = context.catalogue, context.tuning.get(track, {})
    score = say.label("chrf" if context.selection(track).score == "chrf" else "bleu")
    lines = [
        {
            "row": row.name,
            "name": formatting.shortened(row.name),
            "family": row.family,
            "x": point.budget,
            "y": point.best,
            "low": point.low,
            "high": point.high,
            "hover": say(
                "tuning.point",
                row=row.name,
                value=metric_format.value("bleu", point.best)
                + f" ({metric_format.interval('bleu', point.low, point.high)})",
                x=formatting.quantity(point.budget),
            ),
        }
        for row in context.rows
        for point in found.get(row.id, ())
    ]
    if not lines:
        return None
    return Plot(
        id=f"tuning-{track.slug}",
        title=say("tuning.title", track=track.label),
        caption=say("tuning.caption", score=score),
        text="; ".join(str(line["hover"]) for line in lines),
        families=tuple(dict.fromkeys(str(line["family"]) for line in lines)),
        draw=lambda data, width: _tuning_chart(
            data, lines, (say("tuning.axis"), say("tuning.score", score=score)), width
        ),
        width=600,
    )


def _tuning_chart(data: Datasets, lines: Sequence[dict[str, Any]], titles: tuple[str, str], total: int) -> Chart:
    """A line for each row, with the interval of its points as a shaded area."""
    ends = {str(line["row"]): line for line in lines}
    width, height = total - 70 - round(max(len(formatting.shortened(row)) for row in ends) * LETTER), 280
    x = Axis(titles[0], 0.0, max(float(line["x"]) for line in lines))
    y = Axis.around(titles[1], [float(line[end]) for line in lines for end in ("low", "high")], floor=0)
    colours = alt.Color("family:N", scale=family_scale([str(line["family"]) for line in lines]), legend=None)
    band = alt.Chart(data.add(lines)).mark_area(opacity=0.12, aria=False)
    base = alt.Chart(data.add(lines)).encode(x=x.x("x", width), y=y.y("y", height), color=colours)
    named = alt.Chart(data.add(ends.values())).mark_text(align="left", dx=7, fontSize=FONT, aria=False)
    layers = (
        band.encode(
            x=x.x("x", width), y=y.y("low", height), y2=alt.Y2("high:Q"), color=colours, detail=alt.Detail("row:N")
        ),
        base.mark_line(strokeWidth=1.5, aria=False).encode(detail=alt.Detail("row:N")),
        base.mark_point(filled=True, size=18, opacity=1).encode(description=alt.Description("hover:N")),
        named.encode(x=x.x("x", width), y=y.y("y", height), text=alt.Text("name:N"), color=colours),
    )
    return alt.layer(*layers).properties(width=width, height=height)


# --- true against shuffled sources ------------------------------------------------------------------------------------


def _sources(context: Context, track: Track) -> Plot | None:
    """Validation loss with true and with shuffled sources; None if no row has both."""
    say, lines = context.catalogue, []
    for row in context.rows:
        true, shuffled = (row.cells[track].value(name) for name in detail_tables.LOSSES)
        if true is not None and shuffled is not None:
            ends = {
                "true": say.number_with_unit(detail_tables.LOSSES[0], true),
                "shuffled": metric_format.value(detail_tables.LOSSES[1], shuffled),
            }
            hover = say("sources.point", row=row.name, **ends)
            lines.append({"row": row.name, "family": row.family, "true": true, "shuffled": shuffled, "hover": hover})
    if not lines:
        return None
    return Plot(
        id=f"sources-{track.slug}",
        title=say("sources.title", track=track.label),
        caption=say("sources.caption"),
        text="; ".join(line["hover"] for line in lines),
        families=tuple(dict.fromkeys(line["family"] for line in lines)),
        draw=lambda data, width: _dumbbells(data, lines, say("sources.axis"), width),
        width=720,
    )


def _dumbbells(data: Datasets, lines: Sequence[dict[str, Any]], title: str, total: int) -> Chart:
    """Two marks for each row, connected by a line: filled for true, hollow for shuffled sources."""
    names = min(MAX_NAMES_WIDTH, round(max(len(str(line["row"])) for line in lines) * LETTER) + 12)
    width = total - 20 - names
    x = Axis.around(title, [float(line[key]) for line in lines for key in ("true", "shuffled")], floor=0)
    y = alt.Y("row:N", sort=None, title=None, axis=_side(names, grid=False))
    scale = family_scale([str(line["family"]) for line in lines])
    base = alt.Chart(data.add(lines)).encode(y=y, color=alt.Color("family:N", scale=scale, legend=None))
    layers = (
        base.mark_rule(strokeWidth=1.5, aria=False).encode(x=x.x("true", width), x2=alt.X2("shuffled:Q")),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x=x.x("true", width), description=alt.Description("hover:N")
        ),
        base.mark_point(filled=True, size=70, opacity=1, fill=COLOURS["paper"], strokeWidth=1.5).encode(
            x=x.x("shuffled", width),
            description=alt.Description("hover:N"),
            stroke=alt.Stroke("family:N", scale=scale, legend=None),
        ),
    )
    return alt.layer(*layers).properties(width=width, height=alt.Step(26))


# --- attention --------------------------------------------------------------------------------------------------------


def _attention(context: Context, track: Track) -> list[Plot]:
    """The attention map of each row that has stored one."""
    say, found = context.catalogue, context.attention.get(track, {})
    return [
        Plot(
            id=f"attention-{slug(row.id)}{'' if slug(row.id) == row.id else f'-{number}'}-{track.slug}",
            group=f"attention-{track.slug}",
            tab=row.name,
            choice=say("page.show"),
            title=say("attention.title", track=track.label),
            caption=say("attention.caption"),
            text=f"{' '.join(found[row.id]['source'])} → {' '.join(found[row.id]['target'])}",
            families=(),
            draw=functools.partial(_map, shown=found[row.id]),
            width=600,
        )
        for number, row in enumerate(context.rows)
        if found.get(row.id)
    ]


def _map(data: Datasets, total: int, shown: Mapping[str, Any]) -> Chart:
    """A cell for each pair of words. Words are identified by position, because a word may occur twice."""
    source, target = (list(map(formatting.shortened, shown[side])) for side in ("source", "target"))
    cells = [
        {"s": s, "t": t, "weight": weight}
        for t, line in enumerate(shown["weights"])
        for s, weight in enumerate(line)
        if weight >= MIN_DRAWN_WEIGHT
    ]
    names = max(map(len, target)) * LETTER + 20
    step = min(26.0 if total > NARROW else 18.0, (total - names) / len(source))
    x = alt.X("s:O", axis=None, scale=alt.Scale(domain=list(range(len(source)))))
    y = alt.Y("t:O", axis=None, scale=alt.Scale(domain=list(range(len(target)))))
    dark = alt.Opacity("weight:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None)
    boxes = alt.Chart(data.add(cells)).mark_rect(color=COLOURS["ink"], aria=False).encode(x=x, y=y, opacity=dark)
    # Words are drawn as text marks, not as labels of an axis: labels are expressions, which corpus text must not enter.
    above = alt.Chart(data.add({"s": position, "word": word} for position, word in enumerate(source)))
    above = above.mark_text(angle=300, align="left", fontSize=FONT, color=COLOURS["ink"], aria=False)
    beside = alt.Chart(data.add({"t": position, "word": word} for position, word in enumerate(target)))
    beside = beside.mark_text(align="right", fontSize=FONT, color=COLOURS["ink"], aria=False)
    layers = (
        boxes,
        above.encode(x=x, y=alt.YValue(-6), text=alt.Text("word:N")),
        beside.encode(x=alt.XValue(-6), y=y, text=alt.Text("word:N")),
    )
    return alt.layer(*layers).properties(width=alt.Step(step), height=alt.Step(step))
