"""What is printed on a terminal."""

from __future__ import annotations

from bench.system import terminal
from bench.system.progress import Status


def test_only_control_characters_are_escaped() -> None:
    assert terminal.printable("[red]ä\u202e<b>\x1b[31m\t\x9b") == "[red]ä\u202e<b>\\x1b[31m\\x09\\x9b"


def test_a_line_without_seconds_shows_no_speed() -> None:
    """On a GPU the seconds are read only at points of the curves; before the first one, the line omits the speed."""
    line = terminal.ProgressLine("lstm")
    for fraction, seconds in ((0.001, 0.0), (0.002, 0.0), (0.005, 1.5)):
        pairs, tokens = round(1e5 * fraction), round(1e6 * fraction)
        status = Status(fraction, round(1000 * fraction), pairs, tokens, seconds, None, None)
        line(status)
        text = line.line(status)
        assert ("pairs/s" in text) == ("left" in text) == (seconds > 0)
