"""A cache on disk for results that are deterministic and take seconds to compute."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bench.system.files import cache_folder, write_file

Value = TypeVar("Value")


def cached(
    value_type: type[Value], compute: Callable[[], Value], name: str, settings: Any, code_files: Iterable[Path]
) -> Value:
    """The result of `compute`, read from a file of the cache, or computed and written to it.

    The name of the file is a hash of the settings and of the content of `code_files`. So a cached result is never out
    of date: after a change of the code, another file is used. A file that cannot be read or written is ignored.

    Args:
        value_type: Type of the result: plain values, lists, tuples, sets, mappings and dataclasses of them.
        compute: Computes the result.
        name: Subfolder of the cache folder.
        settings: Everything else that the result depends on; its repr must be complete.
        code_files: Code and data files that the result depends on.
    """
    digest = hashlib.sha256(repr((str(value_type), settings)).encode())
    for path in sorted(code_files):
        digest.update(path.read_bytes())
    adapter, path = TypeAdapter(value_type), cache_folder(name) / f"{digest.hexdigest()[:32]}.json"
    with suppress(OSError, ValidationError):
        return adapter.validate_json(path.read_bytes())
    value = compute()
    with suppress(OSError):  # for example a full disk, or a folder without write permission
        write_file(path, adapter.dump_json(value))
    return value
