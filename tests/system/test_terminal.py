"""What is printed on a terminal."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from bench.system import terminal
from bench.system.progress import Status


def test_what_is_printed_sends_no_command_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("[red]ä\u202e<b>\x1b[31m\x9b")
    terminal.table([("a\x1b[2J", "left"), ("b", "right")], [["x\ty\x00", "1"]])
    say, heading, row = capsys.readouterr().out.splitlines()
    assert say == "[red]ä\ufffd<b>␛[31m\ufffd"
    assert heading.split() == ["a␛[2J", "b"]
    assert row.split() == ["x␉y␀", "1"]


def test_columns_are_aligned_by_the_width_of_their_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Combining marks and zero-width characters take no column, Chinese takes two, a very long word leaves room."""
    long = "x" * 5000
    terminal.table([("name", "left"), ("n", "left")], [["नमस्ते", "1"], ["a\u200bb", "2"], ["图书馆", "3"], [long, "4"]])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert {cell_len(line[: line.rindex(digit)]) for digit, line in zip("1234", lines, strict=True)} == {202}


def test_a_line_without_seconds_shows_no_speed() -> None:
    """On a GPU the seconds are read only at points of the curves; before the first one, the line omits the speed."""
    line = terminal.ProgressLine("lstm")
    for fraction, seconds in ((0.001, 0.0), (0.002, 0.0), (0.005, 1.5)):
        pairs, tokens = round(1e5 * fraction), round(1e6 * fraction)
        status = Status(fraction, round(1000 * fraction), pairs, tokens, seconds, None, None)
        line(status)
        text = line.line(status)
        assert ("pairs/s" in text) == ("left" in text) == (seconds > 0)


def test_counted_work_prints_a_line_per_tenth_and_its_total(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 100.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock)
    line = terminal.CountLine("encodes", "pairs", 1000)
    for count in (100, 250, 290, 500, 1000):  # one second each
        clock += 1
        line(count)
    line.close()
    assert capsys.readouterr().out.splitlines() == [
        "  encodes   25%  125 pairs/s  6.0\u00a0s left",
        "  encodes   50%  125 pairs/s  4.0\u00a0s left",
        "  encodes: 1,000 pairs in 5.0\u00a0s, 200 pairs/s",
    ]


def test_counted_work_of_less_than_two_seconds_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    line = terminal.CountLine("encodes", "pairs", 10)
    line(5)
    line.close()
    assert capsys.readouterr().out == ""


def test_time_left_is_shown_only_if_ended_jobs_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs of a scaling study differ in their budget up to 64 times, so the first ones say nothing of the last."""
    clock = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    summaries = []
    for equal_budgets in (True, False):
        clock[0] = 0.0
        board = terminal.ProgressBoard(4, equal_budgets)
        board.job_started(1, "lstm")
        clock[0] = 60.0
        board.job_ended(1, "done")
        summaries.append(board.summary())
    assert summaries == ["1 of 4 jobs, 1:00, about 3:00 left", "1 of 4 jobs, 1:00"]
