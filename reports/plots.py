"""The plots of a report, each with a caption that says what to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import altair as alt
import numpy as np
import pandas as pd

from reports import formatting as f
from reports.context import Context, Row, Track
from reports.drawing import COLOURS, FONT, Axis, Chart, Datasets, Plot, colour, family_scale, place_labels, spread
from reports.finding import efficient

COSTS = {
    "train_flops": (
        "Training FLOPs, counted",
        "Up and to the left is better. Bars are 95 % intervals of BLEU; the dashed line joins the rows that no cheaper "
        "row reaches in BLEU (Pareto front, by the scores alone).",
    ),
    "latency_p50_ms": (
        "Latency of one sentence, median, ms",
        "Up and to the left is better. Bars are 95 % intervals of BLEU; the dashed line is the Pareto front. Latency "
        "holds for the hardware of the protocol alone.",
    ),
}
AXES = {
    "updates": ("Updates", "", False),
    "flops": ("Training FLOPs, counted", "train/flops", True),
    "seconds": ("Seconds of training", "train/seconds", False),
}
PANELS = (("validation/bleu", "Validation BLEU, greedy"), ("validation/loss", "Validation loss, nats/token"))
CROWD = 30
"""More rows than this, and only those on the front are named; more lines, and seeds are drawn as their mean."""

DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2])


@dataclass(frozen=True)
class Point:
    """A row in a plot of BLEU against a cost."""

    name: str
    family: str
    x: float
    y: float
    low: float
    high: float
    hover: str
    link: str | None


def all_plots(context: Context) -> list[Plot]:
    """In the order of the page."""
    found = [_against(context, track, metric) for metric in COSTS for track in context.tracks]
    found += [_curves(context, track, axis) for track in context.tracks for axis in AXES]
    found += [_sources(context, track) for track in context.tracks]
    return [plot for plot in found if plot]


# --- BLEU against a cost ----------------------------------------------------------------------------------------------


def _against(context: Context, track: Track, metric: str) -> Plot | None:
    points = []
    for row in context.scored(track):
        cell = row.cells[track]
        score, cost = cell.number("bleu", track.test_set), cell.value(metric)
        if score is None or score.value is None or not cost:
            continue
        ends = f.interval("bleu", score.low, score.high)
        hover = f"{row.name}: BLEU {f.value('bleu', score.value)}{f' ({ends})' if ends else ''}, "
        hover += f"{f.metric(metric).label} {f.quantity(metric, cost)}, run {next(iter(cell.runs.values())).id[:8]}"
        low = score.value if score.low is None else score.low
        high = score.value if score.high is None else score.high
        link = context.link(next(iter(cell.runs.values())).id) or None
        points.append(Point(row.name, row.family, cost, score.value, low, high, hover, link))
    if not points:
        return None
    title, caption = COSTS[metric]
    front = efficient(points, [point.x for point in points])
    return Plot(
        id=f"bleu-{metric.split('_')[-1 if metric == 'train_flops' else 0]}-{track.slug}",
        title=f"BLEU against {title[0].lower() + title[1:]}; {track.label}",
        caption=caption,
        text="; ".join(point.hover for point in points) + f". On the front: {f.listed([p.name for p in front])}.",
        families=tuple(dict.fromkeys(point.family for point in points)),
        draw=lambda data, width: _scatter(data, points, front, title, width),
    )


def _scatter(data: Datasets, points: Sequence[Point], front: Sequence[Point], title: str, total: int) -> Chart:
    width, height = total - 60, round(200 + total * 0.2)
    x = Axis.around(title, [point.x for point in points], log=True)
    y = Axis.around("BLEU", [end for point in points for end in (point.low, point.high)], floor=0)
    places = [(x.place(point.x, width), y.place(point.y, height)) for point in points]
    bars = [(y.place(point.low, height), y.place(point.high, height)) for point in points]
    corners = [(x.place(point.x, width), y.place(point.y, height)) for point in front]
    named = [f.clipped(point.name) if len(points) <= CROWD or point in front else "" for point in points]
    labels = place_labels(named, places, bars, corners, (width, height))
    colours = alt.Color("family:N", scale=family_scale([point.family for point in points]), legend=None)
    base = alt.Chart(data.add({k: v for k, v in vars(p).items() if v is not None} for p in points))
    base = base.encode(x=x.x("x", width))
    layers: list[alt.Chart] = [
        alt.Chart(data.add({"x": point.x, "y": point.y} for point in front))
        .mark_line(strokeDash=[4, 3], color=COLOURS["quiet"], strokeWidth=1)
        .encode(x=x.x("x", width), y=y.y("y", height)),
        base.mark_rule(strokeWidth=1.5).encode(y=y.y("low", height), y2="high:Q", color=colours),
    ]
    marks = base.mark_point(filled=True, size=70, opacity=1)
    marks = marks.encode(y=y.y("y", height), color=colours, description="hover:N")
    layers.append(marks.encode(href="link:N") if points[0].link else marks)
    for align in ("left", "right", "center"):
        texts = [
            {"x": x.value(label.x, width), "y": y.value(label.y, height), "text": label.text}
            for label in labels
            if label.align == align
        ]
        if texts:
            text = alt.Chart(data.add(texts)).mark_text(
                align=align, baseline="middle", fontSize=FONT, color=COLOURS["ink"], aria=False
            )
            layers.append(text.encode(x=x.x("x", width), y=y.y("y", height), text="text:N"))
    return alt.layer(*layers).properties(width=width, height=height)


# --- learning curves --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Validation:
    """A validation of one run, at its place on the axis that is plotted."""

    row: str
    seed: int
    metric: str
    update: int
    x: float
    y: float

    @property
    def hover(self) -> str:
        value = f.value("bleu" if self.metric == PANELS[0][0] else "validation_loss", self.y)
        who = f"{self.row}, seed {self.seed}" if self.seed else f"{self.row}, mean of its seeds"
        return f"{who}: {value} at {f.brief(self.x)}"


def _curves(context: Context, track: Track, axis: str) -> Plot | None:
    """Validation BLEU and loss, one line a seed."""
    title, against, log = AXES[axis]
    points: list[Validation] = []
    for row in context.rows:
        for seed, curve in row.cells[track].curves.items():
            points += _validations(row.name, seed, curve, against)
    if not points:
        return None
    ends = {point.row: point for point in points if point.metric == PANELS[0][0]}
    rows = [row for row in context.rows if any(point.row == row.name for point in points)]
    return Plot(
        id=f"curves-{axis}-{track.slug}",
        group=f"curves-{track.slug}",
        tab=title,
        title=f"Learning curves on the validation set; {track.label}",
        caption="Greedy BLEU (higher is better) and cross entropy (lower is better) at each validation. A line that "
        "still rises at its end would have gained from a larger budget; every row sees the same sentence pairs, but "
        "not at the same cost. One line a seed.",
        text="; ".join(f"{name} ends at {f.value('bleu', point.y)} BLEU" for name, point in ends.items()),
        families=tuple(dict.fromkeys(row.family for row in rows)),
        width=960,
        draw=lambda data, width: _curve_panels(data, points, rows, title, log, width),
    )


def _validations(row: str, seed: int, curve: pd.DataFrame, against: str) -> list[Validation]:
    """Of one run, in its order; x is interpolated where validations fall between logged updates."""
    known: list[tuple[int, float]] = []
    found: list[tuple[int, str, float]] = []
    wanted = [metric for metric, _ in PANELS]
    for update, name, value in zip(curve["update"], curve["name"], curve["value"], strict=True):
        if name == against:
            known.append((int(update), float(value)))
        elif name in wanted and np.isfinite(value):
            found.append((int(update), str(name), float(value)))
    if against and not known:
        return []
    known.sort()
    at = [update for update, _ in known]
    values = [value for _, value in known]
    points = []
    for update, name, value in sorted(found):
        x = float(np.interp(update, at, values)) if against else float(update)
        if x > 0:
            points.append(Validation(row, seed, name, update, x, value))
    return points


def _means(points: Sequence[Validation]) -> list[Validation]:
    """The seeds of each row as one line."""
    together: dict[tuple[str, str, int], list[Validation]] = {}
    for point in points:
        together.setdefault((point.row, point.metric, point.update), []).append(point)
    return [
        Validation(row, 0, metric, update, fmean(p.x for p in same), fmean(p.y for p in same))
        for (row, metric, update), same in together.items()
    ]


def _curve_panels(
    data: Datasets, points: Sequence[Validation], rows: Sequence[Row], title: str, log: bool, total: int
) -> Chart:
    beside = total > 500
    names = 20 + max(len(f.clipped(row.name)) for row in rows) * FONT * 0.55
    width = round((total / 2 if beside else total) - 50 - names)
    places = [point.x for point in points]
    x = Axis.around(title, places, log=True) if log else Axis(title, 0.0, max(places))
    panels = [
        _panel(data, chosen, rows, x, label, (width, 260 if beside else 190))
        for metric, label in PANELS
        if (chosen := [point for point in points if point.metric == metric])
    ]
    return alt.hconcat(*panels, spacing=24) if beside else alt.vconcat(*panels, spacing=20)


def _panel(
    data: Datasets, points: Sequence[Validation], rows: Sequence[Row], x: Axis, label: str, size: tuple[int, int]
) -> alt.LayerChart | alt.FacetChart:
    if len({(point.row, point.seed) for point in points}) > CROWD:
        points = _means(points)
    width, height = size
    y = Axis.around(label, [point.y for point in points], floor=0)
    names, families = [row.name for row in rows], [row.family for row in rows]
    dashes = [DASHES[families[:number].count(family) % len(DASHES)] for number, family in enumerate(families)]
    colours = alt.Color("row:N", scale=alt.Scale(domain=names, range=[colour(name) for name in families]), legend=None)
    dash = alt.StrokeDash("row:N", scale=alt.Scale(domain=names, range=dashes), legend=None)
    few = len(points) <= 20 * CROWD
    values = [{"row": p.row, "seed": p.seed, "x": p.x, "y": p.y} | ({"hover": p.hover} if few else {}) for p in points]
    base = alt.Chart(data.add(values)).encode(x=x.x("x", width), y=y.y("y", height), color=colours)
    layers: list[alt.Chart] = [base.mark_line(strokeWidth=1.5, aria=False).encode(detail="seed:N", strokeDash=dash)]
    if few:
        layers.append(base.mark_point(filled=True, size=18, opacity=1).encode(description="hover:N"))
    # Lines may end at different costs: the names stand beside the plot, at the heights of the ends of first seeds.
    ends: dict[str, Validation] = {}
    for point in points:
        if point.row not in ends or point.seed <= ends[point.row].seed:
            ends[point.row] = point
    heights = spread([y.place(point.y, height) for point in ends.values()], FONT + 1, height)
    texts = [
        {"x": x.high, "y": y.value(end, height), "row": name, "text": f.clipped(name)}
        for name, end in zip(ends, heights, strict=True)
    ]
    text = alt.Chart(data.add(texts)).mark_text(align="left", baseline="middle", dx=7, fontSize=FONT, aria=False)
    layers.append(text.encode(x=x.x("x", width), y=y.y("y", height), text="text:N", color=colours))
    return alt.layer(*layers).properties(width=width, height=height)


# --- true against shuffled sources ------------------------------------------------------------------------------------


def _sources(context: Context, track: Track) -> Plot | None:
    lines = []
    for row in context.rows:
        cell = row.cells[track]
        true, shuffled = cell.value("validation_loss"), cell.value("validation_loss_shuffled_sources")
        if true is not None and shuffled is not None:
            hover = f"{row.name}: {f.quantity('validation_loss', true)} with true sources, "
            hover += f"{f.value('validation_loss', shuffled)} with shuffled ones"
            lines.append({"row": row.name, "family": row.family, "true": true, "shuffled": shuffled, "hover": hover})
    if not lines:
        return None
    return Plot(
        id=f"sources-{track.slug}",
        title=f"Validation loss with true and with shuffled sources; {track.label}",
        caption="Filled: with the true sources; hollow: each sentence with the source of the next. The distance is "
        "what a model takes from the source; none would mean that it translates blindly.",
        text="; ".join(line["hover"] for line in lines),
        families=tuple(dict.fromkeys(line["family"] for line in lines)),
        draw=lambda data, width: _dumbbells(data, lines, width),
    )


def _dumbbells(data: Datasets, lines: Sequence[dict[str, float | str]], total: int) -> Chart:
    width = total - 30 - round(max(len(f.clipped(str(line["row"]))) for line in lines) * FONT * 0.55)
    x = Axis.around("Validation loss, nats/token", [float(line[key]) for line in lines for key in ("true", "shuffled")])
    axis = alt.Axis(grid=False, ticks=False, domain=False, labelColor=COLOURS["ink"], labelPadding=8, labelLimit=170)
    y = alt.Y("row:N", sort=None, title=None, axis=axis)
    scale = family_scale([str(line["family"]) for line in lines])
    base = alt.Chart(data.add(lines)).encode(y=y, color=alt.Color("family:N", scale=scale, legend=None))
    layers = (
        base.mark_rule(strokeWidth=1.5).encode(x=x.x("true", width), x2="shuffled:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x.x("true", width), description="hover:N"),
        base.mark_point(filled=True, size=70, opacity=1, fill=COLOURS["paper"], strokeWidth=1.5).encode(
            x=x.x("shuffled", width), description="hover:N", stroke=alt.Stroke("family:N", scale=scale, legend=None)
        ),
    )
    return alt.layer(*layers).properties(width=width, height=alt.Step(26))
