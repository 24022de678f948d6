"""The class Plot, which renders an Altair chart as SVG and PDF, and the placing of axes and labels."""

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
from numpy.typing import NDArray

from bench.system import formatting
from bench.system.visible_text import visible
from reports.plots import svg_rendering
from reports.plots.svg_rendering import Drawing, Request
from reports.text.catalogue import Catalogue

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
    "violet": "#6a4fc8",
    "orange": "#b4530a",
    "green": "#4a7a0c",
    "slate": "#56657a",
    "navy": "#2a3f9d",
}
"""Colours on white, with a contrast of at least 4.5 for text and marks. In dark mode the page sets others."""

FORMS = ("wide", "narrow")
"""The page has every plot in both forms and shows the one that fits the screen; the files have the first."""

NARROW = 340
"""Width in pixels of the drawing for a small screen."""

FONT = 12
LETTER = 7.2
"""Mean width of a letter in pixels at size FONT, for placing names: of DejaVu Sans, the widest font of the page."""


class Datasets:
    """The data of a chart, stored outside of it, because Altair copies data inside a chart at every step."""

    def __init__(self) -> None:
        self.values: dict[str, list[dict[str, Any]]] = {}

    def add(self, values: Iterable[Mapping[str, Any]]) -> alt.NamedData:
        """Stores the values and returns a reference to them for a chart."""
        name = f"data-{len(self.values)}"
        self.values[name] = [dict(value) for value in values]
        return alt.NamedData(name=name)


@dataclass(frozen=True)
class Plot:
    """A plot with its texts.

    Attributes:
        id: Name of its files and anchor on the page.
        title: What is plotted.
        caption: What to look for.
        text: The content in words, for readers who cannot see the plot.
        families: Families of rows that have a colour in it.
        legend: Sign, colour and name of each row, where rows have colours of their own; then `families` is empty.
        draw: Returns the chart at a width in pixels; it stores the data in the given Datasets.
        group: Plots with the same group differ in one choice, and the page shows one of them at a time.
        tab: Name of the plot in its group.
        choice: What the reader chooses in the group, such as the axis.
        width: Width in pixels on a large screen and in files.
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
    legend: tuple[tuple[str, str, str], ...] = ()

    @property
    def failure(self) -> str:
        """Why the plot could not be drawn; empty if it could."""
        return next((found for form in FORMS if (found := _drawing(self, form).failure)), "")

    def svg(self, form: str = "wide") -> str:
        """The drawing in a form, wide or narrow; empty if it failed."""
        return _drawing(self, form).svg

    def pdf(self) -> bytes:
        """The wide drawing as PDF; empty if it failed."""
        return _drawing(self, "wide").pdf

    def inline(self, form: str, figure: str = "") -> str:
        """SVG for the page: colours become the variables of the page, and ids become unique.

        Args:
            form: wide or narrow.
            figure: Id of the figure whose caption names the drawing; by default the plot's own id.
        """
        svg, names = self.svg(form), {colour: name for name, colour in COLOURS.items()}
        svg = re.sub(
            r'\b(fill|stroke)="(#[0-9a-f]{6})"',
            lambda match: f'{match[1]}="var(--{names[match[2]]})"' if match[2] in names else match[0],
            svg,
        )
        svg = re.sub(r'(\bid="|url\(#)(\w+)', rf"\g<1>{self.id}-{form}-\g<2>", svg)
        # The label of a line or a name is its row. The script of the page needs it to highlight the row.
        svg = re.sub(
            r' aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="(?:line|text) mark"',
            r' data-row="\1"',
            svg,
        )
        # Vega labels axes as separate symbols. Screen readers should treat them as parts of the drawing.
        svg = re.sub(r' role="graphics-(object|symbol)"(?! aria-roledescription="point")', "", svg)
        svg = re.sub(r' aria-roledescription="(?!point")[^"]*"| aria-label="[^"]*-axis [^"]*"', "", svg)
        label = f' role="group" aria-labelledby="{figure or self.id}-caption"'
        return svg.replace(' font-family="sans-serif"', "").replace("<svg", f"<svg{label}", 1)

    def _spec(self, form: str) -> dict[str, Any]:
        """The Vega-Lite specification of the plot in a form."""
        datasets = Datasets()
        chart = self.draw(datasets, self.width if form == "wide" else NARROW)
        # No validation: Altair's checks take most of the time, and the tests check the drawings. For the same reason
        # all channels are objects: Altair would look up a plain "row:N" among all its classes each time.
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


def why_not_drawn(say: Catalogue, plot: Plot) -> str:
    """Why the page has no drawing of a plot that failed."""
    return say("missing.not_drawn", reason=say.recorded(plot.failure))


def colour(family: str) -> str:
    """The colour of a family; ink for an unknown family."""
    return COLOURS.get(family, COLOURS["ink"])


def family_scale(families: Sequence[str]) -> alt.Scale:
    """The scale from families to their colours."""
    order = sorted(set(families))
    return alt.Scale(domain=order, range=[colour(name) for name in order])


MAYBE_UNSAFE = re.compile(r"\\(?:[bfr]|u(?:00[0189]|007f|202|206|f[def]|d[89a-f]))")
"""Escapes of JSON among which are those of all unsafe characters."""


def specification_text(spec: Any) -> str:
    """A Vega-Lite specification as JSON, with every text in it made safe: the library ends its process at a U+0002."""
    text = json.dumps(spec)
    # Nearly all texts are safe, and the search takes a tenth of the time of a changed copy.
    return json.dumps(_visible_strings(spec)) if MAYBE_UNSAFE.search(text) else text


def _visible_strings(value: Any) -> Any:
    """A copy of a JSON value with every string made visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: _visible_strings(item) for key, item in value.items()}
    return [_visible_strings(item) for item in value] if isinstance(value, (list, tuple)) else value


