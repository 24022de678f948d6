"""`bench latency`: measures the latency of finished runs several times, to show how reproducible the numbers are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.data.encoded_pairs import truncate
from bench.evaluation import trained_model
from bench.measures.latency import SECONDS, TABLE_BATCH, LatencyBenchmark, Timing
from bench.system import terminal
from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store

AGREES = 0.05
"""Medians of one run agree if the largest exceeds the smallest by at most this share."""


@dataclass(frozen=True)
class RepeatedLatency:
    """The median latency of one run, measured several times.

    Attributes:
        medians: p50 of each measurement in milliseconds.
        timings: All samples of each measurement, with its noise.
    """

    run: TrackedRun
    medians: list[float]
    timings: list[Timing]

    @property
    def difference(self) -> float:
        """(largest - smallest) / smallest median."""
        return _difference(self.medians)

    @property
    def machine_difference(self) -> float:
        """(largest - smallest) / smallest of the reference work: how much the machine's own speed changed."""
        return _difference([timing.reference_ms for timing in self.timings])

    @property
    def verdict(self) -> str:
        """Whether the medians agree, and the reason if they do not.

        "within 5%": they agree. "noisy": those of the quiet measurements agree, or at most one was quiet. "machine's
        pace": those agree after division by the reference work. "APART": none of these.
        """
        if self.difference <= AGREES:
            return f"within {AGREES:.0%}"
        quiet = [(ms, timing) for ms, timing in zip(self.medians, self.timings, strict=True) if timing.quiet]
        if _difference([ms for ms, _ in quiet]) <= AGREES:
            return "noisy"
        at_same_pace = _difference([ms / timing.reference_ms for ms, timing in quiet])
        return "machine's pace" if at_same_pace <= AGREES else "APART"


def _difference(values: Sequence[float]) -> float:
    return max(values) / min(values) - 1 if values else 0.0


def load_benchmark(store: Store, run: TrackedRun) -> tuple[trained_model.TrainedTranslator, LatencyBenchmark]:
    """Loads a run's translator, and the sentences of its first test set on which latency is measured.

    Raises:
        ValueError: the run has not been evaluated.
    """
    loaded = trained_model.load(store, run.id)
    test_set = next((m.metric.rpartition("/")[0] for m in store.measures(run) if m.metric.endswith("/bleu")), "")
    text = store.hypotheses(run, test_set)
    if not len(text):
        raise ValueError(
            f"run {run.id} ({run.name}) is {run.status} and has no translations; finish it, or choose another run"
        )
    sources, _ = loaded.ids(list(text["source"]))
    references = loaded.vocabularies.target.encode(list(text["reference"]))
    targets, _ = truncate(references, loaded.experiment.text.max_length)  # as in the run
    graphs = loaded.experiment.machine.cuda_graphs and loaded.model.device.type == "cuda"
    benchmark = LatencyBenchmark.of(
        loaded.model, sources, targets, loaded.experiment.decoding, TABLE_BATCH, cuda_graphs=graphs
    )
    return loaded, benchmark


def median_ms(timing: Timing) -> float:
    """The p50 of the translations with forced lengths, which are the middle third of each pass."""
    _, whole_PN, _ = np.split(np.array(timing.passes), 3, axis=1)
    return float(np.median(whole_PN))


def measure_repeatedly(store: Store, references: Sequence[str], times: int) -> Iterator[RepeatedLatency]:
    """Measures every run `times` times, in turn, so that a slow change of the machine affects all runs equally."""
    runs = [trained_model.find_run(store, reference) for reference in references]
    benches = [load_benchmark(store, run) for run in runs]
    timings: list[list[Timing]] = [[] for _ in runs]
    for _ in range(times):
        for (loaded, bench), found in zip(benches, timings, strict=True):
            # The run may have used GPUs that this machine lacks.
            here = "cpu" if loaded.model.device.type == "cpu" else "gpu"
            machine = replace(loaded.experiment.machine, accelerator=here, devices=1, cuda_graphs=bench.cuda_graphs)
            with machine.applied():
                found.append(bench.time_single_sentences(SECONDS * 2 / 3))
    for run, found in zip(runs, timings, strict=True):
        yield RepeatedLatency(run, [median_ms(timing) for timing in found], found)


def show(store: Store, references: Sequence[str], times: int) -> bool:
    """Prints the medians of each run. Returns False if those of a run differ without a known reason."""
    found = list(measure_repeatedly(store, references, times))
    rows = [
        [
            one.run.name,
            *(f"{ms:.2f}" for ms in one.medians),
            f"{one.difference:.1%}",
            f"{one.machine_difference:.1%}",
            one.verdict,
        ]
        for one in found
    ]
    numbers = [(f"p50, {number} (ms)", "right") for number in range(1, times + 1)]
    terminal.table([("run", "left"), *numbers, ("difference", "right"), ("machine", "right"), ("", "left")], rows)
    for one in found:
        for number, timing in enumerate(one.timings, start=1):
            terminal.say(f"{one.run.name}, {number}: {timing.noise}")
    return all(one.verdict != "APART" for one in found)
