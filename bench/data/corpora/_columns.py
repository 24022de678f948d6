"""Reads sentence pairs from columns: Parquet files, and data sets of Hugging Face that `save_to_disk` has written.

Batches of rows are read, never a whole table, and only the two columns that are needed. A data set on disk is a folder
of Arrow files with state.json, or one such folder for each split with dataset_dict.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.data.corpus import Split
from bench.data.languages import check_columns, languages_of, same_language
from bench.data.stored_text import LineWriter
from bench.data.text_lines import BadLine, BadLines
from bench.system.files import inside

ENDINGS = (".parquet", ".arrow")
"""Endings of files with columns."""

SPLITS = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""Setting -> names of its split in data sets of Hugging Face."""

ROWS = 1 << 16
"""Rows that are read at a time."""

Column = tuple[str, ...]
"""A column, or the column of a struct and the field in it."""


def is_table(path: Path) -> bool:
    """Whether a path is a folder, or a file with columns."""
    return path.suffix.lower() in ENDINGS or path.is_dir()


def files_of(path: Path, key: str) -> list[Path]:
    """The files of a split: the path itself, or those of a folder.

    Args:
        path: A file, or a folder: one that `save_to_disk` has written, or one whose Parquet files have the split in
            their names, such as train-00000-of-00003.parquet.
        key: train, val or test.

    Raises:
        ValueError: the folder has no such split, or is no data set.
    """
    if not path.is_dir():
        return [path]
    names = SPLITS[key]
    if (path / "dataset_dict.json").is_file():
        found = _read_json(path / "dataset_dict.json").get("splits", [])
        split = next((name for name in names if name in found), None)
        if split is None:
            raise ValueError(
                f"{path}: the data set has no split {' or '.join(names)}; it has {', '.join(map(str, found))}; give "
                f'the folder of another split, such as --corpus.{key} "[{path}/{found[0] if found else "train"}]"'
            )
        path = inside(path, split)
    if (path / "state.json").is_file():
        state = _read_json(path / "state.json")
        if state.get("_indices_data_files"):
            raise ValueError(
                f"{path}: the data set is a selection of rows of its files; save it again with a current version of "
                "the package datasets, which writes the selected rows"
            )
        try:
            return [inside(path, str(file["filename"])) for file in state["_data_files"]]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path / 'state.json'}: names no files; expected what save_to_disk writes; save the data set again"
            ) from error
    files = [file for folder in (path, path / "data") for file in sorted(folder.glob("*.parquet"))]
    if found := [
        file for file in files if file.name.startswith(tuple(f"{name}{sign}" for name in names for sign in "-."))
    ]:
        return found
    raise ValueError(
        f"{path}: is no data set that was saved with save_to_disk (no state.json, no dataset_dict.json), and has no "
        f"Parquet file whose name begins with {' or '.join(names)}; give the files themselves"
    )


def read_columns(
    paths: Sequence[Path], source: str, target: str, names: Sequence[str] | None = None, check_names: bool = False
) -> Split:
    """The sentence pairs of files with columns, in their order.

    The columns are those with the given names. Without names they are those named like the languages, in a struct
    (`translation`: {"en": ..., "de": ...}) or not; if there are only two columns of text and their names are no
    languages, the first is the source.

    Args:
        paths: Parquet files, or Arrow files in the format of streams.
        source: Source language.
        target: Target language.
        names: Names of the source and the target column; a.b is the field b of the struct a.
        check_names: Whether names of files that give the languages in the other order are refused.

    Raises:
        ValueError: a file is missing or damaged, or has no such columns.
        BadLines: rows have no text, or a line break in it; their numbers count from 1 in each file.
    """
    sources, targets = LineWriter(), LineWriter()
    bad: list[BadLine] = []
    for path in paths:
        if check_names:
            check_columns(str(path), source, target)
        row = 0
        try:
            for batch in _batches(path, source, target, names):
                for name, column, texts in zip((source, target), batch, (sources, targets), strict=True):
                    values, problems = _texts(column, name)
                    texts.add(values)
                    bad += [BadLine(str(path), row + index + 1, problem) for index, problem in problems]
                row += len(batch[0])
        except FileNotFoundError as error:
            raise ValueError(f"{path}: file not found; check the path") from error
        except (pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None):
                raise
            kind = path.suffix.lstrip(".").capitalize()
            raise ValueError(
                f"{path}: damaged or incomplete {kind} file ({str(error).splitlines()[0][:120]}); write or download it "
                "again"
            ) from error
    if bad:
        raise BadLines(sorted(bad, key=lambda line: (line.file, line.number)))
    return Split(sources.finish(), targets.finish())


