"""Learning curves: scores and loss at each validation, against updates, FLOPs or seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from statistics import fmean

import altair as alt
import numpy as np
import pandas as pd

from bench.system import formatting
from reports.gathering.context import STILL_IMPROVING, Context, Row, Track
from reports.plots.drawing import FONT, LETTER, NARROW, Chart, Datasets, Plot, colour
from reports.plots.placement import Axis, spread
from reports.text import metric_format
from reports.text.catalogue import Catalogue

AXES = {"updates": ("", False), "flops": ("train/flops", True), "seconds": ("train/seconds", False)}

PANELS = {"validation/bleu": "learning.bleu", "validation/chrf": "learning.chrf", "validation/loss": "learning.loss"}
"""Curve -> its name. Where chrF2 selects the weights, because BLEU cannot, its curve replaces that of BLEU."""

MAX_LINES = 12
"""With more lines than this, each row has one line, the mean of its seeds."""

MAX_MARKED_POINTS = 480
"""With more points than this in all tracks together, and on a small screen, learning curves have no point marks."""

MAX_POINTS_PER_LINE = 60
"""Maximum of points of a line: more could not be distinguished."""

MAX_DRAWN_POINTS = 1200
"""Approximate maximum of points of all tracks together; longer lines are thinned."""

DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2])


@dataclass(frozen=True)
class Validation:
    """A validation of one run, at its position `x` on the plotted axis. With seed None it is the mean over seeds."""

    row: str
    seed: int | None
    metric: str
    update: int
    x: float
    y: float

    def hover(self, say: Catalogue) -> str:
        """The tooltip of the point."""
        value = metric_format.value("validation_loss" if self.metric == "validation/loss" else "bleu", self.y)
        key = "learning.mean_point" if self.seed is None else "learning.point"
        return say(key, row=self.row, seed=self.seed, value=value, x=formatting.quantity(self.x))


def curves_plot(context: Context, track: Track, axis: str, series: Mapping[tuple[str, int], Series]) -> Plot | None:
    """The plot of validation score and loss against one axis, with a line for each seed or each row."""
    say, (against, log) = context.catalogue, AXES[axis]
    points: list[Validation] = []
    for (name, seed), of in series.items():
        points += _validations(name, seed, of, against)
    if not points:
        return None
    score = "validation/chrf" if context.selection(track).score == "chrf" else "validation/bleu"
    points = [point for point in points if point.metric in (score, "validation/loss")]
    lines = {(point.row, point.seed) for point in points}
    rows = [row for row in context.rows if any(name == row.name for name, _ in lines)]
    mean = len(lines) > max(MAX_LINES, len(rows))
    drawn = thinned(_means(points) if mean else points, MAX_DRAWN_POINTS // len(context.tracks))
    marked = len(drawn) * len(context.tracks) <= MAX_MARKED_POINTS
    firsts = {row.name: min((seed or 0 for name, seed in lines if name == row.name), default=0) for row in rows}
    ends = {p.row: p for p in drawn if p.metric == score and (mean or (p.seed or 0) == firsts[p.row])}
    label = say.label(score.rpartition("/")[2])
    improving = {row.name for row in rows if row.cells[track].still_improving}
    captions = [say("learning.caption", score=label), say("learning.means" if mean else "learning.seeds")]
    return Plot(
        id=f"curves-{axis}-{track.slug}",
        group=f"curves-{track.slug}",
        tab=say(f"learning.{axis}"),
        choice=say("page.against"),
        title=say("learning.title", track=track.label),
        caption=" ".join([*captions, say("learning.improving")] if improving else captions),
        text="; ".join(
            say(
                "learning.text_improving" if name in improving else "learning.text",
                row=name,
                score=label,
                value=metric_format.value("bleu", point.y),
            )
            for name, point in ends.items()
        ),
        families=tuple(dict.fromkeys(row.family for row in rows)),
        draw=lambda data, width: _curve_panels(
            say, data, drawn, rows, improving, say(f"learning.{axis}"), log, width, marked and width > NARROW
        ),
    )


Series = dict[str, tuple[np.ndarray, np.ndarray]]
"""Name of a curve -> updates and values, sorted by update."""


def series_of(curve: pd.DataFrame) -> Series:
    """The curves of a run that the plots need."""
    codes, names = pd.factorize(curve["name"])
    updates, values = (curve[column].to_numpy(dtype=float) for column in ("update", "value"))
    found: Series = {}
    for code, name in enumerate(names):
        if name in PANELS or name in [against for against, _ in AXES.values()]:
            indices = np.flatnonzero((codes == code) & np.isfinite(values))
            indices = indices[np.argsort(updates[indices], kind="stable")]
            found[str(name)] = updates[indices], values[indices]
    return found


def _validations(row: str, seed: int, series: Series, against: str) -> list[Validation]:
    """The validations of one run, sorted by update. x is interpolated if a validation is between two logged updates."""
    if against and not (against in series and len(series[against][0])):
        return []
    found = []
    for metric in PANELS:
        updates, values = series.get(metric, (np.zeros(0), np.zeros(0)))
        if len(updates) > MAX_POINTS_PER_LINE:
            indices = np.linspace(0, len(updates) - 1, MAX_POINTS_PER_LINE).round().astype(int)
            updates, values = updates[indices], values[indices]
        x_values = np.interp(updates, *series[against]) if against else updates
        found += [
            Validation(row, seed, metric, int(update), float(x), float(y))
            for update, x, y in zip(updates, x_values, values, strict=True)
            if x > 0
        ]
    return found


def _means(points: Sequence[Validation]) -> list[Validation]:
    """One line for each row: the mean over seeds of their first validations, of their second validations, and so on."""
    lines: dict[tuple[str, str], dict[int | None, list[Validation]]] = {}
    for point in points:
        lines.setdefault((point.row, point.metric), {}).setdefault(point.seed, []).append(point)
    return [
        Validation(row, None, metric, same[0].update, fmean(p.x for p in same), fmean(p.y for p in same))
        for (row, metric), seeds in lines.items()
        for same in zip(*seeds.values(), strict=False)  # a seed may have fewer validations
    ]


def thinned(points: Sequence[Validation], most: int) -> list[Validation]:
    """Thins lines, evenly from first to last point, until all lines together have about `most` points.

    A line keeps at least six points.
    """
    lines: dict[tuple[str, int | None, str], list[Validation]] = {}
    for point in points:
        lines.setdefault((point.row, point.seed, point.metric), []).append(point)
    share = max(6, most // max(1, len(lines)))
    return [
        line[round(index)]
        for line in lines.values()
        for index in (np.linspace(0, len(line) - 1, share) if len(line) > share else range(len(line)))
    ]


def _curve_panels(
    say: Catalogue,
    data: Datasets,
    points: Sequence[Validation],
    rows: Sequence[Row],
    improving: Set[str],
    title: str,
    log: bool,
    total: int,
    marked: bool,
) -> Chart:
    """The panels of validation score and loss, side by side or one below the other."""
    beside = total > 500
    names = 32 + max(len(_name_at_end(row.name, improving)) for row in rows) * LETTER
    width = round((total / 2 if beside else total) - 50 - names)
    height = max(260 if beside else 190, (FONT + 2) * len(rows) + 10)
    x_values = [point.x for point in points]
    x = Axis.around(title, x_values, log=True) if log else Axis(title, 0.0, max(x_values))
    panels = [
        _panel(say, data, panel_points, rows, improving, x, say(key), (width, height), marked)
        for metric, key in PANELS.items()
        if (panel_points := [point for point in points if point.metric == metric])
    ]
    return alt.hconcat(*panels, spacing=24) if beside else alt.vconcat(*panels, spacing=20)


def _name_at_end(name: str, improving: Set[str]) -> str:
    """The name of a row beside the end of its line, with a mark if it was still improving."""
    return formatting.shortened(name) + (f" {STILL_IMPROVING}" if name in improving else "")


def _panel(
    say: Catalogue,
    data: Datasets,
    points: Sequence[Validation],
    rows: Sequence[Row],
    improving: Set[str],
    x: Axis,
    label: str,
    size: tuple[int, int],
    marked: bool,
) -> alt.LayerChart | alt.FacetChart:
    """One panel: a line for each seed or row, and the names of the rows beside it."""
    width, height = size
    y = Axis.around(label, [point.y for point in points], floor=0)
    names, families = [row.name for row in rows], [row.family for row in rows]
    dashes = [DASHES[families[:number].count(family) % len(DASHES)] for number, family in enumerate(families)]
    colours = alt.Color("row:N", scale={"domain": names, "range": [colour(name) for name in families]}, legend=None)
    dash = alt.StrokeDash("row:N", scale={"domain": names, "range": dashes}, legend=None)
    values = [
        {"row": p.row, "seed": p.seed or 0, "x": p.x, "y": p.y} | ({"hover": p.hover(say)} if marked else {})
        for p in points
    ]
    base = alt.Chart(data.add(values)).encode(x=x.x("x", width), y=y.y("y", height), color=colours)
    lines = base.mark_line(strokeWidth=1.5).encode(
        detail=alt.Detail("seed:N"), strokeDash=dash, description=alt.Description("row:N")
    )
    layers: list[alt.Chart] = [lines]
    if marked:
        layers.append(base.mark_point(filled=True, size=18, opacity=1).encode(description=alt.Description("hover:N")))
    # Lines may end at different costs, so names at their ends could overlap. The names stand beside the plot, at the
    # heights of the ends of the first seeds, and a thin line leads from each end to its name.
    ends: dict[str, Validation] = {}
    for point in points:
        if point.row not in ends or (point.seed or 0) <= (ends[point.row].seed or 0):
            ends[point.row] = point
    heights = spread([y.position(point.y, height) for point in ends.values()], FONT + 1, height)
    aside = x.value_at(width + 14, width)
    leads = [
        {"row": name, "x": across, "y": along}
        for (name, end), height_of_name in zip(ends.items(), heights, strict=True)
        for across, along in ((end.x, end.y), (x.high, end.y), (aside, y.value_at(height_of_name, height)))
    ]
    lead = alt.Chart(data.add(leads)).mark_line(strokeWidth=0.5, opacity=0.7, aria=False)
    layers.append(lead.encode(x=x.x("x", width), y=y.y("y", height), color=colours, detail=alt.Detail("row:N")))
    texts = [
        {"x": aside, "y": y.value_at(height_of_name, height), "row": name, "text": _name_at_end(name, improving)}
        for name, height_of_name in zip(ends, heights, strict=True)
    ]
    text = alt.Chart(data.add(texts)).mark_text(align="left", baseline="middle", dx=4, fontSize=FONT)
    layers.append(
        text.encode(
            x=x.x("x", width),
            y=y.y("y", height),
            text=alt.Text("text:N"),
            color=colours,
            description=alt.Description("row:N"),
        )
    )
    return alt.layer(*layers).properties(width=width, height=height)
