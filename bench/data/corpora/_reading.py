"""Readers of sentence pairs from text files, .tsv and .jsonl, plain or gzipped. Each error message is one line."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

from bench.data.corpus import Split


def lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file; `.gz` is decompressed.

    Only a line feed ends a line. Otherwise a Unicode separator inside a sentence would give a file more lines than its
    translation has. A byte-order mark and carriage returns at line ends are removed.

    Raises:
        ValueError: the file cannot be read, is empty, or is not UTF-8. The message names the file and the line.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged or incomplete gzip file ({error}); download or compress it again") from error
    except FileNotFoundError as error:
        compressed = path.with_name(f"{path.name}.gz")
        hint = f"did you mean {compressed.name}?" if compressed.exists() else "check the path"
        raise ValueError(f"{path}: file not found; {hint}") from error
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}: line {line} is not valid UTF-8; convert the file, for example with iconv") from error
    if not text.strip():
        raise ValueError(f"{path}: the file is empty; it must have one sentence per line")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def two_files(source: Path, target: Path) -> Split:
    """The sentence pairs of two files; line i of one is the translation of line i of the other.

    Raises:
        ValueError: as `lines`, or the files have different numbers of lines.
    """
    sources, targets = lines(source), lines(target)
    if len(sources) != len(targets):
        raise ValueError(
            f"{source} has {len(sources)} lines and {target} has {len(targets)}; line i of one must translate line i "
            "of the other"
        )
    return Split(sources, targets)


def one_file(path: Path, source: str, target: str) -> Split:
    """The sentence pairs of one file.

    In a `.tsv` file, source and target are the first two columns. A line of a `.jsonl` file is
    {"en": "...", "de": "..."} or, as in Hugging Face data sets, the same under the key "translation".

    Raises:
        ValueError: as `lines`, or a line has another format. The message names the file and the line.
    """
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind not in ("tsv", "jsonl"):
        raise ValueError(
            f"{path}: a file with both sides must be .tsv or .jsonl; otherwise give two files, source first"
        )
    sources, targets = [], []
    for number, line in enumerate(lines(path), start=1):
        pair = line.split("\t")[:2] if kind == "tsv" else from_json(line, source, target)
        if len(pair) != 2 or "\n" in "".join(pair):
            expected = (
                "two columns" if kind == "tsv" else f'a JSON object with one line of text for "{source}" and "{target}"'
            )
            raise ValueError(f"{path}: line {number} is not {expected}")
        sources.append(pair[0])
        targets.append(pair[1])
    return Split(sources, targets)


def from_json(line: str, source: str, target: str) -> list[str]:
    """Source and target sentence of a JSON line, or [] if it does not contain both."""
    try:
        content = json.loads(line)
        pair = [content.get("translation", content)[language] for language in (source, target)]
    except (ValueError, AttributeError, KeyError, TypeError):
        return []
    return pair if all(isinstance(sentence, str) for sentence in pair) else []
