"""Sentences of a large text in a file instead of in memory, where strings need several times the bytes of their text.

The file is UTF-8 with one sentence per line. It is read in blocks and not mapped, so that none of its pages counts as
memory of the process.
"""

from __future__ import annotations

import io
import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np

from bench.system.files import cache_folder

FEWEST = 50_000
"""A text of fewer sentences stays a list of strings."""

BLOCK = 10_000
"""Sentences that are read or written at a time."""

ENCODING = ("utf-8", "surrogatepass")


class StoredLines(Sequence[str]):
    """The lines of a file as a sequence of strings. A slice is a list.

    Args:
        file: The open file; every line ends in a line feed.
        ends: Where each line ends in the file, line feed included, in bytes.
    """

    def __init__(self, file: BinaryIO, ends: np.ndarray) -> None:
        self.descriptor, self.ends = os.dup(file.fileno()), ends
        weakref.finalize(self, os.close, self.descriptor)

    @classmethod
    def open(cls, path: Path) -> StoredLines:
        """The lines of a file that `LineWriter.keep` wrote. The ends are mapped into memory."""
        with path.open("rb") as file:
            return cls(file, np.load(ends_path(path), mmap_mode="r"))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        numbers = range(len(self))[index]
        if isinstance(numbers, int):
            return self._block(numbers, numbers + 1)[0]
        if numbers.step == 1:
            return self._block(numbers.start, numbers.stop)
        return [self._block(number, number + 1)[0] for number in numbers]

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), BLOCK):
            yield from self._block(begin, min(begin + BLOCK, len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == its for mine, its in zip(self, other, strict=True))

    def _block(self, begin: int, end: int) -> list[str]:
        if begin >= end:
            return []
        first = int(self.ends[begin - 1]) if begin else 0
        # pread has no position in the file that two processes could share after a fork.
        data = os.pread(self.descriptor, int(self.ends[end - 1]) - first, first)
        return data.decode(*ENCODING).removesuffix("\n").split("\n")


class LineWriter:
    """Collects sentences: a short text in a list, a long one in a file.

    Args:
        path: The file that `keep` completes. None: a temporary file without a name, which the system removes.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.lines, self.file = path, list[str](), None
        self.ends, self.size = array("q"), 0

    @classmethod
    def collect(cls, sentences: Iterable[str]) -> Sequence[str]:
        """The sentences as a list, or as `StoredLines` if they are many."""
        writer = cls()
        iterator = iter(sentences)
        while block := list(islice(iterator, BLOCK)):
            writer.add(block)
        return writer.finish()

    def add(self, sentences: Sequence[str]) -> None:
        """Append sentences. None of them contains a line feed."""
        self.lines += sentences
        if len(self.lines) >= (BLOCK if self.file else FEWEST):
            self._write()

    def finish(self) -> Sequence[str]:
        """All sentences."""
        if self.file is None:
            return self.lines
        self._write()
        return StoredLines(self.file, np.array(self.ends, dtype=np.int64))

    def keep(self) -> None:
        """Complete the file `path`, and write where its lines end to a file beside it."""
        assert self.path
        self._write()
        with ends_path(self.path).open("wb") as file:
            np.save(file, np.array(self.ends, dtype=np.int64))

    def _write(self) -> None:
        if self.file is None:
            self.file = self.path.open("w+b", buffering=0) if self.path else _temporary_file()
            weakref.finalize(self, self.file.close)
        raw = [f"{line}\n".encode(*ENCODING) for line in self.lines]
        for line in raw:
            self.size += len(line)
            self.ends.append(self.size)
        rest = memoryview(b"".join(raw))
        while rest:  # a nearly full disk takes a part of a block without an error
            rest = rest[self.file.write(rest) :]
        self.lines.clear()


def ends_path(path: Path) -> Path:
    """The file with the ends of the lines of a text file."""
    return path.with_name(f"{path.name}.ends.npy")


def _temporary_file() -> io.FileIO:
    """A file without a name, in the cache folder if it can be written: the folder of the system may be in memory."""
    with suppress(OSError):
        folder = cache_folder("text")
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    return tempfile.TemporaryFile(buffering=0)
