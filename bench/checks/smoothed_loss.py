"""The validation loss with the label smoothing of the training, of every finished run of a suite or study.

The loss that runs record has no smoothing. Near that of a perfect model it depends on how certain a model is, and not
only on what it knows: dropout, which is off in validation, makes a model more certain than smoothing asks for, so a
Transformer reaches 0.086 nats where a perfect model has 0.105. With smoothing e and V pieces the loss of a target token
is -(1 - e) ln p(y) - e / V sum_v ln p(v). Its lower bound is the entropy of the smoothed target,

    H = -q ln q - (V - 1) e / V ln(e / V),    q = 1 - e + e / V,

which no model is below. Models are read from the store; exports have none.

    python -m bench.checks.smoothed_loss FOLDER SUITE > smoothed-loss.csv
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterator

from bench.data.batches import evaluation_batches
from bench.data.encoded_pairs import Pairs
from bench.evaluation import trained_model
from bench.experiment.job_data import corpus_of, validation_of
from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store, TrackingSettings
from models.parts.translator import evaluation_mode

COLUMNS: tuple[str, ...] = ("run", "row", "size", "pairs", "seed", "learning_rate", "loss", "smoothed_loss", "entropy")


def entropy(smoothing: float, pieces: int) -> float:
    """The lowest smoothed loss, in nats per token: the entropy of the smoothed target."""
    if not smoothing:
        return 0.0
    other = smoothing / pieces
    right = 1 - smoothing + other
    return -right * math.log(right) - (pieces - 1) * other * math.log(other)


def measure(store: Store, run: TrackedRun) -> dict[str, object]:
    """The line of a run: its losses in nats per target token on its validation pairs."""
    loaded = trained_model.load(store, run.id)
    experiment, model = loaded.experiment, loaded.model
    smoothing = experiment.training.label_smoothing
    split = validation_of(corpus_of(experiment))
    pairs = Pairs.encode(split, loaded.vocabularies, experiment.text.max_length, "validation")
    plain = smoothed = 0.0
    tokens = 0
    with evaluation_mode(model):
        for _, batch in evaluation_batches(pairs, experiment.training.batch_tokens):
            batch = batch.to(model.device)
            plain += model.token_losses(batch).sum().item()
            smoothed += model.token_losses(batch, smoothing).sum().item()
            tokens += len(batch.target.ids_N)
    values = (
        *(run.id, run.tags["row"], run.tags.get("size", ""), experiment.training.max_pairs, experiment.seed),
        *(experiment.training.optimizer.lr, f"{plain / tokens:.6f}", f"{smoothed / tokens:.6f}"),
        f"{entropy(smoothing, len(loaded.vocabularies.target)):.6f}",
    )
    return dict(zip(COLUMNS, values, strict=True))


def lines(folder: str, suite: str) -> Iterator[dict[str, object]]:
    """The lines of all finished runs of a suite, the oldest first."""
    store = Store(TrackingSettings(None, folder))
    for run in reversed(store.runs(suite)):
        if run.status == "FINISHED":
            yield measure(store, run)


def main() -> None:
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in lines(*sys.argv[1:3]):
        writer.writerow(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
