"""The speed of translation: time for one sentence and sentences per second, by the protocol of docs/latency.md.

A measurement starts with token ids in memory and ends with the ids of the best hypothesis in memory, with the run's own
beam; tokenisation is excluded. Output lengths are forced to those of the references, so that a model does not look fast
because its outputs are short; free-running output is a second figure. The sentences are evenly spaced in the test set
and the same for all models. One process; warmed up; the device is synchronised before each reading of the clock.

Sources of error are measured: the share of all cores that other processes use (above 5 % counts as noise) and the
spread between passes over the same sentences (above 10 % counts as noise). A noisy attempt is repeated, up to three
attempts while the time budget lasts; the least noisy one counts, and its noise is part of the provenance. On a virtual
machine with busy neighbours a processor can be slower for moments or minutes without an effect on either number.
Therefore a fixed piece of work is timed after each translation as well; its median is printed, and a difference above
10 % between its slow and its fast times counts as noise.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import psutil
import torch

from bench.decoding.beam_search import DecodingSettings, translate
from bench.decoding.packed_weights import packed_weights
from bench.decoding.recorded_steps import recorded_steps
from bench.measures.measure import Measure
from bench.measures.memory import decoding_memory
from bench.system.machine import siblings
from models.parts.translator import Translator

BATCHES = (1, 8, 32, 128)
TABLE_BATCH = 32
"""Number of sentences that are timed singly, and the batch size of `sentences_per_s` and `peak_memory_bytes`."""

SECONDS = 9.0
"""Time for the figures of one row, so that a suite of twenty rows is timed in three minutes."""

OTHERS_LIMIT, SPREAD_LIMIT, ATTEMPTS = 0.05, 0.10, 3

Ids = Sequence[list[int]]


@dataclass(frozen=True)
class Timing:
    """The samples of one measurement, and the noise while they were taken.

    Attributes:
        passes: One list of samples, in milliseconds, for each pass over the same work.
        other_share: Share of all cores that other processes used, 0 to 1; None if the system does not tell it.
        reference_times_ms: The time of `reference_work` after each sample.
        attempt: Number of this attempt, from 1.
    """

    passes: list[list[float]]
    other_share: float | None
    reference_times_ms: list[float]
    attempt: int = 1

    @property
    def reference_ms(self) -> float:
        """Median time of the reference work."""
        return statistics.median(self.reference_times_ms)

    @property
    def pace_variation(self) -> float:
        """(slow - fast) / median of the reference work; slow is its ninth and fast its first decile."""
        fast, slow = np.quantile(self.reference_times_ms, (0.1, 0.9))
        return float(slow - fast) / self.reference_ms

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median of the total times of the passes."""
        sums = [sum(samples) for samples in self.passes]
        return (max(sums) - min(sums)) / statistics.median(sums)

    @property
    def quiet(self) -> bool:
        """True if all three kinds of noise are known to be within their limits."""
        others = self.other_share is not None and self.other_share <= OTHERS_LIMIT
        return others and max(self.spread, self.pace_variation) <= SPREAD_LIMIT

    @property
    def total_noise(self) -> float:
        """The sum of the three kinds of noise, by which attempts are compared."""
        return (self.other_share or 0.0) + self.spread + self.pace_variation

    @property
    def noise(self) -> str:
        """The noise in words, for the provenance."""
        verdict = "quiet" if self.quiet else "NOISY"
        others = "unknown" if self.other_share is None else f"{self.other_share:.0%} of the cores"
        return (
            f"{verdict}: other processes {others}, spread {self.spread:.0%}, "
            f"machine {self.pace_variation:.0%}, "
            f"{len(self.passes)} passes, attempt {self.attempt}, reference work {self.reference_ms:.2f} ms"
        )


class OtherProcesses:
    """The share of all cores that other processes use between `OtherProcesses()` and `share()`.

    Computed as (busy time of the machine - that of this process) / (wall time x cores). Child processes that have ended
    count as this process. The clock ticks are 10 ms, an error of 1 % in one second.
    """

    def __init__(self) -> None:
        self.begin = self._now()

    @staticmethod
    def _now() -> tuple[float, float] | None:
        try:
            machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
        except (OSError, psutil.Error, RuntimeError, ValueError):  # a sandbox without /proc/stat, for example
            return None
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        # `guest` is contained in `user`, so it must not be added again.
        total = sum(getattr(machine, name) for name in machine._fields if not name.startswith("guest"))
        children = getattr(own, "children_user", 0.0) + getattr(own, "children_system", 0.0)
        return total - idle, own.user + own.system + children

    def share(self, seconds: float) -> float | None:
        """Returns the share, 0 to 1; None if the system does not tell it.

        Args:
            seconds: The wall time since the object was created.
        """
        end = self._now()
        if self.begin is None or end is None:
            return None
        busy, own = (now - begin for now, begin in zip(end, self.begin, strict=True))
        return max(0.0, busy - own) / (seconds * (psutil.cpu_count() or 1))


