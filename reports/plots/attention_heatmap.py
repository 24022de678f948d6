"""Attention of one sentence as heat maps, in an SVG that follows the light or dark mode of its viewer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt

from bench.evaluation.attention_maps import AttentionMap, SentenceAttention
from bench.system import formatting
from bench.system.files import write_file
from bench.system.visible_text import visible_line
from reports.plots import svg_rendering
from reports.plots.drawing import COLOURS, FONT, Chart, Datasets, specification_text
from reports.plots.svg_rendering import Request

LIGHT = COLOURS | {"text_on_dark_cell": "#fdfdfd"}
CELL = 26
"""Side of a cell in pixels."""

MAX_WIDTH = 1100
"""Pixels: maps that are wider together stand below one another."""

MIN_PRINTED_WEIGHT = 0.095
"""Weights from here on are printed in their cells, in percent."""

DARK = {
    "ink": "#e4e6e9",
    "quiet": "#a3a9b1",
    "rule": "#33373d",
    "paper": "#16181b",
    "attention": "#f0857a",
    "text_on_dark_cell": "#16181b",
}
"""Colours in dark mode. A viewer without style sheets shows the light colours."""


class DrawingFailed(Exception):
    """The drawing library failed."""


def write(attention: SentenceAttention, selected: Sequence[AttentionMap], folder: Path) -> list[Path]:
    """Writes the SVG and the data as JSON, named after the sentence and the selected maps. Returns the paths.

    Raises:
        ValueError: the library could not draw the maps. The data is written all the same.
    """
    selection = hashlib.sha256("; ".join(one.title for one in selected).encode()).hexdigest()[:8]
    data, drawing = folder / f"{attention.name}.json", folder / f"{attention.name}-{selection}.svg"
    write_file(data, json.dumps(attention.data()))
    try:
        write_file(drawing, svg(attention, selected))
    except DrawingFailed as error:
        raise ValueError(
            f"the attention maps were not drawn: {error}; their weights are in {data}; choose other maps with --kind, "
            "--layer or --head, or draw the file with another program"
        ) from error
    return [data, drawing]


def svg(attention: SentenceAttention, selected: Sequence[AttentionMap]) -> str:
    """The SVG of the selected maps, with a row for each query token and a column for each key token.

    Raises:
        DrawingFailed: the library could not draw them.
    """
    data = Datasets()
    maps = [_map(data, one) for one in selected]
    wide = sum(CELL * len(one.attention.columns) + 120 for one in selected)
    chart = alt.hconcat(*maps, spacing=36) if wide <= MAX_WIDTH else alt.vconcat(*maps, spacing=28)
    title = alt.TitleParams(
        [formatting.shortened(visible_line(text), 160) for text in (attention.source, attention.translation)],
        anchor="start",
        fontSize=FONT + 1,
        fontWeight="normal",
        color=COLOURS["ink"],
        offset=18,
        lineHeight=19,
    )
    axis: dict[str, Any] = {
        "domain": False,
        "ticks": False,
        "grid": False,
        "labelColor": COLOURS["ink"],
        "labelFontSize": FONT,
        "labelLimit": 160,
        "labelPadding": 6,
        "title": None,
    }
    spec = chart.properties(title=title, padding=16).to_dict(validate=False) | {"datasets": data.values}
    spec["config"] = {"background": COLOURS["paper"], "axis": axis, "view": {"stroke": None}, "font": "sans-serif"}
    (drawing,) = svg_rendering.render_one_by_one([Request(specification_text(spec))])
    if drawing.failure:
        raise DrawingFailed(drawing.failure)
    rules = "".join(f'[fill="{LIGHT[name]}"]{{fill:{value}}}' for name, value in DARK.items())
    style = (
        f"<style>.role-title-text text{{unicode-bidi:plaintext}}@media (prefers-color-scheme:dark){{{rules}}}</style>"
    )
    head, end, rest = drawing.svg.partition(">")
    return f"{head}{end}{style}{rest}"


def _map(data: Datasets, one: AttentionMap) -> Chart:
    """The chart of one attention map."""
    rows, columns = ([visible_line(token) for token in side] for side in (one.attention.rows, one.attention.columns))
    cells = [
        {
            "row": row,
            "column": column,
            "weight": round(float(weight), 4),
            "percent": f"{100 * weight:.0f}" if weight >= MIN_PRINTED_WEIGHT else "",
            "what": f"{rows[row]} attends to {columns[column]}: {100 * weight:.1f} %",
        }
        for row, weights_K in enumerate(one.map_QK)
        for column, weight in enumerate(weights_K)
    ]
    x = alt.X("column:O", axis=alt.Axis(orient="top", labelAngle=-50, labelAlign="left", labelExpr=_names(columns)))
    y = alt.Y("row:O", axis=alt.Axis(labelExpr=_names(rows)))
    base = alt.Chart(data.add(cells)).encode(x=x, y=y)
    paper = base.mark_rect(fill=COLOURS["rule"], fillOpacity=0.45, aria=False)
    heat = base.mark_rect(fill=COLOURS["attention"]).encode(
        fillOpacity=alt.FillOpacity("weight:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None),
        description=alt.Description("what:N"),
    )
    texts = [
        base.transform_filter(f"datum.percent != '' && datum.weight {compared} 0.6").mark_text(
            fontSize=FONT - 2, color=colour, aria=False
        )
        for compared, colour in (("<", COLOURS["ink"]), (">=", LIGHT["text_on_dark_cell"]))
    ]
    layers = [paper, heat, *(text.encode(text=alt.Text("percent:N")) for text in texts)]
    title = alt.TitleParams(
        f"{one.title[0].upper()}{one.title[1:]}", anchor="start", fontSize=FONT, fontWeight="bold",
        color=COLOURS["quiet"], offset=8,
    )  # fmt: skip
    return alt.layer(*layers).properties(width=CELL * len(columns), height=CELL * len(rows), title=title)


def _names(tokens: Sequence[str]) -> str:
    """A Vega expression from a position to its token. Characters are escaped by number: no token can end its string."""
    quoted = ",".join('"' + "".join(f"\\u{unit:04x}" for unit in _units(token)) + '"' for token in tokens)
    return f"[{quoted}][datum.value]"


def _units(token: str) -> list[int]:
    """The UTF-16 code units of a text: the escapes of a Vega expression are such units."""
    encoded = token.encode("utf-16-be", "replace")
    return [int.from_bytes(encoded[n : n + 2], "big") for n in range(0, len(encoded), 2)]
