"""How fast a model translates: time for one sentence, sentences per second, by the protocol of docs/latency.md.

From token ids in memory to the best hypothesis's ids in memory, with the run's own beam; no tokenisation. Output
lengths are forced to the reference's, so that no model is fast by saying little; free-running is a second figure. The
sentences stand at equal distances in the test set and are the same for all models. One process; warmed up;
the device is waited for before each reading of the clock.

Sources of error are measured, not assumed: the share of all cores that other processes took (above 5 % is noise) and
the spread between passes over the same sentences (above 10 % is noise). A noisy attempt is repeated, three in all while
the budget of time lasts; the calmest is kept and its noise is printed in the recipe. A virtual processor whose
neighbours are busy runs slower for moments or minutes with neither to be seen, so a fixed piece of work is timed after
each translation, too: what it takes is printed, and above 10 % between its slow and its fast times is noise.
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
from bench.measures.measure import Measure
from bench.measures.memory import decoding_memory
from bench.system.machine import siblings
from models.parts.translator import Translator

BATCHES = (1, 8, 32, 128)
TABLE_BATCH = 32
"""Sentences that are timed one by one, and the batch of `sentences_per_s` and `peak_memory_bytes` in the table."""

SECONDS = 9.0
"""For the figures of one row: a ladder of twenty is timed in three minutes."""

OTHERS_LIMIT, SPREAD_LIMIT, ATTEMPTS = 0.05, 0.10, 3

Ids = Sequence[list[int]]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of every sample of every pass, and the noise while they were taken.

    Attributes:
        passes: One list of samples for each pass over the same work.
        others: Share of all cores that other processes used, 0 to 1.
        references: What `reference_work` took after each sample.
        attempts: How often the measurement was begun.
    """

    passes: list[list[float]]
    others: float
    references: list[float]
    attempts: int = 1

    @property
    def reference_ms(self) -> float:
        """The median of the reference work."""
        return statistics.median(self.references)

    @property
    def unsteady(self) -> float:
        """(slow - fast) / median of the reference work, slow and fast being its ninth and its first decile."""
        fast, slow = np.quantile(self.references, (0.1, 0.9))
        return float(slow - fast) / self.reference_ms

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median of the passes' sums."""
        sums = [sum(samples) for samples in self.passes]
        return (max(sums) - min(sums)) / statistics.median(sums)

    @property
    def quiet(self) -> bool:
        return self.others <= OTHERS_LIMIT and max(self.spread, self.unsteady) <= SPREAD_LIMIT

    @property
    def disturbance(self) -> float:
        """By which attempts are compared."""
        return self.others + self.spread + self.unsteady

    @property
    def noise(self) -> str:
        verdict = "quiet" if self.quiet else "NOISY"
        return (
            f"{verdict}: other processes {self.others:.0%} of the cores, spread {self.spread:.0%}, "
            f"machine {self.unsteady:.0%}, "
            f"{len(self.passes)} passes, attempt {self.attempts}, reference work {self.reference_ms:.2f} ms"
        )


class Others:
    """The share of all cores that other processes use between `Others()` and `share()`.

    Busy time of the machine minus this process's own, over wall time x cores. Clock ticks are 10 ms: an error of 1 %
    in a second.
    """

    def __init__(self) -> None:
        self.begin = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        # `guest` is contained in `user`, so it must not be added again.
        total = sum(getattr(machine, name) for name in machine._fields if not name.startswith("guest"))
        return total - idle, own.user + own.system

    def share(self, seconds: float) -> float:
        busy, own = (now - begin for now, begin in zip(self._now(), self.begin, strict=True))
        return max(0.0, busy - own) / (seconds * (psutil.cpu_count() or 1))


def reference_work() -> float:
    """Milliseconds of 200 operations on 5 x 64 numbers, called from Python, which is most of what decoding is."""
    numbers, rows = torch.ones(5, 64), torch.arange(5)
    with torch.inference_mode():
        begin = time.perf_counter()
        for _ in range(100):
            torch.add(numbers, numbers)
            numbers.index_select(0, rows)
        return (time.perf_counter() - begin) * 1e3


def timed(work: Sequence[Callable[[], float]], seconds: float) -> Timing:
    """Repeats a pass, at least twice, until a third of the seconds is spent; begins again where that was noisy.

    Beside other workers of the same driver there are two passes, once: they are the noise, and would be so again.

    Args:
        work: What a pass consists of; each piece says how many milliseconds it took.
        seconds: All attempts together.
    """
    best, spent = None, 0.0
    seconds, attempts = (0.0, 1) if siblings() else (seconds, ATTEMPTS)
    for attempt in range(1, 1 + attempts):
        gc.collect()
        others, begin = Others(), time.perf_counter()
        passes: list[list[float]] = []
        references: list[float] = []
        while len(passes) < 2 or time.perf_counter() - begin < seconds / ATTEMPTS:
            passes.append([])
            for piece in work:
                passes[-1].append(piece())
                references.append(reference_work())
        took = time.perf_counter() - begin
        spent += took
        timing = Timing(passes, others.share(took), references, attempt)
        if best is None or timing.disturbance < best.disturbance:
            best = timing
        if best.quiet or spent >= seconds:
            break
    assert best is not None
    return best


