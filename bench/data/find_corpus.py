"""Finds a corpus by its name, NAME-SRC-TGT, among the files of corpora/, and loads it.

For example, `grammar-en-de` is corpora/grammar.py with source language en and target language de.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from bench.data import corpora
from bench.data.corpus import Corpus, CorpusSettings, Probes


def names() -> list[str]:
    """Names of all corpora: the files of corpora/."""
    return sorted(module.name for module in pkgutil.iter_modules(corpora.__path__) if not module.name.startswith("_"))


def descriptions() -> dict[str, str]:
    """Name -> the first docstring line of its file. Nothing is imported, because a corpus may need an extra package."""
    folder = Path(corpora.__file__).parent
    texts = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in names()}
    return {name: (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0] for name, text in texts.items()}


def fetch(name: str) -> Path:
    """Download a corpus from where it is published. Returns the folder in which it is stored.

    Raises:
        ValueError: there is no such corpus, it needs no download, or the download failed.
    """
    known = {each: importlib.import_module(f"bench.data.corpora.{each}") for each in names()}
    fetchable = [each for each, module in known.items() if hasattr(module, "fetch")]
    if name not in fetchable:
        raise ValueError(f"there is nothing to fetch for {name!r}; corpora that can be fetched: {', '.join(fetchable)}")
    return known[name].fetch()


def qualified_name(settings: CorpusSettings) -> str:
    """NAME-SRC-TGT. If `name` has no languages (`files`), they are the endings of the training files."""
    if "-" in settings.name or not settings.train:
        return settings.name
    return "-".join([settings.name, *(path.removesuffix(".gz").rpartition(".")[2] for path in settings.train)])


def load(settings: CorpusSettings) -> Corpus:
    """The corpus with the name `settings.name`.

    Raises:
        ValueError: there is no such corpus, or a file is missing or has a wrong format.
    """
    module, source, target = _module(settings)
    return module.load(settings, source, target)


def probes(settings: CorpusSettings) -> Probes | None:
    """The probes of a corpus; None if it has only sentence pairs.

    Raises:
        ValueError: as `load`.
    """
    module, source, target = _module(settings)
    return module.probes(settings, source, target) if hasattr(module, "probes") else None


def _module(settings: CorpusSettings) -> tuple[ModuleType, str, str]:
    """The module of the corpus with the name `settings.name`, its source and its target language."""
    name, *languages = settings.name.split("-")
    if name not in names():
        raise ValueError(
            f"corpus.name: there is no corpus {name!r}; choose NAME-SRC-TGT, NAME one of {', '.join(names())}"
        )
    if languages and len(languages) != 2:
        raise ValueError(f"corpus.name: {settings.name!r} is not NAME-SRC-TGT, such as {name}-en-de")
    source, target = languages or ("", "")
    return importlib.import_module(f"bench.data.corpora.{name}"), source, target
