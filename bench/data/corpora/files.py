"""Your own sentence pairs: for each split two text files, source first, or a table: .tsv, .jsonl, .parquet, Arrow.

A table can be a folder: a data set of Hugging Face that `save_to_disk` has written, or Parquet files with the split in
their names.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bench.data.corpora._columns import files_of, is_table, read_columns
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
        paths = list(map(Path, files or ()))
        if paths and all(map(is_table, paths)):
            parts = [file for path in paths for file in files_of(path, key)]
            return read_columns(parts, source, target, settings.columns, check_names=True)
        if not 1 <= len(paths) <= 2:
            raise ValueError(
                f'corpus.{key}: give two text files, source first, such as "[{key}.en,{key}.de]", or one table with '
                f'both sides, such as "[{key}.parquet]"'
            )
        if len(paths) == 1:
            return one_file(paths[0], source, target, settings.columns)
        return two_files(paths[0], paths[1], (source, target))

    keys = {"train": settings.train, "val": settings.val, "test": settings.test}
    splits = read_splits({key: partial(read, key, files) for key, files in keys.items()})
    return Corpus(name, source, target, splits["train"], splits["val"], {"test": splits["test"]})


def files(settings: CorpusSettings, source: str, target: str) -> dict[str, list[Path]]:
    """The files of each split, in the order in which they are read."""
    given = {"train": settings.train, "val": settings.val, "test": settings.test}
    return {
        key: [file for path in map(Path, paths or ()) for file in (files_of(path, key) if path.is_dir() else [path])]
        for key, paths in given.items()
    }


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
