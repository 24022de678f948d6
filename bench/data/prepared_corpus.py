"""A corpus as a job uses it: normalized, filtered, and kept in the cache if reading it again would take long."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from bench.data import cache_entry, filters, find_corpus
from bench.data.corpus import Corpus, CorpusSettings, Split
from bench.data.stored_text import BLOCK, LineWriter, StoredLines
from bench.data.vocabulary import TextSettings
from bench.system import terminal
from bench.system.files import cache_folder, sha256

CACHED_BYTES = 1_000_000
"""Size of the files of a corpus from which its text is kept in the cache."""

VERSION = 1
"""To be raised when the same files give another text: by another normalization, or another filter."""


def load(settings: CorpusSettings, text: TextSettings) -> Corpus:
    """The corpus with its filters applied, in the normalization of its text.

    The text of large files is kept in the cache folder, in an entry that is named by the hash of their content and of
    the settings. It is read from there without its lines in memory.

    Raises:
        ValueError: as `find_corpus.load`, or a filter has an impossible value, or the filters remove every pair.
    """
    filters.check(settings.filters)
    files = find_corpus.files(settings)
    if sum(path.stat().st_size for paths in files.values() for path in paths) < CACHED_BYTES:
        return _prepare(settings, text)
    # The content of the files counts, and their names, which tell formats and languages, but not their folder.
    contents = {name: [(path.name, sha256(path)) for path in paths] for name, paths in files.items()}
    named = replace(settings, name=find_corpus.qualified_name(settings), path=None, train=None, val=None, test=None)
    key = [VERSION, unicodedata.unidata_version, asdict(named), text.normalization, contents]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    folder = cache_folder("text") / digest
    try:
        return _read(cache_entry.provide(folder, lambda partial: _write(_prepare(settings, text, partial), partial)))
    except OSError as error:
        terminal.say(f"  warning: the text is not kept in the cache ({error}); make {folder.parent} writable")
        return _prepare(settings, text)


def _prepare(settings: CorpusSettings, text: TextSettings, folder: Path | None = None) -> Corpus:
    """The corpus, normalized and filtered. The training text is written to a folder if one is given."""
    corpus = find_corpus.load(settings).mapped(text.normalized)
    if not filters.active(settings.filters):
        return replace(corpus, train=_collect(iter(corpus.train), folder)) if folder else corpus
    removed: Counter[str] = Counter()
    train = _collect(filters.kept_pairs(corpus, settings.filters, removed), folder)
    if not len(train):
        counts = ", ".join(f"{name} {count:,}" for name, count in removed.items())
        raise ValueError(
            f"corpus.filters: the filters remove all {len(corpus.train):,} training pairs ({counts}); expected some to "
            "remain; relax them"
        )
    # A filter that removes nothing has the count 0, so that the statistics show it.
    counts = {name: removed[name] for name in filters.active(settings.filters)}
    return replace(corpus, train=train, removed=counts)


def _collect(pairs: Iterator[tuple[str, str]], folder: Path | None) -> Split:
    writers = [LineWriter(folder / f"train.{side}" if folder else None) for side in ("source", "target")]
    digest = hashlib.sha256()
    while block := list(islice(pairs, BLOCK)):
        digest.update("".join(f"{source}\n{target}\n" for source, target in block).encode())
        for writer, sentences in zip(writers, zip(*block, strict=True), strict=True):
            writer.add(sentences)
    if folder:
        for writer in writers:
            writer.keep()
    source, target = (writer.finish() for writer in writers)
    return Split(source, target, digest.hexdigest())


def _write(corpus: Corpus, folder: Path) -> None:
    """Write what is not in the files of the training text."""
    small = {"validation": corpus.validation, **corpus.tests}
    content = {
        "name": corpus.name,
        "languages": [corpus.source_language, corpus.target_language],
        "train": corpus.train.hash,
        "splits": {name: [list(split.sources), list(split.targets)] for name, split in small.items()},
        "removed": dict(corpus.removed),
    }
    (folder / "corpus.json").write_text(json.dumps(content), encoding="utf-8")


def _read(folder: Path) -> Corpus:
    content: dict[str, Any] = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    source, target = (StoredLines.open(folder / f"train.{side}") for side in ("source", "target"))
    splits = {name: Split(*sides) for name, sides in content["splits"].items()}
    validation = splits.pop("validation")
    train = Split(source, target, content["train"])
    from_language, to_language = content["languages"]
    return Corpus(content["name"], from_language, to_language, train, validation, splits, content["removed"])
