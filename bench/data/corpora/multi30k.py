"""Multi30k: 29,000 captions of photographs in English, German, French. Elliott et al. 2016, 2017.

The folder has the files train, val, test_2016_flickr and test_2017_flickr, each as .en, .de and .fr, plain or .gz.
`bench data fetch multi30k` downloads them from the public repository. The captions are for non-commercial research.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from bench.data.corpora._download import cache_folder
from bench.data.corpora._download import fetch as fetch_file
from bench.data.corpora._reading import read_splits, two_files
from bench.data.corpus import Corpus, CorpusSettings

TESTS = ("test_2016_flickr", "test_2017_flickr")
ADDRESS = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"

# SHA-256 of each decompressed text (the bytes of a .gz also depend on the program that compressed it), computed by
# `gzip -dc FILE.gz | sha256sum` on a copy of that folder with the file names and dates of December 2017, when it was
# published.
TEXTS = {
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "train.fr": "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "val.fr": "5304e444d842e962b2dda4d816b70b22a1765b15401642b7ca37a67477e708dc",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    "test_2016_flickr.fr": "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6",
    "test_2017_flickr.en": "ce1450ddc5ab0834502579d77a170849952e15a2938b34cc503bdc25ebb4fb98",
    "test_2017_flickr.de": "c3078bc3b36808bf9d20eb2347ed6137016179ef59ec0d2b9b8ecc3fb2880081",
    "test_2017_flickr.fr": "6f3764e31dac41e9455e612958bcfd4e877c5e15cd66df2c2b2be6d9bd83e5b6",
}


def load(settings: CorpusSettings, source: str, target: str) -> Corpus:
    """The corpus in the folder `settings.path`, else that of the environment variable MULTI30K, else the cache folder.

    Raises:
        ValueError: there is no such folder, or files are missing or have a wrong format.
    """
    if not source:
        raise ValueError("corpus.name: multi30k needs its languages; write multi30k-SRC-TGT, such as multi30k-en-de")
    path, cache = settings.path or os.environ.get("MULTI30K"), cache_folder("multi30k")
    if not path and not all((cache / f"{text}.gz").exists() for text in TEXTS):
        raise ValueError(
            "corpus.path: multi30k is not here; fetch it with `bench data fetch multi30k`, or set its folder with "
            "--corpus.path or the environment variable MULTI30K"
        )
    folder = Path(path) if path else cache
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


def fetch() -> Path:
    """Download those of the twelve files that are missing. Returns the folder.

    Raises:
        ValueError: a download failed, or a file differs from the published one (`TEXTS`).
    """
    folder = cache_folder("multi30k")
    for text, sha256 in TEXTS.items():
        fetch_file(f"{ADDRESS}/{text}.gz", folder / f"{text}.gz", sha256)
    return folder
