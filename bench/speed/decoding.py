"""The speed of decoding, with initial weights: sentences per second in batches, and the time of one sentence.

Every output has the length of its reference, so the weights do not matter. The clock and its noise checks are those of
docs/latency.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from bench.data.encoded_pairs import truncate
from bench.decoding.packed_weights import packed_weights
from bench.decoding.recorded_steps import recorded_steps
from bench.evaluation.evaluate import DTYPES
from bench.experiment.job_data import JobData, model_of
from bench.experiment.spec import Experiment
from bench.measures.costs import ceiling
from bench.measures.latency import LatencyBenchmark, time_passes
from bench.speed.figure import Figure, Measure, Measurement

SINGLE, BATCHED, BATCH = 20, 256, 64
"""Sentences that are translated singly; sentences that are translated in batches, and the size of a batch."""


@contextlib.contextmanager
def prepared(experiment: Experiment, length: int | None) -> Iterator[Measure]:
    """The function that measures the decoding of a row.

    Args:
        length: Tokens of every output, EOS included; None for the length of each reference.

    Raises:
        ValueError: the settings are invalid, or the device is missing.
    """
    device = experiment.machine.device
    with experiment.machine.applied():
        job_data = JobData.of(experiment)
        model = model_of(experiment, job_data).to(device).eval()
        test = next(iter(job_data.corpus.tests.values()))
        sources, references = job_data.sources(test), job_data.vocabularies.target.encode(test.targets)
        targets, _ = truncate(references, job_data.max_length)  # as in a run
        limit = ceiling(device.type, DTYPES["32-true"])
        plain = replace(experiment.decoding, pos_unk="keep")
        beams = {"greedy": 1, "beam": plain.beam} if plain.beam > 1 else {"greedy": 1}
        work, counts = [], []
        for beam in beams.values():
            settings = replace(plain, beam=beam)
            for sentences, batch in ((SINGLE, 1), (BATCHED, BATCH)):
                bench = LatencyBenchmark.of(model, sources, targets, settings, sentences)
                lengths = [length] * len(bench.sources) if length else bench.lengths
                if batch == 1:
                    pieces = [
                        partial(bench.time_ms, [source], [tokens])
                        for source, tokens in zip(bench.sources, lengths, strict=True)
                    ]
                else:
                    pieces = [partial(bench.time_ms, bench.sources, lengths, batch)]
                work += pieces
                counts.append(len(pieces))
        in_batches = min(BATCHED, len(sources))

        def measure(seconds: float) -> Measurement:
            timing = time_passes(work, seconds)
            parts = np.split(np.array(timing.passes), np.cumsum(counts)[:-1], axis=1)
            figures = []
            for number, name in enumerate(beams):
                single_PN, batch_P1 = parts[2 * number], parts[2 * number + 1]
                figures.append(Figure(f"{name}_ms", np.median(single_PN, axis=1).tolist()))
                rates = in_batches * 1e3 / batch_P1[:, 0]
                figures.append(Figure(f"{name}_batch{BATCH}_sentences_per_s", rates.tolist()))
            facts: dict[str, float | str | None] = {
                "beam": plain.beam,
                "ceiling_flops_per_s": limit.value,
                "ceiling": limit.provenance,
                "timing": timing.noise,
            }
            return Measurement(figures, timing.other_share, facts)

        graphs = experiment.machine.cuda_graphs
        with packed_weights(model), recorded_steps(model, graphs):
            for piece in work * (2 if graphs else 1):  # warms up shapes, caches, clock rates; recorded the second time
                piece()
            yield measure
