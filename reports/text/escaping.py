"""Escapes text for HTML, LaTeX and Markdown. Names, notes and corpus text of others must not act as markup.

Jinja2 calls these functions (`finalize`) for every expression that a template prints. HTML is then escaped by Jinja2's
autoescape. Characters that a format forbids or that are invisible commands are made visible: visible_text.py.
"""

from __future__ import annotations

import re

from markupsafe import Markup

from bench.system.visible_text import visible, visible_line

TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after the end of a row of a table, [ and * are read as its arguments
    "]": "{]}",
    "*": "{*}",
    "\u00a0": "~",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "Δ": r"$\Delta$",
}
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
HAS_GLYPH = re.compile(r"[ -~\u00a1-\u017f\u2018-\u201e\u2026\u20ac]")
"""Characters for which pdfLaTeX has a glyph in T1 fonts."""


class Raw(str):
    """Text that is markup already and is not escaped."""


def html(text: object) -> object:
    """Text for autoescape, without the characters that HTML forbids; None is empty. Markup passes unchanged."""
    if isinstance(text, Markup):
        return text
    return "" if text is None else visible(str(text))


def latex(text: object) -> str:
    r"""Text as LaTeX. Characters without a glyph in pdfLaTeX become \other{code point}{character}, see the template."""
    if isinstance(text, Raw):
        return text
    parts = []
    for part in re.split(r"([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", _line(text)):
        if part and part[0] in "⁻⁰¹²³⁴⁵⁶⁷⁸⁹":
            parts.append(f"$^{{{part.translate(SUPERSCRIPTS)}}}$")
        else:
            parts.append(re.sub(r"([-',`])(?=\1)", r"\1{}", "".join(_tex(letter) for letter in part)))
    # LaTeX joins two hyphens of a text to a dash; {} keeps them apart. The dashes of TEX are written as \0 until here.
    return "".join(parts).replace("\0", "-")


def _tex(letter: str) -> str:
    if letter in TEX:
        return TEX[letter].replace("-", "\0") if letter in "–—−" else TEX[letter]
    return letter if HAS_GLYPH.fullmatch(letter) else rf"\other{{{ord(letter):04X}}}{{{letter}}}"


def markdown(text: object) -> str:
    """Text as GitHub-flavoured Markdown that also fits into a cell of a table."""
    if isinstance(text, Raw):
        return text
    line = _line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", line)


def code(text: object) -> Raw:
    """Text as one line of an indented code block of Markdown, where nothing is markup."""
    return Raw(_line(text))


def _line(text: object) -> str:
    """The text as one line of visible characters; None is empty."""
    return "" if text is None else visible_line(re.sub(r"[\t\n\r]+", " ", str(text)))
