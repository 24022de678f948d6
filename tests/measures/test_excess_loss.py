"""The excess loss: the loss with label smoothing above its lower bound."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.data.encoded_pairs import Pairs, Sentences
from bench.evaluation import evaluate
from bench.measures.excess_loss import entropy
from models.parts.batch import Batch

PIECES = 10


@pytest.mark.parametrize(("smoothing", "pieces"), [(0.1, 1000), (0.1, 5), (0.3, 8)])
def test_the_entropy_is_the_smoothed_loss_of_the_best_prediction(smoothing: float, pieces: int) -> None:
    best = torch.full((1, pieces), smoothing / pieces, dtype=torch.float64)
    best[0, 2] += 1 - smoothing
    label = torch.tensor([2])
    lowest = functional.cross_entropy(best.log(), label, label_smoothing=smoothing).item()
    assert entropy(smoothing, pieces) == pytest.approx(lowest, rel=1e-12)
    more_certain = (best.log() * 1.1).log_softmax(1)
    assert functional.cross_entropy(more_certain, label, label_smoothing=smoothing).item() > lowest
    assert functional.cross_entropy(more_certain, label) < functional.cross_entropy(best.log(), label)


def test_without_smoothing_the_bound_is_0() -> None:
    assert entropy(0.0, 1000) == 0
    assert entropy(1e-9, 1000) == pytest.approx(0, abs=1e-6)


class Certain(nn.Module):
    """A model that gives the right piece a probability, and shares the rest among the other pieces."""

    device = torch.device("cpu")

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def token_losses(self, batch: Batch, label_smoothing: float) -> Tensor:
        right = functional.one_hot(batch.target.ids_N, PIECES).bool()
        logits_NV = torch.where(right, self.probability, (1 - self.probability) / (PIECES - 1)).log()
        return functional.cross_entropy(
            logits_NV, batch.target.ids_N, label_smoothing=label_smoothing, reduction="none"
        )


def test_a_model_as_certain_as_the_training_asks_for_has_no_excess_loss() -> None:
    sentences = Sentences.of([[4, 5], [6, 4, 5], [7]])
    vocabularies = SimpleNamespace(target=range(PIECES))
    job_data: Any = SimpleNamespace(
        vocabularies=vocabularies, validation_pairs=Pairs(sentences, sentences), batch_tokens=4, left_out="; 2 left out"
    )

    def excess(probability: float, smoothing: float) -> float | None:
        model: Any = Certain(probability)
        measure = evaluate.excess(model, smoothing, job_data)
        assert measure.provenance.endswith("; 2 left out")
        return measure.value

    assert excess(0.91, 0.1) == pytest.approx(0, abs=1e-6)  # 1 - 0.1 + 0.1 / 10
    assert excess(0.97, 0.1) == pytest.approx(
        0.91 * math.log(0.91 / 0.97) + 0.09 * math.log(0.09 / 0.03), rel=1e-4
    )  # divergence of both distributions
    assert excess(0.5, 0.0) == pytest.approx(math.log(2), rel=1e-5)
