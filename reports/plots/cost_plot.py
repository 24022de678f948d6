"""The plot of BLEU against a cost, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from bench.measures.quality import HIGHEST
from bench.system import formatting
from reports.gathering.context import Context, Track
from reports.plots.drawing import COLOURS, FONT, LETTER, NARROW, Chart, Datasets, Plot, family_scale
from reports.plots.placement import Axis, labels_beside, place_labels
from reports.text import metric_format
from reports.text.findings import pareto_front

COSTS = {"flops": "train_flops", "latency": "latency_p50_ms"}

MAX_NAMED = 40
"""With more rows than this, only those on the Pareto front have names."""

MAX_NAMED_NARROW = 8
"""With more names than this, a small screen has them in a column beside the plot."""


@dataclass(frozen=True)
class Point:
    """A row in a plot of BLEU against a cost. `low` and `high` are the ends of the interval of `y`."""

    name: str
    family: str
    x: float
    y: float
    low: float
    high: float
    hover: str
    link: str | None


def cost_plot(context: Context, track: Track, kind: str) -> Plot | None:
    """The plot of BLEU against one cost; None if no row has both."""
    say, metric = context.catalogue, COSTS[kind]
    points, without_bar = [], False
    for row in context.scored(track):
        cell = row.cells[track]
        score, cost = cell.number("bleu", track.test_set), cell.value(metric)
        if score is None or score.value is None or not cost:
            continue
        ends = metric_format.interval("bleu", score.low, score.high)
        run = next(iter(cell.runs.values())).id
        hover = say(
            "cost.point",
            row=row.name,
            bleu=metric_format.value("bleu", score.value) + (f" ({ends})" if ends else ""),
            label=say.label(metric),
            cost=say.number_with_unit(metric, cost),
            run=run[:8],
        )
        low = score.value if score.low is None else score.low
        high = score.value if score.high is None else score.high
        if low <= 0 and high >= HIGHEST["bleu"]:  # it says nothing, and would set the scale of all others
            low, high, without_bar = score.value, score.value, True
        points.append(Point(row.name, row.family, cost, score.value, low, high, hover, context.link(run) or None))
    if not points:
        return None
    front = pareto_front(points, [point.y for point in points], [point.x for point in points])
    return Plot(
        id=f"bleu-{kind}-{track.slug}",
        title=say(f"cost.{kind}.title", track=track.label),
        caption=say(f"cost.{kind}.caption") + (" " + say("cost.without_bar") if without_bar else ""),
        text="; ".join(point.hover for point in points)
        + ". "
        + say("cost.front", rows=say.listed([p.name for p in front])),
        families=tuple(dict.fromkeys(point.family for point in points)),
        draw=lambda data, width: _scatter(data, points, front, (say(f"cost.{kind}.axis"), say.label("bleu")), width),
    )


def _scatter(
    data: Datasets, points: Sequence[Point], front: Sequence[Point], titles: tuple[str, str], total: int
) -> Chart:
    """A mark with interval and name for each row, and the Pareto front as a dashed line."""
    named = [point.name if len(points) <= MAX_NAMED or point in front else "" for point in points]
    crowded = total <= NARROW and sum(map(bool, named)) > MAX_NAMED_NARROW
    named = [formatting.shortened(name, 18 if crowded else 24) for name in named]
    room = 14 + max(map(len, named)) * LETTER if crowded else 0.0
    width, height = round(total - 60 - room), min(520, round(240 + total * 0.1 + 8 * len(points)))
    x = Axis.around(titles[0], [point.x for point in points], log=True)
    y = Axis.around(titles[1], [end for point in points for end in (point.low, point.high)], floor=0)
    pixels = [(x.position(point.x, width), y.position(point.y, height)) for point in points]
    bars = [(y.position(point.low, height), y.position(point.high, height)) for point in points]
    corners = [(x.position(point.x, width), y.position(point.y, height)) for point in front]
    size = (width, height)
    labels = labels_beside(named, pixels, size) if crowded else place_labels(named, pixels, bars, corners, size)
    colours = alt.Color("family:N", scale=family_scale([point.family for point in points]), legend=None)
    base = alt.Chart(data.add({k: v for k, v in vars(p).items() if v is not None} for p in points))
    base = base.encode(x=x.x("x", width))

    def axis_values(pixels: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
        """Positions in pixels as values on the axes."""
        return [{"x": x.value_at(across, width), "y": y.value_at(along, height)} for across, along in pixels]

    layers: list[alt.Chart] = [
        alt.Chart(data.add({"x": point.x, "y": point.y} for point in front))
        .mark_line(strokeDash=[4, 3], color=COLOURS["quiet"], strokeWidth=1, aria=False)
        .encode(x=x.x("x", width), y=y.y("y", height)),
    ]
    leads = [
        {**start, "number": number}
        for number, label in enumerate(labels)
        if label.point
        for start in axis_values([label.point, (label.x, label.y)])
    ]
    if leads:
        lead = alt.Chart(data.add(leads)).mark_line(color=COLOURS["quiet"], strokeWidth=0.6, aria=False)
        layers.append(lead.encode(x=x.x("x", width), y=y.y("y", height), detail=alt.Detail("number:N")))
    layers.append(
        base.mark_rule(strokeWidth=1.5, aria=False).encode(y=y.y("low", height), y2=alt.Y2("high:Q"), color=colours)
    )
    marks = base.mark_point(filled=True, size=70, opacity=1)
    marks = marks.encode(y=y.y("y", height), color=colours, description=alt.Description("hover:N"))
    layers.append(marks.encode(href=alt.Href("link:N")) if points[0].link else marks)
    for align in ("left", "right"):
        aligned = [label for label in labels if label.align == align]
        texts = [
            position | {"text": label.text}
            for label, position in zip(aligned, axis_values([(label.x, label.y) for label in aligned]), strict=True)
        ]
        if texts:
            mark = alt.Chart(data.add(texts)).mark_text(
                align=align, baseline="middle", fontSize=FONT, color=COLOURS["ink"], aria=False
            )
            layers.append(mark.encode(x=x.x("x", width), y=y.y("y", height), text=alt.Text("text:N")))
    return alt.layer(*layers).properties(width=width, height=height)
