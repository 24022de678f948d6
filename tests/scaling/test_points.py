"""The CSV file of scaling points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.scaling.points import COLUMNS, Point, csv_of_points, read_points, with_equal_budgets

POINTS = [
    Point("lstm", "lstm-0.1M-s1", "0.1M", 1, 100_000, 438_000, 1_114_000, 120_000, 12_000.0, 1.5e11, 3.25, 4.125, 1.5),
    Point("lstm", "lstm-0.1M-s2", "0.1M", 2, 0, 438_000, 1_114_000, 240_000, 24_000.0, 3e11, None, 1 / 3, None),
]


def test_runs_of_one_budget_get_equal_counts() -> None:
    """The last batch is full, so seeds have other counts. 200 and 225 pairs are two budgets."""
    counts = [(100, 1200), (104, 1260), (200, 2400), (225, 2700), (102, 1230)]
    points = [replace(POINTS[0], run=str(pairs), pairs=pairs, tokens=tokens) for pairs, tokens in counts]
    found = with_equal_budgets(points)
    assert [(point.run, point.pairs, point.tokens) for point in found] == [
        ("100", 102, 1230),
        ("104", 102, 1230),
        ("200", 200, 2400),
        ("225", 225, 2700),
        ("102", 102, 1230),
    ]
    assert [replace(point, pairs=1, tokens=1) for point in found] == [replace(p, pairs=1, tokens=1) for p in points]
    assert with_equal_budgets([]) == []


def test_written_points_are_read_back_with_all_digits(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(csv_of_points(POINTS))
    assert read_points(tmp_path / "points.csv") == POINTS


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("loss", "low", "line 3, column loss: 'low' is not a number; expected a number above 0"),
        ("loss", "nan", "line 3, column loss: nan is out of range"),
        ("tokens", "0", "line 3, column tokens: 0 is out of range"),
        ("seed", "1.5", "line 3, column seed: '1.5' is not a number; expected a whole number of at least 0"),
        ("row", "", "line 3, column row: empty; expected a name"),
        ("flops", "", "line 3, column flops: '' is not a number"),
    ],
)
def test_a_wrong_cell_is_named_with_file_line_and_column(tmp_path: Path, column: str, text: str, message: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(csv_of_points(POINTS))
    lines = path.read_text().splitlines()
    cells = lines[2].split(",")
    cells[COLUMNS.index(column)] = text
    path.write_text("\n".join([*lines[:2], ",".join(cells)]))
    with pytest.raises(ValueError, match=message) as error:
        read_points(path)
    assert str(error.value).startswith(str(path))


def test_missing_and_unknown_columns_short_lines_and_no_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    with pytest.raises(ValueError, match="file not found"):
        read_points(path)
    path.write_text("row,run\n")
    with pytest.raises(ValueError, match="line 1: missing column size"):
        read_points(path)
    path.write_text(",".join([*COLUMNS, "colour"]) + "\n")
    with pytest.raises(ValueError, match="line 1: unknown column colour"):
        read_points(path)
    path.write_text(",".join(COLUMNS) + "\nlstm,run\n")
    with pytest.raises(ValueError, match="line 2: wrong number of cells; expected 13"):
        read_points(path)
