"""What makes a run resumable: checkpoints, signal handling, seeds per update, and a count of repeated work."""

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
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from bench.data.batches import PairBatches
from bench.system.files import fill_file, remove_partial_files, write_file
from bench.training.distributed import SINGLE_PROCESS, ProcessGroup

PROGRESS_FILE = "progress.json"
"""File in the folder of a run with the progress of its training and the work repeated so far (RepeatedWork)."""

PROGRESS_INTERVAL_S = 0.1
"""Seconds between two writes of the progress file."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM came. The run is saved, and the same command resumes it.

    It is a BaseException, like KeyboardInterrupt, so that no library catches it as an error of its own.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"{signal.Signals(number).name}: the run is saved; run the same command again to resume")
        self.number = number


class Signals:
    """Handles SIGINT and SIGTERM while a run is open.

    The first signal raises Interrupted. It does so at once, or, inside a `deferred` block, when `raise_if_received` is
    called or the block ends. The second signal ends the process at once, unless it is `patient`. Only the main thread
    can handle signals; in another thread (a worker of a cluster) this class does nothing, and a signal ends the
    process.

    Attributes:
        received: Number of the signal that came; 0 if none came.
        patient: Whether all signals after the first one are ignored, in this process. A worker may get several for one
            reason: a scheduler signals every process of a job, and the driver then stops its workers. A driver that
            does not want to wait any longer kills.
    """

    patient: ClassVar[bool] = False
    NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received, self.deferring = 0, False

    def raise_if_received(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.received:
            raise Interrupted(self.received)

    def install(self) -> None:
        """Install the handlers. Also called after Lightning has installed its own, which would exit with code 0."""
        if threading.current_thread() is threading.main_thread():
            for number in self.NUMBERS:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if self.received:
            if self.patient:
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number
        if not self.deferring:
            self.raise_if_received()

    @contextmanager
    def installed(self) -> Iterator[Signals]:
        """Install the handlers for the length of the block, then restore those before."""
        before = {number: signal.getsignal(number) for number in self.NUMBERS}
        self.install()
        try:
            yield self
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal wait for `raise_if_received` or for the end of the block."""
        self.deferring = True
        try:
            yield
        finally:
            self.deferring = False
        self.raise_if_received()


def save_tensors(tensors: dict[str, Any], path: Path) -> None:
    """Write with torch.save by way of memory. Written directly, a full disk gives an error that does not say so."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    path.write_bytes(buffer.getbuffer())


def check(path: Path) -> None:
    """Check that a checkpoint is complete, without loading it. A missing file is no error.

    Raises:
        ValueError: the file is truncated.
    """
    if path.exists() and not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path}: this checkpoint is damaged (incomplete file). Delete it; the same command then trains from the "
            "beginning."
        )


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes to the given path. Lightning itself writes to the temporary folder first, where a kill leaves the file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save_tensors(checkpoint, Path(path))


class CheckpointWriter(pl.Callback):
    """Saves everything that a resumed run needs: after each validation, at intervals, at the end and after a signal.

    With several processes, process 0 decides and writes; the others take part, because Lightning waits for them.

    Args:
        path: The checkpoint file.
        interval_s: Seconds between two checkpoints.
        data: The batches; they are told how many have been consumed, so that the checkpoint contains it.
        validation_count: Returns the number of validations so far.
        on_saved: Called when a checkpoint is on the disk.
    """

    def __init__(
        self,
        path: Path,
        interval_s: float,
        signals: Signals,
        data: PairBatches,
        validation_count: Callable[[], int],
        on_saved: Callable[[], None],
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.path, self.interval_s, self.signals, self.data = path, interval_s, signals, data
        self.validation_count, self.on_saved, self.group = validation_count, on_saved, group
        self.saved_at, self.saved_validations = time.monotonic(), 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.signals.install()
        if self.group.is_leader:
            remove_partial_files(self.path.parent)
        self.saved_at, self.saved_validations = time.monotonic(), self.validation_count()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ):
        due = (
            time.monotonic() - self.saved_at >= self.interval_s
            or self.validation_count() > self.saved_validations
            or bool(self.signals.received)
            or trainer.should_stop
        )
        if self.group.broadcast(due):
            self.data.consumed = trainer.global_step
            self.save(trainer)
            self.saved_at, self.saved_validations = time.monotonic(), self.validation_count()
            self.on_saved()
            if number := self.group.broadcast(self.signals.received):
                raise Interrupted(number)

    def save(self, trainer: pl.Trainer) -> None:
        if self.group.is_leader:
            fill_file(self.path, lambda path: trainer.save_checkpoint(path, weights_only=False))
        else:  # Lightning writes nothing here, but process 0 waits in the same function for all processes
            trainer.save_checkpoint(self.path, weights_only=False)


class SeedPerUpdate(pl.Callback):
    """Seeds dropout from (seed, process, update), so that a resumed run draws the same numbers at every update.

    Seed s draws at update 1,000,003 + u what seed s + 1 draws at update u; runs here are shorter, but for GNMT's of 2
    million updates.
    """

    def __init__(self, seed: int, rank: int = 0) -> None:
        self.seed, self.rank = seed, rank

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int):
        number = self.seed * 1_000_003 + trainer.global_step + self.rank * 15_485_863
        number %= 2**32  # the generator of the CPU uses 32 bits
        # The default generators are seeded directly, because torch.manual_seed takes a hundred times longer.
        torch.default_generator.manual_seed(number)
        if pl_module.device.type == "cuda":
            torch.cuda.default_generators[pl_module.device.index or 0].manual_seed(number)


class RepeatedWork(pl.Callback):
    """Counts the updates that were repeated after a kill, because they came after the last checkpoint.

    The progress of training is written to disk ten times a second. Updates after the last write are not counted, so the
    counts are lower bounds. For each kill they miss at most a tenth of a second, or one update. On a GPU the seconds
    are those of the last point of the learning curves, which is at most 1/200 of the budget earlier. Work other than
    updates (start-up, validation, evaluation) is not counted.

    Args:
        path: The progress file.
        counts: Returns (updates, seconds) of the training so far.

    Attributes:
        updates: Repeated updates.
        seconds: Seconds of repeated updates.
    """

    def __init__(self, path: Path, counts: Callable[[], tuple[int, float]]) -> None:
        self.path, self.counts = path, counts
        self.updates, self.seconds = 0, 0.0
        self.written_at = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        updates, seconds = self.counts()
        with suppress(FileNotFoundError, ValueError):  # the run is new, or a power cut has left the file empty
            progress = json.loads(self.path.read_text(encoding="utf-8"))
            self.updates = progress["repeated_updates"] + max(0, progress["updates"] - updates)
            self.seconds = progress["repeated_s"] + max(0.0, progress["seconds"] - seconds)
        self.write_progress()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ):
        if time.monotonic() - self.written_at >= PROGRESS_INTERVAL_S:
            self.write_progress()

    def write_progress(self) -> None:
        updates, seconds = self.counts()
        progress = {"updates": updates, "seconds": seconds}
        repeated = {"repeated_updates": self.updates, "repeated_s": self.seconds}
        write_file(self.path, json.dumps(progress | repeated), durable=False)  # up to ten times a second
        self.written_at = time.monotonic()
