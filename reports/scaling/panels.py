"""The figures of a scaling study: which points, curves and bands they show, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean
from typing import TypeVar

import numpy as np

from bench.scaling.analysis import Analysis, Cost, RowAnalysis
from bench.scaling.frontier import Curve, iso_cost_slice
from bench.scaling.laws import Array
from bench.scaling.points import Point
from bench.system import formatting
from reports.plots.drawing import Plot
from reports.scaling.figures import Kind, Mark, Panel, Series, Style, figure, styles
from reports.scaling.study import Study
from reports.text.catalogue import Catalogue

SLICES = 4
PROFILE_TOP = 3.0
"""Profiles are drawn up to this many times their 95 % point."""

Line = tuple[Kind, tuple[tuple[float, float], ...]]
Item = TypeVar("Item")


class Figures:
    """The figures of one study. The methods are in the order of the page; None: no data for a figure."""

    def __init__(self, say: Catalogue, study: Study, analysis: Analysis) -> None:
        self.say = say
        self.analysis = analysis
        self.rows = [row for row in analysis.rows.values() if row.points]
        self.styles = styles(study.labels)

    def all(self) -> list[Plot]:
        """Returns all figures that have data."""
        found = [
            self.loss("flops"),
            self.bleu(),
            self.pairs(),
            self.loss("seconds"),
            self.slices(),
            self.held_out(),
            self.bleu_against_loss(),
            self.residuals(),
            self.profiles(),
        ]
        return [plot for plot in found if plot]

    def loss(self, cost: Cost) -> Plot | None:
        """Loss against FLOPs or seconds, with frontiers."""
        panel = self._against(cost, "loss", lambda point: point.loss, lambda _, loss_C: loss_C)
        return figure(self.say, f"loss_{cost}", [panel])

    def bleu(self) -> Plot | None:
        """BLEU against FLOPs; the curve is the law of BLEU at the loss of the frontier, to the lowest loss seen."""
        panel = self._against(
            "flops",
            "bleu",
            lambda point: point.bleu,
            lambda row, loss_C: row.bleu.predict(loss_C) if row.bleu else None,
        )
        return figure(self.say, "bleu_flops", [panel])

    def _against(
        self,
        cost: Cost,
        measure: str,
        of: Callable[[Point], float | None],
        curve_of: Callable[[RowAnalysis, Array], Array | None],
    ) -> Panel:
        """All rows against a cost. `curve_of` changes the losses of a frontier into what is drawn."""
        found = []
        for row in self.rows:
            known = [
                (x, y, point) for point in row.points if (x := getattr(point, cost)) and (y := of(point)) is not None
            ]
            marks = tuple(Mark(x, y, self._hover(point, y)) for x, y, point in known)
            curve, style = row.curve(cost), self.styles[row.row]
            drawn = [line for part in _columns(curve) if (line := curve_of(row, part)) is not None] if curve else []
            if curve and drawn:
                line, low, high = drawn
                # The law of BLEU holds down to the lowest loss that was seen.
                shown = len(line) if measure == "loss" or not row.bleu else _costs_above(curve, row.bleu.lowest_loss)
                corners = list(zip(curve.frontier.costs.tolist(), low.tolist(), high.tolist(), strict=True))
                found.append(Series(style, marks, _segments(curve, line[:shown]), tuple(corners[:shown]), style.name))
            else:
                by_size = _grouped(known, lambda each: each[2].size)
                lines = tuple(_mean_line((point.pairs, x, y) for x, y, point in each) for each in by_size.values())
                found.append(Series(style, marks, lines, name=style.name))
        return Panel(
            "",
            (self.say(f"scale.axis.{cost}"), True),
            (self.say(f"scale.axis.{measure}"), measure == "loss"),
            tuple(found),
        )

    def pairs(self) -> Plot | None:
        """Loss against sentence pairs: a panel for each row, a line for each size."""
        panels = []
        for row in self.rows:
            style, found = self.styles[row.row], []
            for size, points in sorted(
                _grouped(row.points, lambda p: p.size).items(), key=lambda item: item[1][0].body_softmax
            ):
                marks = tuple(Mark(point.pairs, point.loss, self._hover(point, point.loss)) for point in points)
                line = _mean_line((point.pairs, point.pairs, point.loss) for point in points)
                if curve := row.curve("flops"):
                    pairs = np.geomspace(min(p.pairs for p in points), max(p.pairs for p in points), 25)
                    share = float(np.exp(np.mean([np.log(point.tokens / point.pairs) for point in points])))
                    losses = curve.surface.predict(float(points[0].body_softmax), pairs * share)
                    line = ("solid", tuple(zip(pairs.tolist(), losses.tolist(), strict=True)))
                found.append(Series(style, marks, (line,), name=size))
            panels.append(Panel(style.name, self._axis("pairs"), self._axis("loss"), tuple(found)))
        return figure(self.say, "loss_pairs", panels, columns=3, shared=True)

    def slices(self) -> Plot | None:
        """Loss against size at several costs."""
        curves = {row.row: curve for row in self.rows if (curve := row.curve("flops"))}
        if not curves:
            return None
        low = min(curve.ladder.lowest for curve in curves.values())
        high = max(curve.ladder.highest for curve in curves.values())
        panels = []
        for cost in np.geomspace(low, high, SLICES + 2)[1:-1]:
            found = []
            for row, curve in curves.items():
                if not curve.ladder.lowest <= cost <= curve.ladder.highest:
                    continue
                cut, style = iso_cost_slice(curve.surface, curve.ladder, float(cost)), self.styles[row]
                heights = zip(cut.measured_sizes.tolist(), cut.measured_loss.tolist(), strict=True)
                marks = [Mark(size, loss, self._point(style, size, loss)) for size, loss in heights]
                if cut.minimum:
                    loss = float(np.interp(np.log(cut.minimum), np.log(cut.sizes), cut.loss))
                    text = self.say("scale.point.minimum", row=style.name, size=formatting.quantity(cut.minimum))
                    marks.append(Mark(cut.minimum, loss, text, large=True))
                line = tuple(zip(cut.sizes.tolist(), cut.loss.tolist(), strict=True))
                found.append(Series(style, tuple(marks), (("solid", line),)))
            title = f"{formatting.power_of_ten(float(cost))}{formatting.SPACE}FLOPs"
            panels.append(Panel(title, self._axis("size"), self._axis("loss"), tuple(found)))
        return figure(self.say, "slices", panels, columns=2, shared=True)

    def held_out(self) -> Plot | None:
        """Predicted against observed loss of the largest budget and of the largest size."""
        panels = []
        for what in ("largest budget", "largest size"):
            found = []
            for row in self.rows:
                choice, style = row.choice, self.styles[row.row]
                for one in choice.held_out[choice.form] if choice else ():
                    if one.what == what:
                        both = zip(one.observed.tolist(), one.predicted.tolist(), strict=True)
                        marks = tuple(Mark(x, y, self._point(style, x, y)) for x, y in both)
                        found.append(Series(style, marks))
            title = self.say(f"scale.held.{what}")
            panels.append(Panel(title, self._axis("observed"), self._axis("predicted"), tuple(found), diagonal=True))
        return figure(self.say, "held_out", panels, columns=2)

    def bleu_against_loss(self) -> Plot | None:
        """BLEU against loss, with the law of each row."""
        found = []
        for row in self.rows:
            style = self.styles[row.row]
            scored = [(point.loss, point.bleu) for point in row.points if point.bleu is not None]
            marks = tuple(Mark(x, y, self._point(style, x, y)) for x, y in scored)
            lines: tuple[Line, ...] = ()
            if row.bleu:
                losses = np.linspace(min(x for x, _ in scored), max(x for x, _ in scored), 30)
                lines = (("solid", tuple(zip(losses.tolist(), row.bleu.predict(losses).tolist(), strict=True))),)
            found.append(Series(style, marks, lines))
        axes = (self.say("scale.axis.loss"), False), (self.say("scale.axis.bleu"), False)
        return figure(self.say, "bleu_loss", [Panel("", *axes, tuple(found))])

    def residuals(self) -> Plot | None:
        """Residuals against parameters, tokens and FLOPs."""
        panels = []
        for name, of in (("size", "body_softmax"), ("tokens", "tokens"), ("flops", "flops")):
            found = []
            for row in self.rows:
                if row.fit and row.curves:
                    style, residuals = self.styles[row.row], (100 * np.expm1(row.fit.residuals)).tolist()
                    places = [float(getattr(point, of)) for point in row.points]
                    both = zip(places, residuals, strict=True)
                    found.append(Series(style, tuple(Mark(x, y, self._point(style, x, y)) for x, y in both)))
            axes = self._axis(name), (self.say("scale.axis.residual"), False)
            panels.append(Panel("", *axes, tuple(found), level=0.0))
        return figure(self.say, "residuals", panels, columns=3)

    def profiles(self) -> Plot | None:
        """Profiles of E and a."""
        panels = []
        for name in ("E", "a"):
            found, limit = [], 0.0
            for row in self.rows:
                for one in row.identification.profiles if row.identification else ():
                    if one.name != name:
                        continue
                    style, limit = self.styles[row.row], max(limit, one.limit)
                    heights = np.minimum(one.statistic, PROFILE_TOP * one.limit)
                    line = tuple(zip(one.values.tolist(), heights.tolist(), strict=True))
                    best = int(heights.argmin())
                    text = self._point(style, float(one.values[best]), float(heights[best]))
                    found.append(Series(style, (Mark(*line[best], text),), (("solid", line),)))
            axes = self._axis(f"profile_{name}"), (self.say("scale.axis.statistic"), False)
            panels.append(Panel("", *axes, tuple(found), level=limit))
        return figure(self.say, "profiles", panels, columns=2)

    def _axis(self, name: str) -> tuple[str, bool]:
        """The title of a logarithmic axis."""
        return self.say(f"scale.axis.{name}"), True

    def _hover(self, point: Point, value: float) -> str:
        return self.say(
            "scale.point.run",
            row=self.styles[point.row].name,
            size=point.size,
            pairs=formatting.quantity(point.pairs),
            seed=point.seed,
            value=formatting.significant(value),
        )

    def _point(self, style: Style, x: float, y: float) -> str:
        return self.say("scale.point.xy", row=style.name, x=formatting.quantity(x), y=formatting.significant(y))


def _columns(curve: Curve) -> tuple[Array, Array, Array]:
    """The loss of a frontier and the ends of its band."""
    return curve.frontier.loss, curve.frontier.low, curve.frontier.high


def _costs_above(curve: Curve, lowest_loss: float) -> int:
    """The number of costs before the frontier is below this loss for the first time."""
    below = np.flatnonzero(curve.frontier.loss < lowest_loss)
    return int(below[0]) if len(below) else len(curve.frontier.loss)


def _segments(curve: Curve, line_C: Array) -> tuple[Line, ...]:
    """The line of a frontier, or its beginning, in pieces of one kind. A piece begins where the one before it ends."""
    front = curve.frontier
    kinds: list[Kind] = [
        "beyond" if outside else "end" if at_end else "solid"
        for outside, at_end in zip(front.extrapolated, front.at_end, strict=True)
    ]
    corners = list(zip(front.costs.tolist(), line_C.tolist(), strict=False))
    kinds = kinds[: len(corners)]
    found: list[Line] = []
    first = 0
    for number in range(1, len(kinds) + 1):
        if number == len(kinds) or kinds[number] != kinds[first]:
            found.append((kinds[first], tuple(corners[max(first - 1, 0) : number])))
            first = number
    return tuple(found)


def _mean_line(corners: Iterable[tuple[float, float, float]]) -> Line:
    """A thin line through the means of the points (budget, x, y) of each budget: x of its seeds may differ a little."""
    at: dict[float, list[tuple[float, float]]] = {}
    for budget, x, y in corners:
        at.setdefault(budget, []).append((x, y))
    return "thin", tuple((fmean(x for x, _ in at[of]), fmean(y for _, y in at[of])) for of in sorted(at))


def _grouped(items: Iterable[Item], key: Callable[[Item], str]) -> dict[str, list[Item]]:
    """The items by their keys, in their order."""
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found
