"""The value of tuning: the expected best validation score for a budget, and the tuning debt of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Expected:
    """The best score that tuning with this budget finds: mean and 95 % interval over orders of the trials."""

    budget: float
    best: float
    low: float
    high: float


def curve_of_trials(attempts: pd.DataFrame, score: str) -> list[Expected]:
    """The expected best score of a study; empty if its trials did not measure the score, or have no budget in pairs.

    A failed trial counts as a score of 0. The attempts of one trial are one job that was resumed.

    Args:
        attempts: All attempts of the study, as its trials.json has them (bench/sweep/run_sweep.py).
        score: Column of the validation score, BLEU or chrF2.
    """
    if not {score, "pairs"} <= set(attempts.columns):
        return []
    if "trial" in attempts:
        attempts = pd.DataFrame(attempts.groupby("trial", sort=False)[[score, "pairs"]].max())
    measured, pairs = (attempts[name].astype(float) for name in (score, "pairs"))
    costs = pairs.fillna(0.0).tolist()
    if not len(measured.dropna()) or not any(costs):  # a sweep with another goal may have no score
        return []
    return expected_best(measured.fillna(0.0).tolist(), costs)


def expected_best(
    scores: Sequence[float], costs: Sequence[float], points: int = 20, orders: int = 2000, seed: int = 0
) -> list[Expected]:
    """Returns the expected best score for several budgets.

    A sweep ran its trials in one order; in another order it would have found its best trial earlier or later. For
    random orders of the trials, best(b) is the highest score among the first trials whose total cost is at most b. For
    equal costs, the mean over all orders is sum_i s_(i) C(i - 1, k - 1) / C(n, k), the expected maximum of k of the n
    scores s_(1) <= ... <= s_(n) drawn without replacement. Pruned trials cost less, so the orders are sampled.

    Args:
        scores: Best validation score of each trial, higher is better; for a pruned trial the best until then.
        costs: The part of the budget that each trial used, such as sentence pairs.
        points: Number of budgets, evenly spaced from the cost of the most expensive trial to the sum of all costs.
        orders: Number of sampled orders.
        seed: Seed of the sampling.

    Source: Dodge et al. 2019, "Show Your Work", section 3, there with replacement.
    """
    if len(scores) != len(costs) or not scores:
        raise ValueError(f"{len(scores)} scores and {len(costs)} costs; expected as many of each, at least one")
    rng = np.random.default_rng(seed)
    order_ON = rng.permuted(np.tile(np.arange(len(scores)), (orders, 1)), axis=1)
    best_ON = np.maximum.accumulate(np.asarray(scores, dtype=float)[order_ON], axis=1)
    cost_ON = np.cumsum(np.asarray(costs, dtype=float)[order_ON], axis=1)
    found = []
    for budget in np.unique(np.linspace(max(costs), sum(costs), points)):
        done_O = (cost_ON <= budget * (1 + 1e-9)).sum(
            axis=1
        )  # at least one, because the first budget is enough for any trial
        best_O = np.take_along_axis(best_ON, done_O[:, None] - 1, axis=1)[:, 0]
        low, high = np.quantile(best_O, [0.025, 0.975])
        found.append(Expected(float(budget), float(best_O.mean()), float(low), float(high)))
    return found


def debts(budgets: Mapping[str, float | None]) -> dict[str, float | None]:
    """Returns for each row the tuning budget that it got beyond the row with the smallest one.

    A row whose budget is unknown (None), such as one whose settings were chosen by hand, has an unknown debt.
    """
    least = min((budget for budget in budgets.values() if budget is not None), default=0.0)
    return {row: None if budget is None else budget - least for row, budget in budgets.items()}
