"""WMT 2014: news and parliament, 4.5 M pairs of German and English (de-en), 40.8 M of French and English (fr-en).

The training text is published as Parquet files on Hugging Face (wmt/wmt14). Validation on newstest2013 and test on
newstest2014 (3,003 sentences) come from sacreBLEU's registry (wmt13 and wmt14/full). Files are downloaded at the first
use: 0.8 GB for German, 7.8 GB for French.
"""

from __future__ import annotations

from pathlib import Path

from bench.data.corpora import _test_sets
from bench.data.corpora._columns import read_columns
from bench.data.corpora._published import WMT14
from bench.data.corpus import Corpus, CorpusSettings

SHARDS = {"de": 3, "fr": 30}
"""The language beside English -> the number of files of the training text."""


def load(settings: CorpusSettings, source: str, target: str) -> Corpus:
    """The corpus, downloaded if it is not in the cache folder.

    Raises:
        ValueError: the corpus has no such direction, or a download failed.
    """
    train = read_columns(WMT14.provide(_files(source, target)), source, target)
    validation = _test_sets.load("wmt13", source, target)
    tests = {"newstest2014": _test_sets.load("wmt14/full", source, target)}
    return Corpus(f"wmt14-{source}-{target}", source, target, train, validation, tests)


def files(settings: CorpusSettings, source: str, target: str) -> dict[str, list[Path]]:
    """The files of the training text and the archives of the test sets, downloaded if they are not there."""
    train = WMT14.provide(_files(source, target))  # first, because it refuses other directions
    archives = {name: _test_sets.archives(name, source, target) for name in ("wmt13", "wmt14/full")}
    return {"train": list(train), **archives}


def fetch(source: str, target: str) -> tuple[Path, str]:
    """Download the files of a direction. Returns their folder and the terms of use.

    Raises:
        ValueError: as `load`.
    """
    files = _files(source, target)
    for name in ("wmt13", "wmt14/full"):
        _test_sets.archives(name, source, target)
    WMT14.provide(files)
    return WMT14.folder, WMT14.terms


def _files(source: str, target: str) -> list[str]:
    others = [language for language in (source, target) if language in SHARDS]
    if len(others) != 1 or "en" not in (source, target):
        raise ValueError(
            "corpus.name: wmt14 has the directions en-de, de-en, en-fr and fr-en; write one of them, such as "
            "wmt14-en-de"
        )
    (other,) = others
    return [f"{other}-en/train-{n:05}-of-{SHARDS[other]:05}.parquet" for n in range(SHARDS[other])]
