"""The exports that --from names: one folder, several, or folders that hold one export in each of their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.tracking.reading import Reader
from reports.gathering.snapshot import INDEX, Snapshot


def read_exports(folders: Sequence[Path]) -> list[Reader]:
    """A reader for each export, in the order of the folders; those inside one folder by name.

    Raises:
        ValueError: a folder is no export and holds none, or another version wrote it.
    """
    found: list[Reader] = []
    for folder in folders:
        inner = sorted(folder.glob(f"*/{INDEX}")) if not (folder / INDEX).is_file() else []
        found += [Snapshot(path.parent) for path in inner] or [Snapshot(folder)]
    return found
