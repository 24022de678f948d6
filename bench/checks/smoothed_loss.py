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

from bench.data.encoded_pairs import Pairs
from bench.evaluation import trained_model
from bench.evaluation.evaluate import mean_loss
from bench.experiment.job_data import corpus_of, validation_of
from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store, TrackingSettings

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
    plain, smoothed = (mean_loss(model, pairs, experiment.training.batch_tokens, each) for each in (0.0, smoothing))
    values = (
        *(run.id, run.tags["row"], run.tags.get("size", ""), experiment.training.max_pairs, experiment.seed),
        *(experiment.training.optimizer.lr, f"{plain:.6f}", f"{smoothed:.6f}"),
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
    if len(sys.argv) != 3:
        print("usage: python -m bench.checks.smoothed_loss FOLDER SUITE (FOLDER: tracking folder)", file=sys.stderr)
        sys.exit(2)
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in lines(*sys.argv[1:]):
        writer.writerow(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
