"""A measure that cannot be taken has a reason; a store that fails does not hide behind one."""

from __future__ import annotations

import sqlite3

import pytest
import torch

from bench.evaluation.attempt import measure_or_reason
from bench.measures.measure import Measure


def raises(error: Exception) -> list[Measure]:
    raise error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("text.max_length: none of 10\npairs"), "ValueError: text.max_length: none of 10 pairs"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (torch.OutOfMemoryError("no memory"), "OutOfMemoryError: no memory"),
    ],
)
def test_the_reason_is_the_provenance(error: Exception, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = measure_or_reason(("test/bleu", "latency_p50_ms"), lambda: raises(error))
    assert [(measure.metric, measure.value, measure.unit) for measure in found] == [
        ("test/bleu", None, "percent"),
        ("latency_p50_ms", None, "ms"),
    ]
    assert {measure.provenance for measure in found} == {f"not measured: {reason}"}
    assert capsys.readouterr().out == f"  test/bleu, latency_p50_ms: not measured: {reason}\n"


def test_measures_are_passed_on() -> None:
    measures = [Measure("aer", 1.0, "percent")]
    assert measure_or_reason(("aer", "aer_diagonal"), lambda: measures) == measures


@pytest.mark.parametrize("error", [OSError("no space left"), sqlite3.OperationalError("database is locked")])
def test_a_failure_of_disk_or_store_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        measure_or_reason(("aer",), lambda: raises(error))
