"""What a killed run needs to go on: checkpoints, signals, random numbers, and a note of the work that a kill undoes."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from bench.data.batches import PairBatches
from bench.system.files import fill_file, remove_partial_files, write_file
from bench.training.distributed import SINGLE_PROCESS, ProcessGroup

NOTED_EVERY = 0.1
"""Seconds between two notes of how far a training is."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM came; the run is saved and the same command continues it.

    Like KeyboardInterrupt no Exception, so that no library takes it for an error of its own.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"{signal.Signals(number).name}: saved; the same command continues")
        self.number = number


class Signals:
    """SIGINT and SIGTERM while a run is open.

    The first one raises Interrupted: at once where everything is saved, or, while `held`, when `take` is called. The
    second one ends the process at once. Only the main thread may take signals; elsewhere (a worker of a cluster) this
    does nothing, and the process is just ended.
    """

    NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.number, self.holding = 0, False

    def take(self) -> None:
        """Raises Interrupted if a signal has come."""
        if self.number:
            raise Interrupted(self.number)

    def install(self) -> None:
        """Takes the signals over. Also used to take them back from Lightning, which ends with exit code 0."""
        if threading.current_thread() is threading.main_thread():
            for number in self.NUMBERS:
                signal.signal(number, self._came)

    def _came(self, number: int, frame: object) -> None:
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number
        if not self.holding:
            self.take()

    @contextmanager
    def listening(self) -> Iterator[Signals]:
        before = {number: signal.getsignal(number) for number in self.NUMBERS}
        self.install()
        try:
            yield self
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal waits for `take`, or for the end of the block."""
        self.holding = True
        try:
            yield
        finally:
            self.holding = False
        self.take()


def save(weights: dict[str, Any], path: Path) -> None:
    """torch.save, by way of memory: written straight to a full disk it fails with an error that does not say so."""
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    path.write_bytes(buffer.getbuffer())


def check(path: Path) -> None:
    """Raises ValueError if there is a checkpoint that is not whole; nothing is loaded for it."""
    if path.exists() and not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path}: this checkpoint is damaged (not whole); delete it and the same command trains from the beginning"
        )


class PlainFiles(TorchCheckpointIO):
    """Writes where it is told to. Lightning's own way leads through the temporary folder, where a kill leaves it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save(checkpoint, Path(path))


class Checkpoints(pl.Callback):
    """Saves all that a resumed run needs: at every validation, every so many seconds, at the end, and for a signal.

    `validations` says how many there have been. `saved` is called when a checkpoint stands on the disk. Of several
    processes, the first decides and writes; the others take part.
    """

    def __init__(
        self,
        path: Path,
        seconds: float,
        signals: Signals,
        data: PairBatches,
        validations: Callable[[], int],
        saved: Callable[[], None],
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.path, self.seconds, self.signals, self.data = path, seconds, signals, data
        self.validations, self.saved, self.group = validations, saved, group
        self.saved_at, self.validated = time.monotonic(), 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.signals.install()
        if self.group.leads:
            remove_partial_files(self.path.parent)
        self.saved_at, self.validated = time.monotonic(), self.validations()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ):
        due = time.monotonic() - self.saved_at >= self.seconds or self.validations() > self.validated
        if self.group.first(due or bool(self.signals.number) or trainer.should_stop):
            self.data.consumed = trainer.global_step
            self.save(trainer)
            self.saved_at, self.validated = time.monotonic(), self.validations()
            self.saved()
            if number := self.group.first(self.signals.number):
                raise Interrupted(number)

    def save(self, trainer: pl.Trainer) -> None:
        if self.group.leads:
            fill_file(self.path, lambda path: trainer.save_checkpoint(path, weights_only=False))
        else:  # Lightning's function writes nothing here, but process 0 waits in it for the others
            trainer.save_checkpoint(self.path, weights_only=False)


class RandomPerUpdate(pl.Callback):
    """Seeds dropout from (seed, process, update), so that update n draws the same numbers in a resumed run."""

    def __init__(self, seed: int, rank: int = 0) -> None:
        self.seed, self.rank = seed, rank

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int):
        number = self.seed * 1_000_003 + trainer.global_step + self.rank * 15_485_863
        number %= 2**32  # the generator of the CPU reads no more
        # The default generators themselves: torch.manual_seed costs a hundred times more.
        torch.default_generator.manual_seed(number)
        if pl_module.device.type == "cuda":
            torch.cuda.default_generators[pl_module.device.index or 0].manual_seed(number)


class RepeatedWork(pl.Callback):
    """Counts the updates that a kill undid: done after the last checkpoint, lost with the process, and done again.

    How far training is, is noted on disk ten times a second, and what came after the last note is not counted: the
    counts are lower bounds, short by at most a tenth of a second, or one update, for each kill. On a GPU the seconds
    are those of the last point of the learning curves, a two-hundredth of the budget before at most.
    Work that is not updates (start-up, a validation, judging) is not counted. `counts` gives (updates, seconds).
    """

    def __init__(self, path: Path, counts: Callable[[], tuple[int, float]]) -> None:
        self.path, self.counts = path, counts
        self.updates, self.seconds = 0, 0.0
        self.noted_at = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        updates, seconds = self.counts()
        with suppress(FileNotFoundError, ValueError):  # there is none, or a power cut has left it empty
            reached = json.loads(self.path.read_text())
            self.updates = reached["repeated_updates"] + max(0, reached["updates"] - updates)
            self.seconds = reached["repeated_s"] + max(0.0, reached["seconds"] - seconds)
        self.note()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ):
        if time.monotonic() - self.noted_at >= NOTED_EVERY:
            self.note()

    def note(self) -> None:
        updates, seconds = self.counts()
        reached = {"updates": updates, "seconds": seconds}
        repeated = {"repeated_updates": self.updates, "repeated_s": self.seconds}
        write_file(self.path, json.dumps(reached | repeated), durable=False)  # up to ten times a second
        self.noted_at = time.monotonic()
