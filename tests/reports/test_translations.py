"""The words in which a translation differs from its reference."""

from __future__ import annotations

from reports.gathering import translations


def test_words_that_differ_from_the_reference():
    assert translations.mark_differences("der Koch trinkt", "der Mann trinkt Wasser") == [
        ("der", False),
        ("Koch", True),
        ("trinkt", False),
    ]
    assert translations.mark_differences("", "der Mann") == []
