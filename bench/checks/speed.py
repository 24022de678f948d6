"""Updates per second of some rows on this machine: training alone, without validation, evaluation or tracking.

    python -m bench.checks.speed --rows lstm transformer-base --preset demo --csv speed.csv

An update is what training does with a batch: read it, copy it to the device, forward pass, backward pass, clipping,
optimizer and schedule. Lightning and the callbacks of a run are left out; their cost is `overhead` of a run.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.experiment.job_data import JobData, model_of
from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import Experiment
from bench.system import streams, terminal
from bench.system.files import write_file
from bench.system.machine import bf16_fallback
from bench.training.plain_update import plain_update

WARM_UP, UPDATES = 30, 100
"""Updates before the clock starts, which load kernels and fill caches, and updates that are timed."""


@dataclass(frozen=True)
class Speed:
    """Timed updates of one row.

    Attributes:
        device: Name of the GPU, or cpu.
        batch_tokens: Limit of padded tokens of a batch's longer side.
        seconds: Wall time of all timed updates together; on a GPU until it has finished the last one.
        pairs: Sentence pairs of the timed batches.
        target_tokens: Real target tokens of the timed batches, EOS included.
    """

    row: str
    preset: str
    corpus: str
    device: str
    precision: str
    batch_tokens: int
    updates: int
    seconds: float
    pairs: int
    target_tokens: int

    @property
    def updates_per_second(self) -> float:
        return self.updates / self.seconds

    @property
    def record(self) -> dict[str, object]:
        """One row of updates_per_second.csv: the fields, updates per second and target tokens per second."""
        rates = {
            "updates_per_second": f"{self.updates_per_second:.4g}",
            "target_tokens_per_second": f"{self.target_tokens / self.seconds:.4g}",
        }
        return {**asdict(self), "seconds": f"{self.seconds:.4g}", **rates}


def measure_speed(experiment: Experiment, warm_up: int = WARM_UP, updates: int = UPDATES) -> Speed:
    """Train the row for `warm_up` updates, then for `updates` more, and time the latter.

    Raises:
        ValueError: the settings cannot be trained with, or the device is missing.
    """
    settings, device = experiment.training, experiment.machine.device
    mixed = settings.precision == "bf16-mixed"
    with experiment.machine.applied(), bf16_fallback(device, mixed):
        job_data = JobData.of(experiment)
        model = model_of(experiment, job_data).to(device).train()
        batches = iter(job_data.train.train_dataloader())
        update = plain_update(model, batches, settings.precision, settings.clip)

        def synchronize() -> None:
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        for _ in range(warm_up):
            update()
        synchronize()
        began = time.perf_counter()
        timed = [update() for _ in range(updates)]
        synchronize()
        seconds = time.perf_counter() - began
    return Speed(
        row=experiment.row,
        preset=experiment.preset,
        corpus=experiment.corpus_name,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        precision=settings.precision,
        batch_tokens=settings.batch_tokens,
        updates=updates,
        seconds=seconds,
        pairs=sum(len(batch.target.lengths_B) for batch in timed),
        target_tokens=sum(sum(batch.target.lengths_B) for batch in timed),
    )


def write_csv(speeds: Sequence[Speed], path: Path) -> None:
    """Write one line for each row, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(speeds[0].record) if speeds else ["row"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(speed.record for speed in speeds)
    write_file(path, text.getvalue())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each row and write the CSV file. Exit code 1 if a row failed; the others are measured nevertheless."""
    streams.prepare()
    parser = argparse.ArgumentParser(
        prog="python -m bench.checks.speed", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rows", nargs="+", required=True, help="row ids, such as lstm transformer-base")
    parser.add_argument("--preset", default="demo", help="demo, multi30k-cpu, multi30k (default: demo)")
    parser.add_argument("--warm_up", type=int, default=WARM_UP, help=f"updates that are not timed (default: {WARM_UP})")
    parser.add_argument("--updates", type=int, default=UPDATES, help=f"updates that are timed (default: {UPDATES})")
    parser.add_argument(
        "--csv", type=Path, required=True, help="file to write; other flags are settings, as for bench run"
    )
    known, flags = parser.parse_known_args(arguments)
    files, speeds, failed = row_files(), list[Speed](), 0
    for row in known.rows:
        try:
            if row not in files:
                raise ValueError(f"no such row; the rows are: {', '.join(files)}")
            experiment = resolve(files[row], preset=known.preset, row=row, flags=flags)
            speeds.append(measure_speed(experiment, known.warm_up, known.updates))
            terminal.say(f"{row}: {speeds[-1].updates_per_second:.3g} updates/s")
        except (ValueError, RuntimeError) as error:  # out of memory and CUDA's errors are RuntimeErrors
            failed += 1
            print(f"{row}: {' '.join(str(error).split())}", file=sys.stderr)
        write_csv(speeds, known.csv)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
