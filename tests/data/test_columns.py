"""Parquet files, data sets of Hugging Face on disk, and tables whose columns have names of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.data.corpora import _columns
from bench.data.corpora._columns import read_columns
from bench.data.corpus import Corpus, CorpusSettings, Split
from bench.data.find_corpus import load
from bench.data.text_lines import BadLines

PAIRS = [("One.", "Eins."), ("", "Zwei."), ("Drei\r\u2028!", "Ünf 三")]
NESTED = {"translation": [{"de": german, "en": english} for english, german in PAIRS]}
FLAT = {"id": [1, 2, 3], "de": [german for _, german in PAIRS], "en": [english for english, _ in PAIRS]}


def saved_to_disk(folder: Path, content: Mapping[str, Sequence[Any]], files: int = 1) -> None:
    """A folder as `datasets.Dataset.save_to_disk` (5.2) writes it: Arrow streams, state.json, dataset_info.json."""
    folder.mkdir(parents=True)
    table, names = pa.table(dict(content)), [f"data-{n:05}-of-{files:05}.arrow" for n in range(files)]
    size = -(-len(table) // files)
    for number, name in enumerate(names):
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table.slice(number * size, size), max_chunksize=2)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0123", "_split": folder.name}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def corpus(
    files: str | Path | Mapping[str, str], name: str = "files-en-de", columns: list[str] | None = None
) -> Corpus:
    """A corpus whose three splits are the same file or folder, or one each."""
    each = files if isinstance(files, Mapping) else dict.fromkeys(("train", "val", "test"), str(files))
    train, val, test = ([each[key]] for key in ("train", "val", "test"))
    return load(CorpusSettings(name, train=train, val=val, test=test, columns=columns))


@pytest.mark.parametrize("content", [NESTED, FLAT], ids=["nested", "flat"])
@pytest.mark.parametrize("form", ["parquet", "folder", "dictionary of splits", "hub"])
def test_columns_are_found_by_the_languages(tmp_path: Path, content: Mapping[str, Sequence[Any]], form: str) -> None:
    path = tmp_path / ("data.parquet" if form == "parquet" else "data")
    if form == "parquet":
        pq.write_table(pa.table(dict(content)), path, row_group_size=2)
    elif form == "folder":
        saved_to_disk(path, content, files=2)
    elif form == "hub":
        (path / "data").mkdir(parents=True)
        table = pa.table(dict(content))
        for split in ("train", "validation", "test"):
            for part in range(2):
                pq.write_table(table.slice(2 * part, 2), path / "data" / f"{split}-0000{part}-of-00002.parquet")
    else:
        for split in ("train", "validation", "test"):
            saved_to_disk(path / split, content)
        (path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation", "test"]}))
    found = corpus(path)
    assert list(found.train) == PAIRS
    assert found.train == found.validation == found.tests["test"]
    assert list(corpus(path, "files-de-en").train) == [(german, english) for english, german in PAIRS]


def test_a_split_is_read_in_blocks_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_columns, "ROWS", 2)
    saved_to_disk(tmp_path / "a", NESTED)
    pq.write_table(pa.table(NESTED), tmp_path / "b.parquet")
    for path in (tmp_path / "a" / "data-00000-of-00001.arrow", tmp_path / "b.parquet"):
        assert list(read_columns([path], "en", "de")) == PAIRS


@pytest.mark.parametrize(
    ("content", "names", "expected"),
    [
        ({"src": ["One."], "tgt": ["Eins."]}, None, ("One.", "Eins.")),
        ({"eng_Latn": ["One."], "deu_Latn": ["Eins."]}, None, ("One.", "Eins.")),
        ({"en": ["One."], "en_US": ["1."], "de": ["Eins."]}, None, ("One.", "Eins.")),
        ({"german": ["Eins."], "english": ["One."], "note": ["x"]}, ["english", "german"], ("One.", "Eins.")),
        ({"pair": [{"a": "One.", "b": "Eins."}]}, ["pair.a", "pair.b"], ("One.", "Eins.")),
        ({"a.b": ["One."], "c": ["Eins."]}, ["a.b", "c"], ("One.", "Eins.")),
        ({"src": pa.array(["One."], pa.large_string()), "tgt": ["Eins."]}, None, ("One.", "Eins.")),
    ],
)
def test_columns_are_found_by_their_names(
    tmp_path: Path, content: dict[str, Any], names: list[str] | None, expected: tuple[str, str]
) -> None:
    pq.write_table(pa.table(content), tmp_path / "a.parquet")
    assert list(corpus(tmp_path / "a.parquet", columns=names).train) == [expected]


def test_names_of_columns_hold_for_lines_too(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("id\tgerman\tenglish\n1\tEins.\tOne.\n")
    (tmp_path / "b.jsonl").write_text('{"pair": {"german": "Eins.", "x.y": "One."}}\n')
    assert list(corpus(tmp_path / "a.tsv", columns=["english", "german"]).train) == [("One.", "Eins.")]
    assert list(corpus(tmp_path / "b.jsonl", columns=["pair.x.y", "pair.german"]).train) == [("One.", "Eins.")]
    for columns, message in (
        (
            ["english", "french"],
            r"corpus\.columns: the first line of .*a\.tsv has no column french; .* id, german, engl",
        ),
        (["english"], r"corpus\.columns: 1 names; expected two"),
    ):
        with pytest.raises(ValueError, match=message):
            corpus(tmp_path / "a.tsv", columns=columns)
    with pytest.raises(ValueError, match=r'line 1 is not a JSON object with one line of text for "pair\.z" and'):
        corpus(tmp_path / "b.jsonl", columns=["pair.z", "pair.german"])


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (
            {"en": ["One."], "fr": ["Un."]},
            None,
            r"no two columns of text for en and de; it has en, fr; name the two col",
        ),
        ({"a": ["x"], "b": ["y"], "c": ["z"]}, None, r"it has a, b, c; name the two columns"),
        ({"en": [1], "de": ["Eins."]}, None, r"it has de; name"),
        ({"en": ["One."], "de": ["Eins."]}, ["en", "fr"], r"has no column of text fr; expected two of its columns"),
    ],
)
def test_the_error_for_missing_columns_names_those_that_there_are(
    tmp_path: Path, content: dict[str, Any], columns: list[str] | None, message: str
) -> None:
    pq.write_table(pa.table(content), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message) as raised:
        corpus(tmp_path / "a.parquet", columns=columns)
    assert str(tmp_path / "a.parquet") in str(raised.value)


def test_every_bad_row_is_named(tmp_path: Path) -> None:
    invalid = pa.array([b"a", b"\xff"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"en": invalid, "de": ["Eins.", "Zwei."]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"en": ["One.", None, "a\nb"], "de": ["Eins.", "", ""]}), tmp_path / "b.parquet")
    with pytest.raises(BadLines) as raised:
        corpus(
            {
                "train": str(tmp_path / "a.parquet"),
                "val": str(tmp_path / "b.parquet"),
                "test": str(tmp_path / "b.parquet"),
            }
        )
    assert [(Path(line.file).name, line.number, line.problem) for line in raised.value.lines] == [
        ("a.parquet", 2, 'has "en" not in UTF-8; expected text in UTF-8'),
        ("b.parquet", 2, 'has null as "en"; expected text'),
        ("b.parquet", 3, 'has a line break in "en"; expected one line'),
    ]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncated, emptied, Path.unlink])
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: Callable[[Path], object], ending: str) -> None:
    path = tmp_path / "data-00000-of-00001.arrow"
    if ending == "arrow":
        saved_to_disk(tmp_path / "a", {"en": ["One."] * 100, "de": ["Eins."] * 100})
        path = tmp_path / "a" / path.name
    else:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table(FLAT), path)
    damage(path)
    with pytest.raises(
        ValueError, match=rf"{path.name}: (damaged or incomplete {ending.capitalize()} file|file not found)"
    ) as raised:
        corpus(path)
    assert "\n" not in str(raised.value)


def test_the_error_for_a_folder_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"empty: is no data set that was saved with save_to_disk .* begins with train"
    ):
        corpus(tmp_path / "empty")
    saved_to_disk(tmp_path / "dict" / "train", NESTED)
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(ValueError, match=r"no split validation or valid or val or dev; it has train; give the folder"):
        corpus(tmp_path / "dict")
    state = tmp_path / "dict" / "train" / "state.json"
    for content, message in (
        ('{"_data_files": [{"filename": "../../secret.arrow"}]}', "is not used as the name of a file"),
        ('{"_data_files": [], "_indices_data_files": [{"filename": "i.arrow"}]}', "is a selection of rows"),
        ("{}", "names no files"),
        ('{"_data_files": ["a.arrow"]}', "names no files"),
        ("[]", "is not a JSON object"),
        ("{", "is not JSON"),
    ):
        state.write_text(content)
        with pytest.raises(ValueError, match=message):
            corpus(tmp_path / "dict" / "train")


def test_a_file_whose_name_gives_the_other_order_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"src": ["One."], "tgt": ["Eins."]}), tmp_path / "a.de-en.parquet")
    with pytest.raises(ValueError, match=r"the name says de-en, and corpus\.name says en-de"):
        corpus(tmp_path / "a.de-en.parquet")


def test_a_column_is_read_without_the_others(tmp_path: Path) -> None:
    many = {"en": ["One."] * 5, "de": ["Eins."] * 5, "image": [b"x" * 100] * 5, "list": [["a"]] * 5}
    pq.write_table(pa.table(many), tmp_path / "a.parquet")
    assert read_columns([tmp_path / "a.parquet"], "de", "en") == Split(["Eins."] * 5, ["One."] * 5)
