"""How a plot is drawn: an Altair chart as SVG that follows the page's colours, and as SVG and PDF files."""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import vl_convert
from numpy.typing import NDArray

from bench.system import formatting
from reports.plots import svg_rendering

Chart = alt.Chart | alt.LayerChart | alt.HConcatChart | alt.VConcatChart | alt.FacetChart

COLOURS = {
    "ink": "#1c1e21",
    "quiet": "#5b6067",
    "rule": "#e3e5e8",
    "paper": "#ffffff",
    "feed-forward": "#8a6d00",
    "recurrent": "#0b6fb8",
    "convolutional": "#00766a",
    "mixture": "#b8388f",
    "attention": "#c0392b",
    "heat": "#7fb4e8",
}
"""On white, each at a contrast of 4.5 or more where it draws; in the dark the page sets other values for the names."""

FORMS = ("wide", "narrow")
"""A page has every plot in both and shows the one that fits; files have the first."""

NARROW = 340
"""Width of the drawing that a page shows on a small screen."""

FONT = 12
LETTER = 7.2
"""Mean width of a letter in pixels at that size, for placing names: of DejaVu Sans, the widest font of the page."""


class Datasets:
    """The data of a chart, kept beside it: Altair copies whatever stands inside at every step."""

    def __init__(self) -> None:
        self.values: dict[str, list[dict[str, Any]]] = {}

    def add(self, values: Iterable[Mapping[str, Any]]) -> alt.NamedData:
        name = f"data-{len(self.values)}"
        self.values[name] = [dict(value) for value in values]
        return alt.NamedData(name=name)


@dataclass(frozen=True)
class Plot:
    """A plot with its words.

    Attributes:
        id: Name of its files and of its place on the page.
        tab: Its name among the plots of its group, of which the page shows one at a time.
        group: Plots that are the same but for one choice; `choice` says of what.
        title: What is plotted.
        caption: What to see.
        text: The same in words, for those who do not see it.
        families: Families of rows that it colours.
        draw: The chart at a width in pixels, with its data in the given dictionary.
        width: Of the drawing on a large screen and in files.
    """

    id: str
    title: str
    caption: str
    text: str
    families: tuple[str, ...]
    draw: Callable[[Datasets, int], Chart]
    group: str = ""
    tab: str = ""
    choice: str = ""
    width: int = 960

    def svg(self, form: str = "wide") -> str:
        return _svg(self, form)

    def pdf(self) -> bytes:
        return vl_convert.svg_to_pdf(self.svg())

    def inline(self, form: str, figure: str = "") -> str:
        """SVG to stand in a page: colours become the page's variables, ids are told apart.

        Args:
            form: wide or narrow.
            figure: Id of the figure whose caption is its name; its own if it stands alone.
        """
        svg, names = self.svg(form), {colour: name for name, colour in COLOURS.items()}
        svg = re.sub(
            r'\b(fill|stroke)="(#[0-9a-f]{6})"',
            lambda match: f'{match[1]}="var(--{names[match[2]]})"' if match[2] in names else match[0],
            svg,
        )
        svg = re.sub(r'(\bid="|url\(#)(\w+)', rf"\g<1>{self.id}-{form}-\g<2>", svg)
        # What a line or a name says is which row it belongs to: for the script that brings it forward.
        svg = re.sub(
            r' aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="(?:line|text) mark"',
            r' data-row="\1"',
            svg,
        )
        # Vega names its axes as symbols of their own; to a reader of the page they are part of the picture.
        svg = re.sub(r' role="graphics-(object|symbol)"(?! aria-roledescription="point")', "", svg)
        svg = re.sub(r' aria-roledescription="(?!point")[^"]*"| aria-label="[^"]*-axis [^"]*"', "", svg)
        label = f' role="group" aria-labelledby="{figure or self.id}-caption"'
        return svg.replace(' font-family="sans-serif"', "").replace("<svg", f"<svg{label}", 1)

    def _spec(self, form: str) -> dict[str, Any]:
        datasets = Datasets()
        chart = self.draw(datasets, self.width if form == "wide" else NARROW)
        # Altair's own checks cost more than all else here; the drawings are checked by the tests. For the same reason
        # channels are written as objects throughout: a plain "row:N" is looked up among all classes each time.
        spec = chart.to_dict(validate=False) | {"datasets": datasets.values}
        colours = {"labelColor": COLOURS["quiet"], "titleColor": COLOURS["ink"]}
        lines = {"gridColor": COLOURS["rule"], "domainColor": COLOURS["quiet"], "tickColor": COLOURS["quiet"]}
        sizes = {
            "labelFontSize": FONT,
            "titleFontSize": FONT,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "labelLimit": 220,
        }
        return spec | {
            "config": {
                "background": None,
                "axis": colours | lines | sizes,
                "view": {"stroke": None},
                "font": "sans-serif",
            }
        }


