"""Folders of the cache that take minutes to make: made once, complete or absent, checked before each use."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import filelock

from bench.system import terminal
from bench.system.files import write_file

MANIFEST = "manifest.json"
"""Lists the files of an entry with their sizes and checksums."""


def provide(folder: Path, fill: Callable[[Path], object]) -> Path:
    """The folder, which `fill` makes if it is absent or damaged. One process makes it; the others wait for it.

    Args:
        folder: The folder; its name is a hash of everything that its content depends on.
        fill: Writes all files into the folder that it is given. After a kill, that folder has what the last process
            wrote, so that `fill` can continue.

    Raises:
        OSError: the folder cannot be written.
    """
    if is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.with_name(f".{folder.name}.lock")):
        if is_complete(folder):  # another process has made it
            return folder
        if folder.exists():
            terminal.say(f"  {folder} is damaged; it is made again")
            shutil.rmtree(folder)
        partial = folder.with_name(f".{folder.name}.partial")
        partial.mkdir(exist_ok=True)
        (partial / MANIFEST).unlink(missing_ok=True)  # of a process that was killed before it renamed the folder
        fill(partial)
        files = {path.name: [path.stat().st_size, checksum(path)] for path in sorted(partial.iterdir())}
        write_file(partial / MANIFEST, json.dumps(files))
        partial.rename(folder)
    return folder


def is_complete(folder: Path) -> bool:
    """Whether an entry has all of its files with the content that was written."""
    try:
        files = json.loads((folder / MANIFEST).read_bytes())
        return all(
            (folder / name).stat().st_size == size and checksum(folder / name) == value
            for name, (size, value) in files.items()
        )
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def checksum(path: Path) -> int:
    """CRC-32 of a file, which finds damage. It is ten times as fast as a cryptographic hash."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value
