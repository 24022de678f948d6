"""The closed-form cost of one job: parameters, FLOPs, memory and disk. The model is built on the meta device."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.data.batches import PairBatches
from bench.experiment.spec import Experiment
from bench.measures import flops, memory
from bench.planning.workload import Lengths, Workload
from models.parts.translator import Translator

OPTIMIZER_STATES = {"SGD": 0, "Adadelta": 2, "Adagrad": 1, "Adafactor": 0}
"""Numbers that an optimizer keeps for each parameter; all others keep two, as Adam does."""

LOGGED_PER_JOB = 400_000
"""Bytes of curves, translations, statistics and metrics of one job in the store, besides its weights. The jobs of the
ladder at the preset demo have 0.2 to 0.5 MB."""

ACTIVATIONS = 1.8
"""Peak memory of activations, their gradients and temporary results / bytes saved for the backward pass: the median of
16 rows of the ladder whose memory was measured on a CPU (1.1 to 2.7)."""


@dataclass(frozen=True)
class JobCost:
    """What a job costs on any machine.

    Attributes:
        params: Parameters; of an ensemble those of all members.
        flops_per_pair: Training FLOPs of a sentence pair, mean over the corpus; 0 for an ensemble (not trained).
        pairs_per_update: Sentence pairs of a batch, on average.
        validation_flops: Decoding FLOPs of one validation.
        test_flops: Decoding FLOPs of all test sets.
        memory_bytes: Peak memory of an update on the longest batch, estimated: weights, gradients, optimizer, and
            what the backward pass needs. Of an ensemble the weights.
        model_bytes: Bytes on disk of the weights that a finished job logs.
    """

    params: int
    flops_per_pair: float
    pairs_per_update: float
    validation_flops: float
    test_flops: float
    memory_bytes: float
    model_bytes: int

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
    weight_bytes = memory.weights(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    trained_bytes = sum(p.numel() * p.element_size() for p in trained)
    states = OPTIMIZER_STATES.get(experiment.training.optimizer.name, 2)
    is_ensemble = bool(experiment.members)
    batches, decoding = workload.batches(experiment), experiment.decoding
    validations = 0 if is_ensemble else experiment.training.validations
    return JobCost(
        params,
        0.0 if is_ensemble else mean_training_flops(model, workload.train, experiment),
        len(batches.pairs) / batches.batches_per_epoch,
        total_decoding_flops(model, workload.validation, 1) if validations or is_ensemble else 0.0,
        sum(total_decoding_flops(model, lengths, decoding.beam) for lengths in workload.tests.values()),
        weight_bytes if is_ensemble else weight_bytes + trained_bytes * (1 + states) + activation_bytes(model, batches),
        weight_bytes,
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


def activation_bytes(model: Translator, batches: PairBatches) -> float:
    """Peak memory of an update on the longest batch, besides weights, gradients and the optimizer's state.

    With accumulation (`training.accumulate`) it is that of the largest part of the batch. The forward pass runs on the
    meta device, and what it saves for the backward pass is counted.
    """
    saved: dict[int, tuple[Tensor, int]] = {}
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = tensor, storage.nbytes()  # the tensor, so that its address is not used again
        return tensor

    parts = batches.longest().split(model.optimization.accumulate or 1)
    largest = max(parts, key=lambda part: len(part.target.lengths_B))
    model.train()
    model.set_routing("uniform")  # the meta device has no values to route by
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.weighted_loss(largest.to("meta"))
    return ACTIVATIONS * sum(size for _, size in saved.values())


def total_decoding_flops(model: Translator, lengths: Lengths, beam: int) -> float:
    """FLOPs to translate sentences of these lengths."""
    shapes = Counter(zip(lengths[0].tolist(), lengths[1].tolist(), strict=True))
    return float(sum(count * flops.decoding_flops(model, *shape, beam) for shape, count in shapes.items()))
