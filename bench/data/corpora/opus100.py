"""OPUS-100: up to 1 M pairs of English with each of 99 languages, from many sources. Zhang et al. 2020, Tiedemann 2012.

The text is published as Parquet files on Hugging Face (Helsinki-NLP/opus-100), with 2,000 pairs for validation and as
many for test. Files are downloaded at the first use, some 120 MB for a direction.
"""

from __future__ import annotations

from pathlib import Path

from bench.data.corpora._columns import read_columns
from bench.data.corpora._published import OPUS100
from bench.data.corpus import Corpus, CorpusSettings


def load(settings: CorpusSettings, source: str, target: str) -> Corpus:
    """The corpus, downloaded if it is not in the cache folder.

    Raises:
        ValueError: the corpus has no such direction, or a download failed.
    """
    paths = OPUS100.provide(_files(source, target))
    train, validation, test = (read_columns([path], source, target) for path in paths)
    return Corpus(f"opus100-{source}-{target}", source, target, train, validation, {"test": test})


def files(settings: CorpusSettings, source: str, target: str) -> dict[str, list[Path]]:
    """The files of the corpus, downloaded if they are not there."""
    return {"train": list(OPUS100.provide(_files(source, target)))}


def fetch(source: str, target: str) -> tuple[Path, str]:
    """Download the files of a direction. Returns their folder and the terms of use.

    Raises:
        ValueError: as `load`.
    """
    OPUS100.provide(_files(source, target))
    return OPUS100.folder, OPUS100.terms


def _files(source: str, target: str) -> list[str]:
    if "en" not in (source, target) or source == target:
        raise ValueError("corpus.name: opus100 has English with 99 languages; write them such as opus100-en-de")
    pair = "-".join(sorted((source, target)))
    return [f"{pair}/{split}-00000-of-00001.parquet" for split in ("train", "validation", "test")]