def find_columns(schema: pa.Schema, source: str, target: str, names: Sequence[str] | None, file: str) -> list[Column]:
    """The source and the target column of a file: see `read_columns`. Raises ValueError if they cannot be found."""
    columns = list(_text_columns(schema))
    listed = ", ".join(".".join(column) for column in columns) or "none"
    if names:
        found = [next((column for column in columns if ".".join(column) == name), None) for name in names]
        if len(names) != 2 or None in found:
            missing = [name for name, column in zip(names, found, strict=True) if column is None]
            raise ValueError(
                f"corpus.columns: {file} has no column of text {', '.join(missing)}; expected two of its columns, "
                f"source first; it has {listed}"
            )
        return [column for column in found if column]
    found = [_named_like(columns, language) for language in (source, target)]
    if all(found) and found[0] != found[1]:
        return [column for column in found if column]
    if len(columns) == 2 and not any(languages_of(column[-1]) for column in columns):
        return columns
    raise ValueError(
        f"{file}: there are no two columns of text for {source} and {target}; it has {listed}; name the two columns, "
        'source first: --corpus.columns "[SOURCE,TARGET]"'
    )


def _named_like(columns: Sequence[Column], language: str) -> Column | None:
    """The only column whose name is the language, else the only one whose name can stand for it."""
    for same in (lambda name: name.lower() == language.lower(), lambda name: same_language(name, language)):
        if len(found := [column for column in columns if same(column[-1])]) == 1:
            return found[0]
    return None


def _text_columns(schema: pa.Schema) -> Iterator[Column]:
    for field in schema:
        if _is_text(field.type):
            yield (field.name,)
        elif pa.types.is_struct(field.type):
            yield from ((field.name, inner.name) for inner in field.type if _is_text(inner.type))


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _batches(path: Path, source: str, target: str, names: Sequence[str] | None) -> Iterator[list[pa.Array]]:
    """The source and the target column of some rows at a time."""
    if path.suffix.lower() == ".arrow":
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
            columns = find_columns(reader.schema, source, target, names, str(path))
            for batch in reader:
                for begin in range(0, len(batch), ROWS):
                    yield [_column(batch.slice(begin, ROWS), column) for column in columns]
    else:
        with pq.ParquetFile(path, memory_map=True) as file:
            columns = find_columns(file.schema_arrow, source, target, names, str(path))
            for batch in file.iter_batches(ROWS, columns=[".".join(column) for column in columns]):
                yield [_column(batch, column) for column in columns]


def _column(batch: pa.RecordBatch, column: Column) -> pa.Array:
    array = batch.column(column[0])
    if len(column) == 1:
        return array
    assert isinstance(array, pa.StructArray)
    return array.flatten()[array.type.get_field_index(column[1])]  # a null struct has null fields


def _texts(array: pa.Array, name: str) -> tuple[list[str], list[tuple[int, str]]]:
    """The sentences of a column, and the indices of rows that cannot be read, each with what is wrong."""
    try:
        values: list[str | None] = array.to_pylist()
    except UnicodeDecodeError:
        raw: list[bytes | None] = array.cast(pa.large_binary()).to_pylist()
        texts = [(value or b"").decode(errors="replace") for value in raw]
        invalid = [row for row, value in enumerate(raw) if value and not _is_utf8(value)]
        return texts, [(row, f'has "{name}" not in UTF-8; expected text in UTF-8') for row in invalid]
    problems: list[tuple[int, str]] = []
    if array.null_count or any("\n" in value for value in values if value):
        for row, value in enumerate(values):
            if value is None:
                problems.append((row, f'has null as "{name}"; expected text'))
            elif "\n" in value:
                problems.append((row, f'has a line break in "{name}"; expected one line'))
    return [value or "" for value in values], problems


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON ({str(error)[:80]}); expected a file of save_to_disk") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: is not a JSON object; expected a file of save_to_disk")
    return content
