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
from bench.data.languages import ending, tag_in_name


def names() -> list[str]:
    """Names of all corpora: the files of corpora/."""
    return sorted(module.name for module in pkgutil.iter_modules(corpora.__path__) if not module.name.startswith("_"))


def descriptions() -> dict[str, str]:
    """Name -> the first docstring line of its file. Nothing is imported, because a corpus may need an extra package."""
    folder = Path(corpora.__file__).parent
    texts = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in names()}
    return {name: (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0] for name, text in texts.items()}


def fetch(name: str) -> tuple[Path, str]:
    """Download a corpus from where it is published. Returns the folder in which it is stored, and its terms of use.

    Raises:
        ValueError: there is no such corpus or direction, it needs no download, or the download failed.
    """
    if name.partition("-")[0] not in names() or not hasattr(_module(CorpusSettings(name))[0], "fetch"):
        modules = {each: importlib.import_module(f"bench.data.corpora.{each}") for each in names()}
        raise ValueError(
            f"there is nothing to fetch for {name!r}; corpora that can be fetched: "
            f"{', '.join(each for each, module in modules.items() if hasattr(module, 'fetch'))}, each as NAME-SRC-TGT"
        )
    module, source, target = _module(CorpusSettings(name))
    return module.fetch(source, target)


def qualified_name(settings: CorpusSettings) -> str:
    """NAME-SRC-TGT. If `name` has no languages (`files`), they are the endings of the training files."""
    if "-" in settings.name or not settings.train:
        return settings.name
    return "-".join([settings.name, *(tag_in_name(ending(path)) for path in settings.train)])


def load(settings: CorpusSettings) -> Corpus:
    """The corpus with the name `settings.name`.

    Raises:
        ValueError: there is no such corpus, it does not read a folder or file that is given, a file is missing or has a
            wrong format, or a side of a split is empty: nothing could be trained or evaluated on it.
    """
    module, source, target = _module(settings)
    for keys, reader in ((("train", "val", "test", "columns"), "files"), (("path",), "multi30k")):
        given = next((key for key in keys if getattr(settings, key) is not None), None)
        if given and settings.name.partition("-")[0] != reader:
            raise ValueError(
                f"corpus.{given}: is for the corpus {reader}, but corpus.name is {settings.name}, which does not read "
                f"it; set corpus.name to {reader if reader == 'files' else f'{reader}-en-de'}, or remove the key"
            )
    corpus = module.load(settings, source, target)
    if not corpus.tests:
        raise ValueError(f"{corpus.name}: there is no test set; expected at least one; check the files of the corpus")
    for name, split in {"train": corpus.train, "validation": corpus.validation, **corpus.tests}.items():
        for side, sentences in (("source", split.sources), ("target", split.targets)):
            if not any(map(str.strip, sentences)):
                raise ValueError(
                    f"{corpus.name}: the {side} side of {name} has no sentence that is not empty; expected at least "
                    "one; check the files of the corpus"
                )
    return corpus


def files(settings: CorpusSettings) -> dict[str, list[Path]]:
    """The existing files that the corpus is read from, by split; empty if it is generated or a file is missing.

    Raises:
        ValueError: as `load`.
    """
    module, source, target = _module(settings)
    found = module.files(settings, source, target) if hasattr(module, "files") else {}
    return found if all(path.is_file() for paths in found.values() for path in paths) else {}


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
        raise ValueError(
            f"corpus.name: {settings.name!r} is not NAME-SRC-TGT, such as {name}-en-de or {name}-en_US-zh_CN"
        )
    source, target = languages or ("", "")
    return importlib.import_module(f"bench.data.corpora.{name}"), source, target
