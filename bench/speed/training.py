"""The speed of training: target tokens, pairs and updates per second in windows of updates.

An update is what training does with a batch: read it, copy it to the device, forward pass, backward pass, clipping,
optimizer and schedule. Lightning and the callbacks of a run are left out; their cost is `overhead` of a run.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator

import torch

from bench.evaluation.evaluate import DTYPES
from bench.experiment.job_data import JobData, model_of
from bench.experiment.spec import Experiment
from bench.measures.costs import ceiling
from bench.measures.flops import FlopCounter
from bench.measures.latency import OtherProcesses
from bench.speed.figure import Figure, Measure, Measurement
from bench.system.machine import bf16_fallback
from bench.training.plain_update import plain_update
from bench.training.recorded_updates import MOST_SHAPES, record_updates

WARM_UP, WINDOW, WINDOWS = 10, 5, 8
"""Updates that are not timed, at the start and before each measurement; updates of a window; windows at least."""


@contextlib.contextmanager
def prepared(experiment: Experiment) -> Iterator[Measure]:
    """The function that measures the training of a row, with its corpus loaded and its model built.

    Raises:
        ValueError: the settings cannot be trained with, or the device is missing.
    """
    settings, device = experiment.training, experiment.machine.device
    with experiment.machine.applied(), bf16_fallback(device, settings.precision == "bf16-mixed"):
        job_data = JobData.of(experiment)
        model = model_of(experiment, job_data).to(device).train()
        if settings.precision == "64-true":
            model.double()
        counter, warm_up = FlopCounter(model), WARM_UP
        if experiment.machine.cuda_graphs and record_updates(model, job_data.train, counter, settings.reward.share):
            warm_up = max(WARM_UP, 2 * min(job_data.train.batches_per_epoch, MOST_SHAPES))  # recorded the second time
        update = plain_update(model, iter(job_data.train.train_dataloader()), settings.precision, settings.clip)
        limit = ceiling(device.type, DTYPES[settings.precision])

        def synchronize() -> None:
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        def measure(seconds: float) -> Measurement:
            for _ in range(warm_up):
                update()
            synchronize()
            tokens, pairs, updates, mfu = [list[float]() for _ in range(4)]
            others, began = OtherProcesses(), time.perf_counter()
            while len(tokens) < WINDOWS or time.perf_counter() - began < seconds:
                before, start = counter.model_flops, time.perf_counter()
                batches = [update() for _ in range(WINDOW)]
                synchronize()
                took = time.perf_counter() - start
                for batch in batches:
                    counter.add(batch)
                tokens.append(sum(sum(batch.target.lengths_B) for batch in batches) / took)
                pairs.append(sum(len(batch.target.lengths_B) for batch in batches) / took)
                updates.append(WINDOW / took)
                mfu.append((counter.model_flops - before) / took / (limit.value or 1.0))
            return Measurement(
                [
                    Figure("target_tokens_per_s", tokens),
                    Figure("pairs_per_s", pairs, same_work=False),
                    Figure("updates_per_s", updates, same_work=False),
                ],
                others.share(time.perf_counter() - began),
                {"mfu": statistics.median(mfu), "ceiling_flops_per_s": limit.value, "ceiling": limit.provenance},
            )

        yield measure
