"""The latency protocol, the treatment of noise, and memory. No test requires a fast machine."""

from __future__ import annotations

import itertools
import time
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from bench.decoding.beam_search import DecodingSettings
from bench.measures import latency, memory
from bench.measures.latency import LatencyBenchmark, Timing, time_passes
from bench.measures.measure import Measure
from bench.system.machine import SIBLINGS, bf16_fallback
from models import transformer
from models.parts.batch import Batch, Tokens
from reports.text.catalogue import load_catalogue

SOURCES = [[5, 6, 7, 8][: 1 + number % 4] for number in range(40)]
TARGETS = [[5, 6, 7][: 1 + number % 3] for number in range(40)]


def tiny() -> transformer.Model:
    return transformer.Model(transformer.Config(layers=1, width=16, inner=32, heads=2), 11, 11)


def by_name(measures: list[Measure]) -> dict[str, Measure]:
    assert len({measure.metric for measure in measures}) == len(measures)
    return {measure.metric: measure for measure in measures}


def value(measure: Measure) -> float:
    assert measure.value is not None
    return measure.value


def test_all_measures_of_the_protocol() -> None:
    found = by_name(latency.measure(tiny(), SOURCES, TARGETS, DecodingSettings(beam=2, extra_length=2), seconds=0.0))
    provenance = found["latency_p50_ms"].provenance
    parts = ("batch 1", "reference's length", "32 sentences, 64 samples", "beam 2", "float32", "cpu", "threads")
    for part in (*parts, "2 passes, attempt 1"):
        assert part in provenance
    assert ("quiet" in provenance) != ("NOISY" in provenance)
    assert all(measure.noisy == ("NOISY" in measure.provenance) for measure in found.values())
    for name in ("latency", "latency_free"):
        percentiles = [value(found[f"{name}_p{percent}_ms"]) for percent in (50, 90, 95, 99)]
        assert percentiles[0] > 0
        assert percentiles == sorted(percentiles)
    assert value(found["latency_first_token_ms"]) < value(found["latency_p99_ms"])
    for batch in (1, 8, 32, 128):
        sentences, tokens = value(found[f"sentences_per_s_b{batch}"]), value(found[f"tokens_per_s_b{batch}"])
        # Tokens per sentence, without padding, at every batch size. For 128 there are only 40 sentences.
        count = 40 if batch == 128 else 32
        indices = [number * 40 // count for number in range(count)]
        assert tokens / sentences == pytest.approx(sum(len(TARGETS[i]) + 1 for i in indices) / count)
    assert found["sentences_per_s"].value == found["sentences_per_s_b32"].value
    assert "free length" in found["sentences_per_s_free_b32"].provenance
    assert "latency_per_token_ms" in found
    assert found["peak_memory_bytes"].unit == "bytes"


def test_a_later_token_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 ms for the source and the first token, 2 ms for each later one: 5, 7 and 9 ms for 1, 2 and 3 tokens."""
    monkeypatch.setattr(
        LatencyBenchmark, "time_ms", lambda self, sources, lengths, batch=1: 3.0 + 2 * (lengths or [4])[0]
    )
    bench = LatencyBenchmark(tiny(), [[5]] * 3, [1, 2, 3], DecodingSettings())
    found = by_name(bench.single_sentence_measures(0.0))
    assert value(found["latency_first_token_ms"]) == 5
    assert value(found["latency_per_token_ms"]) == 2
    assert (value(found["latency_p50_ms"]), value(found["latency_free_p50_ms"])) == (7, 11)
    assert value(found["sentences_per_s_b1"]) == pytest.approx(3 / 0.021)
    assert value(found["tokens_per_s_b1"]) == pytest.approx(6 / 0.021)
    one = by_name(LatencyBenchmark(tiny(), [[5]], [1], DecodingSettings()).single_sentence_measures(0.0))
    assert one["latency_per_token_ms"].value is None


def test_output_lengths_are_forced_to_those_of_the_references(monkeypatch: pytest.MonkeyPatch) -> None:
    forced = []
    monkeypatch.setattr(latency, "translate", lambda *_, forced_lengths=None: forced.append(forced_lengths))
    bench = LatencyBenchmark.of(tiny(), SOURCES, TARGETS, DecodingSettings(), sentences=4)
    assert bench.sources == [SOURCES[index] for index in (0, 10, 20, 30)]
    assert bench.lengths == [len(TARGETS[index]) + 1 for index in (0, 10, 20, 30)]
    bench.single_sentence_measures(0.0)
    assert forced[-12:] == [[1]] * 4 + [[length] for length in bench.lengths] + [None] * 4
    bench.batch_measures(bench, 0.0)
    assert forced[-4:] == [bench.lengths] * 3 + [None]


def slow_work() -> float:
    time.sleep(0.02)
    return 1.0


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretends that the machine's pace is constant, and skips garbage collection, which takes longer than the work."""
    monkeypatch.setattr(latency, "reference_work", lambda: 1.0)
    monkeypatch.setattr(latency, "gc", SimpleNamespace(collect=lambda: None))


@pytest.mark.usefixtures("steady")
def test_a_noisy_measurement_is_repeated_and_the_least_noisy_attempt_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.5, 0.2, 0.4])
    monkeypatch.setattr(latency.OtherProcesses, "share", lambda self, seconds: next(shares))
    timing = time_passes([slow_work], seconds=0.0001)  # used up by the first attempt
    assert (timing.attempt, timing.other_share) == (1, 0.5)
    shares = iter([0.5, 0.2, 0.4])
    timing = time_passes([slow_work], seconds=0.3)
    assert (timing.attempt, timing.other_share, timing.quiet) == (2, 0.2, False)
    assert "NOISY: other processes 20% of the cores, spread 0%" in timing.noise
    shares = iter([0.5, 0.01])
    assert time_passes([slow_work], seconds=0.3).quiet


