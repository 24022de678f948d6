"""Text as LaTeX and Markdown. Names, notes and corpus text are anybody's: none of it may act as markup.

HTML is escaped by Jinja2's autoescape; the other two by `finalize`, which Jinja2 calls for every expression it prints.
"""

from __future__ import annotations

import re

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
    "\u00a0": "~",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "Δ": r"$\Delta$",
}
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
FAMILIAR = re.compile(r"[ -~\u00a1-\u017f\u2018-\u201e\u2026\u20ac]")
"""What pdfLaTeX sets with T1 fonts."""


class Raw(str):
    """Text that is markup already."""


def latex(text: object) -> str:
    r"""Text as LaTeX. What pdfLaTeX has no glyph for goes through \other{code point}{character}: see the template."""
    if isinstance(text, Raw):
        return text
    parts = []
    for part in re.split(r"([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", _line(text)):
        if part and part[0] in "⁻⁰¹²³⁴⁵⁶⁷⁸⁹":
            parts.append(f"$^{{{part.translate(SUPERSCRIPTS)}}}$")
        else:
            parts.append(re.sub(r"([-',`])(?=\1)", r"\1{}", "".join(_tex(letter) for letter in part)))
    # Two hyphens of a text stay two hyphens; a dash of ours is one.
    return "".join(parts).replace("\0", "-")


def _tex(letter: str) -> str:
    if letter in TEX:
        return TEX[letter].replace("-", "\0") if letter in "–—−" else TEX[letter]
    return letter if FAMILIAR.fullmatch(letter) else rf"\other{{{ord(letter):04X}}}{{{letter}}}"


def markdown(text: object) -> str:
    """Text as GitHub-flavoured Markdown, fit for the cell of a table."""
    if isinstance(text, Raw):
        return text
    line = _line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", line)


def code(text: object) -> Raw:
    """One line of an indented block of Markdown, where nothing is markup."""
    return Raw(_line(text))


def _line(text: object) -> str:
    """One line without control characters."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", "" if text is None else str(text))
