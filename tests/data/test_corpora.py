"""Corpora from files. For a bad file the error is one line with the file, the line number and how to fix it."""

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.data.corpus import Corpus, CorpusSettings
from bench.data.find_corpus import load, names, qualified_name
from bench.data.text_lines import BadLines

ENGLISH = "A man rides.\n\nTwo dogs run.\n"
GERMAN = "Ein Mann fährt.\n\nZwei Hunde laufen.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of Multi30k, each with a few lines."""
    for split in ("train", "val", "test_2016_flickr"):
        (tmp_path / f"{split}.en").write_text(ENGLISH)
        with gzip.open(tmp_path / f"{split}.de.gz", "wb") as file:
            file.write(GERMAN.encode())
    return tmp_path


def files(folder: Path, name: str = "files", **changed: list[str] | None) -> Corpus:
    settings: dict[str, Any] = {
        "name": name,
        "train": [str(folder / "train.en"), str(folder / "train.de.gz")],
        "val": [str(folder / "val.en"), str(folder / "val.de.gz")],
        "test": [str(folder / "test_2016_flickr.en"), str(folder / "test_2016_flickr.de.gz")],
    }
    return load(CorpusSettings(**{**settings, **changed}))


def test_each_file_without_leading_underscore_is_a_corpus() -> None:
    assert {"files", "grammar", "multi30k"} <= set(names())
    assert not [name for name in names() if name.startswith("_")]


def test_multi30k_is_read_from_a_folder_of_plain_or_gzipped_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = load(CorpusSettings(name="multi30k-de-en", path=str(folder)))
    assert (corpus.name, corpus.direction) == ("multi30k-de-en", "de-en")
    assert list(corpus.train) == list(zip(GERMAN.split("\n")[:-1], ENGLISH.split("\n")[:-1], strict=True))
    assert list(corpus.tests) == ["test_2016_flickr"]
    monkeypatch.setenv("MULTI30K", str(folder))
    assert load(CorpusSettings(name="multi30k-de-en")) == corpus


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("multi30k", "{}", "write multi30k-SRC-TGT"),
        ("multi30k-en", "{}", "is not NAME-SRC-TGT"),
        ("multi30k-en-cs", None, "environment variable MULTI30K"),
        ("multi30k-en-de", "{}/nowhere", "there is no folder"),
        ("multi30k-en-ko", "{}", "no train.ko, nor train.ko.gz; it has train files for de, en"),
        ("multi31k-en-de", "{}", "there is no corpus 'multi31k'"),
    ],
)
def test_multi30k_error_names_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, path: str | None, message: str
) -> None:
    monkeypatch.delenv("MULTI30K", raising=False)
    with pytest.raises(ValueError, match=r"^corpus\.\w+: |^/") as raised:
        load(CorpusSettings(name=name, path=path and path.format(folder)))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_multi30k_needs_a_test_set(folder: Path) -> None:
    (folder / "test_2016_flickr.en").unlink()
    with pytest.raises(ValueError, match="no test set for en-de"):
        load(CorpusSettings(name="multi30k-en-de", path=str(folder)))


def test_languages_are_the_file_endings(folder: Path) -> None:
    corpus = files(folder)
    assert (corpus.name, corpus.source_language, corpus.target_language) == ("files-en-de", "en", "de")
    assert corpus.tests["test"].targets[1] == ""  # an empty line is an empty sentence
    assert files(folder, "files-src-tgt").direction == "src-tgt"  # a name without languages contradicts no ending


@pytest.mark.parametrize(
    ("train", "name"),
    [
        (["a.fr", "a.en.gz"], "files-fr-en"),
        (["a.EN.BZ2", "a.zh-CN.xz"], "files-en-zh_cn"),
        (["train.en.txt", "train.de.tok.txt"], "files-en-de"),
        (["train.en-de.en", "train.en-de.de"], "files-en-de"),
        (["a.1", "a.2"], "files-1-2"),
    ],
)
def test_the_name_of_a_corpus_has_the_languages_of_its_files(train: list[str], name: str) -> None:
    assert qualified_name(CorpusSettings(name="files", train=train)) == name


