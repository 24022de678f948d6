"""Several readers as one suite."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.tracking.joined import JoinedReader
from bench.tracking.reading import TrackedRun

START = datetime(2026, 11, 29, tzinfo=UTC)


class FakeReader:
    """A `Reader` with one suite, whose newest job is `hour` hours old."""

    uri = "memory"

    def __init__(self, hour: int, **tags: str) -> None:
        self.parent = TrackedRun(f"parent{hour}", "", "FINISHED", START + timedelta(hours=hour), tags, {}, {})

    def suites(self) -> list[str]:
        return ["table"]

    def runs(self, suite: str) -> list[TrackedRun]:
        return [replace(self.parent, id=f"job of {self.parent.id}", tags={})]

    def parent_run(self, suite: str) -> TrackedRun:
        return self.parent


def test_a_part_of_a_suite_that_ran_last_does_not_describe_it() -> None:
    """Its baseline is not that of the table, and what it says of its rows is joined with the rest."""
    old, new, other = ({"spent": number} for number in (1, 2, 3))
    readers: list[Any] = [
        FakeReader(1, rows="a,b,c", baseline="c", question="old", tuning=json.dumps({"a": old, "b": other})),
        FakeReader(2, rows="a,b,c", baseline="b", question="new"),
        FakeReader(3, rows="a", baseline="a", tuning=json.dumps({"a": new})),
    ]
    parent = JoinedReader(readers).parent_run("table")
    assert parent
    assert (parent.id, parent.tags["baseline"], parent.tags["question"]) == ("parent2", "b", "new")
    assert json.loads(parent.tags["tuning"]) == {"a": new, "b": other}
