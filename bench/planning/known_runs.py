"""The speed of jobs that have finished: their seconds, joules and memory, from a tracking store or an export."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from bench.experiment.spec import Experiment, flatten
from bench.planning.rate import Rate
from bench.system.facts import cpu_name, fact
from bench.tracking.reading import Reader, TrackedRun

SAME = ("text.kind", "text.vocabulary_size", "text.source_vocabulary_size", "text.joint", "text.max_length")
SAME += ("training.batch_tokens", "training.batch_pairs", "training.precision", "training.validations")
SAME += ("training.reward.share", "training.reward.samples", "decoding.beam", "ensemble.members")
"""Settings besides those of the model that a run must share with a job whose time it is to predict."""

GAP = 3.0
"""A run whose time beside its updates is more than this many times that of similar runs was interrupted."""

DECIDE_OTHER_SECONDS = ("training.validations", "decoding.beam")
"""Settings that, with preset and corpus, decide the time of a run beside its updates."""


@dataclass(frozen=True)
class Machine:
    """What the speed of a job depends on besides its settings. `threads` is ignored on a GPU."""

    cpu: str
    gpu: str
    threads: int
    processes: int = 1

    @classmethod
    def here(cls, experiment: Experiment, threads: int) -> Machine:
        """Returns this machine, as `environment_tags` describes it in a run."""
        on_gpu = experiment.machine.device.type == "cuda" and torch.cuda.is_available()
        gpu = torch.cuda.get_device_name() if on_gpu else "none"
        return cls(fact(cpu_name), gpu, threads, experiment.machine.processes)

    def runs_like(self, run: TrackedRun) -> bool:
        """Whether a run was made on such a machine."""
        if (run.tags.get("hardware.gpu"), run.tags.get("processes", "1")) != (self.gpu, str(self.processes)):
            return False
        here = (self.cpu, str(self.threads))
        return self.gpu != "none" or (run.tags.get("hardware.cpu"), run.tags.get("threads")) == here


@dataclass(frozen=True)
class KnownRun:
    """A finished run with its measures."""

    run: TrackedRun
    suite: str
    reader: Reader

    @cached_property
    def measures(self) -> dict[str, float]:
        found = self.reader.measures(self.run)
        return {measure.metric: measure.value for measure in found if measure.value is not None}

    @cached_property
    def other_seconds(self) -> float | None:
        """Seconds of the job beside its updates: validations, evaluation, latency, tracking; None if unknown."""
        if self.run.ended is None:
            return None
        updates = 0.0 if self.run.tags.get("members") else self.measures.get("wall_s", 0.0)
        return max(0.0, (self.run.ended - self.run.started).total_seconds() - updates)

    @property
    def similar(self) -> tuple[object, ...]:
        """What is equal in runs that take about the same time beside their updates."""
        tags, params = self.run.tags, self.run.params
        settings = (params.get(key) for key in DECIDE_OTHER_SECONDS)
        return tags.get("preset"), tags.get("corpus"), bool(tags.get("members")), *settings

    @property
    def flops_per_second(self) -> float | None:
        """Training FLOP/s of the run's updates."""
        seconds = self.measures.get("wall_s")
        return self.measures.get("train_flops", 0.0) / seconds if seconds else None


class KnownRuns:
    """The finished jobs of some stores and exports, the newest first.

    Args:
        newest: Number of suites of each that are read, the newest ones; None for all.
    """

    def __init__(self, readers: Sequence[Reader], newest: int | None = None) -> None:
        self.runs = [
            KnownRun(run, suite, reader)
            for reader in readers
            for suite in reader.suites()[:newest]
            for run in reader.runs(suite)
            if run.status == "FINISHED"
        ]

    def of_row(self, experiment: Experiment) -> list[KnownRun]:
        """The runs of the row at the preset with the same model, text and batches, on any machine and corpus."""
        wanted = flatten(experiment.settings)
        keys = [key for key in wanted if key.startswith("model.") or key in SAME]
        return [
            known
            for known in self.runs
            if (known.run.tags.get("row"), known.run.tags.get("preset")) == (experiment.row, experiment.preset)
            and all(known.run.params.get(key, "None") == str(wanted[key]) for key in keys)  # older runs lack new keys
        ]

    def rate(self, experiment: Experiment, machine: Machine, target_tokens_per_pair: float | None) -> Rate | None:
        """The rate of the nearest runs: the same row, preset and machine, and if possible the same corpus.

        Args:
            target_tokens_per_pair: Of the job's corpus; None to use only runs on the same corpus.
        """
        here = [known for known in self.of_row(experiment) if machine.runs_like(known.run)]
        same = [known for known in here if known.run.tags.get("corpus") == experiment.corpus_name]
        chosen = same or (here if target_tokens_per_pair is not None else [])
        usual = self._usual_other_seconds(machine) if chosen else {}
        rates = [
            (known, self._rate(known, experiment, target_tokens_per_pair, usual.get(known.similar))) for known in chosen
        ]
        used, found = [known for known, rate in rates if rate], [rate for _, rate in rates if rate]
        if not found:
            return None
        count = f"{len(found)} runs" if len(found) > 1 else f"run {used[0].run.id[:8]}"
        where = ", ".join(dict.fromkeys(known.suite for known in used))
        corpora = ", ".join(dict.fromkeys(known.run.tags.get("corpus", "") for known in used))
        per_pair = [rate.seconds_per_pair for rate in found]
        middle = statistics.median(per_pair)
        return Rate(
            middle,
            statistics.median(rate.other_seconds for rate in found),
            _median(rate.joules_per_pair for rate in found),
            _median(rate.memory_bytes for rate in found),
            "run",
            f"{count} of {where}" + ("" if same else f", on {corpora}"),
            (max(per_pair) - min(per_pair)) / middle if middle and len(found) > 1 else None,
        )

    def _usual_other_seconds(self, machine: Machine) -> dict[tuple[object, ...], float]:
        """The median of each kind of similar runs of this machine, by which interrupted runs are recognized."""
        others: dict[tuple[object, ...], list[float]] = {}
        for known in self.runs:
            if machine.runs_like(known.run) and known.other_seconds is not None:
                others.setdefault(known.similar, []).append(known.other_seconds)
        return {similar: statistics.median(seconds) for similar, seconds in others.items()}

    @staticmethod
    def _rate(known: KnownRun, experiment: Experiment, tokens: float | None, usual: float | None) -> Rate | None:
        """The rate of one run; None if it lacks a number."""
        measures, other = known.measures, known.other_seconds
        if other is None:
            return None
        if usual is not None and other > GAP * usual:
            other = usual
        if experiment.members:
            return Rate(0.0, other, 0.0, measures.get("peak_memory_bytes"), "run", "")
        pairs, seconds, speed = (measures.get(name) for name in ("pairs", "wall_s", "target_tokens_per_s"))
        if not pairs or not seconds or not speed:
            return None
        own_tokens = speed * seconds / pairs
        scale = 1.0 if tokens is None else tokens / own_tokens
        energy = measures.get("energy_j")
        return Rate(
            seconds / pairs * scale,
            other,
            None if energy is None else energy / pairs * scale,
            measures.get("memory_training_bytes"),
            "run",
            "",
        )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
