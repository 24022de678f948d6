"""The points of scaling curves, and their CSV file: one line for each validation that counts as an end point."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

Count = Literal["body", "body_softmax", "all"]
"""Ways to count parameters: without embeddings and output layer; all that are multiplied; all."""


@dataclass(frozen=True)
class Point:
    """One end point of a row: a model size, a budget and the loss that it reached.

    Attributes:
        row: Architecture.
        run: Name of the training run. Points of one run share its random deviation; seeds and own runs to each budget
            have names of their own.
        size: Name of the model size in the row's ladder.
        seed: Seed of the run.
        body: Parameters without embeddings and output layer.
        body_softmax: Parameters that are multiplied: body and output layer, a tied matrix once, no look-up tables.
        all: All parameters.
        tokens: Target tokens trained on (D).
        pairs: Sentence pairs trained on.
        flops: Training FLOPs, exact (C).
        seconds: Training seconds, without validation; None: not measured.
        loss: Excess validation loss in nats per target token (bench/measures/excess_loss.py); lower is better.
        bleu: BLEU of the validation or test text; None: not measured.
    """

    row: str
    run: str
    size: str
    seed: int
    body: int
    body_softmax: int
    all: int
    tokens: float
    pairs: float
    flops: float
    seconds: float | None
    loss: float
    bleu: float | None


SAME_BUDGET = 1.1
"""Runs of one row whose pairs differ by less than this factor had one budget: a run ends after a whole batch."""

COLUMNS = tuple(field.name for field in fields(Point))
_TEXT, _WHOLE, _OPTIONAL = ("row", "run", "size"), ("seed", "body", "body_softmax", "all"), ("seconds", "bleu")


def with_equal_budgets(points: Sequence[Point]) -> list[Point]:
    """Returns the points of a row with the mean tokens and pairs of all its runs of the same budget.

    Seeds have other batches, so the counts of runs of one budget differ by less than a batch. Fits recognize replicates
    and the largest budget by equal counts. FLOPs stay those of the run.
    """
    budgets: list[list[Point]] = []
    for point in sorted(points, key=lambda point: point.pairs):
        if not budgets or point.pairs >= SAME_BUDGET * budgets[-1][0].pairs:
            budgets.append([])
        budgets[-1].append(point)
    means = {
        point.pairs: (fmean(one.tokens for one in budget), fmean(one.pairs for one in budget))
        for budget in budgets
        for point in budget
    }
    return [replace(point, tokens=means[point.pairs][0], pairs=means[point.pairs][1]) for point in points]


def csv_of_points(points: Sequence[Point]) -> str:
    """Returns the points as CSV. What was not measured is an empty cell; numbers keep all their digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(point) for point in points)
    return text.getvalue()


def read_points(path: Path) -> list[Point]:
    """Returns the points of a CSV file, in its order.

    Raises:
        ValueError: the file is missing or not text, a column is missing or unknown, or a cell is not as expected; the
            message has file, line and column.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: file not found; check the path") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file in UTF-8; expected the CSV file of scaling points") from None
    reader = csv.DictReader(io.StringIO(text))
    found = tuple(reader.fieldnames or ())
    if missing := [column for column in COLUMNS if column not in found]:
        raise ValueError(f"{path}, line 1: missing column {missing[0]}; expected the columns {', '.join(COLUMNS)}")
    if unknown := [column for column in found if column not in COLUMNS]:
        raise ValueError(f"{path}, line 1: unknown column {unknown[0]}; expected the columns {', '.join(COLUMNS)}")
    points = []
    for cells in reader:
        if None in cells or None in cells.values():
            raise ValueError(f"{path}, line {reader.line_num}: wrong number of cells; expected {len(COLUMNS)}")
        values: dict[str, Any] = {key: _cell(path, reader.line_num, key, text) for key, text in cells.items()}
        points.append(Point(**values))
    return points


def _cell(path: Path, line: int, column: str, text: str) -> str | int | float | None:
    """The value of a cell. Raises ValueError with file, line and column."""
    if column in _TEXT:
        if text:
            return text
        raise ValueError(f"{path}, line {line}, column {column}: empty; expected a name")
    if column in _OPTIONAL and not text:
        return None
    zero_is_allowed = column in ("seed", "body", "bleu")
    expected = f"a {'whole ' if column in _WHOLE else ''}number {'of at least' if zero_is_allowed else 'above'} 0"
    try:
        value = int(text) if column in _WHOLE else float(text)
    except ValueError:
        raise ValueError(
            f"{path}, line {line}, column {column}: {text!r} is not a number; expected {expected}"
        ) from None
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero_is_allowed):
        raise ValueError(f"{path}, line {line}, column {column}: {text} is out of range; expected {expected}")
    return value
