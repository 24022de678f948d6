"""What takes seconds to make and is the same everywhere, kept in the cache folder for the next process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bench.data.corpora._download import cache_folder
from bench.system.files import write_file

Kind = TypeVar("Kind")


def cached(kind: type[Kind], make: Callable[[], Kind], name: str, settings: Any, made_by: Iterable[Path]) -> Kind:
    """What `make` gives: read from its file, or made and written there.

    The file is named after the settings and the contents of all files that decide what is made, so it is never stale:
    with other code there is another file. One that cannot be read or written is as good as none.

    Args:
        kind: The type: plain values, lists, tuples, sets, mappings and dataclasses of them.
        make: Makes it.
        name: The folder in the cache.
        settings: What decides, beside the files; something whose repr says all of it.
        made_by: Code and data.
    """
    digest = hashlib.sha256(repr((str(kind), settings)).encode())
    for path in sorted(made_by):
        digest.update(path.read_bytes())
    adapter, path = TypeAdapter(kind), cache_folder(name) / f"{digest.hexdigest()[:32]}.json"
    with suppress(OSError, ValidationError):
        return adapter.validate_json(path.read_bytes())
    made = make()
    with suppress(OSError):  # a full disk, a folder of somebody else
        write_file(path, adapter.dump_json(made))
    return made
