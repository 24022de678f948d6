"""Updates per second: what is counted, and that one row's failure does not take the others' numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench.checks import speed
from bench.experiment.loading import resolve
from tests.helpers import tiny_job


def test_rates_from_counts() -> None:
    measured = speed.Speed("a-row", "demo", "a-corpus", "cpu", "32-true", 300, 50, 4.0, 700, 9000)
    assert measured.updates_per_second == 12.5
    assert measured.record["target_tokens_per_second"] == "2250"


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_pairs_and_tokens_are_those_of_the_timed_batches(precision: str, tmp_path: Path) -> None:
    tiny_job.write_corpus(tmp_path)
    flags = tiny_job.flags(tmp_path, training__precision=precision, machine__accelerator="cpu")
    experiment = resolve(tiny_job.FILE, flags=flags)
    three = speed.measure_speed(experiment, warm_up=0, updates=3)
    after = speed.measure_speed(experiment, warm_up=1, updates=2)
    first = speed.measure_speed(experiment, warm_up=0, updates=1)
    assert (three.updates, three.device, three.precision) == (3, "cpu", precision)
    assert three.pairs == first.pairs + after.pairs
    assert three.target_tokens == first.target_tokens + after.target_tokens
    assert three.target_tokens > three.pairs > 0
    assert three.seconds > 0


def test_a_row_that_fails_is_a_line_and_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_job.write_corpus(tmp_path)
    file, flags = tmp_path / "speed.csv", tiny_job.flags(tmp_path, machine__accelerator="cpu")
    options = ["--csv", str(file), "--warm_up", "0", "--updates", "1"]
    assert speed.main(["--rows", "no-such-row", "transformer-base", *options, *flags]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("no-such-row: no such row")
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["row"], row["corpus"], row["updates"]) for row in rows] == [("transformer-base", "files-en-de", "1")]
    assert speed.main(["--rows", "transformer-base", *options, *flags]) == 0
