"""The plots of a report, each with a caption that says what to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd

from reports import formatting as f
from reports.context import Context, Row, Track
from reports.drawing import COLOURS, FONT, Axis, Chart, Plot, by_family, colour, data, place_labels, spread
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
        draw=lambda width: _scatter(points, front, title, width),
    )


def _scatter(points: Sequence[Point], front: Sequence[Point], title: str, total: int) -> Chart:
    width, height = total - 60, round(200 + total * 0.2)
    x = Axis.around(title, [point.x for point in points], log=True)
    y = Axis.around("BLEU", [end for point in points for end in (point.low, point.high)], floor=0)
    places = [(x.place(point.x, width), y.place(point.y, height)) for point in points]
    bars = [(y.place(point.low, height), y.place(point.high, height)) for point in points]
    labels = place_labels([point.name for point in points], places, bars, (width, height))
    colours = by_family([point.family for point in points])
    base = alt.Chart(data([{k: v for k, v in vars(p).items() if v is not None} for p in points]))
    base = base.encode(x=x.x("x", width))
    layers: list[alt.Chart] = [
        alt.Chart(data([{"x": point.x, "y": point.y} for point in front]))
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
            text = alt.Chart(data(texts)).mark_text(
                align=align, baseline="middle", fontSize=FONT, color=COLOURS["ink"], aria=False
            )
            layers.append(text.encode(x=x.x("x", width), y=y.y("y", height), text="text:N"))
    return alt.layer(*layers).properties(width=width, height=height)


# --- learning curves --------------------------------------------------------------------------------------------------


def _curves(context: Context, track: Track, axis: str) -> Plot | None:
    """Validation BLEU and loss, one line a seed."""
    title, against, log = AXES[axis]
    lines: list[pd.DataFrame] = []
    for row in context.rows:
        for seed, curve in row.cells[track].curves.items():
            line = _line(curve, against)
            if not line.empty:
                lines.append(line.assign(row=row.name, family=row.family, seed=seed))
    if not lines:
        return None
    every = pd.concat(lines, ignore_index=True)
    if every[every["x"] > 0].empty:
        return None
    rows = [row for row in context.rows if (every["row"] == row.name).any()]
    last = every[every["name"] == "validation/bleu"].groupby("row")["y"].last()
    text = "; ".join(f"{name} ends at {f.value('bleu', value)} BLEU" for name, value in last.items())
    return Plot(
        id=f"curves-{axis}-{track.slug}",
        group=f"curves-{track.slug}",
        tab=title,
        title=f"Learning curves on the validation set; {track.label}",
        caption="Greedy BLEU (higher is better) and cross entropy (lower is better) at each validation. A line that "
        "still rises at its end would have gained from a larger budget; every row sees the same sentence pairs, but "
        "not at the same cost. One line a seed.",
        text=text,
        families=tuple(dict.fromkeys(row.family for row in rows)),
        draw=lambda width: _curve_panels(every, rows, title, log, width),
    )


def _line(curve: pd.DataFrame, against: str) -> pd.DataFrame:
    """Columns x, y, name of the validations; x is interpolated where validations fall between logged updates."""
    found = curve[curve["name"].isin(["validation/bleu", "validation/loss"]) & np.isfinite(curve["value"])]
    found = found.sort_values("update", kind="stable")
    x = found["update"].to_numpy(dtype=float)
    if against:
        known = curve[curve["name"] == against].sort_values("update")
        if known.empty:
            return pd.DataFrame(columns=["x", "y", "name"])
        x = np.interp(x, known["update"].to_numpy(dtype=float), known["value"].to_numpy(dtype=float))
    line = pd.DataFrame({"x": x, "y": found["value"].to_numpy(dtype=float), "name": found["name"].to_numpy()})
    return line[line["x"] > 0]


def _curve_panels(every: pd.DataFrame, rows: Sequence[Row], title: str, log: bool, total: int) -> Chart:
    beside = total > 500
    margin = 56 + max(len(row.name) for row in rows) * FONT * 0.55
    width = round(total / 2 - 72) if beside else round(total - margin)
    height = 240 if beside else 190
    x = Axis.around(title, [float(every["x"].min()), float(every["x"].max())], log=True)
    if not log:
        x = Axis(title, 0.0, float(every["x"].max()))
    panels = [
        _panel(
            every[every["name"] == name], rows, x, label, width, height, label_lines=not beside or name.endswith("loss")
        )
        for name, label in (
            ("validation/bleu", "Validation BLEU, greedy"),
            ("validation/loss", "Validation loss, nats/token"),
        )
        if (every["name"] == name).any()
    ]
    return alt.hconcat(*panels, spacing=18) if beside else alt.vconcat(*panels, spacing=18)


def _panel(
    lines: pd.DataFrame, rows: Sequence[Row], x: Axis, label: str, width: int, height: int, label_lines: bool
) -> alt.LayerChart:
    y = Axis.around(label, list(lines["y"]), floor=0)
    names = [row.name for row in rows]
    families = [row.family for row in rows]
    dashes = [DASHES[families[:number].count(family) % len(DASHES)] for number, family in enumerate(families)]
    lines = lines.assign(
        hover=[
            f"{row}, seed {seed}: {f.fixed(value, 1 if name.endswith('bleu') else 3)} at {f.tick(round(place, 1)) if place < 1e5 else f.power(place)}"
            for row, seed, value, place, name in zip(
                lines["row"], lines["seed"], lines["y"], lines["x"], lines["name"], strict=True
            )
        ]
    )
    base = alt.Chart(data(lines.to_dict("records"))).encode(
        x=x.x("x", width),
        y=y.y("y", height),
        color=alt.Color("row:N", scale=alt.Scale(domain=names, range=[colour(name) for name in families]), legend=None),
    )
    dash = alt.StrokeDash("row:N", scale=alt.Scale(domain=names, range=dashes), legend=None)
    layers = [
        base.mark_line(strokeWidth=1.5, aria=False).encode(detail="seed:N", strokeDash=dash),
        base.mark_point(filled=True, size=18, opacity=1).encode(description="hover:N"),
    ]
    if label_lines:
        ends = lines[lines["seed"] == lines.groupby("row")["seed"].transform("min")].groupby("row", sort=False).last()
        places = spread([y.place(value, height) for value in ends["y"]], FONT + 1, height)
        texts = [
            {"x": end, "y": y.value(place, height), "row": name}
            for name, end, place in zip(ends.index, ends["x"], places, strict=True)
        ]
        if x.log:  # lines end at different costs: the names stand beside the plot, in the order of the ends
            texts = [text | {"x": x.high} for text in texts]
        text = alt.Chart(data(texts)).mark_text(
            align="left", baseline="middle", dx=7, fontSize=FONT, aria=False, clip=False
        )
        layers.append(text.encode(x=x.x("x", width), y=y.y("y", height), text="row:N", color=base.encoding.color))
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
        caption="Filled: with the true sources; hollow: each sentence with the source of the next. The distance is what "
        "a model takes from the source; none would mean that it translates blindly.",
        text="; ".join(line["hover"] for line in lines),
        families=tuple(dict.fromkeys(line["family"] for line in lines)),
        draw=lambda width: _dumbbells(lines, width),
    )


def _dumbbells(lines: Sequence[dict[str, float | str]], total: int) -> Chart:
    width = total - 30 - round(max(len(str(line["row"])) for line in lines) * FONT * 0.55)
    x = Axis.around("Validation loss, nats/token", [float(line[key]) for line in lines for key in ("true", "shuffled")])
    axis = alt.Axis(grid=False, ticks=False, domain=False, labelColor=COLOURS["ink"], labelPadding=8)
    y = alt.Y("row:N", sort=None, title=None, axis=axis)
    base = alt.Chart(data(lines)).encode(y=y, color=by_family([str(line["family"]) for line in lines]))
    layers = (
        base.mark_rule(strokeWidth=1.5).encode(x=x.x("true", width), x2="shuffled:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x.x("true", width), description="hover:N"),
        base.mark_point(filled=True, size=70, opacity=1, fill=COLOURS["paper"], strokeWidth=1.5).encode(
            x=x.x("shuffled", width), description="hover:N", stroke=by_family([str(line["family"]) for line in lines])
        ),
    )
    return alt.layer(*layers).properties(width=width, height=alt.Step(26))
