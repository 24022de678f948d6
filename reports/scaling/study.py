"""The class Study: what the report of a scaling study is made from. `bench scale` fills it from its runs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from bench.scaling.points import Point


@dataclass(frozen=True)
class Size:
    """A size of the ladder of a row.

    Attributes:
        row: Architecture.
        name: Name of the size, such as 0.67M; points refer to it.
        settings: What the size sets, such as "width 104, inner 344".
        body: Parameters without embeddings and output layer.
        body_softmax: Parameters that are multiplied.
        all: All parameters.
        learning_rate: Peak learning rate.
        seeds: Largest number of seeds at one budget.
    """

    row: str
    name: str
    settings: str
    body: int
    body_softmax: int
    all: int
    learning_rate: float
    seeds: int


@dataclass(frozen=True)
class RateCheck:
    """A run that checks the rule for learning rates.

    Attributes:
        row: Architecture.
        size: Name of the size.
        pairs: Budget in sentence pairs.
        factor: Learning rate / that of the rule.
        loss: Excess validation loss in nats per target token; lower is better.
        flops: Training FLOPs.
        seconds: Training seconds; None: not measured.
    """

    row: str
    size: str
    pairs: float
    factor: float
    loss: float
    flops: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True)
class DirectPair:
    """Runs of two rows with the same training FLOPs, which confirm on one side of a crossing which row is ahead.

    Attributes:
        flops: Their budget.
        first: The runs of the row that is first in the study, one for each seed.
        second: Those of the other row.
    """

    flops: float
    first: tuple[Point, ...]
    second: tuple[Point, ...]

    @property
    def difference(self) -> float:
        """Mean loss of the first row - that of the second, in nats per target token."""
        first, second = (fmean(run.loss for run in runs) for runs in (self.first, self.second))
        return first - second


@dataclass(frozen=True)
class Study:
    """A scaling study.

    Attributes:
        name: Name of the study.
        question: What it asks.
        date: Date of its newest run.
        command: Command that repeats it.
        labels: Row id -> printed name, in the order of the file.
        sizes: The ladders of all rows.
        points: The end points that count.
        rate_rule: Sentence that states how learning rates were set.
        rate_checks: Runs that check this rule.
        corpus: Name of the corpus.
        vocabulary: Entries of the target vocabulary.
        failed: Names of runs that failed or are missing.
        device: Device on which seconds were measured.
        planned_direct: First row, second row and FLOPs of the direct pairs in the study's file, finished or not.
        loss_provenance: How the loss of a run was measured.
        commits: Commits of this project that made the runs, the first seven digits.
        score: Metric with the BLEU of the points, such as test/bleu; "": no run has one.
        direct: Finished pairs of runs that confirm crossings. They are no points of curves.
    """

    name: str
    question: str
    date: str
    command: str
    labels: dict[str, str]
    sizes: tuple[Size, ...]
    points: tuple[Point, ...]
    rate_rule: str
    rate_checks: tuple[RateCheck, ...]
    corpus: str
    vocabulary: int
    failed: tuple[str, ...]
    device: str = ""
    loss_provenance: str = ""
    commits: tuple[str, ...] = ()
    score: str = ""
    planned_direct: tuple[tuple[str, str, float], ...] = ()
    direct: tuple[DirectPair, ...] = ()

    @property
    def further_runs(self) -> list[RateCheck | Point]:
        """The runs that are no points of curves: those with other learning rates, and those of direct pairs."""
        compared = {point.run: point for pair in self.direct for point in (*pair.first, *pair.second)}
        return [*(check for check in self.rate_checks if check.factor != 1), *compared.values()]
