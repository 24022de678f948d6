"""Predictions of points that a fit did not see, and the choice of the form by their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.scaling.fit import GRID, Data, fit_law
from bench.scaling.laws import FORMS, Array, Form


@dataclass(frozen=True)
class HeldOut:
    """Predictions of points that the fit did not see. All arrays have the shape (H,).

    Attributes:
        what: "largest budget" or "largest size".
        sizes: Parameters.
        tokens: Target tokens.
        predicted: Loss in nats.
        observed: Loss in nats.
    """

    what: str
    sizes: Array
    tokens: Array
    predicted: Array
    observed: Array

    @property
    def errors(self) -> Array:
        """Log of predicted / observed, (H,); positive: predicted too high."""
        return np.log(self.predicted / self.observed)

    @property
    def rms(self) -> float:
        """Root mean square of the errors."""
        return float(np.sqrt((self.errors**2).mean()))

    @property
    def worst(self) -> float:
        """Largest error, without its sign."""
        return float(np.abs(self.errors).max())


def hold_out(
    data: Data,
    form: Form,
    held_P: np.ndarray,
    what: str,
    known_e: float | None = None,
    starts: Sequence[tuple[float, float]] = GRID,
) -> HeldOut:
    """Returns the predictions of the points where `held_P` is true by a fit to all others."""
    fitted, held = fit_law(data.where(~held_P), form, known_e, starts=starts), data.where(held_P)
    return HeldOut(what, held.sizes, held.tokens, fitted.predict(held.sizes, held.tokens), held.losses)


def held_out(
    data: Data, form: Form, known_e: float | None = None, starts: Sequence[tuple[float, float]] = GRID
) -> tuple[HeldOut, ...]:
    """Returns the held-out predictions of the largest budget and of the largest size, if three values remain to fit.

    With two budgets a law has a parameter too many, and its prediction of a third one is arbitrary.
    """
    return tuple(
        hold_out(data, form, values == values.max(), what, known_e, starts)
        for what, values in (("largest budget", data.tokens), ("largest size", data.sizes))
        if len(np.unique(values)) > 3
    )


@dataclass(frozen=True)
class FormChoice:
    """The form that predicts held-out points best.

    Attributes:
        form: The chosen form.
        errors: Form -> root mean square of the held-out errors (logarithms), budget and size with equal weight.
        held_out: Form -> its predictions.
    """

    form: Form
    errors: dict[Form, float]
    held_out: dict[Form, tuple[HeldOut, ...]]


def choose_form(data: Data, known_e: float | None = None, starts: Sequence[tuple[float, float]] = GRID) -> FormChoice:
    """Returns the form with the smallest held-out error; the additive one if nothing can be held out."""
    predictions: dict[Form, tuple[HeldOut, ...]] = {form: held_out(data, form, known_e, starts) for form in FORMS}
    errors: dict[Form, float] = {
        form: float(np.sqrt(np.mean([one.rms**2 for one in of]))) if of else 0.0 for form, of in predictions.items()
    }
    return FormChoice(min(FORMS, key=lambda form: errors[form]), errors, predictions)
