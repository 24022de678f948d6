"""Multi30k: 29,000 captions of photographs in English, German, French. Elliott et al. 2016, 2017.

A folder of train, val, test_2016_flickr and test_2017_flickr, each .en, .de and .fr, plain or .gz.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.corpora import Corpus, CorpusSettings, Split
from bench.corpora._reading import two_files

TESTS = ("test_2016_flickr", "test_2017_flickr")


def load(settings: CorpusSettings, source: str, target: str) -> Corpus:
    """The splits in the folder `settings.path`, or else in the one that the environment variable MULTI30K names.

    Raises:
        ValueError: no folder is named, or files are missing or not what they should be.
    """
    if not source:
        raise ValueError("corpus.name: multi30k needs its languages; write multi30k-SRC-TGT, such as multi30k-en-de")
    where = settings.path or os.environ.get("MULTI30K")
    if not where:
        raise ValueError(
            "corpus.path: multi30k lies in a folder; name it with --corpus.path or the environment variable MULTI30K"
        )
    folder = Path(where)
    if not folder.is_dir():
        raise ValueError(f"corpus.path: there is no folder {folder}")

    def read(split: str) -> Split:
        return two_files(find(folder, split, source), find(folder, split, target))

    train, validation = read("train"), read("val")
    both = [name for name in TESTS if all(candidates(folder, name, side) for side in (source, target))]
    if not both:
        raise ValueError(f"{folder}: there is no test set for {source}-{target}; one of {', '.join(TESTS)} is needed")
    tests = {name: read(name) for name in both}
    return Corpus(f"multi30k-{source}-{target}", source, target, train, validation, tests)


def candidates(folder: Path, split: str, language: str) -> list[Path]:
    """The files that hold this side of a split."""
    paths = (folder / f"{split}.{language}", folder / f"{split}.{language}.gz")
    return [path for path in paths if path.is_file()]


def find(folder: Path, split: str, language: str) -> Path:
    found = candidates(folder, split, language)
    if not found:
        there = sorted({path.name.removesuffix(".gz").rpartition(".")[2] for path in folder.glob("train.*")})
        raise ValueError(
            f"{folder}: there is no {split}.{language}, nor {split}.{language}.gz; it has train files for "
            f"{', '.join(there) or 'no language'}"
        )
    return found[0]
