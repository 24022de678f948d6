"""Characters that are unsafe to show become visible ones, and all other text stays as it is."""

from __future__ import annotations

import xml.etree.ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.system.visible_text import visible, visible_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x00\x02\x1b[31m\x7f", "␀␂␛[31m␡"),
        ("\x85\x9b", "\ufffd\ufffd"),
        ("\ud800\ufffe\uffff\ufdd0\U0001ffff", "\ufffd" * 5),
        ("a\u202eb\u2066c\u2029d\ufeff", "a\ufffdb\ufffdc\ufffdd\ufffd"),
        ("one\ttwo\nthree", "one\ttwo\nthree"),
    ],
)
def test_unsafe_characters_become_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_line_has_no_line_feed_and_no_tab() -> None:
    assert visible_line("one\ttwo\nthree") == "one␉two␊three"


@pytest.mark.parametrize(
    "text", ["Größe, gru\u0308ßt", "नमस्ते", "می‌خواهم", "👨‍👩‍👧 🇩🇪", "שלום\u200f!", "ខ្មែរ\u200bខ្មែរ"]
)
def test_spelling_stays(text: str) -> None:
    assert visible(text) == visible_line(text) == text


@given(st.text(alphabet=st.characters() | st.sampled_from("\x00\x02\x0b\r\x7f\x85\ud800\udfff\ufffe\uffff\u202e")))
def test_every_text_is_valid_xml_and_utf8(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text)
    shown.encode()
    escaped = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert (xml.etree.ElementTree.fromstring(f"<a>{escaped}</a>").text or "") == shown
