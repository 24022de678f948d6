"""Numbers of metrics as text."""

from __future__ import annotations

import math

import pytest

from bench.system import formatting
from reports.text import metric_format
from reports.text.catalogue import load_catalogue
from tests.helpers import synthetic_runs

pytestmark = synthetic_runs.quiet_mlflow


@pytest.mark.parametrize(
    ("metric", "number", "text"),
    [
        ("bleu", 27.349, "27.3"),
        ("bleu", -0.5, "−0.5"),
        ("params", 1_234_567, "1.23"),
        ("params", 65e6, "65.0"),
        ("train_flops", 1.234e15, "1.23\u00a0×\u00a010¹⁵"),
        ("latency_p50_ms", 0.01234, "0.0123"),
        ("latency_p50_ms", 999.96, "1,000"),
        ("peak_memory_bytes", 512 * 2**20, "512"),
        ("wall_s", 7.34, "7.3\u00a0s"),
        ("wall_s", 59.97, "1:00"),
        ("wall_s", 3723, "1:02:03"),
        ("validation_loss", 1.25, "1.250"),
        ("bleu", None, "—"),
        ("bleu", float("nan"), "—"),
    ],
)
def test_numbers_as_text(metric: str, number: float | None, text: str):
    assert metric_format.value(metric, number) == text


def test_intervals_differences_and_comparisons():
    assert metric_format.interval("bleu", 1.0, 2.04) == "1.0–2.0"
    assert metric_format.interval("bleu", -2.0, 1.0) == "−2.0 … 1.0"
    assert metric_format.interval("bleu", None, None) == ""
    assert [metric_format.difference("bleu", number) for number in (1.5, -1.5, math.nan)] == ["+1.5", "−1.5", "—"]
    assert [formatting.p_equals(p) for p in (0.0004, 0.012)] == ["p\u00a0<\u00a00.001", "p\u00a0=\u00a00.012"]
    assert [load_catalogue().compared(a, b, "X") for a, b in ((5, 2), (3, 4), (4, 3), (1, 1), (1, 300))] == [
        "2.5 times those of X",
        "25\u00a0% fewer than X",
        "33\u00a0% more than X",
        "as many as X",
        "> 99\u00a0% fewer than X",
    ]
    assert [formatting.exact(number) for number in (3e12, 0.1, None, float("inf"))] == ["3000000000000", "0.1", "", ""]
