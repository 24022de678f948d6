"""Encodes a large training text once, on all cores, into arrays in the cache folder that every job maps into memory."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import regex
import sentencepiece

from bench.data import cache_entry, vocabulary
from bench.data.corpus import Split
from bench.data.encoded_pairs import Pairs, Sentences, check_pairs_left
from bench.data.vocabulary import Vocabularies, Vocabulary
from bench.system import terminal
from bench.system.files import cache_folder, fill_file

FEWEST = 10_000
"""A text of fewer pairs is encoded by each job: that takes less than a second."""

CHUNK = 20_000
"""Pairs that are encoded at a time. A process that was killed loses at most one chunk for each core."""

POOL_FROM = 10
"""Chunks from which encoding is worth starting processes, which takes seconds."""

VERSION = 1
"""To be raised when the same text and vocabularies give other ids or another layout of the files."""

ARRAYS = ("ids", "lengths", "ends")
SIDES = ("source", "target")


def encode(split: Split, vocabularies: Vocabularies, max_length: int, cores: int) -> Pairs:
    """The pairs of a training text, encoded, without those with a side of more than `max_length` tokens.

    A text of at least `FEWEST` pairs is read from the cache folder as arrays that are mapped into memory, so that all
    processes of a machine share them. It is encoded first if it is not there. The result is that of `Pairs.encode`.

    Args:
        split: The text.
        vocabularies: Vocabularies of both sides.
        max_length: Largest number of tokens of a side, without EOS.
        cores: Processes that encode at the same time.

    Raises:
        ValueError: the text has no pairs, or all of them are too long.
    """
    if len(split) < FEWEST:
        return Pairs.encode(split, vocabularies, max_length)
    versions = [VERSION, sentencepiece.__version__, regex.__version__]
    key = [*versions, split.hash, *(each.hash for each in vocabularies), max_length]
    folder = cache_folder("encoded") / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    try:
        cache_entry.provide(folder, lambda part: _write(split, vocabularies, max_length, cores, part))
    except OSError as error:
        terminal.say(f"  warning: the encoded text is not kept ({error}); make {folder.parent} writable")
        return Pairs.encode(split, vocabularies, max_length)
    return _map(folder)


def _map(folder: Path) -> Pairs:
    # np.asarray: an array that is mapped as well, without the slow indexing of np.memmap.
    arrays = ((np.asarray(np.load(folder / f"{side}.{name}.npy", mmap_mode="r")) for name in ARRAYS) for side in SIDES)
    sources, targets = (Sentences(*side) for side in arrays)
    return Pairs(sources, targets, json.loads((folder / "dropped.json").read_bytes()))


def _write(split: Split, vocabularies: Vocabularies, max_length: int, cores: int, folder: Path) -> None:
    """Encode the chunks that the folder lacks, then join all of them."""
    begins = range(0, len(split), CHUNK)
    chunks = {begin: folder / f"chunk-{begin:012}.npz" for begin in begins}
    missing = [begin for begin in begins if not _is_readable(chunks[begin])]
    if len(missing) < len(begins):
        done = len(begins) - len(missing)
        terminal.say(f"  continues to encode the training text: {done:,} of {len(begins):,} chunks are done")
    to_do = sum(min(CHUNK, len(split) - begin) for begin in missing)
    line = terminal.CountLine("encodes the training text", "pairs", to_do)
    work = ((split.sources[b : b + CHUNK], split.targets[b : b + CHUNK], chunks[b]) for b in missing)
    for count, _ in enumerate(_results(work, vocabularies, max_length, cores if len(missing) >= POOL_FROM else 1), 1):
        line(min(count * CHUNK, to_do))
    line.close()
    _join(list(chunks.values()), vocabularies, len(split), max_length, folder)


Work = tuple[Sequence[str], Sequence[str], Path]


def _results(work: Iterator[Work], vocabularies: Vocabularies, max_length: int, cores: int) -> Iterator[None]:
    """Encode chunks in this process, or in a pool of processes that never has more than two chunks for each."""
    if cores == 1:
        for each in work:
            yield _encode_chunk(vocabularies, max_length, *each)
        return
    data = [each.data for each in vocabularies]
    # Spawned and not forked: torch has started threads, and a lock that one of them holds stays locked in a fork.
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(cores, context, _begin_process, (data, max_length)))
        stack.callback(pool.shutdown, cancel_futures=True)
        waiting: list[Future[None]] = []
        for each in work:
            waiting.append(pool.submit(_encode_in_process, *each))
            if len(waiting) >= 2 * cores:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


_of_process: list[partial[None]] = []


def _begin_process(data: Sequence[bytes], max_length: int) -> None:
    """Prepare a process of the pool. It ends with the process that started it, even if that is killed.

    Ctrl-C reaches every process of the terminal; the one that started the pool ends it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    made: list[Vocabulary] = [vocabulary.of_data(each) for each in data]
    _of_process.append(partial(_encode_chunk, Vocabularies(*made), max_length))


def _encode_in_process(sources: Sequence[str], targets: Sequence[str], path: Path) -> None:
    _of_process[0](sources, targets, path)


def _encode_chunk(
    vocabularies: Vocabularies, max_length: int, sources: Sequence[str], targets: Sequence[str], path: Path
) -> None:
    """Write the pairs of a chunk that are short enough to a file."""
    sides = [Sentences.of(each.encode(text)) for each, text in zip(vocabularies, (sources, targets), strict=True)]
    short = np.maximum(sides[0].lengths, sides[1].lengths) <= max_length + 1
    kept = [side.select(short) for side in sides]
    arrays = {
        f"{name}_{array}": getattr(side, array).astype(np.int32)
        for name, side in zip(SIDES, kept, strict=True)
        for array in ("ids", "lengths")
    }

    def fill(partial_path: Path) -> None:
        with partial_path.open("wb") as file:  # np.savez would append .npz to a path
            np.savez(file, **arrays)

    fill_file(path, fill, durable=False)


def _is_readable(path: Path) -> bool:
    """Whether a chunk is complete. The format has a checksum of each array."""
    try:
        with np.load(path) as arrays:
            return all(arrays[f"{side}_lengths"].sum() == len(arrays[f"{side}_ids"]) for side in SIDES)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return False


def _join(chunks: Sequence[Path], vocabularies: Vocabularies, pairs: int, max_length: int, folder: Path) -> None:
    """Write the arrays of all chunks, one after the other, to one file for each array, and delete the chunks."""
    lengths = {side: np.concatenate([_array(path, f"{side}_lengths") for path in chunks]) for side in SIDES}
    kept = len(lengths["source"])
    check_pairs_left(kept, pairs, max_length)
    for side, each in zip(SIDES, vocabularies, strict=True):
        kind = np.uint16 if len(each) <= 1 << 16 else np.int32
        np.save(folder / f"{side}.lengths.npy", lengths[side])
        np.save(folder / f"{side}.ends.npy", np.cumsum(lengths[side], dtype=np.int64))
        with (folder / f"{side}.ids.npy").open("wb") as file:
            header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": (int(lengths[side].sum()),)}
            np.lib.format.write_array_header_1_0(file, header)
            for path in chunks:
                file.write(_array(path, f"{side}_ids").astype(kind).tobytes())
    (folder / "dropped.json").write_text(str(pairs - kept), encoding="utf-8")
    for path in folder.glob("*chunk-*"):
        path.unlink()


def _array(path: Path, name: str) -> np.ndarray:
    with np.load(path) as arrays:
        return arrays[name]