@pytest.mark.usefixtures("steady")
def test_beside_workers_of_the_same_driver_no_attempt_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency.OtherProcesses, "share", lambda self, seconds: 0.5)
    monkeypatch.setenv(SIBLINGS, "1")
    timing = time_passes([slow_work], seconds=0.3)
    assert (timing.attempt, len(timing.passes)) == (1, 2)
    monkeypatch.setenv(SIBLINGS, "0")
    shares = iter([0.5, 0.4, 0.01])
    monkeypatch.setattr(latency.OtherProcesses, "share", lambda self, seconds: next(shares))
    assert time_passes([slow_work], seconds=0.3).attempt == 3


@pytest.mark.usefixtures("steady")
def test_spread_between_passes_is_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency.OtherProcesses, "share", lambda self, seconds: 0.0)
    slow = itertools.cycle([1.0, 1.2])
    timing = time_passes([lambda: next(slow)], seconds=0.0)
    assert timing.spread == pytest.approx(0.2 / 1.1)
    assert not timing.quiet
    assert Timing(
        [[1.0, 2.0], [2.0, 1.0]], other_share=0.0, reference_times_ms=[1.0]
    ).quiet  # both passes have the same total


def test_a_machine_that_changes_its_pace_is_noisy() -> None:
    steady = Timing([[1.0], [1.0]], 0.0, [2.0, 2.1] * 50)
    assert steady.pace_variation == pytest.approx(0.1 / 2.05)
    assert steady.quiet
    half_as_fast_at_times = Timing([[1.0], [1.0]], 0.0, [2.0, 2.0, 2.0, 4.0] * 25)
    assert half_as_fast_at_times.pace_variation == pytest.approx(1.0)
    assert not half_as_fast_at_times.quiet
    assert "NOISY: other processes 0% of the cores, spread 0%, machine 100%," in half_as_fast_at_times.noise
    assert Timing([[1.0], [1.0]], 0.0, [2.0] * 99 + [50.0]).quiet, "a single interruption is not a change of pace"


