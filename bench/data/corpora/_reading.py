"""Sentence pairs from files of lines, tables and JSON lines, plain or gzipped. What is wrong is said in one line."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

from bench.data.corpus import Split


def lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, as they stand; `.gz` is unpacked.

    Only line feeds end a line (one file must not have more lines than its counterpart because of a Unicode separator
    inside a sentence). A byte-order mark and carriage returns at line ends are dropped.

    Raises:
        ValueError: the file cannot be read, is empty, or is not UTF-8; names the file and the line.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error}); fetch or pack it again") from error
    except FileNotFoundError as error:
        packed = path.with_name(f"{path.name}.gz")
        mend = f"did you mean {packed.name}?" if packed.exists() else "name one that there is"
        raise ValueError(f"{path}: there is no such file; {mend}") from error
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}: line {line} is not valid UTF-8; convert the file, for example with iconv") from error
    if not text.strip():
        raise ValueError(f"{path}: the file is empty; give one with a sentence in each line")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def two_files(source: Path, target: Path) -> Split:
    """Line i of one file translates line i of the other.

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
    """Both sides from one file: `.tsv`, source and target in the first two columns, or `.jsonl`, keyed by language.

    A line of JSON is {"en": "...", "de": "..."} or, as in Hugging Face data sets, the same under "translation".

    Raises:
        ValueError: as `lines`, or a line is not like that; names the file and the line.
    """
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind not in ("tsv", "jsonl"):
        raise ValueError(f"{path}: one file for both sides must be .tsv or .jsonl; otherwise give two, source first")
    sources, targets = [], []
    for number, line in enumerate(lines(path), start=1):
        pair = line.split("\t")[:2] if kind == "tsv" else from_json(line, source, target)
        if len(pair) != 2 or "\n" in "".join(pair):
            wanted = (
                "two columns" if kind == "tsv" else f'a JSON object with one line of text for "{source}" and "{target}"'
            )
            raise ValueError(f"{path}: line {number} is not {wanted}")
        sources.append(pair[0])
        targets.append(pair[1])
    return Split(sources, targets)


def from_json(line: str, source: str, target: str) -> list[str]:
    """Both sentences, or [] where the line does not hold them."""
    try:
        content = json.loads(line)
        pair = [content.get("translation", content)[language] for language in (source, target)]
    except (ValueError, AttributeError, KeyError, TypeError):
        return []
    return pair if all(isinstance(sentence, str) for sentence in pair) else []
