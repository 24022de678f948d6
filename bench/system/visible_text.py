"""Makes text of others safe to show: characters that programs refuse or act on become visible ones.

Sentences of a corpus, translations, names and notes may contain any character. XML 1.0 forbids most control characters
and U+FFFE, and a library that reads such an SVG ends its whole process; a terminal acts on escape sequences; U+202E
reverses the rest of a line; half a surrogate pair cannot be written as UTF-8. Everything that leaves the program to be
read by people or drawn by other programs passes through one of these two functions: the report in each form, drawings,
tables in MLflow, the terminal. Stored text that is computed with (corpora, vocabularies, scores) is not changed.
"""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"

_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(
    f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000)
)
_SEPARATORS = "\u2028\u2029"
_REORDERING = "\u202a-\u202e\u2066-\u2069"
"""Embeddings, overrides and isolates. Left-to-right and right-to-left marks stay: they affect their neighbours only."""

_OTHERS = "\x80-\x9f\ud800-\udfff\ufeff" + _NONCHARACTERS + _SEPARATORS + _REORDERING
_NOT_SAFE = re.compile(f"[\0-\x08\x0b-\x1f\x7f{_OTHERS}]")
_NOT_SAFE_IN_A_LINE = re.compile(f"[\0-\x1f\x7f{_OTHERS}]")


def visible(text: str) -> str:
    """The text with unsafe characters replaced: U+0002 by its picture ␂, U+202E and those without a picture by U+FFFD.

    Tabs and line feeds stay, and so do characters that spelling needs: joiners, combining marks, zero-width spaces.
    """
    return text if text.isprintable() else _NOT_SAFE.sub(_picture, text)  # no unsafe character is printable


def visible_line(text: str) -> str:
    """As `visible`, for a place that has one line: a tab is ␉ and a line feed is ␊."""
    return text if text.isprintable() else _NOT_SAFE_IN_A_LINE.sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    """The visible character that stands for an unsafe one."""
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else REPLACEMENT