@pytest.mark.parametrize(("end", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_compressed_files(folder: Path, end: str, compress: Callable[[bytes], bytes]) -> None:
    (folder / f"train.de.{end}").write_bytes(compress(GERMAN.encode()))
    train = [str(folder / "train.en"), str(folder / f"train.de.{end}")]
    assert files(folder, train=train).train.targets == GERMAN.split("\n")[:-1]


def test_one_file_can_have_both_sides(folder: Path) -> None:
    table, objects, nested = folder / "a.tsv", folder / "b.jsonl.gz", folder / "c.jsonl"
    table.write_text("One.\tEins.\tby somebody\r\n\tZwei.\t\r\n")
    objects.write_bytes(gzip.compress(b'{"de": "Eins.", "en": "One.", "id": 3}\n{"en": "", "de": "Zwei."}\n', mtime=0))
    nested.write_text('{"translation": {"de": "Eins.", "en": "One."}}\n{"translation": {"en": "", "de": "Zwei."}}\n')
    corpus = files(folder, "files-en-de", train=[str(table)], val=[str(objects)], test=[str(nested)])
    assert list(corpus.train) == [("One.", "Eins."), ("", "Zwei.")]
    assert corpus.train == corpus.validation == corpus.tests["test"]


def test_every_bad_line_of_every_file_is_named(folder: Path) -> None:
    train, val = folder / "a.jsonl", folder / "b.tsv"
    train.write_text('{"en": "\\ud800", "de": ""}\n{"en": "One.", "de": "Eins."}\n3\n{"en": "\\udc00", "de": ""}\n')
    val.write_bytes(b"One.\tEins.\n\xff\n\xfe\n\xfd\n")
    with pytest.raises(BadLines) as raised:
        files(folder, "files-en-de", train=[str(train)], val=[str(val)])
    assert [(Path(line.file).name, line.number) for line in raised.value.lines] == [
        ("a.jsonl", 1),
        ("a.jsonl", 3),
        ("a.jsonl", 4),
        ("b.tsv", 2),
        ("b.tsv", 3),
        ("b.tsv", 4),
    ]
    assert str(raised.value).endswith("(5 more bad lines; bench data check lists all)")
    assert str(raised.value).startswith(f"{train}: line 1 contains \\ud800, half of a surrogate pair")
    assert raised.value.summary[-1].startswith(f"{val}: 3 lines (each is not valid UTF-8")
    assert raised.value.summary[-1].endswith("): 2-4")


def test_a_heading_is_not_a_sentence_pair(folder: Path) -> None:
    table = folder / "a.tsv"
    table.write_text("eng\tde_DE\nOne.\tEins.\n")
    assert list(files(folder, "files-en-de", train=[str(table)]).train) == [("One.", "Eins.")]
    for heading in ("de\ten", "en\tfr"):
        table.write_text(f"{heading}\nOne.\tEins.\n")
        with pytest.raises(ValueError, match=r"a\.tsv: the heading says .* corpus\.name says en-de"):
            files(folder, "files-en-de", train=[str(table)])


def test_names_that_contradict_the_languages_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.en: is the source file of a corpus de-en, but its name says en"):
        files(folder, "files-de-en")
    exchanged = [str(folder / "train.de.gz"), str(folder / "train.en")]
    with pytest.raises(ValueError, match=r"val\.en: is the source file of a corpus de-en, but its name says en"):
        files(folder, "files-de-en", train=exchanged)
    with pytest.raises(ValueError, match=r"val\.de\.gz: is the source file of a corpus en-de, but its name says de"):
        files(folder, val=[str(folder / "val.de.gz"), str(folder / "val.en")])
    (folder / "a.de-en.tsv").write_text("One.\tEins.\n")
    with pytest.raises(ValueError, match=r"the name says de-en, and corpus\.name says en-de"):
        files(folder, "files-en-de", test=[str(folder / "a.de-en.tsv")])


@pytest.mark.parametrize("content", [b"\tEins.\n\tZwei.\n", b"One.\t\nTwo.\t \n"])
def test_a_split_with_an_empty_side_is_refused(folder: Path, content: bytes) -> None:
    (folder / "a.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=r"^files-en-de: the (source|target) side of test has no sentence"):
        files(folder, "files-en-de", test=[str(folder / "a.tsv")])


def test_only_line_feeds_end_a_line(folder: Path) -> None:
    (folder / "train.en").write_bytes("\ufeffa\u2028b\r\nc\x85d\x0ce\n f ".encode())
    assert files(folder).train.sources == ["a\u2028b", "c\x85d\x0ce", " f "]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"One.\nTwo.\n", "train.en has 2 lines and {}/train.de.gz has 3"),
        (b"", "{}/train.en: the file is empty"),
        (b"\n\n", "{}/train.en: the file is empty"),
        (b"One.\nTw\xff.\n\n", "{}/train.en: line 2 is not valid UTF-8"),
        (None, "{}/train.en: file not found; check the path"),
    ],
)
def test_the_error_for_a_bad_text_file_names_it(folder: Path, content: bytes | None, message: str) -> None:
    (folder / "train.en").unlink() if content is None else (folder / "train.en").write_bytes(content)
    with pytest.raises(ValueError, match=r"train\.en") as raised:
        files(folder)
    assert message.format(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.tsv", b"One.\tEins.\nTwo.\n", "line 2 is not two columns"),
        ("a.tsv", b"One.\tEins.\nOne\tmore.\tZwei.\n", "line 2 has 3 columns and the first line has 2"),
        ("a.tsv", b"One.\tEins.\n\xff\tZwei.\n", "line 2 is not valid UTF-8"),
        ("a.tsv", "One.\tEins.\n".encode("utf-16"), "begins with the byte-order mark of UTF-16"),
        ("a.tsv", "One.\tEins.\n".encode("utf-16-le"), "a quarter of the file are NUL bytes; expected text in UTF-8"),
        ("a.tsv", gzip.compress(b"One.\tEins.\n", mtime=0), "the content is gzip (.gz), not text"),
        ("a.tsv", b"PAR1\x15\x04", "the content is Parquet (.parquet), not text"),
        ("a.jsonl", b'{"en": "a", "de": "b\\ud800"}\n', "line 1 contains \\ud800, half of a surrogate pair"),
        ("a.jsonl", b'{"en": "a", "de": null}\n', '"de" is NoneType'),
        ("a.jsonl", b'{"en": "a", "fr": "b"}\n', "it has the keys en, fr"),
        ("a.jsonl", b'{"translation": null}\n', "line 1 is not a JSON object"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "it is nested too deeply"),
        ("a.jsonl", b'{"en": "a", "de": "b"}\n{"en": "a"}\n', "line 2 is not a JSON object"),
        ("a.jsonl", b'{"en": "a", "de": 3}\n', "line 1 is not a JSON object"),
        ("a.jsonl", b'{"en": "a", "de": "b\\nc"}\n', "line 1 is not a JSON object with one line"),
        ("a.jsonl", b"[1]\n", "line 1 is not"),
        ("a.jsonl", b"{\n", "line 1 is not"),
        ("a.csv", b"One.,Eins.\n", "must be .tsv, .jsonl or .parquet"),
        ("a.tsv.gz", b"One.\tEins.\n", "damaged or incomplete gzip file"),
        ("a.tsv.gz", gzip.compress(b"One.\tEins.\n", mtime=0)[:-4], "damaged or incomplete gzip file"),
        ("a.tsv.bz2", b"One.\tEins.\n", "damaged or incomplete bzip2 file"),
        ("a.tsv.xz", lzma.compress(b"One.\tEins.\n")[:-4], "damaged or incomplete xz file"),
    ],
)
def test_the_error_for_a_bad_table_names_it(folder: Path, file: str, content: bytes, message: str) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"{folder}/{file}: ") as raised:
        files(folder, "files-en-de", val=[str(folder / file)])
    assert message in str(raised.value)


