"""IWSLT 2017: TED talks, some 200,000 pairs of English with ar, de, fr, it, ja, ko, nl, ro, zh. Cettolo et al. 2017.

The text is published as Parquet files on Hugging Face (IWSLT/iwslt2017, a branch that was converted from its script).
The first test set is that of the campaign from sacreBLEU's registry (tst2017, `iwslt17`), where it has the direction;
the second is the test split of the Parquet files, earlier campaigns. Files are downloaded at the first use, some 30 MB
for a direction.
"""

from __future__ import annotations

from pathlib import Path

from bench.data.corpora import _test_sets
from bench.data.corpora._columns import read_columns
from bench.data.corpora._published import IWSLT2017
from bench.data.corpus import Corpus, CorpusSettings

WITH_ENGLISH = {"ar", "de", "fr", "ja", "ko", "zh"}
AMONG_EACH_OTHER = {"en", "it", "nl", "ro"}


def load(settings: CorpusSettings, source: str, target: str) -> Corpus:
    """The corpus, downloaded if it is not in the cache folder.

    Raises:
        ValueError: the corpus has no such direction, or a download failed.
    """
    paths = IWSLT2017.provide(_files(source, target))
    train, validation, test = (read_columns([path], source, target) for path in paths)
    official = _test_sets.has_pair("iwslt17", source, target)
    tests = {"tst2017": _test_sets.load("iwslt17", source, target)} if official else {}
    return Corpus(f"iwslt2017-{source}-{target}", source, target, train, validation, tests | {"test": test})


def files(settings: CorpusSettings, source: str, target: str) -> dict[str, list[Path]]:
    """The files of the corpus and the archives of the official test set, downloaded if they are not there."""
    train = IWSLT2017.provide(_files(source, target))  # first, because it refuses other directions
    official = _test_sets.has_pair("iwslt17", source, target)
    archives = {"tst2017": _test_sets.archives("iwslt17", source, target)} if official else {}
    return {"train": list(train), **archives}


def fetch(source: str, target: str) -> tuple[Path, str]:
    """Download the files of a direction. Returns their folder and the terms of use.

    Raises:
        ValueError: as `load`.
    """
    IWSLT2017.provide(_files(source, target))
    if _test_sets.has_pair("iwslt17", source, target):
        _test_sets.archives("iwslt17", source, target)
    return IWSLT2017.folder, IWSLT2017.terms


def _files(source: str, target: str) -> list[str]:
    pair = {source, target}
    if len(pair) < 2 or not (pair <= AMONG_EACH_OTHER or ("en" in pair and pair - {"en"} <= WITH_ENGLISH)):
        raise ValueError(
            f"corpus.name: iwslt2017 has English with {', '.join(sorted(WITH_ENGLISH))}, and the directions among "
            f"{', '.join(sorted(AMONG_EACH_OTHER))}; write one of them, such as iwslt2017-en-de"
        )
    return [f"iwslt2017-{source}-{target}/iwslt2017-{split}.parquet" for split in ("train", "validation", "test")]
