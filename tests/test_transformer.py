"""Sizes of the published Transformers, and what the rows of a table differ in."""

from __future__ import annotations

import pytest
import torch

from bench.experiment import EXPERIMENTS, Experiment, resolve
from models.transformer import Config, Model

VOCABULARY = 37_000
"""Of the paper's English-German subwords, one matrix for source, target and softmax."""


def parameters(**sizes: int) -> int:
    with torch.device("meta"):
        return Model(Config(**sizes), VOCABULARY, VOCABULARY).parameter_counts()[0]  # type: ignore[arg-type]


def row(name: str, preset: str = "paper") -> Experiment:
    return resolve(EXPERIMENTS / "transformer.yaml", preset=preset, row=name)


@pytest.mark.parametrize(
    ("name", "published", "tolerance"),
    [("transformer-base", 65e6, 0.04), ("transformer-big", 213e6, 0.01), ("self-attention", 65e6, 0.04)],
)
def test_published_sizes(name: str, published: float, tolerance: float) -> None:
    """Table 3. No one vocabulary fits both of its lines, so base has the wider tolerance."""
    with torch.device("meta"):
        found = row(name).build(VOCABULARY, VOCABULARY).parameter_counts()[0]
    assert found == pytest.approx(published, rel=tolerance)


@pytest.mark.parametrize(
    ("sizes", "published"),
    [
        ({}, 65),
        ({"layers": 2}, 36),
        ({"layers": 4}, 50),
        ({"layers": 8}, 80),
        ({"inner": 1024}, 53),
        ({"inner": 4096}, 90),
    ],
)
def test_variants_of_table_3(sizes: dict[str, int], published: int) -> None:
    """What each differs in from base, within 0.6M: so the vocabulary, for want of which base has 1.9M less, is out."""
    assert 65e6 - parameters() == pytest.approx(1.9e6, abs=0.1e6)
    assert parameters(**sizes) - parameters() == pytest.approx((published - 65) * 1e6, abs=0.6e6)


def test_one_head_is_all_that_self_attention_differs_in() -> None:
    for preset in ("demo", "multi30k-cpu", "multi30k", "paper"):
        base, other = row("transformer-base", preset), row("self-attention", preset)
        assert other.model.heads == 1 < base.model.heads
        other.model.heads = base.model.heads
        assert (other.model, other.training, other.text) == (base.model, base.training, base.text)


def test_big_has_twice_the_width_and_heads_of_base() -> None:
    for preset in ("demo", "multi30k-cpu", "multi30k", "paper"):
        base, big = row("transformer-base", preset).model, row("transformer-big", preset).model
        assert (big.layers, big.width, big.inner) == (base.layers, 2 * base.width, 2 * base.inner)
        assert big.heads == 2 * base.heads


def test_papers_recipes() -> None:
    """Sections 5 and 6.1: updates, dropout, and the mean of the last 5 and 20 weights, ten minutes apart."""
    base, big = row("transformer-base"), row("transformer-big")
    assert (base.training.max_updates, base.training.average, base.model.dropout) == (100_000, 5, 0.1)
    assert (big.training.max_updates, big.training.average, big.model.dropout) == (300_000, 20, 0.3)
    for job, hours in ((base, 12), (big, 3.5 * 24)):
        assert job.training.validations == hours * 6
        peak = job.model.width**-0.5 * job.training.schedule.warmup**-0.5
        assert job.training.optimizer.lr == pytest.approx(peak, rel=1e-5)
        assert job.training.optimizer.settings == {"betas": [0.9, 0.98], "eps": 1e-9}