def colour(family: str) -> str:
    """The colour of a family; ink for one that has none."""
    return COLOURS.get(family, COLOURS["ink"])


def family_scale(families: Sequence[str]) -> alt.Scale:
    order = sorted(set(families))
    return alt.Scale(domain=order, range=[colour(name) for name in order])


@functools.lru_cache(maxsize=256)
def _svg(plot: Plot, form: str) -> str:
    """The same drawing goes into the page and into files."""
    return _ahead.pop((plot, form), None) or svg_rendering.svg(json.dumps(plot._spec(form)))


_ahead: dict[tuple[Plot, str], str] = {}
"""Drawn, and not asked for yet."""

MANY = 40
"""So many drawings are worth the start of other processes."""


def draw_ahead(plots: Sequence[Plot]) -> None:
    """Draws what a page will ask for, if it is much."""
    wanted = [(plot, form) for plot in plots for form in FORMS]
    if len(wanted) >= MANY:
        drawn = svg_rendering.svgs(json.dumps(plot._spec(form)) for plot, form in wanted)
        _ahead.update(zip(wanted, drawn, strict=True))


@dataclass(frozen=True)
class Axis:
    """A scale with a fixed domain, so that places on it are known before it is drawn."""

    title: str
    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, title: str, values: Sequence[float], *, log: bool = False, floor: float | None = None) -> Axis:
        """An axis with a margin around the values, which does not go below the floor."""
        low, high = min(values), max(values)
        if log:
            margin = max(1.25, (high / low) ** 0.08)
            return cls(title, low / margin, high * margin, True)
        margin = 0.08 * (high - low) or abs(high) * 0.1 or 1.0
        low, high = low - margin, high + margin
        return cls(title, low if floor is None else max(floor, low), high)

    def place(self, value: float, pixels: float) -> float:
        """Pixels from the lower end."""
        change = math.log if self.log else float
        return (change(value) - change(self.low)) / (change(self.high) - change(self.low)) * pixels

    def value(self, place: float, pixels: float) -> float:
        """What stands at so many pixels from the lower end."""
        part = place / pixels
        return self.low * (self.high / self.low) ** part if self.log else self.low + (self.high - self.low) * part

    def ticks(self, pixels: float) -> list[float] | None:
        """For a logarithmic axis: powers of ten, with 3 between where there are few; round steps if it is short."""
        if not self.log:
            return None
        most = max(3, int(pixels // (60 if self.high < 100_000 else 90)))  # the width of 20, and of 2.5 × 10¹²
        if self.high / self.low < 10:
            rough = (self.high - self.low) / most
            ten = 10.0 ** math.floor(math.log10(rough))
            step = next(ten * round_ for round_ in (1, 2, 5, 10) if ten * round_ >= rough)
            ticks = [step * n for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
            return self._apart(ticks, pixels)
        tens = [10.0**n for n in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)]
        ticks = [ten * step for ten in tens for step in (1, 3) if self.low <= ten * step <= self.high]
        if len(ticks) > most:
            ticks = [ten for ten in tens if self.low <= ten <= self.high]
        return self._apart(ticks, pixels)

    def _apart(self, ticks: Sequence[float], pixels: float) -> list[float]:
        """Those whose labels do not touch the one before."""
        kept: list[float] = []
        for tick in ticks:
            room = (
                (len(formatting.axis_tick(kept[-1])) + len(formatting.axis_tick(tick))) / 2 * LETTER + 8
                if kept
                else 0.0
            )
            if not kept or self.place(tick, pixels) - self.place(kept[-1], pixels) >= room:
                kept.append(tick)
        return kept

    def x(self, field: str, pixels: float) -> alt.X:
        scale = alt.Scale(type="log" if self.log else "linear", domain=[self.low, self.high], nice=False)
        return alt.X(f"{field}:Q", title=self.title, scale=scale, axis=self._axis(pixels, False))

    def y(self, field: str, pixels: float) -> alt.Y:
        scale = alt.Scale(type="log" if self.log else "linear", domain=[self.low, self.high], nice=False)
        return alt.Y(f"{field}:Q", title=self.title, scale=scale, axis=self._axis(pixels, True))

    def _axis(self, pixels: float, grid: bool) -> alt.Axis:
        ticks = self.ticks(pixels)
        if ticks is None:
            return alt.Axis(grid=grid, tickCount=max(3, int(pixels // 60)))
        chosen = " : ".join(
            f"abs(datum.value / {tick!r} - 1) < 1e-6 ? '{formatting.axis_tick(tick)}'" for tick in ticks
        )
        return alt.Axis(values=ticks, labelExpr=f"{chosen} : ''", grid=grid)


@dataclass(frozen=True)
class Label:
    """A text placed beside a point, in pixels from the lower left corner; `point` where a line has to lead to it."""

    text: str
    x: float
    y: float
    align: str
    point: tuple[float, float] | None = None


Box = tuple[float, float, float, float]

PLACES = [
    (dx, dy)
    for far in (0, 14, 28, 44, 62, 82, 104)
    for dx, dy in (
        (9 + far, 0),
        (-9 - far, 0),
        *((s * (9 + far / 2), t * (12 + far)) for t in (1, -1) for s in (1, -1)),
    )
]
"""Where a label may stand from its point: right, left, above and below, near first."""


def place_labels(
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    bars: Sequence[tuple[float, float]],
    line: Sequence[tuple[float, float]],
    size: tuple[float, float],
) -> list[Label]:
    """Labels near their points so that they cover little: each takes the best place that is left, one after another.

    Args:
        names: Texts.
        points: Their points in pixels.
        bars: Lower and upper end of the interval at each point, in pixels.
        line: Corners of a line that should not be crossed.
        size: Width and height of the plot.
    """
    taken: list[Box] = [(x - 5, low, x + 5, high) for (x, _), (low, high) in zip(points, bars, strict=True)]
    taken += [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    for (x, y), (end_x, end_y) in itertools.pairwise(line):
        parts = max(1, int(max(abs(end_x - x), abs(end_y - y)) / 8))
        steps = [(x + (end_x - x) * n / parts, y + (end_y - y) * n / parts) for n in range(parts + 1)]
        taken += [(x - 2, y - 2, x + 2, y + 2) for x, y in steps]
    placed = []
    for name, (x, y) in zip(names, points, strict=True):
        width, taken_B4 = len(name) * LETTER, np.array(taken)
        best: tuple[float, Label, Box] | None = None
        for dx, dy in PLACES:
            left = x + dx - (0 if dx > 0 else width)
            box = (left, y + dy - 7, left + width, y + dy + 7)
            outside = max(0.0, -box[0]) + max(0.0, box[2] - size[0]) + max(0.0, -box[1]) + max(0.0, box[3] - size[1])
            cost = 1000 * outside + _overlap(box, taken_B4) + 0.6 * math.hypot(dx, dy) + (dx < 0)
            if best is None or cost < best[0]:
                away = (x, y) if math.hypot(dx, dy) > 18 else None
                best = cost, Label(name, x + dx, y + dy, "left" if dx > 0 else "right", away), box
        assert best is not None
        placed.append(best[1])
        taken.append(best[2])
    return placed


def labels_beside(
    names: Sequence[str], points: Sequence[tuple[float, float]], size: tuple[float, float]
) -> list[Label]:
    """Labels in a column right of the plot, in the order of their points' heights, with a line from each point."""
    width, height = size
    named = [(name, point) for name, point in zip(names, points, strict=True) if name]
    heights = spread([y for _, (_, y) in named], FONT + 2, height)
    return [Label(name, width + 10, along, "left", point) for (name, point), along in zip(named, heights, strict=True)]


def _overlap(one: Box, others_B4: NDArray[np.float64]) -> float:
    """What a box covers of others, in square pixels."""
    across_B = np.minimum(one[2], others_B4[:, 2]) - np.maximum(one[0], others_B4[:, 0])
    along_B = np.minimum(one[3], others_B4[:, 3]) - np.maximum(one[1], others_B4[:, 1])
    return float(across_B.clip(0) @ along_B.clip(0))


def spread(places: Sequence[float], gap: float, high: float) -> list[float]:
    """Places moved apart until neighbours are `gap` away from each other, none above `high`, in the order given."""
    order = sorted(range(len(places)), key=lambda number: places[number])
    moved = list(places)
    for below, number in itertools.pairwise(order):
        moved[number] = max(moved[number], moved[below] + gap)
    ceiling = high
    for number in reversed(order):
        moved[number] = min(moved[number], ceiling)
        ceiling = moved[number] - gap
    return moved
