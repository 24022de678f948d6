"""The closed-form cost of one job: parameters, FLOPs, memory and disk. The model is built on the meta device."""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from bench.experiment.spec import Experiment
from bench.measures import flops
from bench.planning.workload import Lengths, Workload
from models.parts.translator import Translator

OPTIMIZER_STATES = {"SGD": 0, "Adadelta": 2, "Adagrad": 1, "Adafactor": 0}
"""Numbers that an optimizer keeps for each parameter; all others keep two, as Adam does."""

LOGGED_PER_JOB = 400_000
"""Bytes of curves, translations, statistics and metrics of one job in the store, besides its weights. The jobs of the
ladder at the preset demo have 0.2 to 0.5 MB."""


@dataclass(frozen=True)
class JobCost:
    """What a job costs on any machine.

    Attributes:
        params: Parameters; of an ensemble those of all members.
        flops_per_pair: Training FLOPs of a sentence pair, mean over the corpus; 0 for an ensemble, which is not trained.
        pairs_per_update: Sentence pairs of a batch, on average.
        validation_flops: Decoding FLOPs of one validation.
        test_flops: Decoding FLOPs of all test sets.
        weight_bytes: Bytes of parameters and buffers.
        state_bytes: Bytes of gradients and of the optimizer's state, at least.
        disk_bytes: Bytes on disk of one finished job: checkpoint, kept weights, logged model, curves and translations.
    """

    params: int
    flops_per_pair: float
    pairs_per_update: float
    validation_flops: float
    test_flops: float
    weight_bytes: int
    state_bytes: int
    disk_bytes: int

    def pairs(self, experiment: Experiment) -> float | None:
        """Sentence pairs of the budget; None if only seconds limit it."""
        limits, training = [], experiment.training
        if not self.flops_per_pair:
            return 0.0
        if training.max_pairs:
            limits.append(math.ceil(training.max_pairs / self.pairs_per_update - 1e-9) * self.pairs_per_update)
        if training.max_updates:
            limits.append(training.max_updates * self.pairs_per_update)
        if training.max_flops:
            limits.append(training.max_flops / self.flops_per_pair)
        return min(limits) if limits else None


def job_cost(experiment: Experiment, workload: Workload) -> JobCost:
    """The cost of one job. Raises ValueError if the model's settings are invalid."""
    with torch.device("meta"):
        model = experiment.build(*workload.vocabulary)
    params = model.parameter_counts()[0]
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    trained = [p for p in model.parameters() if p.requires_grad]
    trained_bytes = sum(p.numel() * p.element_size() for p in trained)
    states = OPTIMIZER_STATES.get(experiment.training.optimizer.name, 2)
    is_ensemble, average = bool(experiment.members), max(1, experiment.training.average)
    decoding = experiment.decoding
    validations = 0 if is_ensemble else experiment.training.validations
    return JobCost(
        params,
        0.0 if is_ensemble else mean_training_flops(model, workload.train, experiment),
        workload.pairs_per_update(experiment),
        total_decoding_flops(model, workload.validation, 1) if validations or is_ensemble else 0.0,
        sum(total_decoding_flops(model, lengths, decoding.beam) for lengths in workload.tests.values()),
        weight_bytes,
        0 if is_ensemble else trained_bytes * (1 + states),
        LOGGED_PER_JOB
        + (2 * weight_bytes if is_ensemble else weight_bytes * (3 + average) + trained_bytes * states),
    )


def mean_training_flops(model: Translator, lengths: Lengths, experiment: Experiment) -> float:
    """Training FLOPs of a pair, averaged over the pairs, with the share of the budget that is trained with reward."""
    sources, targets = lengths
    shapes = Counter(zip(sources.tolist(), targets.tolist(), strict=True))
    counter = flops.FlopCounter(model)
    reward = experiment.training.reward

    def each(source: int, target: int) -> float:
        cost = float(model.flops(source, target).training)
        if reward.share:
            sampled = counter._cost_start(source) + reward.samples * counter._sampling(source, target)
            cost += reward.share * sampled
        return cost

    return sum(count * each(*shape) for shape, count in shapes.items()) / len(sources)


def total_decoding_flops(model: Translator, lengths: Lengths, beam: int) -> float:
    """FLOPs to translate sentences of these lengths."""
    shapes = Counter(zip(lengths[0].tolist(), lengths[1].tolist(), strict=True))
    return float(sum(count * flops.decoding_flops(model, *shape, beam) for shape, count in shapes.items()))
