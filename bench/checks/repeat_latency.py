"""Latency of finished runs, measured again several times: is a printed difference larger than the measurement's own?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.evaluation import trained_model
from bench.measures.latency import SECONDS, TABLE_BATCH, LatencyBenchmark, Timing
from bench.system import terminal
from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store

AGREES = 0.05
"""Medians of one run that lie within so much of each other agree."""


@dataclass(frozen=True)
class RepeatedLatency:
    """The median latency of one run, measured several times, each time with its noise."""

    run: TrackedRun
    medians: list[float]
    timings: list[Timing]

    @property
    def apart(self) -> float:
        """(largest - smallest) / smallest."""
        return _apart(self.medians)

    @property
    def machine_apart(self) -> float:
        """The same of the reference work: what the machine itself was faster and slower by."""
        return _apart([timing.reference_ms for timing in self.timings])

    @property
    def verdict(self) -> str:
        """Of a median that is not like the others: it is a noisy one; or the machine's pace was as much another, by its
        reference work; or there is no such reason: APART.
        """
        if self.apart <= AGREES:
            return f"within {AGREES:.0%}"
        quiet = [(ms, timing) for ms, timing in zip(self.medians, self.timings, strict=True) if timing.quiet]
        if _apart([ms for ms, _ in quiet]) <= AGREES:
            return "noisy"
        at_one_pace = _apart([ms / timing.reference_ms for ms, timing in quiet])
        return "machine's pace" if at_one_pace <= AGREES else "APART"


def _apart(values: Sequence[float]) -> float:
    return max(values) / min(values) - 1 if values else 0.0


def benched(store: Store, run: TrackedRun) -> tuple[trained_model.TrainedTranslator, LatencyBenchmark]:
    """A run's translator, and the sentences of its first test set that latency is measured on.

    Raises:
        ValueError: the run has not been judged.
    """
    loaded = trained_model.load(store, run.id)
    test_set = next((m.metric.rpartition("/")[0] for m in store.measures(run) if m.metric.endswith("/bleu")), "")
    text = store.hypotheses(run, test_set)
    if not len(text):
        raise ValueError(
            f"run {run.id} ({run.name}) is {run.status} and has no translations; finish it, or take another"
        )
    sources, _ = loaded.ids(list(text["source"]))
    targets = loaded.vocabularies.target.encode(list(text["reference"]))
    return loaded, LatencyBenchmark.of(loaded.model, sources, targets, loaded.experiment.decoding, TABLE_BATCH)


def median(timing: Timing) -> float:
    """p50 of the translations as long as their references: the middle third of each pass."""
    _, whole_PN, _ = np.split(np.array(timing.passes), 3, axis=1)
    return float(np.median(whole_PN))


def repeated(store: Store, references: Sequence[str], times: int) -> Iterator[RepeatedLatency]:
    """Each run `times` times: all runs once, then all again, so that a slow change of the machine meets all alike."""
    runs = [trained_model.find_run(store, reference) for reference in references]
    benches = [benched(store, run) for run in runs]
    timings: list[list[Timing]] = [[] for _ in runs]
    for _ in range(times):
        for (loaded, bench), found in zip(benches, timings, strict=True):
            here = "cpu" if loaded.model.device.type == "cpu" else "gpu"  # the run may have had GPUs that are not here
            with replace(loaded.experiment.machine, accelerator=here, devices=1).applied():
                found.append(bench.one_by_one(SECONDS * 2 / 3))
    for run, found in zip(runs, timings, strict=True):
        yield RepeatedLatency(run, [median(timing) for timing in found], found)


def show(store: Store, references: Sequence[str], times: int) -> bool:
    """Prints the medians of each run; whether every one agrees with itself, or its noise says why it does not."""
    found = list(repeated(store, references, times))
    rows = [
        [
            each.run.name,
            *(f"{ms:.2f}" for ms in each.medians),
            f"{each.apart:.1%}",
            f"{each.machine_apart:.1%}",
            each.verdict,
        ]
        for each in found
    ]
    numbers = [(f"p50, {number} (ms)", "right") for number in range(1, times + 1)]
    terminal.table([("run", "left"), *numbers, ("apart", "right"), ("machine", "right"), ("", "left")], rows)
    for each in found:
        for number, timing in enumerate(each.timings, start=1):
            terminal.say(f"{each.run.name}, {number}: {timing.noise}")
    return all(each.verdict != "APART" for each in found)
