"""The classes of a table of a report: Table, Column, Entry and Run; and how numbers become entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.system import formatting
from reports.gathering.context import Number
from reports.text import metric_format

RUN_ID_LENGTH = 8
"""Printed characters of a run's id. The full id is in the CSV and in the link."""

Which = Literal["all", "own", "published"]
"""Which columns a form prints: all, those of this suite's runs, or those of published numbers."""


@dataclass(frozen=True)
class Column:
    """A column. Neighbours with the same group share a heading above theirs.

    Attributes:
        own: True if it holds numbers of this suite's runs, False if it holds published numbers.
        opened_by: Name of the button that opens the column in the page; empty if the page always shows it. Every other
            form has all columns.
    """

    label: str
    unit: str = ""
    group: str = ""
    side: Literal["left", "right"] = "right"
    own: bool = True
    opened_by: str = ""

    @property
    def heading(self) -> str:
        """Label and unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    @property
    def full_heading(self) -> str:
        """Group, label and unit: it distinguishes the column from every other one."""
        return f"{self.group}, {self.heading}" if self.group and self.heading else self.group or self.heading


@dataclass(frozen=True)
class Run:
    """A run whose numbers stand in a row: its id, its track and seed, and its address in the MLflow UI or ""."""

    id: str
    label: str
    link: str

    @property
    def short(self) -> str:
        """The beginning of the id."""
        return self.id[:RUN_ID_LENGTH]


@dataclass(frozen=True)
class Entry:
    """What stands in one row of one column.

    Attributes:
        text: The value.
        details: Lines below it in smaller type: interval, values of the seeds.
        sort: The value by which the page sorts the column; None sorts last.
        best: Whether it is significantly the best of its column.
        missing: Whether it only says that there is no number.
        mark: Letter or sign of its footnote.
        runs: The runs whose numbers stand in the row (first entry of a row only).
        link: Relative address of the page that the text leads to, in a site; else "" (first entry of a row only).
    """

    text: str
    details: tuple[str, ...] = ()
    sort: float | str | None = None
    best: bool = False
    missing: bool = False
    mark: str = ""
    runs: tuple[Run, ...] = ()
    link: str = ""


EMPTY = Entry(formatting.MISSING, missing=True)


@dataclass(frozen=True)
class Table:
    """A table with its caption. Footnotes are (letter or sign, text)."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    footnotes: tuple[tuple[str, str], ...] = ()

    def column_numbers(self, which: Which) -> list[int]:
        """Numbers of the columns to print.

        Without "all": the first column, and those of the chosen kind in which at least one row has a number.
        """
        return [
            n
            for n, column in enumerate(self.columns)
            if which == "all"
            or n == 0
            or (column.own == (which == "own") and not all(row[n].missing for row in self.rows))
        ]

    def printed_rows(self, which: Which) -> list[tuple[Entry, ...]]:
        """The rows to print: with "published" only those that have a published number."""
        numbers = self.column_numbers(which)[1:]
        return [row for row in self.rows if which != "published" or not all(row[n].missing for n in numbers)]

    def heading_spans(self, numbers: Sequence[int]) -> list[tuple[str, int, int]]:
        """The upper line of headings over these columns: (heading, its first column, how many columns)."""
        spans: list[tuple[str, int, int]] = []
        for position, column in enumerate(self.columns[number] for number in numbers):
            if spans and column.group and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1], spans[-1][2] + 1)
            else:
                spans.append((column.group or column.heading, position, 1))
        return spans

    @property
    def spans(self) -> list[tuple[str, int, int]]:
        """The upper line of headings over all columns."""
        return self.heading_spans(self.column_numbers("all"))

    @property
    def buttons(self) -> list[str]:
        """Names of the buttons that open columns in the page, in the order of the columns."""
        return list(dict.fromkeys(column.opened_by for column in self.columns if column.opened_by))

    @property
    def edges(self) -> set[int]:
        """Columns with a line before them, which separates our numbers from published ones."""
        return {n for n in range(1, len(self.columns)) if self.columns[n - 1].own != self.columns[n].own}


def text_entry(content: str) -> Entry:
    """Text, sorted alphabetically."""
    return Entry(content, sort=content)


def number_entry(metric: str, number: Number | None) -> Entry:
    """A number of a metric, without its interval."""
    value = number.value if number else None
    return EMPTY if value is None else Entry(metric_format.value(metric, value), sort=value)


def score_entry(metric: str, number: Number | None) -> Entry:
    """A score with its interval, and with the value of each seed if there are several."""
    if number is None:
        return EMPTY
    details = [metric_format.interval(metric, number.low, number.high)]
    if len(number.seeds) > 1:
        details.append(", ".join(metric_format.value(metric, value) for value in number.seeds.values()))
    return replace(number_entry(metric, number), details=tuple(line for line in details if line))
