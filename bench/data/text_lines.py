"""Decodes lines of text from outside. Each line that cannot be read is named by its file and number."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

Value = TypeVar("Value")

NOT_UTF8 = "is not valid UTF-8; convert the file, for example with iconv"

UTF_16_OR_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
"""Byte-order marks at the beginning of a file; the one of UTF-32 LE begins with that of UTF-16 LE."""


class BadLine(NamedTuple):
    """A line that cannot be read.

    Attributes:
        file: The path, or "standard input".
        number: The number of the line, from 1.
        problem: What is wrong and how to fix it; follows "line N" in a message.
    """

    file: str
    number: int
    problem: str


class BadLines(ValueError):
    """Lines of text files that cannot be read. The message names the first; `lines` has all of them.

    Args:
        hint: Follows the number of further lines in the message: how to see all.
    """

    def __init__(self, lines: Sequence[BadLine], hint: str = "") -> None:
        first = lines[0]
        more = f" ({len(lines) - 1:,} more bad lines{hint})" if len(lines) > 1 else ""
        super().__init__(f"{first.file}: line {first.number} {first.problem}{more}")
        self.lines = list(lines)

    @property
    def summary(self) -> list[str]:
        """For each file and problem one line of text with the numbers of all lines, such as 3, 7-9."""
        groups: dict[tuple[str, str], list[int]] = {}
        for file, number, problem in self.lines:
            groups.setdefault((file, problem), []).append(number)
        return [
            f"{file}: {len(numbers):,} lines (each {problem}): {ranges(numbers)}"
            if len(numbers) > 1
            else f"{file}: line {numbers[0]} {problem}"
            for (file, problem), numbers in groups.items()
        ]


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as text, with runs of consecutive ones joined: "3, 7-9"."""
    ordered = sorted(set(numbers))
    runs = [[number for _, number in run] for _, run in groupby(enumerate(ordered), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def read_all(readers: Iterable[Callable[[], Value]]) -> list[Value]:
    """The results of all readers.

    Raises:
        BadLines: a reader raised it; the bad lines of all readers, so that one command shows every one of them.
    """
    values: list[Value] = []
    bad: list[BadLine] = []
    for reader in readers:
        try:
            values.append(reader())
        except BadLines as error:
            bad += error.lines
    if bad:
        raise BadLines(list(dict.fromkeys(bad)))
    return values


def decode_line(raw: bytes, number: int, file: str) -> str:
    """A line as text, without its end. The first line loses its byte-order mark.

    Raises:
        ValueError: the line begins a file in UTF-16 or UTF-32.
        BadLines: the line is not valid UTF-8.
    """
    if number == 1:
        _check_encoding(raw, file)
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise BadLines([BadLine(file, number, NOT_UTF8)]) from None
    return without_line_end(text)


def without_line_end(text: str) -> str:
    """A line without the line feed at its end, and without the carriage return before it."""
    return text.removesuffix("\n").removesuffix("\r")


def decode_lines(data: bytes, file: str, first: int = 1) -> list[str]:
    """The lines of a text in UTF-8. Only a line feed ends a line; carriage returns at line ends are removed.

    Otherwise a Unicode separator inside a sentence would give a file more lines than its translation has.

    Args:
        data: The text, or some whole lines of it.
        file: Its name, for messages.
        first: The number of the first line.

    Raises:
        ValueError: the text is UTF-16, UTF-32 or no text.
        BadLines: lines are not valid UTF-8.
    """
    if first == 1:
        _check_encoding(data, file)
        check_not_binary(len(data), data.count(0), file)
    raw_lines = data.removesuffix(b"\n").split(b"\n")
    try:
        text = data.decode("utf-8-sig" if first == 1 else "utf-8")
        return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    except UnicodeDecodeError:
        return read_all(lambda n=n, raw=raw: decode_line(raw, n, file) for n, raw in enumerate(raw_lines, start=first))


def check_not_binary(size: int, nul_bytes: int, file: str) -> None:
    """Raises ValueError if a quarter of some bytes are NUL.

    UTF-16 without a byte-order mark is valid UTF-8 if all letters are Latin: every second byte is NUL.
    """
    if 4 * nul_bytes > size:
        raise ValueError(f"{file}: a quarter of the file are NUL bytes; expected text in UTF-8; {_conversion(file)}")


def check_text(text: str) -> str:
    """The text itself.

    Raises:
        ValueError: it has a lone surrogate, half a character beyond U+FFFF, which no encoding can write. JSON can
            contain one as an escape.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"contains \\u{ord(text[error.start]):04x}, half of a surrogate pair, which is no character; correct or "
            "remove it"
        ) from None
    return text


def _check_encoding(data: bytes, file: str) -> None:
    if data.startswith(UTF_16_OR_32):
        raise ValueError(
            f"{file}: begins with the byte-order mark of UTF-16 or UTF-32; expected text in UTF-8; {_conversion(file)}"
        )


def _conversion(file: str) -> str:
    return f"convert it, for example with: iconv -f UTF-16 -t UTF-8 {file.removesuffix('.gz')}"
