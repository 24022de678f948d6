"""The drawing of all figures of a scaling study: panels with points, lines, bands and names, one colour per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from bench.system import formatting
from reports.plots.drawing import COLOURS, FONT, LETTER, Chart, Datasets, Plot
from reports.plots.placement import Axis, spread
from reports.text.catalogue import Catalogue

ROW_COLOURS = (
    "recurrent",
    "attention",
    "convolutional",
    "feed-forward",
    "mixture",
    "violet",
    "green",
    "orange",
    "slate",
    "navy",
)
"""Colours of rows in their order; neighbours differ in hue."""

SIGNS = {"circle": "●", "square": "■", "triangle-up": "▲", "diamond": "◆", "triangle-down": "▼", "cross": "✚"}
"""Marks of rows in their order, for readers who cannot distinguish the colours -> the sign in the legend."""

MAX_NAME = {True: 20, False: 12}
"""Letters of a name beside a line, on a large screen and on a small one."""

Kind = Literal["solid", "end", "beyond", "thin"]
LINES: dict[Kind, dict[str, Any]] = {
    "solid": {"strokeWidth": 2},
    "end": {"strokeWidth": 2, "strokeDash": [1, 3], "strokeCap": "round"},
    "beyond": {"strokeWidth": 1.25, "strokeDash": [6, 4]},
    "thin": {"strokeWidth": 0.8},
}
"""Lines inside the data, where the best size is an end of the ladder, beyond the data, and between points."""


@dataclass(frozen=True)
class Style:
    """How a row is drawn: name, name of its colour, and mark."""

    name: str
    colour: str
    shape: str


def styles(labels: dict[str, str]) -> dict[str, Style]:
    """Returns the style of every row, by its place in the study: it is the same in every figure."""
    shapes = list(SIGNS)
    return {
        row: Style(name, ROW_COLOURS[number % len(ROW_COLOURS)], shapes[number % len(shapes)])
        for number, (row, name) in enumerate(labels.items())
    }


@dataclass(frozen=True)
class Mark:
    """A point with its tooltip; `large` for one that stands out."""

    x: float
    y: float
    hover: str
    large: bool = False


@dataclass(frozen=True)
class Series:
    """What a panel has of one row.

    Attributes:
        style: How it is drawn.
        marks: Points.
        lines: Kind of line and its corners (x, y).
        band: (x, low, high).
        name: Printed beside the end of the last line; "" for none.
    """

    style: Style
    marks: tuple[Mark, ...] = ()
    lines: tuple[tuple[Kind, tuple[tuple[float, float], ...]], ...] = ()
    band: tuple[tuple[float, float, float], ...] = ()
    name: str = ""


@dataclass(frozen=True)
class Panel:
    """A pair of axes with series.

    Attributes:
        title: Above the panel; "" for none.
        x: Title of the axis, and whether it is logarithmic.
        y: Likewise.
        series: What is drawn.
        level: Height of a grey horizontal line.
        diagonal: Whether a grey line marks y = x.
    """

    title: str
    x: tuple[str, bool]
    y: tuple[str, bool]
    series: tuple[Series, ...]
    level: float | None = None
    diagonal: bool = False

    @property
    def corners(self) -> list[tuple[float, float]]:
        """All points and corners of lines."""
        marks = [(mark.x, mark.y) for one in self.series for mark in one.marks]
        return marks + [corner for one in self.series for _, line in one.lines for corner in line]


def figure(say: Catalogue, name: str, panels: Sequence[Panel], columns: int = 1, shared: bool = False) -> Plot | None:
    """Returns the figure of these panels; None if they have no points. Its texts stand below scale.figure.NAME.

    Args:
        say: Texts.
        name: Id of the figure.
        panels: Panels; those without points are left out.
        columns: Panels beside one another on a large screen.
        shared: Whether all panels have the same axes.
    """
    drawn = [panel for panel in panels if panel.corners]
    if not drawn:
        return None
    shown = list(dict.fromkeys(one.style for panel in drawn for one in panel.series if one.marks or one.lines))
    heights: dict[str, list[float]] = {}
    for one in (one for panel in drawn for one in panel.series if one.marks):
        heights.setdefault(one.style.name, []).extend(mark.y for mark in one.marks)
    text = "; ".join(
        say(
            "scale.figure.text",
            row=row,
            points=len(of),
            low=formatting.significant(min(of)),
            high=formatting.significant(max(of)),
        )
        for row, of in heights.items()
    )
    return Plot(
        id=name,
        title=say(f"scale.figure.{name}.title"),
        caption=say(f"scale.figure.{name}.caption"),
        text=text,
        families=(),
        draw=lambda data, width: _draw(data, drawn, columns, shared, width),
        legend=tuple((SIGNS[style.shape], style.colour, style.name) for style in shown),
    )


def _draw(data: Datasets, panels: Sequence[Panel], columns: int, shared: bool, total: int) -> Chart:
    """The panels in rows of `columns`, on a small screen below one another."""
    wide = total > 500
    columns = min(columns, len(panels)) if wide else 1
    everything = [corner for panel in panels for corner in panel.corners] if shared else []
    charts = [_panel(data, panel, everything or panel.corners, round(total / columns), wide) for panel in panels]
    rows = [alt.hconcat(*charts[first : first + columns], spacing=10) for first in range(0, len(charts), columns)]
    return alt.vconcat(*rows, spacing=18)


def _panel(data: Datasets, panel: Panel, corners: Sequence[tuple[float, float]], total: int, wide: bool) -> Chart:
    """One panel, whose axes contain these corners."""
    named = [(one, formatting.shortened(one.name, MAX_NAME[wide])) for one in panel.series if one.name and one.lines]
    names = max((len(name) for _, name in named), default=0) * LETTER
    width = round(total - 70 - (names + 20 if names else 10))
    height = 380 if wide and total > 700 else 230
    levels = [] if panel.level is None else [panel.level]
    xs, ys = [x for x, _ in corners], [*(y for _, y in corners), *levels]
    if panel.diagonal:
        xs = ys = xs + ys
    x, y = _axis(panel.x, xs), _axis(panel.y, ys)
    colour = alt.Color("colour:N", scale=None)

    def at(chart: alt.Chart) -> alt.Chart:
        return chart.encode(x=x.x("x", width), y=y.y("y", height))

    layers: list[alt.Chart] = []
    grey = [[(x.low, level), (x.high, level)] for level in levels]
    grey += [[(x.low, x.low), (x.high, x.high)]] if panel.diagonal else []
    for line in grey:
        drawn = alt.Chart(data.add({"x": across, "y": along} for across, along in line))
        layers.append(at(drawn.mark_line(strokeWidth=1, color=COLOURS["quiet"], aria=False)))
    bands = [
        {"x": across, "y": low, "high": high, "colour": COLOURS[one.style.colour], "series": number}
        for number, one in enumerate(panel.series)
        for across, low, high in one.band
    ]
    if bands:
        band = at(alt.Chart(data.add(bands)).mark_area(opacity=0.16, clip=True, aria=False))
        layers.append(band.encode(y2=alt.Y2("high:Q"), color=colour, detail=alt.Detail("series:N")))
    for kind, form in LINES.items():
        lines = [
            {"x": across, "y": along, "colour": COLOURS[one.style.colour], "line": f"{number} {part}"}
            for number, one in enumerate(panel.series)
            for part, (of, line) in enumerate(one.lines)
            if of == kind
            for across, along in line
        ]
        if lines:
            drawn = at(alt.Chart(data.add(lines)).mark_line(clip=True, aria=False, **form))
            layers.append(drawn.encode(color=colour, detail=alt.Detail("line:N")))
    for large, size in ((False, 26), (True, 110)):
        marks = [
            {"x": mark.x, "y": mark.y, "colour": COLOURS[one.style.colour], "shape": one.style.shape}
            | {"hover": mark.hover}
            for one in panel.series
            for mark in one.marks
            if mark.large == large
        ]
        if marks:
            shape = alt.Shape("shape:N", scale=None)
            drawn = at(alt.Chart(data.add(marks)).mark_point(filled=True, size=size, opacity=0.8))
            layers.append(drawn.encode(color=colour, shape=shape, description=alt.Description("hover:N")))
    if named:
        layers += _names(data, named, x, y, (width, height))
    titled = (
        {"title": alt.Title(panel.title, fontSize=FONT, fontWeight="normal", anchor="start", color=COLOURS["ink"])}
        if panel.title
        else {}
    )
    return alt.layer(*layers).properties(width=width, height=height, **titled)


def _axis(title: tuple[str, bool], values: Sequence[float]) -> Axis:
    """An axis with a narrow margin: losses span less than a factor of ten, and Axis.around leaves a quarter."""
    low, high = min(values), max(values)
    if not title[1]:
        return Axis.around(title[0], values)
    margin = max(1.02, (high / low) ** 0.04)
    return Axis(title[0], low / margin, high * margin, True)


def _names(
    data: Datasets, named: Sequence[tuple[Series, str]], x: Axis, y: Axis, size: tuple[int, int]
) -> list[alt.Chart]:
    """The names beside the panel at the heights of the ends of their lines, with thin lines from there."""
    width, height = size
    ends = [one.lines[-1][1][-1] for one, _ in named]
    heights = spread([y.position(end[1], height) for end in ends], FONT + 2, height)
    aside = x.value_at(width + 10, width)
    texts, leads = [], []
    for (one, name), end, along in zip(named, ends, heights, strict=True):
        paint = {"colour": COLOURS[one.style.colour]}
        texts.append({"x": aside, "y": y.value_at(along, height), "text": name} | paint)
        corners = (end, (x.high, end[1]), (aside, y.value_at(along, height)))
        leads += [{"x": across, "y": level, "lead": len(texts)} | paint for across, level in corners]
    channels = {"x": x.x("x", width), "y": y.y("y", height), "color": alt.Color("colour:N", scale=None)}
    lead = alt.Chart(data.add(leads)).mark_line(strokeWidth=0.5, opacity=0.6, aria=False)
    text = alt.Chart(data.add(texts)).mark_text(align="left", baseline="middle", dx=4, fontSize=FONT, aria=False)
    return [
        lead.encode(**channels, detail=alt.Detail("lead:N")),
        text.encode(**channels, text=alt.Text("text:N")),
    ]
