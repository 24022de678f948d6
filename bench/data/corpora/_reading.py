"""Readers of sentence pairs from text files, .tsv and .jsonl, plain or compressed. Each error message is one line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from bench.data.corpus import Split
from bench.data.languages import check_columns, check_files, check_header
from bench.data.stored_text import LineWriter
from bench.data.text_lines import BadLine, BadLines, check_not_binary, check_text, decode_lines, read_all

DECOMPRESS: Mapping[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""Ending of a compressed file -> the function that opens it for reading what was compressed."""

BLOCK_BYTES = 1 << 22
"""Bytes of a file that are decoded at a time, and the rest of the line that follows them."""

MAGIC = {
    rb"\x1f\x8b": "gzip (.gz)",
    rb"BZh\d1AY&SY": "bzip2 (.bz2)",
    rb"\xfd7zXZ\x00": "xz (.xz)",
    rb"\(\xb5/\xfd": "Zstandard (.zst)",
    rb"PK\x03\x04": "ZIP (.zip)",
    rb"PAR1\x15": "Parquet (.parquet)",
}
"""Patterns of the first bytes of files that are not text -> their format."""


def lines(path: Path) -> Sequence[str]:
    """The lines of a UTF-8 file, as `decode_lines` finds them; `.gz`, `.bz2` and `.xz` are decompressed.

    The file is read block by block, so that a large one is never in memory as a whole.

    Raises:
        ValueError: the file cannot be read, is empty, or is not text. The message names the file.
        BadLines: lines are not UTF-8.
    """
    writer, bad, has_text, first = LineWriter(), list[BadLine](), False, 1
    size = nul_bytes = 0
    for block in _blocks(path):
        if first == 1 and (found := next((name for magic, name in MAGIC.items() if re.match(magic, block)), None)):
            raise ValueError(
                f"{path}: the content is {found}, not text; expected text in UTF-8, or a name that ends in "
                f"{', '.join(DECOMPRESS)} for a compressed file; decompress or rename it"
            )
        try:
            decoded = decode_lines(block, str(path), first)
        except BadLines as error:
            bad += error.lines
            decoded = []
        size, nul_bytes = size + len(block), nul_bytes + block.count(0)
        check_not_binary(size, nul_bytes, str(path))
        has_text = has_text or any(map(str.strip, decoded))
        writer.add(decoded)
        first += block.count(b"\n")
    if bad:
        raise BadLines(bad)
    if not has_text:
        raise ValueError(f"{path}: the file is empty; it must have one sentence per line")
    return writer.finish()


def _blocks(path: Path) -> Iterator[bytes]:
    """A file, decompressed, in blocks of whole lines. Raises ValueError, one line, if it cannot be read."""
    try:
        with DECOMPRESS.get(path.suffix.lower(), open)(path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block if block.endswith(b"\n") else block + file.readline()
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise damaged(path, error) from error
    except FileNotFoundError as error:
        compressed = next((f"{path.name}{end}" for end in DECOMPRESS if Path(f"{path}{end}").exists()), None)
        hint = f"did you mean {compressed}?" if compressed else "check the path"
        raise ValueError(f"{path}: file not found; {hint}") from error
    except (OSError, ValueError) as error:
        if path.suffix.lower() in DECOMPRESS and not getattr(error, "errno", None):  # bz2 has no exception of its own
            raise damaged(path, error) from error
        raise ValueError(f"{path}: {getattr(error, 'strerror', None) or error}; check the file") from error


def damaged(path: Path, error: Exception) -> ValueError:
    """The error for a compressed file that cannot be decompressed."""
    kind = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}[path.suffix.lower()]
    return ValueError(f"{path}: damaged or incomplete {kind} file ({error}); download or compress it again")


def read_splits(readers: Mapping[str, Callable[[], Split]]) -> dict[str, Split]:
    """The splits by name.

    Raises:
        ValueError: a file cannot be read.
        BadLines: lines of one or more splits have a wrong format.
    """
    try:
        return dict(zip(readers, read_all(readers.values()), strict=True))
    except BadLines as error:
        raise BadLines(error.lines, "; bench data check lists all") from error


def two_files(source: Path, target: Path, languages: tuple[str, str] = ("", "")) -> Split:
    """The sentence pairs of two files; line i of one is the translation of line i of the other.

    Args:
        languages: Source and target language; the file names must not contradict them.

    Raises:
        ValueError: as `lines`, the files have different numbers of lines, or their names show other languages.
        BadLines: as `lines`, of both files.
    """
    check_files(str(source), str(target), *languages)
    sources, targets = read_all((lambda: lines(source), lambda: lines(target)))
    if len(sources) != len(targets):
        raise ValueError(
            f"{source} has {len(sources)} lines and {target} has {len(targets)}; line i of one must translate line i "
            "of the other"
        )
    return Split(sources, targets)