@functools.lru_cache(maxsize=256)
def _drawing(plot: Plot, form: str) -> Drawing:
    """The drawing of a plot. It is cached, because the page and the files use the same one."""
    return _drawn_ahead.pop((plot, form), None) or svg_rendering.render_one_by_one([_request(plot, form)])[0]


def _request(plot: Plot, form: str) -> Request:
    """What is to be rendered. The files have the wide form as PDF, too."""
    return Request(specification_text(plot._spec(form)), pdf=form == "wide")


_drawn_ahead: dict[tuple[Plot, str], Drawing] = {}
"""Drawings that draw_ahead has made and nobody has used yet."""

PARALLEL_FROM = 40
"""From this number of drawings on, parallel processes save more time than their start takes."""


def draw_ahead(plots: Sequence[Plot]) -> None:
    """Renders all drawings of a page in parallel, if there are many."""
    wanted = [(plot, form) for plot in plots for form in FORMS]
    if len(wanted) >= PARALLEL_FROM:
        drawn = svg_rendering.render_in_parallel(_request(plot, form) for plot, form in wanted)
        _drawn_ahead.update(zip(wanted, drawn, strict=True))


@dataclass(frozen=True)
class Axis:
    """A scale with a fixed domain, so that positions on it are known before it is drawn."""

    title: str
    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, title: str, values: Sequence[float], *, log: bool = False, floor: float | None = None) -> Axis:
        """An axis with a margin around the values. It does not extend below `floor`."""
        low, high = min(values), max(values)
        if log:
            margin = max(1.25, (high / low) ** 0.08)
            return cls(title, low / margin, high * margin, True)
        margin = 0.08 * (high - low) or abs(high) * 0.1 or 1.0
        low, high = low - margin, high + margin
        return cls(title, low if floor is None else max(floor, low), high)

    def position(self, value: float, pixels: float) -> float:
        """Distance of a value from the lower end of the axis, in pixels."""
        change = math.log if self.log else float
        return (change(value) - change(self.low)) / (change(self.high) - change(self.low)) * pixels

    def value_at(self, position: float, pixels: float) -> float:
        """The value at a distance in pixels from the lower end of the axis."""
        part = position / pixels
        return self.low * (self.high / self.low) ** part if self.log else self.low + (self.high - self.low) * part

    def ticks(self, pixels: float) -> list[float] | None:
        """Ticks of a logarithmic axis: powers of ten, 3 × 10ⁿ between them if there is room; round steps if short.

        None for a linear axis, whose ticks Vega selects.
        """
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
        """The ticks whose labels do not touch the previous label."""
        ticks_kept: list[float] = []
        for tick in ticks:
            room = (
                (len(formatting.axis_tick(ticks_kept[-1])) + len(formatting.axis_tick(tick))) / 2 * LETTER + 8
                if ticks_kept
                else 0.0
            )
            if not ticks_kept or self.position(tick, pixels) - self.position(ticks_kept[-1], pixels) >= room:
                ticks_kept.append(tick)
        return ticks_kept

    def x(self, field: str, pixels: float) -> alt.X:
        """The horizontal channel of a field."""
        scale = alt.Scale(type="log" if self.log else "linear", domain=[self.low, self.high], nice=False)
        return alt.X(f"{field}:Q", title=self.title, scale=scale, axis=self._axis(pixels, False))

    def y(self, field: str, pixels: float) -> alt.Y:
        """The vertical channel of a field."""
        scale = alt.Scale(type="log" if self.log else "linear", domain=[self.low, self.high], nice=False)
        return alt.Y(f"{field}:Q", title=self.title, scale=scale, axis=self._axis(pixels, True))

    def _axis(self, pixels: float, grid: bool) -> alt.Axis:
        ticks = self.ticks(pixels)
        if ticks is None:
            return alt.Axis(grid=grid, tickCount=max(3, int(pixels // 60)))
        expression = " : ".join(
            f"abs(datum.value / {tick!r} - 1) < 1e-6 ? '{formatting.axis_tick(tick)}'" for tick in ticks
        )
        return alt.Axis(values=ticks, labelExpr=f"{expression} : ''", grid=grid)


@dataclass(frozen=True)
class Label:
    """A text beside a point, in pixels from the lower left corner. A line leads from `point`, if given, to the text."""

    text: str
    x: float
    y: float
    align: str
    point: tuple[float, float] | None = None


Box = tuple[float, float, float, float]

LABEL_OFFSETS = [
    (dx, dy)
    for far in (0, 14, 28, 44, 62, 82, 104)
    for dx, dy in (
        (9 + far, 0),
        (-9 - far, 0),
        *((s * (9 + far / 2), t * (12 + far)) for t in (1, -1) for s in (1, -1)),
    )
]
"""Possible positions of a label relative to its point: right, left, above and below, the nearest first."""


def place_labels(
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    bars: Sequence[tuple[float, float]],
    line: Sequence[tuple[float, float]],
    size: tuple[float, float],
) -> list[Label]:
    """Places labels near their points with little overlap: each label in turn takes the best free position.

    Args:
        names: Texts.
        points: Positions of their points in pixels.
        bars: Lower and upper end of the interval at each point, in pixels.
        line: Corners of a line that labels should not cross.
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
        for dx, dy in LABEL_OFFSETS:
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
    """Places labels in a column right of the plot, sorted by the heights of their points, each with a line to it."""
    width, height = size
    named = [(name, point) for name, point in zip(names, points, strict=True) if name]
    heights = spread([y for _, (_, y) in named], FONT + 2, height)
    return [Label(name, width + 10, along, "left", point) for (name, point), along in zip(named, heights, strict=True)]


def _overlap(one: Box, others_B4: NDArray[np.float64]) -> float:
    """The area of a box that is covered by others, in square pixels."""
    across_B = np.minimum(one[2], others_B4[:, 2]) - np.maximum(one[0], others_B4[:, 0])
    along_B = np.minimum(one[3], others_B4[:, 3]) - np.maximum(one[1], others_B4[:, 1])
    return float(across_B.clip(0) @ along_B.clip(0))


def spread(positions: Sequence[float], gap: float, high: float) -> list[float]:
    """Moves positions apart until neighbours have the distance `gap` and none is above `high`. Keeps their order."""
    order = sorted(range(len(positions)), key=lambda number: positions[number])
    moved = list(positions)
    for below, number in itertools.pairwise(order):
        moved[number] = max(moved[number], moved[below] + gap)
    ceiling = high
    for number in reversed(order):
        moved[number] = min(moved[number], ceiling)
        ceiling = moved[number] - gap
    return moved
