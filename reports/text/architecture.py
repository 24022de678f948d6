"""What the page of a row says of its architecture: paper, equations, the notes in its code, and its sizes.

Equations are the plain text of the docstrings, with Greek letters, sub- and superscripts. The page needs no library for
that, and the code remains the only place where an equation is written and checked.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup, escape

import models
from bench.checks.model_table import LENGTH, size_and_cost
from bench.experiment.loading import member_row, presets_of, resolve, row_files
from bench.system.visible_text import visible

SYMBOLS = {
    "~": "\N{COMBINING TILDE}",
    "^": "\N{COMBINING CIRCUMFLEX ACCENT}",
    "alpha": "α",
    "sigma": "σ",
    "phi": "φ",
    "theta": "θ",
    "sum": "∑",
    "prod": "∏",
    "sqrt": "√",
    ">=": "≥",
    "...": "…",
}
"""What docstrings write -> what the page shows."""

SYMBOL = re.compile(
    r"(?<=[A-Za-z])(?:~|\^(?=\|))|(?<![A-Za-z])(?:(?:alpha|sigma|phi|theta|sqrt)(?![A-Za-z])|(?:sum|prod)(?=_))|>=|\.\.\."
)
INDEX = re.compile(
    r"([_^])(?:\{([^{}]*)\}|\(([^()]*)\)|((?:[A-Za-z0-9]+(?:,(?![A-Za-z0-9]+[_^(])[A-Za-z0-9]+(?![A-Za-z0-9_^(]))?)'?))"
)
"""A sub- or superscript: x_{t-1}, 10000^(2i / d), x_t, e_t,s."""


@dataclass(frozen=True)
class Size:
    """The size of a row at a preset, with its vocabulary: parameters, and FLOPs to train one pair of sentences."""

    preset: str
    parameters: int
    without_embeddings: int
    training_flops: int
    vocabulary: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class Architecture:
    """What architectures.yaml and the code say of a row.

    Attributes:
        file: The file with its code.
        notes: The paragraphs of that file's docstring, in English.
        member: Row of its members if it is an ensemble, else "".
    """

    paper: str
    file: str
    equations: tuple[str, ...]
    notes: tuple[str, ...]
    member: str


@functools.cache
def architectures() -> dict[str, dict[str, Any]]:
    """The content of architectures.yaml."""
    return yaml.safe_load(Path(__file__).with_name("architectures.yaml").read_text(encoding="utf-8"))


def architecture(row: str) -> Architecture | None:
    """What is known of a row; None if this version has no such row, or nothing is written of it."""
    path = row_files().get(row)
    member = member_row(path, row) if path else ""
    entry = architectures().get(member or row) if path else None
    if entry is None:
        return None
    file = entry["file"]
    return Architecture(entry["paper"], file, tuple(entry["equations"]), tuple(_notes(file)), member)


def _notes(file: str) -> list[str]:
    """The paragraphs of a module's docstring, without the letters at its end."""
    code = Path(models.__file__).with_name(Path(file).name).read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(code)) or ""
    return [paragraph for paragraph in text.split("\n\n") if not paragraph.startswith("Letters: ")]


def sizes(row: str) -> Sequence[Size]:
    """The size of a row at each of its presets, counted on a model without weights; empty if the row is unknown."""
    path = row_files().get(row)
    found = []
    if path is None:
        return found
    for preset in presets_of(path, row):
        experiment = resolve(path, preset=preset, row=row)
        vocabulary = tuple(dict.fromkeys(experiment.text.sizes))
        found.append(Size(preset, *size_and_cost(experiment), vocabulary, experiment.text.kind))
    return found


PAIR_LENGTH = LENGTH
"""Tokens on each side of the sentence pair of `Size.training_flops`."""


def equation_html(text: str) -> Markup:
    """An equation of a docstring as HTML. Only its indices become markup; everything else is escaped.

    >>> equation_html("s~_i = sigma(W_z s_{i-1})")
    Markup('s̃<sub>i</sub> = σ(W<sub>z</sub> s<sub>i-1</sub>)')
    """
    shown = SYMBOL.sub(lambda match: SYMBOLS[match[0]], visible(text))
    parts, end = [], 0
    for match in INDEX.finditer(shown):
        parts.append(escape(shown[end : match.start()]))
        content = next(group for group in match.groups()[1:] if group is not None)
        tag = "sub" if match[1] == "_" else "sup"
        parts.append(Markup("<{0}>{1}</{0}>").format(Markup(tag), equation_html(content)))
        end = match.end()
    return Markup("").join([*parts, escape(shown[end:])])