def reference_work() -> float:
    """Milliseconds of 200 operations on 5 x 64 numbers called from Python, similar to the work of decoding."""
    numbers, rows = torch.ones(5, 64), torch.arange(5)
    with torch.inference_mode():
        begin = time.perf_counter()
        for _ in range(100):
            torch.add(numbers, numbers)
            numbers.index_select(0, rows)
        return (time.perf_counter() - begin) * 1e3


def time_passes(work: Sequence[Callable[[], float]], seconds: float) -> Timing:
    """Repeats a pass at least twice and until a third of `seconds` is spent; starts again if that was noisy.

    Beside other workers of the same driver there is one attempt of two passes: the other workers cause the noise, so it
    would be the same in every further attempt.

    Args:
        work: The pieces of work of one pass; each returns its time in milliseconds.
        seconds: For all attempts together.
    """
    best, elapsed = None, 0.0
    seconds, attempts = (0.0, 1) if siblings() else (seconds, ATTEMPTS)
    for attempt in range(1, 1 + attempts):
        gc.collect()
        other_processes, begin = OtherProcesses(), time.perf_counter()
        passes: list[list[float]] = []
        reference_times_ms: list[float] = []
        while len(passes) < 2 or time.perf_counter() - begin < seconds / ATTEMPTS:
            passes.append([])
            for piece in work:
                passes[-1].append(piece())
                reference_times_ms.append(reference_work())
        took = time.perf_counter() - begin
        elapsed += took
        timing = Timing(passes, other_processes.share(took), reference_times_ms, attempt)
        if best is None or timing.total_noise < best.total_noise:
            best = timing
        if best.quiet or elapsed >= seconds:
            break
    assert best is not None
    return best


