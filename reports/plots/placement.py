"""Where things stand in a plot: axes with fixed domains, and labels that do not cover each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from bench.system import formatting
from reports.plots.drawing import FONT, LETTER


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
        return alt.X(f"{field}:Q", title=self.title, scale=self._scale(), axis=self._axis(pixels, False))

    def y(self, field: str, pixels: float) -> alt.Y:
        """The vertical channel of a field."""
        return alt.Y(f"{field}:Q", title=self.title, scale=self._scale(), axis=self._axis(pixels, True))

    # Scale and axis are dicts: at each step Altair copies a chart with all of its objects, and an `alt.Axis` has some
    # ninety fields.
    def _scale(self) -> dict[str, Any]:
        return {"type": "log" if self.log else "linear", "domain": [self.low, self.high], "nice": False}

    def _axis(self, pixels: float, grid: bool) -> dict[str, Any]:
        ticks = self.ticks(pixels)
        if ticks is None:
            return {"grid": grid, "tickCount": max(3, int(pixels // 60))}
        expression = " : ".join(
            f"abs(datum.value / {tick!r} - 1) < 1e-6 ? '{formatting.axis_tick(tick)}'" for tick in ticks
        )
        return {"values": ticks, "labelExpr": f"{expression} : ''", "grid": grid}


@dataclass(frozen=True)
class Label:
    """A text beside a point, in pixels from the lower left corner. A line leads from `point`, if given, to the text."""

    text: str
    x: float
    y: float
    align: str
    point: tuple[float, float] | None = None


Box = tuple[float, float, float, float]

LABEL_OFFSETS = sorted(
    (
        (0.6 * math.hypot(dx, dy) + (dx < 0), dx, dy)
        for far in (0, 14, 28, 44, 62, 82, 104)
        for dx, dy in (
            (9 + far, 0),
            (-9 - far, 0),
            *((s * (9 + far / 2), t * (12 + far)) for t in (1, -1) for s in (1, -1)),
        )
    ),
    key=lambda offset: offset[0],
)
"""Possible positions of a label relative to its point, right, left, above and below: cost, dx, dy; the best first."""


def place_labels(
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    bars: Sequence[tuple[float, float]],
    line: Sequence[tuple[float, float]],
    size: tuple[float, float],
) -> list[Label]:
    """Places labels near their points with little overlap, each label in turn at the best free position, in two passes.

    In the second pass each label knows where all others stand, and may move.

    Args:
        names: Texts.
        points: Positions of their points in pixels.
        bars: Lower and upper end of the interval at each point, in pixels.
        line: Corners of a line that labels should not cross.
        size: Width and height of the plot.
    """
    drawn: list[Box] = [(x - 5, low, x + 5, high) for (x, _), (low, high) in zip(points, bars, strict=True)]
    drawn += [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    for begin, end in itertools.pairwise(line):
        drawn += _boxes_along(begin, end)
    placed: dict[int, tuple[Label, list[Box]]] = {}
    for _ in range(2):
        for number, (name, point) in enumerate(zip(names, points, strict=True)):
            labels = [box for other, (_, boxes) in placed.items() if other != number for box in boxes]
            placed[number] = _best_place(name, point, np.array(drawn + labels), size)
    return [label for label, _ in placed.values()]


def _best_place(
    name: str, point: tuple[float, float], taken_B4: NDArray[np.float64], size: tuple[float, float]
) -> tuple[Label, list[Box]]:
    """The label at the position with the least overlap, near its point, and what it covers: text and leader line."""
    (x, y), width = point, len(name) * LETTER
    best: tuple[float, Label, list[Box]] | None = None
    for distance, dx, dy in LABEL_OFFSETS:
        if best and best[0] <= distance:
            break
        left = x + dx - (0 if dx > 0 else width)
        box = (left, y + dy - 7, left + width, y + dy + 7)
        outside = max(0.0, -box[0]) + max(0.0, box[2] - size[0]) + max(0.0, -box[1]) + max(0.0, box[3] - size[1])
        away = point if math.hypot(dx, dy) > 18 else None
        leader = _boxes_along(point, (x + dx, y + dy))[1:] if away else []
        covered, *crossed = _overlaps(np.array([box, *leader]), taken_B4)
        cost = distance + 1000 * outside + covered + 6 * sum(crossed)
        if best is None or cost < best[0]:
            best = cost, Label(name, x + dx, y + dy, "left" if dx > 0 else "right", away), [box, *leader]
    assert best is not None
    return best[1:]


def _boxes_along(begin: tuple[float, float], end: tuple[float, float]) -> list[Box]:
    """Small boxes along a line."""
    parts = max(1, int(max(abs(end[0] - begin[0]), abs(end[1] - begin[1])) / 8))
    steps = [tuple(a + (b - a) * n / parts for a, b in zip(begin, end, strict=True)) for n in range(parts + 1)]
    return [(x - 2, y - 2, x + 2, y + 2) for x, y in steps]


def labels_beside(
    names: Sequence[str], points: Sequence[tuple[float, float]], size: tuple[float, float]
) -> list[Label]:
    """Places labels in a column right of the plot, sorted by the heights of their points, each with a line to it."""
    width, height = size
    named = [(name, point) for name, point in zip(names, points, strict=True) if name]
    heights = spread([y for _, (_, y) in named], FONT + 2, height)
    return [Label(name, width + 10, along, "left", point) for (name, point), along in zip(named, heights, strict=True)]


def _overlaps(boxes_N4: NDArray[np.float64], others_B4: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area of each box that is covered by others, (N,) in square pixels."""

    def common_NB(low: int, high: int) -> NDArray[np.float64]:
        """The length of what two boxes have in common along one direction, given the indices of its ends."""
        ends_NB = np.minimum(boxes_N4[:, high, None], others_B4[:, high])
        return (ends_NB - np.maximum(boxes_N4[:, low, None], others_B4[:, low])).clip(0)

    return (common_NB(0, 2) * common_NB(1, 3)).sum(axis=1)


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
