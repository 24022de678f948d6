"""The file with the times of all rows of a suite: what is stored, what is replaced, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.measures.measure import Measure
from bench.tracking.speeds import NAME, RowSpeed, Speeds

TAGS = {"row": "lstm", "corpus": "toy-en-de", "job_hash": "b2"}
LATENCY = Measure("latency_p50_ms", 12.5, "ms", provenance="batch 1", noisy=True)
SPEEDS = Speeds(
    "table",
    {"hardware.cpu": "A CPU", "hardware.gpu": "none", "threads": "2"},
    [RowSpeed("lstm", "toy-en-de", ["a1", "b2"], [LATENCY])],
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert SPEEDS.write(tmp_path / "new") == tmp_path / "new" / NAME
    found = Speeds.read(tmp_path / "new")
    assert found == SPEEDS
    assert Speeds.read(tmp_path) is None


def test_only_measured_times_of_the_same_job_are_replaced() -> None:
    own = [Measure("latency_p50_ms", 99.0, "ms"), Measure("latency_free_p50_ms", 98.0, "ms"), Measure("params", 7, "")]
    assert SPEEDS.replace(TAGS, own) == [LATENCY, *own[1:]]
    assert SPEEDS.has(TAGS)
    for tags in (TAGS | {"job_hash": "with another beam"}, {"row": "lstm", "corpus": "toy-en-de"}):
        assert not SPEEDS.has(tags)
        assert SPEEDS.replace(tags, own) == own
    assert SPEEDS.replace(TAGS, []) == [], "a run that has not been evaluated gets no measures"


def test_the_machine_in_a_few_words() -> None:
    assert SPEEDS.where == "A CPU, threads: 2"
    on_gpu = Speeds("table", {**SPEEDS.machine, "hardware.gpu": "A GPU"}, [])
    assert on_gpu.where == "A GPU, threads: 2"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("machine"), "KeyError: 'machine'"),
        (lambda content: content.update(format=9), "format 9, but this version reads format 1"),
        (lambda content: content["rows"][0]["measures"][0].update(value="12"), "latency_p50_ms: '12' has a wrong type"),
        (lambda content: content["rows"][0]["measures"][0].update(other=1), "unexpected keyword argument 'other'"),
        (lambda content: content.update(rows=None), "TypeError"),
    ],
)
def test_an_unreadable_file_is_refused_in_one_line(tmp_path: Path, change: object, reason: str) -> None:
    path = SPEEDS.write(tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert callable(change)
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="measure again with bench speed decode --suite FILE, or remove it") as error:
        Speeds.read(tmp_path)
    assert reason in str(error.value)
    assert str(error.value).startswith(f"{path}: not readable: ")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="not readable: JSONDecodeError"):
        Speeds.read(tmp_path)
