"""How fast a model translates: time for one sentence, sentences per second, by the protocol of docs/latency.md.

From token ids in memory to the best hypothesis's ids in memory, with the run's own beam; no tokenisation. Output
lengths are forced to the reference's, so that no model is fast by saying little; free-running is a second figure. The
sentences stand at equal distances in the test set and are the same for all models. One process; warmed up;
the device is waited for before each reading of the clock.

Sources of error are measured, not assumed: the share of all cores that other processes took (above 5 % is noise) and
the spread between passes over the same sentences (above 10 % is noise). A noisy attempt is repeated, three in all while
the budget of time lasts; the calmest is kept and its noise is printed in the recipe.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import psutil
import torch

from bench.decoding import DecodingSettings, translate
from bench.measures import Measure
from bench.measures.memory import decoding_memory, weights
from models.parts.translator import Translator

BATCHES = (1, 8, 32, 128)
TABLE_BATCH = 32
"""The batch of `sentences_per_s` and `peak_memory_bytes` in the table."""

OTHERS_LIMIT, SPREAD_LIMIT, ATTEMPTS = 0.05, 0.10, 3

Ids = Sequence[list[int]]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of every sample of every pass, and the noise while they were taken.

    Attributes:
        passes: One list of samples for each pass over the same work.
        others: Share of all cores that other processes used, 0 to 1.
        attempts: How often the measurement was begun.
    """

    passes: list[list[float]]
    others: float
    attempts: int = 1

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median of the passes' sums."""
        sums = [sum(samples) for samples in self.passes]
        return (max(sums) - min(sums)) / statistics.median(sums)

    @property
    def quiet(self) -> bool:
        return self.others <= OTHERS_LIMIT and self.spread <= SPREAD_LIMIT

    @property
    def noise(self) -> str:
        verdict = "quiet" if self.quiet else "NOISY"
        return (
            f"{verdict}: other processes {self.others:.0%} of the cores, spread {self.spread:.0%}, "
            f"{len(self.passes)} passes, attempt {self.attempts}"
        )

    def quantile(self, share: float) -> float:
        return float(np.quantile([sample for samples in self.passes for sample in samples], share))


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


def timed(one_pass: Callable[[], list[float]], seconds: float) -> Timing:
    """Repeats a pass, at least twice, until a third of the seconds is spent; begins again where that was noisy."""
    best, spent = None, 0.0
    for attempt in range(1, ATTEMPTS + 1):
        gc.collect()
        others, begin, passes = Others(), time.perf_counter(), []
        while len(passes) < 2 or time.perf_counter() - begin < seconds / ATTEMPTS:
            passes.append(one_pass())
        took = time.perf_counter() - begin
        spent += took
        timing = Timing(passes, others.share(took), attempt)
        if best is None or timing.others + timing.spread < best.others + best.spread:
            best = timing
        if best.quiet or spent >= seconds:
            break
    assert best is not None
    return best