@dataclass(frozen=True)
class LatencyBenchmark:
    """A model with the sentences that it is timed on.

    Attributes:
        model: Where it is is where it runs.
        sources: Token ids without EOS.
        lengths: Tokens to write for each source, EOS included: the reference's.
        settings: Beam and length penalty.
    """

    model: Translator
    sources: Ids
    lengths: list[int]
    settings: DecodingSettings

    @classmethod
    def of(
        cls, model: Translator, sources: Ids, targets: Ids, settings: DecodingSettings, sentences: int
    ) -> LatencyBenchmark:
        """Takes so many sentences at equal distances from a test set."""
        count = min(sentences, len(sources))
        places = [number * len(sources) // count for number in range(count)]
        return cls(model, [sources[p] for p in places], [len(targets[p]) + 1 for p in places], settings)

    def wait(self) -> None:
        if self.model.device.type != "cpu":
            torch.accelerator.synchronize()

    def milliseconds(self, sources: Ids, lengths: list[int] | None, batch: int = 1) -> float:
        settings = replace(self.settings, batch_sentences=batch)
        self.wait()
        begin = time.perf_counter()
        translate(self.model, sources, settings, forced_lengths=lengths)
        self.wait()
        return (time.perf_counter() - begin) * 1e3

    def warm_up(self) -> None:
        """Shapes, caches and clocks: three translations, the longest among them."""
        longest = max(range(len(self.sources)), key=lambda place: len(self.sources[place]) + self.lengths[place])
        for place in (0, longest, longest):
            self.milliseconds([self.sources[place]], [self.lengths[place]])

    @property
    def provenance(self) -> str:
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

    def one_by_one(self, seconds: float) -> Timing:
        """Passes over the sentences, each for its first token, then for the whole of each, then free-running."""
        first = [partial(self.milliseconds, [source], [1]) for source in self.sources]
        whole = [partial(self.milliseconds, [s], [n]) for s, n in zip(self.sources, self.lengths, strict=True)]
        free = [partial(self.milliseconds, [source], None) for source in self.sources]
        self.warm_up()
        return timed(first + whole + free, seconds)

    def alone(self, seconds: float) -> list[Measure]:
        """Latency of one sentence alone: percentiles, forced and free; time to the first token, and of each later one.

        The first token is a translation of length one, which reads the source; a later token costs
        (whole - first) / (tokens - 1).
        """
        timing = self.one_by_one(seconds)
        first_PN, whole_PN, free_PN = np.split(np.array(timing.passes), 3, axis=1)
        provenance = (
            f"batch 1; {{}}; {len(self.sources)} sentences, {whole_PN.size} samples; {self.provenance}; {timing.noise}"
        )
        noisy, measures = not timing.quiet, []
        for name, length, samples_PN in (
            ("latency", "reference's length", whole_PN),
            ("latency_free", "free length", free_PN),
        ):
            for percent in (50, 90, 95, 99):
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

    def together(self, few: LatencyBenchmark, seconds: float) -> list[Measure]:
        """Sentences and written tokens (EOS counted, padding not) per second, by batch size.

        A batch of 128 is made of this bench's sentences, the smaller ones of the `few`. A pass takes all sizes.
        """
        plans = [(few, batch, False) for batch in BATCHES[1:-1]] + [
            (self, BATCHES[-1], False),
            (few, TABLE_BATCH, True),
        ]
        work = [
            partial(bench.milliseconds, bench.sources, None if free else bench.lengths, batch)
            for bench, batch, free in plans
        ]
        if self.model.device.type != "cpu":
            for piece in work:  # warms up; a CPU prepares nothing for a shape, and `alone` has run the code
                piece()
        timing = timed(work, seconds)
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
    model: Translator, sources: Ids, targets: Ids, settings: DecodingSettings, seconds: float = SECONDS
) -> list[Measure]:
    """The whole protocol of docs/latency.md, and the peak memory of decoding.

    Takes about `seconds` on a noisy machine and a third of them on a quiet one; two passes at least.
    """
    few, many = (LatencyBenchmark.of(model, sources, targets, settings, count) for count in (TABLE_BATCH, BATCHES[-1]))
    alone, together = few.alone(seconds * 2 / 3), many.together(few, seconds / 3)
    quoted = next(each for each in together if each.metric == f"sentences_per_s_b{TABLE_BATCH}")
    return [
        *alone,
        replace(quoted, metric="sentences_per_s"),
        *together,
        decoding_memory(model, few.sources, replace(settings, batch_sentences=TABLE_BATCH), few.lengths),
    ]
