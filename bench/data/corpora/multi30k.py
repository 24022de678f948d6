"""Multi30k: 29,000 captions of photographs in English, German, French. Elliott et al. 2016, 2017.

The folder has the files train, val, test_2016_flickr and test_2017_flickr, each as .en, .de and .fr, plain or .gz.
They are downloaded from the public repository at the first use, or with `bench data fetch multi30k`, some 3 MB. The
captions are for non-commercial research.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from bench.data.corpora._published import MULTI30K
from bench.data.corpora._reading import read_splits, two_files
from bench.data.corpus import Corpus, CorpusSettings

TESTS = ("test_2016_flickr", "test_2017_flickr")


def load(settings: CorpusSettings, source: str, target: str) -> Corpus:
    """The corpus in the folder `settings.path`, else that of the environment variable MULTI30K, else the cache folder.

    Raises:
        ValueError: there is no such folder, files are missing or have a wrong format, or a download failed.
    """
    if not source:
        raise ValueError("corpus.name: multi30k needs its languages; write multi30k-SRC-TGT, such as multi30k-en-de")
    path = settings.path or os.environ.get("MULTI30K")
    if not path and not _files(source, target):
        raise ValueError(
            f"corpus.name: multi30k can be fetched for en, de and fr, not for {source}-{target}; for other languages, "
            "set the folder of the files with --corpus.path or the environment variable MULTI30K"
        )
    if not path:
        try:
            MULTI30K.provide(_files(source, target))
        except ValueError as error:
            raise ValueError(
                f"{error}; if you have the files, set their folder with --corpus.path or the environment variable "
                "MULTI30K"
            ) from error
    folder = Path(path) if path else MULTI30K.folder
    if not folder.is_dir():
        raise ValueError(f"corpus.path: there is no folder {folder}; check the path")

    def paths(split: str) -> tuple[Path, Path]:
        return find(folder, split, source), find(folder, split, target)

    files = {name: paths(name) for name in ("train", "val")}
    test_sets = [name for name in TESTS if all(candidates(folder, name, side) for side in (source, target))]
    if not test_sets:
        raise ValueError(f"{folder}: there is no test set for {source}-{target}; one of {', '.join(TESTS)} is needed")
    files |= {name: paths(name) for name in test_sets}
    splits = read_splits({name: partial(two_files, *pair) for name, pair in files.items()})
    tests = {name: splits[name] for name in test_sets}
    return Corpus(f"multi30k-{source}-{target}", source, target, splits["train"], splits["val"], tests)


def files(settings: CorpusSettings, source: str, target: str) -> dict[str, list[Path]]:
    """The files of each split in the folder that `load` uses. Empty where one of them is missing."""
    path = settings.path or os.environ.get("MULTI30K")
    folder = Path(path) if path else MULTI30K.folder
    names = ("train", "val", *TESTS)
    found = {name: [candidates(folder, name, side)[:1] for side in (source, target)] for name in names}
    if not all(found["train"] + found["val"]):
        return {}
    return {name: [path for paths in sides for path in paths] for name, sides in found.items()}


def candidates(folder: Path, split: str, language: str) -> list[Path]:
    """The existing files with this language of a split, plain or gzipped."""
    paths = (folder / f"{split}.{language}", folder / f"{split}.{language}.gz")
    return [path for path in paths if path.is_file()]


def find(folder: Path, split: str, language: str) -> Path:
    """The file with this language of a split.

    Raises:
        ValueError: there is none.
    """
    found = candidates(folder, split, language)
    if not found:
        languages = sorted({path.name.removesuffix(".gz").rpartition(".")[2] for path in folder.glob("train.*")})
        raise ValueError(
            f"{folder}: there is no {split}.{language}, nor {split}.{language}.gz; it has train files for "
            f"{', '.join(languages) or 'no language'}"
        )
    return found[0]


def fetch(source: str, target: str) -> tuple[Path, str]:
    """Download the files of a direction, or of all languages if none is given. Returns the folder and the terms of use.

    Raises:
        ValueError: a download failed, or a file differs from the published one.
    """
    files = _files(source, target) if source else list(MULTI30K.files)
    if not files:
        raise ValueError(f"multi30k can be fetched for en, de and fr, not for {source}-{target}; choose two of them")
    MULTI30K.provide(files)
    return MULTI30K.folder, MULTI30K.terms


def _files(source: str, target: str) -> list[str]:
    """The published files of a direction; none if a language is not among them."""
    names = [f"{split}.{language}.gz" for split in ("train", "val", *TESTS) for language in (source, target)]
    return names if set(names) <= set(MULTI30K.files) else []
