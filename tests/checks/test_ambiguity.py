"""How often the grammar corpus leaves a translation open."""

from __future__ import annotations

import pytest

from bench.checks import ambiguity


def test_targets_of_equal_sources_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four equal sources, two of them with one target and two with another: 4 of 6 pairs differ."""
    drawn = iter([("I read.", "Ich lese."), ("I read.", "Ich las."), ("I eat.", "Ich esse.")] * 2)

    class Drawn:
        def __init__(self, *_: object) -> None: ...

        def draw(self, _: object) -> tuple[str, str]:
            return next(drawn)

        def texts(self, pair: tuple[str, str]) -> tuple[str, str]:
            return pair

    monkeypatch.setattr(ambiguity, "Grammar", Drawn)
    found = ambiguity.measure("en", "de", 6)
    assert (found.pairs, found.differing, found.words) == (6 + 1, 4, 2)
    assert found.entropy_per_word == pytest.approx(2 * 4 / 7 * 0.6931 / 2, rel=1e-3)
    assert found.examples == (("I read.", ("Ich las.", "Ich lese.")),)


def test_the_command_prints_the_share_and_refuses_unknown_languages(capsys: pytest.CaptureFixture[str]) -> None:
    assert ambiguity.main(["en", "de", "--draws", "300"]) == 0
    assert "en-de: 300 draws" in capsys.readouterr().out
    assert ambiguity.main(["en", "xx"]) == 2
    assert "error: " in capsys.readouterr().err
