"""Numbers and durations as text."""

from __future__ import annotations

import pytest

from bench.system import formatting
from bench.system.progress import Status
from bench.system.terminal import ProgressLine


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0\u00a0s"),
        (7.34, "7.3\u00a0s"),
        (59.94, "59.9\u00a0s"),
        (59.97, "1:00"),
        (245.2, "4:05"),
        (3599.7, "1:00:00"),
        (3723, "1:02:03"),
    ],
)
def test_durations(seconds: float, text: str):
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(34.4, "34\u00a0s"), (59.6, "1\u00a0min"), (3569, "59\u00a0min"), (3571, "1:00\u00a0h"), (6720, "1:52\u00a0h")],
)
def test_hours_and_minutes(seconds: float, text: str):
    assert formatting.hours_and_minutes(seconds) == text


def test_terminal_and_reports_write_the_same_duration():
    """The terminal printed 59.97 s as 60.0 s where a report printed 1:00."""
    line = ProgressLine("job")
    line(Status(updates=1, pairs=1, target_tokens=1, seconds=0.0, fraction=0.0, loss=None, best=None))
    status = Status(updates=2, pairs=2, target_tokens=2, seconds=59.97, fraction=0.5, loss=None, best=None)
    assert line.line(status).endswith("1:00 left")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (12, "12"),
        (12.345, "12.3"),
        (0.01234, "0.0123"),
        (999.96, "1,000"),
        (12_345.6, "12,346"),
        (1_234_567, "1.23\u00a0×\u00a010⁶"),
        (-2.5, "−2.50"),
        (float("inf"), "inf"),
    ],
)
def test_quantities(number: float, text: str):
    assert formatting.quantity(number) == text


def test_intervals():
    assert formatting.interval(1.0, 2.345) == "[1, 2.35]"
    assert formatting.interval(None, 2.0) == ""


def test_an_upper_bound_of_several_p_values_is_rounded_up():
    assert [formatting.p_at_most(p) for p in (0.0004, 0.042, 0.0424)] == [
        "p\u00a0<\u00a00.001",
        "p\u00a0≤\u00a00.042",
        "p\u00a0≤\u00a00.043",
    ]


@pytest.mark.parametrize(
    ("number", "text"), [(1e12, "10¹²"), (2.5e12, "2.5\u00a0×\u00a010¹²"), (20, "20"), (0.5, "0.5"), (1e-4, "10⁻⁴")]
)
def test_ticks_of_an_axis(number: float, text: str):
    assert formatting.axis_tick(number) == text


def test_settings():
    assert [formatting.setting(text) for text in ("64000", "1024", "0.5")] == ["64,000", "1024", "0.5"]
    assert [formatting.sampled_setting(text) for text in ("0.00312345", "12345", "linear")] == [
        "0.00312",
        "12345",
        "linear",
    ]