def one_file(path: Path, source: str, target: str, names: Sequence[str] | None = None) -> Split:
    """The sentence pairs of one file.

    In a `.tsv` file, source and target are the first two columns; every line has as many columns as the first. A first
    line with the tags of the two languages is a heading. A line of a `.jsonl` file is {"en": "...", "de": "..."} or, as
    in Hugging Face data sets, the same under the key "translation".

    Args:
        names: Names of the source and the target column: those in the first line of a `.tsv` file, which is a heading
            then, or keys of a `.jsonl` file, a.b being the key b below a. None: as above.

    Raises:
        ValueError: as `lines`, or the order of the columns contradicts the languages.
        BadLines: lines have another format.
    """
    kind = path.name.removesuffix(path.suffix if path.suffix.lower() in DECOMPRESS else "").rpartition(".")[2]
    if kind not in ("tsv", "jsonl"):
        raise ValueError(
            f"{path}: a file with both sides must be .tsv, .jsonl or .parquet; otherwise give two files, source first"
        )
    found = lines(path)
    columns, skipped = found[0].split("\t"), 0
    places = (0, 1)
    if names and len(names) != 2:
        raise ValueError(f"corpus.columns: {len(names)} names; expected two, the source column and the target column")
    if kind == "tsv":
        check_columns(str(path), source, target)
        if names:
            places = _places(str(path), columns, names)
        if names or check_header(str(path), columns, source, target):
            skipped = 1
    sources, targets = LineWriter(), LineWriter()
    bad: list[BadLine] = []
    for number, line in enumerate(found, start=1):
        if number <= skipped:
            continue
        try:
            pair = from_tsv(line, len(columns), places) if kind == "tsv" else from_json(line, source, target, names)
            sources.add(pair[:1])
            targets.add(pair[1:])
        except ValueError as error:
            bad.append(BadLine(str(path), number, str(error)))
    if bad:
        raise BadLines(bad)
    return Split(sources.finish(), targets.finish())


def _places(file: str, heading: Sequence[str], names: Sequence[str]) -> tuple[int, int]:
    """The indices of two columns of a table by their names. Raises ValueError if the heading lacks one."""
    cells = [cell.strip() for cell in heading]
    missing = [name for name in names if name not in cells]
    if missing:
        raise ValueError(
            f"corpus.columns: the first line of {file} has no column {', '.join(missing)}; expected a heading with the "
            f"names; it has {', '.join(cells)[:200]}"
        )
    return cells.index(names[0]), cells.index(names[1])


def from_tsv(line: str, columns: int, places: tuple[int, int] = (0, 1)) -> tuple[str, str]:
    """Source and target sentence of a line of a table.

    Raises:
        ValueError: the line has fewer than two columns, or not `columns` of them. An additional tab inside a sentence
            would otherwise make its rest the target.
    """
    cells = line.split("\t")
    if len(cells) < 2:
        raise ValueError("is not two columns separated by a tab; expected source and target")
    if len(cells) != columns:
        raise ValueError(
            f"has {len(cells)} columns and the first line has {columns}; expected as many; remove tabs inside sentences"
        )
    return cells[places[0]], cells[places[1]]


def from_json(line: str, source: str, target: str, names: Sequence[str] | None = None) -> tuple[str, str]:
    """Source and target sentence of a JSON line. Raises ValueError if it does not contain both as one line of text.

    Args:
        names: Names of the two keys, a.b being the key b below a; None: the languages.
    """
    source, target = names or (source, target)
    expected = f'is not a JSON object with one line of text for "{source}" and "{target}"'
    content: dict[str, Any] = {}
    try:
        content = json.loads(line)
        if not names:
            content = content.get("translation", content)
        pair = _value(content, source), _value(content, target)
    except RecursionError:
        raise ValueError(f"{expected}; it is nested too deeply") from None
    except KeyError:
        raise ValueError(f"{expected}; it has the keys {', '.join(list(content)[:5]) or 'none'}") from None
    except (ValueError, AttributeError, TypeError):
        raise ValueError(expected) from None
    for language, sentence in zip((source, target), pair, strict=True):
        if not isinstance(sentence, str):
            raise ValueError(f'{expected}; "{language}" is {type(sentence).__name__}')
        if "\n" in sentence:
            raise ValueError(f'{expected}; "{language}" has a line break')
        check_text(sentence)
    return pair


def _value(content: Any, name: str) -> Any:
    """The value of a key, or of a key below a key: of "a.b" if there is one, else of "b" below "a"."""
    if name in content or "." not in name:
        return content[name]
    first, _, rest = name.partition(".")
    return _value(content[first], rest)
