"""Your own sentence pairs: for each split two text files, source first, or one .tsv or .jsonl; .gz is possible."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bench.data.corpora._reading import one_file, read_splits, two_files
from bench.data.corpus import Corpus, CorpusSettings, Split
from bench.data.find_corpus import qualified_name


def load(settings: CorpusSettings, source: str, target: str) -> Corpus:
    """The corpus in the files `settings.train`, `val` and `test`.

    Raises:
        ValueError: a setting is missing, or a file has a wrong format or a name that shows other languages.
        BadLines: lines of the files have a wrong format.
    """
    name = qualified_name(settings)
    if settings.train and not source:
        source, target = languages(settings.train, name)

    def read(key: str, files: list[str] | None) -> Split:
        if not files or len(files) > 2:
            raise ValueError(f'corpus.{key}: give two text files, source first, such as "[{key}.en,{key}.de]"')
        if len(files) == 1:
            return one_file(Path(files[0]), source, target)
        return two_files(Path(files[0]), Path(files[1]), (source, target))

    keys = {"train": settings.train, "val": settings.val, "test": settings.test}
    splits = read_splits({key: partial(read, key, files) for key, files in keys.items()})
    return Corpus(name, source, target, splits["train"], splits["val"], {"test": splits["test"]})


def languages(train: list[str], name: str) -> tuple[str, str]:
    """Source and target language by the file endings of the training files: (fr, en) for [a.fr,a.en.gz]."""
    _, *found = name.split("-")
    if (
        len(train) != 2
        or len(found) != 2
        or not all(part.replace("_", "").isalnum() for part in found)
        or found[0] == found[1]
    ):
        raise ValueError(
            "corpus.name: the endings of the training files do not name two languages; write files-SRC-TGT, such as "
            "files-en-de"
        )
    return found[0], found[1]