@dataclass(frozen=True)
class LatencyBenchmark:
    """A model with the sentences that it is timed on.

    Attributes:
        model: It runs on the device where it is.
        sources: Token ids without EOS.
        lengths: Number of tokens to write for each source: that of the reference, with EOS.
        settings: Beam and length penalty.
        free_running: Whether free-running output is timed, too. With initial weights its length means nothing.
        cuda_graphs: Whether the steps of single sentences are launched as CUDA graphs (`machine.cuda_graphs`).
    """

    model: Translator
    sources: Ids
    lengths: list[int]
    settings: DecodingSettings
    free_running: bool = True
    cuda_graphs: bool = False

    @classmethod
    def of(
        cls,
        model: Translator,
        sources: Ids,
        targets: Ids,
        settings: DecodingSettings,
        sentences: int,
        free_running: bool = True,
        cuda_graphs: bool = False,
    ) -> LatencyBenchmark:
        """Selects the given number of evenly spaced sentences of a test set."""
        count = min(sentences, len(sources))
        indices = [number * len(sources) // count for number in range(count)]
        lengths = [len(targets[i]) + 1 for i in indices]
        return cls(model, [sources[i] for i in indices], lengths, settings, free_running, cuda_graphs)

    def synchronize(self) -> None:
        """Waits until the device has finished its work."""
        if self.model.device.type != "cpu":
            torch.accelerator.synchronize()

    def time_ms(self, sources: Ids, lengths: list[int] | None, batch: int = 1) -> float:
        """Translates `sources` and returns the time in milliseconds. `lengths` None: free-running."""
        settings = replace(self.settings, batch_sentences=batch)
        self.synchronize()
        begin = time.perf_counter()
        translate(self.model, sources, settings, forced_lengths=lengths)
        self.synchronize()
        return (time.perf_counter() - begin) * 1e3

    def warm_up(self) -> None:
        """Three translations, two of them of the longest sentence: warms up shapes, caches and clock rates."""
        longest = max(range(len(self.sources)), key=lambda index: len(self.sources[index]) + self.lengths[index])
        for index in (0, longest, longest):
            self.time_ms([self.sources[index]], [self.lengths[index]])

    @property
    def provenance(self) -> str:
        """Beam, precision and hardware."""
        device = self.model.device
        if device.type == "cuda":
            where = torch.cuda.get_device_name(device)
        else:
            where = f"{device.type}, {torch.get_num_threads()} threads"
        if torch.is_autocast_enabled(device.type):
            precision = f"autocast {torch.get_autocast_dtype(device.type)}"
        else:
            precision = str(next(self.model.parameters()).dtype)
        return f"beam {self.settings.beam}; {precision.replace('torch.', '')}; {where}"

    # --- what is measured ---------------------------------------------------------------------------------------

    def time_single_sentences(self, seconds: float) -> Timing:
        """Times passes over the single sentences: first tokens, then forced lengths, then free-running.

        Each pass has N samples, one for each sentence, for each of the three.
        """
        first = [partial(self.time_ms, [source], [1]) for source in self.sources]
        whole = [partial(self.time_ms, [s], [n]) for s, n in zip(self.sources, self.lengths, strict=True)]
        free = [partial(self.time_ms, [source], None) for source in self.sources if self.free_running]
        with packed_weights(self.model), recorded_steps(self.model, self.cuda_graphs):
            self.warm_up()
            for piece in 2 * (first + whole + free) if self.cuda_graphs else ():  # recorded the second time
                piece()
            return time_passes(first + whole + free, seconds)

    def single_sentence_measures(self, seconds: float) -> list[Measure]:
        """Latency of single sentences: percentiles (forced and free), time to the first token and per later token.

        The time to the first token is that of a translation of length one, including the encoder. A later token takes
        (whole - first) / (tokens - 1).
        """
        timing = self.time_single_sentences(seconds)
        count = len(self.sources)
        first_PN, whole_PN, free_PN = np.split(np.array(timing.passes), [count, 2 * count], axis=1)
        graphs = "; CUDA graphs" if self.cuda_graphs and self.model.is_repeatable(training=False) else ""
        samples = f"{count} sentences, {whole_PN.size} samples"
        provenance = f"batch 1; {{}}; {samples}; {self.provenance}{graphs}; {timing.noise}"
        noisy, measures = not timing.quiet, []
        for name, length, samples_PN in (
            ("latency", "reference's length", whole_PN),
            ("latency_free", "free length", free_PN),
        ):
            for percent in (50, 90, 95, 99) if samples_PN.size else ():
                value = float(np.percentile(samples_PN, percent))
                text = provenance.format(length)
                measures.append(Measure(f"{name}_p{percent}_ms", value, "ms", provenance=text, noisy=noisy))
        later_N = np.array(self.lengths) - 1
        each_PX = ((whole_PN - first_PN) / later_N.clip(1))[:, later_N > 0]
        per_token = float(np.median(each_PX)) if each_PX.size else None
        rate = 1e3 / float(np.median(whole_PN.sum(axis=1)))
        median, forced = provenance.format("median"), provenance.format("reference's length")
        return [
            *measures,
            Measure("latency_first_token_ms", float(np.median(first_PN)), "ms", provenance=median, noisy=noisy),
            Measure("latency_per_token_ms", per_token, "ms", provenance=median, noisy=noisy),
            Measure("sentences_per_s_b1", len(self.sources) * rate, "1/s", provenance=forced, noisy=noisy),
            Measure("tokens_per_s_b1", sum(self.lengths) * rate, "1/s", provenance=forced, noisy=noisy),
        ]

    def batch_measures(self, few: LatencyBenchmark, seconds: float) -> list[Measure]:
        """Sentences and output tokens (EOS included, padding excluded) per second, by batch size.

        The batch of 128 has the sentences of this benchmark, the smaller batches those of `few`. A pass has all sizes.
        """
        plans = [(few, batch, False) for batch in BATCHES[1:-1]] + [
            (self, BATCHES[-1], False),
            *([(few, TABLE_BATCH, True)] if self.free_running else []),
        ]
        work = [
            partial(bench.time_ms, bench.sources, None if free else bench.lengths, batch)
            for bench, batch, free in plans
        ]
        with packed_weights(self.model):
            for piece in work:  # kernels are prepared for each number of rows
                piece()
            timing = time_passes(work, seconds)
        noisy, measures = not timing.quiet, []
        for (bench, batch, free), took_P in zip(plans, np.array(timing.passes).T, strict=True):
            rate, sentences = 1e3 / float(np.median(took_P)), len(bench.sources)
            length, name = ("free length", "_free") if free else ("reference's length", "")
            sample = f"{sentences} sentences, {len(took_P)} samples"
            provenance = f"batch {batch}; {length}; {sample}; {self.provenance}; {timing.noise}"
            rates = [(f"sentences_per_s{name}_b{batch}", sentences)]
            if not free:
                rates.append((f"tokens_per_s_b{batch}", sum(bench.lengths)))
            measures += [Measure(metric, n * rate, "1/s", provenance=provenance, noisy=noisy) for metric, n in rates]
        return measures


def measure(
    model: Translator,
    sources: Ids,
    targets: Ids,
    settings: DecodingSettings,
    seconds: float = SECONDS,
    free_running: bool = True,
    cuda_graphs: bool = False,
) -> list[Measure]:
    """Measures everything in the protocol of docs/latency.md, and the peak memory of decoding.

    Takes about `seconds` on a noisy machine and a third of that on a quiet one, but at least two passes.
    """
    few, many = (
        LatencyBenchmark.of(model, sources, targets, settings, count, free_running, cuda_graphs)
        for count in (TABLE_BATCH, BATCHES[-1])
    )
    single = few.single_sentence_measures(seconds * 2 / 3)
    batches = many.batch_measures(few, seconds / 3)
    table_rate = next(one for one in batches if one.metric == f"sentences_per_s_b{TABLE_BATCH}")
    return [
        *single,
        replace(table_rate, metric="sentences_per_s"),
        *batches,
        decoding_memory(model, few.sources, replace(settings, batch_sentences=TABLE_BATCH), few.lengths),
    ]
