"""Plots of a report: one Altair chart each, drawn as SVG that follows the page's colours, and as SVG and PDF files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import altair as alt
import vl_convert

from reports import formatting as f
from reports.context import Context, Track

COLOURS = {
    "ink": "#1c1e21",
    "quiet": "#6b7076",
    "rule": "#e3e5e8",
    "feed-forward": "#8a6d00",
    "recurrent": "#0b6fb8",
    "convolutional": "#7a3fb5",
    "mixture": "#b8388f",
    "attention": "#c0392b",
}
"""Colours on white; the page replaces each by the variable of its name, which differs in the dark."""

WIDTHS = {"wide": 640, "narrow": 330}


@dataclass(frozen=True)
class Plot:
    """A plot with its words.

    Attributes:
        id: Name of its files and of its place on the page.
        title: What is plotted.
        caption: What to see.
        text: The same in words, for those who do not see it.
        draw: The chart at a width in pixels.
    """

    id: str
    title: str
    caption: str
    text: str
    draw: Callable[[int], alt.LayerChart | alt.Chart]

    def svg(self, width: int = WIDTHS["wide"]) -> str:
        return vl_convert.vegalite_to_svg(self._spec(width))

    def pdf(self) -> bytes:
        return vl_convert.vegalite_to_pdf(self._spec(WIDTHS["wide"]))

    def inline(self, form: str) -> str:
        """SVG to stand in a page: colours become the page's variables, ids are told apart."""
        svg = self.svg(WIDTHS[form])
        names = {colour: name for name, colour in COLOURS.items()}
        svg = re.sub(
            r'\b(fill|stroke)="(#[0-9a-f]{6})"',
            lambda match: f'{match[1]}="var(--{names[match[2]]})"' if match[2] in names else match[0],
            svg,
        )
        return re.sub(r'(id="|url\(#)(\w+)', rf"\g<1>{self.id}-{form}-\g<2>", svg)

    def _spec(self, width: int) -> dict[str, object]:
        chart = self.draw(width)
        return chart.configure(
            background="transparent",
            font="sans-serif",
            axis=alt.AxisConfig(
                labelColor=COLOURS["quiet"],
                titleColor=COLOURS["ink"],
                titleFontWeight="normal",
                labelFontSize=12,
                titleFontSize=12,
                gridColor=COLOURS["rule"],
                domainColor=COLOURS["quiet"],
                tickColor=COLOURS["quiet"],
            ),
            view=alt.ViewConfig(stroke=None),
        ).to_dict()


@dataclass(frozen=True)
class Point:
    """A row in a plot of BLEU against a cost."""

    name: str
    family: str
    x: float
    bleu: float
    low: float | None
    high: float | None
    hover: str
    link: str = ""


def colour(family: str) -> str:
    return COLOURS.get(family, COLOURS["ink"])


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in BLEU at the same or a lower cost."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.bleu)):
        if not best or point.bleu > best[-1].bleu:
            best.append(point)
    return best


def all_plots(context: Context) -> list[Plot]:
    plots = []
    for track in context.tracks:
        plots += [plot for plot in (_against(context, track, "train_flops"),) if plot]
    return plots


def _against(context: Context, track: Track, metric: str) -> Plot | None:
    points = []
    for row in context.rows:
        cell = row.cells[track]
        bleu, cost = cell.number("bleu", track.test_sets[0] if track.test_sets else ""), cell.number(metric)
        if bleu is None or cost is None or not cost.value or bleu.value is None:
            continue
        hover = f"{row.name}: BLEU {f.value('bleu', bleu.value)}, {f.quantity(metric, cost.value)}"
        points.append(Point(row.name, row.family, cost.value, bleu.value, bleu.low, bleu.high, hover))
    if not points:
        return None
    label = f.metric(metric).label
    return Plot(
        id=f"bleu-{metric.replace('_', '-')}-{track.label}".lower().replace(" ", "-"),
        title=f"BLEU against {label}, {track.label}",
        caption="Up and to the left is better. The dashed line is the Pareto front.",
        text="; ".join(point.hover for point in points),
        draw=lambda width: _scatter(points, label, width),
    )


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 between them where there are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**decade for decade in decades]
    ticks = [tick for tick in tens if low <= tick <= high]
    if len(ticks) < 3:
        ticks = [tick * step for tick in tens for step in (1, 2, 5) if low <= tick * step <= high]
    return ticks


def _scatter(points: Sequence[Point], label: str, width: int) -> alt.LayerChart:
    low, high = min(point.x for point in points) / 1.8, max(point.x for point in points) * 1.8
    ticks = _ticks(low, high)
    names = " : ".join(f"datum.value == {tick!r} ? '{f.power(tick)}'" for tick in ticks) + " : ''"
    x = alt.X(
        "x:Q",
        title=label,
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(values=ticks, labelExpr=names, grid=False),
    )
    y = alt.Y("bleu:Q", title="BLEU")
    data = alt.Data(values=[vars(point) for point in points])
    base = alt.Chart(data).encode(x=x)
    colours = alt.Color(
        "family:N",
        scale=alt.Scale(domain=(order := sorted({p.family for p in points})), range=[colour(name) for name in order]),
        legend=None,
    )
    pareto = alt.Chart(alt.Data(values=[vars(point) for point in front(points)]))
    return alt.layer(
        pareto.mark_line(strokeDash=[4, 3], color=COLOURS["quiet"], strokeWidth=1).encode(x=x, y=y),
        base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q"), y2="high:Q", color=colours),
        base.mark_point(filled=True, size=70, opacity=1).encode(y=y, color=colours, description="hover:N"),
        base.mark_text(align="left", dx=8, dy=-8, fontSize=12, color=COLOURS["ink"]).encode(y=y, text="name:N"),
    ).properties(width=width - 60, height=round(width * 0.5))
