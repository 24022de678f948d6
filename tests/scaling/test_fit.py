"""Fits of the law: starts, batches, identification. See also tests/checks."""

from __future__ import annotations

import numpy as np
import pytest

from bench.checks.scaling_simulation import NOISE, REFERENCE, SIZES, STARTS, grid, noisy, with_losses
from bench.scaling.fit import Data, agreeing_starts, describe, fit_law, identify, refit
from bench.scaling.points import Point


def reference(seed: int = 1) -> Data:
    data = grid()
    return noisy(np.random.default_rng(seed), with_losses(data, REFERENCE.loss(data.sizes, data.tokens)))


def test_points_are_counted_in_the_chosen_way_and_grouped_by_run() -> None:
    points = [Point("r", run, "s", 1, 1, 2, 3, 10, 1, 1, None, 2.0, None) for run in ("one", "two", "one")]
    assert Data.of(points, "all").sizes.tolist() == [3, 3, 3]
    assert Data.of(points).sizes.tolist() == [2, 2, 2]
    assert Data.of(points).runs.tolist() == [0, 1, 0]


def test_a_known_irreducible_loss_is_kept_and_narrows_the_exponent() -> None:
    """The known E, 1.10, brings a closer to 0.35."""
    free, known = fit_law(reference(), starts=STARTS), fit_law(reference(), known_e=1.1, starts=STARTS)
    assert known.irreducible == pytest.approx(1.1, rel=1e-12)
    assert abs(known.parameters[3] - 0.35) < 0.05
    conditions = [identify(fit, NOISE.inflated_variance(fit)) for fit in (free, known)]
    assert conditions[1].condition < conditions[0].condition
    assert [profile.name for profile in conditions[1].profiles] == ["a"]


def test_batched_refits_are_those_of_scipy() -> None:
    fit = fit_law(reference(), starts=STARTS)
    others = [reference(seed) for seed in (2, 3)]
    found = refit(fit, np.log(np.stack([data.losses for data in others])))
    assert found == pytest.approx(np.stack([fit_law(data, starts=STARTS).parameters for data in others]), abs=1e-5)


def test_the_reference_is_identified_and_two_sizes_are_refused_with_the_reason() -> None:
    fit = fit_law(reference())
    found = identify(fit, NOISE.inflated_variance(fit))
    assert found.identified
    assert all(profile.closed for profile in found.profiles)
    two = reference().where(np.isin(reference().sizes, SIZES[1:3]))
    refused = identify(fit_law(two))
    assert refused.reasons[:2] == ("2 sizes; at least 4 are needed", "the points determine 4 of 5 parameters")


def test_starts_agree_within_a_thousandth_of_the_best_objective() -> None:
    assert agreeing_starts([1.0, 1.0009, 1.002]) == 2
    assert agreeing_starts([0.0, 1e-30], tolerance=1e-20) == 2
    assert agreeing_starts([float("nan"), 1.0]) == 1


def test_a_robust_fit_has_starts_that_agree_although_its_steps_are_short() -> None:
    """With 200 evaluations three of the nine starts had not converged."""
    fit = fit_law(reference(), huber=1e-3)
    assert (fit.agreeing, fit.starts) == (9, 9)


def test_the_description_has_nats_at_the_reference_size() -> None:
    """Without noise: A0 = 45 / N0^0.35 with N0 the geometric mean of the sizes, 0.668 M: 0.412."""
    data = grid()
    found = describe(fit_law(with_losses(data, REFERENCE.loss(data.sizes, data.tokens)), starts=STARTS))
    assert found == pytest.approx({"E": 1.10, "A0": 0.4116, "B0": 0.6134, "a": 0.35, "b": 0.40}, abs=1e-4)
