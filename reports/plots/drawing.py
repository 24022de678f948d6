"""The class Plot, which renders an Altair chart as SVG and PDF. Axes and labels are placed in placement.py."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

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

FAMILIES = ("feed-forward", "recurrent", "convolutional", "mixture", "attention")
"""The families of rows, which have a colour and a text of their own. A file may name others."""

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
        # No validation: Altair's checks take most of the time, and the tests check the drawings. For the same reason
        # all channels are objects: Altair would look up a plain "row:N" among all its classes each time.
        with debug_mode(False):
            chart = self.draw(datasets, self.width if form == "wide" else NARROW)
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


def family_scale(families: Sequence[str]) -> dict[str, Any]:
    """The scale from families to their colours."""
    order = sorted(set(families))
    return {"domain": order, "range": [colour(name) for name in order]}


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


@functools.lru_cache(maxsize=1024)
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
