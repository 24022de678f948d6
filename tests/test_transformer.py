"""What the rows of Transformers differ in, and the papers' recipes."""

from __future__ import annotations

import pytest

from bench.experiment import EXPERIMENTS, Experiment, resolve


def row(name: str, preset: str = "paper") -> Experiment:
    return resolve(EXPERIMENTS / "transformer.yaml", preset=preset, row=name)


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