@pytest.mark.parametrize("key", ["train", "val", "test"])
def test_the_error_for_a_missing_setting_names_it(folder: Path, key: str) -> None:
    for value in (None, [], ["a", "b", "c"], ["a.parquet", "b", "c"]):
        with pytest.raises(ValueError, match=rf"corpus\.{key}: give two text files"):
            files(folder, "files-en-de", **{key: value})


@pytest.mark.parametrize("train", [["data/a", "data/b"], ["a.en", "b.en"], ["a.tsv"], ["a.en", "./b"]])
def test_file_endings_that_are_no_languages_are_an_error(folder: Path, train: list[str]) -> None:
    with pytest.raises(ValueError, match="write files-SRC-TGT"):
        files(folder, train=train)


@pytest.mark.skipif(
    "MULTI30K" not in os.environ, reason="The environment variable MULTI30K is not set to the folder of Multi30k"
)
def test_the_real_multi30k() -> None:
    corpus = load(CorpusSettings(name="multi30k-en-de"))
    assert (len(corpus.train), len(corpus.validation)) == (29000, 1014)
    assert {name: len(split) for name, split in corpus.tests.items()} == dict.fromkeys(
        ("test_2016_flickr", "test_2017_flickr"), 1000
    )
    assert corpus.tests["test_2016_flickr"].sources[0] == "A man in an orange hat starring at something."


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            CorpusSettings(train=["a.en", "a.de"]),
            r"corpus\.train: is for the corpus files, .* set corpus\.name to files",
        ),
        (CorpusSettings("multi30k-en-de", columns=["a", "b"]), r"corpus\.columns: is for the corpus files"),
        (CorpusSettings(path="captions"), r"corpus\.path: is for the corpus multi30k, but .* is grammar-en-de"),
    ],
)
def test_text_that_a_corpus_does_not_read_is_refused(settings: CorpusSettings, message: str) -> None:
    """Else a model would be trained on other text than was given, without a word."""
    with pytest.raises(ValueError, match=message):
        load(settings)