def test_a_machine_that_does_not_tell_its_load_is_noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sandbox without /proc/stat. Unknown must not count as quiet, and must not cost the run."""

    def no_file() -> None:
        raise FileNotFoundError("/proc/stat")

    monkeypatch.setattr(latency.psutil, "cpu_times", no_file)
    share = latency.OtherProcesses().share(1.0)
    timing = Timing([[1.0], [1.0]], share, [2.0] * 100)
    assert (share, timing.quiet, timing.total_noise) == (None, False, 0.0)
    assert timing.noise.startswith("NOISY: other processes unknown, spread 0%")


@pytest.mark.parametrize("other_share", [0.0, 0.5, None])
def test_the_korean_report_translates_the_noise(other_share: float | None) -> None:
    timing = Timing([[1.0, 2.0], [2.0, 1.0]], other_share, reference_times_ms=[4.126])
    assert "reference work 4.13 ms" in timing.noise
    korean = load_catalogue("ko").recorded(timing.noise)
    assert "기준 작업 4.13 ms" in korean
    assert "other processes" not in korean


def test_the_share_of_other_processes_excludes_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([(100.0, 7.0), (103.0, 9.0)])  # busy seconds of all cores, and of this process
    monkeypatch.setattr(latency.OtherProcesses, "_now", staticmethod(lambda: next(readings)))
    monkeypatch.setattr(latency.psutil, "cpu_count", lambda: 4)
    assert latency.OtherProcesses().share(2.0) == pytest.approx((3 - 2) / (2 * 4))


def test_busy_time_excludes_idle_time_and_counts_guests_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = namedtuple("times", "user system idle iowait guest")(5.0, 2.0, 90.0, 3.0, 1.0)
    monkeypatch.setattr(latency.psutil, "cpu_times", lambda: times)
    now = latency.OtherProcesses._now()
    assert now
    assert now[0] == 7.0


def test_the_time_of_this_process_is_its_own() -> None:
    first = latency.OtherProcesses._now()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    last = latency.OtherProcesses._now()
    assert first
    assert last
    assert last[1] - first[1] == pytest.approx(0.1, abs=0.05)


def test_shared_weights_are_counted_once() -> None:
    model = tiny()  # one matrix serves as both embeddings and softmax
    assert memory.weights(model) == 4 * model.parameter_counts()[0]


def test_the_working_set_includes_short_lived_memory() -> None:
    def work() -> None:
        torch.zeros(25_000_000).sum()  # 100 MB

    size, how = memory.working_set(work, torch.device("cpu"))
    if size is None:
        assert how.startswith("not measured: ")
    else:
        assert size == pytest.approx(100e6, rel=0.05)


def test_memory_of_training_and_decoding() -> None:
    model = tiny()
    lengths = (20,) * 64
    side = Tokens(torch.full((64, 20), 5), lengths)
    before = [parameter.clone() for parameter in model.parameters()]
    training = memory.training_memory(model, Batch(side, side))
    decoding = memory.decoding_memory(model, [[5, 6]] * 4, DecodingSettings(), [3] * 4)
    for measure in (training, decoding):
        assert measure.unit == "bytes"
        assert measure.value is None or measure.value >= memory.weights(model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_update_is_measured_in_the_autocast_that_it_is_trained_in(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = tiny(), list[tuple[bool, bool]]()
    step, side = type(model).training_step, Tokens(torch.full((2, 3), 5), (3, 3))

    def training_step(self: Any, batch: Batch, batch_idx: int) -> torch.Tensor:
        seen.append((torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(type(model), "training_step", training_step)
    memory.training_memory(model, Batch(side, side), dtype)
    mixed = dtype == torch.bfloat16
    precision: Any = "bf16-mixed" if mixed else "32-true"
    with bf16_fallback(torch.device("cpu"), mixed):
        trainer = pl.Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
        with trainer.precision_plugin.forward_context():
            training_step(model, Batch(side, side), 0)
    measured, trained = seen
    assert measured == trained
    assert measured[0] is mixed


def test_memory_is_none_where_the_system_has_no_high_water_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sandboxes such as gVisor accept the reset and lack the line VmHWM."""

    def no_line() -> None:
        raise KeyError("VmHWM")

    monkeypatch.setattr(memory, "_resident", no_line)
    peak, how = memory.working_set(lambda: None, torch.device("cpu"))
    assert peak is None
    assert how.startswith("not measured: the resident set's high-water mark needs Linux")


def test_memory_is_none_where_there_are_no_statistics() -> None:
    assert memory.working_set(lambda: None, torch.device("meta")) == (
        None,
        "not measured: no allocator statistics for meta",
    )
