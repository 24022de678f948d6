"""Held-out predictions and the choice of the form."""

from __future__ import annotations

import numpy as np

from bench.checks.scaling_simulation import REFERENCE, STARTS, TOKENS, grid, noisy, with_losses
from bench.scaling.held_out import choose_form, held_out


def test_held_out_predictions_are_of_the_largest_budget_and_the_largest_size() -> None:
    data = grid()
    data = noisy(np.random.default_rng(1), with_losses(data, REFERENCE.loss(data.sizes, data.tokens)))
    budget, size = held_out(data, "additive", starts=STARTS)
    assert (budget.what, len(budget.errors), set(budget.tokens)) == ("largest budget", 5, {120_000 * 2.0**8})
    assert (size.what, len(size.errors), set(size.sizes)) == ("largest size", 9, {4.5e6})
    assert budget.rms <= budget.worst < 0.05
    choice = choose_form(data, starts=STARTS)
    assert choice.form == "additive"
    assert choice.errors["additive"] < choice.errors["outer power"]


def test_a_law_is_not_asked_for_the_third_of_three_budgets() -> None:
    """Two budgets do not determine a law, so its prediction would choose the form by chance."""
    data = grid(tokens=TOKENS[:3])
    data = with_losses(data, REFERENCE.loss(data.sizes, data.tokens))
    assert [one.what for one in held_out(data, "additive", starts=STARTS)] == ["largest size"]
