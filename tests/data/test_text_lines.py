"""Lines of text from outside: every line that cannot be read has its file and number."""

from __future__ import annotations

import pytest

from bench.data.text_lines import BadLine, BadLines, check_text, decode_line, decode_lines, ranges, read_all


def test_lines_end_in_line_feeds_only() -> None:
    assert decode_lines("\ufeffa\u2028b\r\nc\x85d\n\n".encode(), "f") == ["a\u2028b", "c\x85d", ""]
    assert [decode_line(raw, n, "f") for n, raw in ((1, b"\xef\xbb\xbfa\r\n"), (2, b"b"))] == ["a", "b"]


def test_every_line_that_is_not_utf_8_is_named() -> None:
    with pytest.raises(BadLines, match=r"^f: line 2 is not valid UTF-8; convert the file") as raised:
        decode_lines(b"a\n\xff\nb\n\xed\xa0\x80\n", "f")  # the last one is a lone surrogate
    assert [line.number for line in raised.value.lines] == [2, 4]
    assert str(raised.value).endswith("(1 more bad lines)")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_other_encodings_are_named(encoding: str) -> None:
    with pytest.raises(ValueError, match=r"^f: .* expected text in UTF-8; convert it, .*iconv -f UTF-16"):
        decode_lines("A man rides.\n".encode(encoding), "f")


def test_a_lone_surrogate_is_no_text() -> None:
    assert check_text("😀") == "😀"
    with pytest.raises(ValueError, match=r"^contains \\udc00, half of a surrogate pair"):
        check_text("a\udc00")


def test_bad_lines_of_all_readers_are_joined() -> None:
    def bad(file: str, number: int) -> str:
        raise BadLines([BadLine(file, number, "is bad")])

    with pytest.raises(BadLines) as raised:
        read_all([lambda: bad("a", 3), lambda: "fine", lambda: bad("b", 1), lambda: bad("a", 4)])
    assert raised.value.summary == ["a: 2 lines (each is bad): 3-4", "b: line 1 is bad"]
    assert read_all([lambda: 1, lambda: 2]) == [1, 2]
    assert ranges([9, 3, 4, 5, 1]) == "1, 3-5, 9"
