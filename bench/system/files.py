"""Atomic file writes: a reader, or a process that continues after a kill, finds the old file or the new one."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The cache folder of a kind of data: XDG_CACHE_HOME/attention-ladder/NAME; XDG_CACHE_HOME defaults to ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attention-ladder" / name


def inside(folder: Path, *names: str) -> Path:
    """The path of a file or folder below `folder`, made of names that may come from data that somebody else made.

    Args:
        names: One name for each level. It need not exist.

    Raises:
        ValueError: a name is not that of a file (empty, "..", with a slash), or the path leads out of `folder` through
            a symbolic link.
    """
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ValueError(
                f"{name!r} is not used as the name of a file in {folder}: one name without slashes was expected; "
                "rename it, or do not use data of this origin"
            )
    path = folder.joinpath(*names)
    check_inside(path, folder)
    return path


def check_inside(path: Path, *folders: Path) -> None:
    """Raises ValueError if `path`, with all symbolic links followed, is in none of the folders."""
    target = path.resolve()
    if not any(target.is_relative_to(folder.resolve()) for folder in folders):
        raise ValueError(
            f"{path} leads to {target}, outside of {' and '.join(map(str, folders))}: nothing is read or written "
            "there; put a real file or folder in its place, or choose another folder"
        )


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits. The file is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Write `content` (text as UTF-8) to `path` atomically. Arguments and errors are those of `fill_file`."""
    data = content.encode() if isinstance(content, str) else content
    fill_file(path, lambda partial: partial.write_bytes(data), durable=durable)


def fill_file(path: Path, fill: Callable[[Path], object], *, durable: bool = True) -> None:
    """Let `fill` write a hidden file beside `path`, then rename it to `path`.

    Args:
        path: The file; its folder is created.
        fill: Writes the whole content to the path that it is given.
        durable: Whether the content is flushed to the disk (fsync) before the rename. False is for files that are
            written many times a second and whose loss in a power cut is harmless.

    Raises:
        OSError: the disk is full or the folder is not writable; the error names `path`, which is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Machines and containers that share a folder may have equal process ids.
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        fill(partial)
        replace_file(partial, path, durable=durable)
    except OSError as error:  # a failed write names no file, and a failed rename names the partial file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def replace_file(complete: Path, path: Path, *, durable: bool = True) -> None:
    """Rename the complete file `complete` to `path` in one step, replacing what is there."""
    if durable:
        with open(complete, "rb") as file:
            os.fsync(file.fileno())  # else a power cut may leave the new name with an empty file
    os.replace(complete, path)


def remove_partial_files(folder: Path, name: str = "") -> None:
    """Delete the hidden partial files of `fill_file` that a killed process left: those for `name`, or all."""
    for partial in folder.glob(f".{name}*"):
        partial.unlink()