@dataclass(frozen=True)
class Bench:
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
    def of(cls, model: Translator, sources: Ids, targets: Ids, settings: DecodingSettings, sentences: int) -> Bench:
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

    def warm_up(self, batch: int) -> None:
        """Shapes, caches and clocks: three translations, the longest among them."""
        longest = max(range(len(self.sources)), key=lambda place: len(self.sources[place]) + self.lengths[place])
        for place in (0, longest, longest):
            self.milliseconds([self.sources[place]] * batch, [self.lengths[place]] * batch, batch)

    @property
    def recipe(self) -> str:
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

    def sentence(self, seconds: float, *, free: bool = False) -> list[Measure]:
        """Latency of one sentence alone: median, 90th, 95th and 99th percentile, in ms."""

        def one_pass() -> list[float]:
            return [
                self.milliseconds([source], None if free else [length])
                for source, length in zip(self.sources, self.lengths, strict=True)
            ]

        self.warm_up(1)
        timing = timed(one_pass, seconds)
        name = "latency_free" if free else "latency"
        length = "free length" if free else "reference's length"
        recipe = (
            f"batch 1; {length}; {len(self.sources)} sentences, {len(timing.passes) * len(self.sources)} samples; "
            f"{self.recipe}; {timing.noise}"
        )
        return [
            Measure(f"{name}_p{percent}_ms", timing.quantile(percent / 100), "ms", recipe=recipe)
            for percent in (50, 90, 95, 99)
        ]

    def tokens(self, seconds: float) -> list[Measure]:
        """Median time to the first token, which reads the source, and of each token after it, in ms."""
        rest = [length - 1 for length in self.lengths]
        first_passes: list[list[float]] = []

        def one_pass() -> list[float]:
            first = [self.milliseconds([source], [1]) for source in self.sources]
            whole = [self.milliseconds([s], [n]) for s, n in zip(self.sources, self.lengths, strict=True)]
            first_passes.append(first)
            return [w - f for w, f in zip(whole, first, strict=True)]

        self.warm_up(1)
        timing = timed(one_pass, seconds)
        each = [ms / n for samples in timing.passes for ms, n in zip(samples, rest, strict=True) if n]
        first = [ms for samples in first_passes for ms in samples]
        recipe = f"batch 1; {len(self.sources)} sentences; {self.recipe}; {timing.noise}"
        return [
            Measure("latency_first_token_ms", statistics.median(first), "ms", recipe=recipe),
            Measure("latency_per_token_ms", statistics.median(each) if each else None, "ms", recipe=recipe),
        ]

    def throughput(self, batch: int, seconds: float, *, free: bool = False) -> list[Measure]:
        """Sentences and written tokens (EOS counted, padding not) per second, in batches sorted by length."""
        lengths = None if free else self.lengths
        self.warm_up(min(batch, len(self.sources)))
        timing = timed(lambda: [self.milliseconds(self.sources, lengths, batch)], seconds)
        rate = 1e3 / timing.quantile(0.5)
        name, length = ("_free", "free length") if free else ("", "reference's length")
        recipe = f"batch {batch}; {length}; {len(self.sources)} sentences; {self.recipe}; {timing.noise}"
        measures = [Measure(f"sentences_per_s{name}_b{batch}", len(self.sources) * rate, "1/s", recipe=recipe)]
        if not free:
            measures.append(Measure(f"tokens_per_s_b{batch}", sum(self.lengths) * rate, "1/s", recipe=recipe))
        return measures


def measure(
    model: Translator, sources: Ids, targets: Ids, settings: DecodingSettings, seconds: float = 3.0
) -> list[Measure]:
    """What every row of a table shows: latency, sentences per second at batch 32, peak memory of decoding.

    Takes about `seconds`, or as long as two passes over 32 sentences take, whichever is longer.
    """
    bench = Bench.of(model, sources, targets, settings, TABLE_BATCH)
    sentence = bench.sentence(seconds * 2 / 3)
    (rate, *_) = bench.throughput(TABLE_BATCH, seconds / 3)
    return [
        *(part for part in sentence if part.metric in ("latency_p50_ms", "latency_p95_ms")),
        replace(rate, metric="sentences_per_s"),
        decoding_memory(model, bench.sources, replace(settings, batch_sentences=TABLE_BATCH), bench.lengths),
    ]


def protocol(
    model: Translator, sources: Ids, targets: Ids, settings: DecodingSettings, seconds: float, sentences: int = 128
) -> list[Measure]:
    """The whole of docs/latency.md: every percentile, first and later tokens, four batch sizes, free-running.

    Each of the eight parts takes about `seconds` / 8, or two passes over the sentences.
    """
    bench, share = Bench.of(model, sources, targets, settings, sentences), seconds / 8
    measures = bench.sentence(share) + bench.sentence(share, free=True) + bench.tokens(share)
    for batch in BATCHES:
        measures += bench.throughput(batch, share)
    measures += bench.throughput(TABLE_BATCH, share, free=True)
    return [*measures, Measure("memory_weights_bytes", weights(model), "bytes", recipe="parameters and buffers")]
