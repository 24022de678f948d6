"""The losses of a row that no law describes: its means at each size and budget, and what lies between them.

A law that misses sizes and budgets by more than seeds explain has the wrong form. Its errors are not those of chance:
they are the same in every repetition. So the frontier must not follow it, and intervals must not treat its errors as
noise. Letters in names: B draws, C costs, K cells, N sizes of the grid, P points, R runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.scaling.fit import Data, Fit
from bench.scaling.laws import Array
from bench.scaling.uncertainty import Noise, deviations


@dataclass(frozen=True)
class Interpolation:
    """The mean log loss of each measured size and budget (a cell), with the shape of a law between the cells.

        log L(N, D) = log law(N, D) + sum_k w_k(N, D) r_k

    r_k is the mean log residual of cell k. The weights w_k are 1 at their own cell and 0 at the others. Between the
    budgets of a size they are linear in log D, beyond them those of the nearest budget; between sizes they are linear
    in log N.

    Attributes:
        fit: The law.
        cells: (K, 2) size and target tokens of each cell, by size and then by tokens.
        parameters: (K,) the residuals r.
    """

    fit: Fit
    cells: Array
    parameters: Array

    @classmethod
    def of(cls, fit: Fit) -> Interpolation:
        """The interpolation of the points of a fit."""
        cells, cell_P = _cells(fit.data)
        return cls(fit, cells, np.bincount(cell_P, fit.residuals) / np.bincount(cell_P))

    @property
    def data(self) -> Data:
        """The points."""
        return self.fit.data

    def predict(self, sizes: Array | float, tokens: Array | float, parameters: Array | None = None) -> Array:
        """Returns the loss in nats at N and D. `parameters`, (..., K), are others than the measured ones.

        With draws (B, K), give sizes and tokens shapes that broadcast with (B,) at the front: parameters[:, None].
        """
        at = self.parameters if parameters is None else parameters
        return self.fit.predict(sizes, tokens) * np.exp(np.einsum("...k,...k->...", self._weights(sizes, tokens), at))

    @property
    def misses(self) -> float:
        """Rms log residual of the law at the cells."""
        return float(np.sqrt(np.mean(self.parameters**2)))

    @property
    def leave_out_error(self) -> float:
        """Rms error of log loss when a budget between two others of its size is left out and interpolated from them.

        The gap is then that of two budgets, so the error between two measured ones is smaller. NaN: no such budget.
        """
        missed = []
        for size in np.unique(self.cells[:, 0]):
            mine = self.cells[:, 0] == size
            budgets, residuals = np.log(self.cells[mine, 1]), self.parameters[mine]
            for k in range(1, len(budgets) - 1):
                ends = [k - 1, k + 1]
                missed.append(residuals[k] - np.interp(budgets[k], budgets[ends], residuals[ends]))
        return float(np.sqrt(np.mean(np.square(missed)))) if missed else float("nan")

    def simulate(self, noise: Noise, rng: np.random.Generator, draws: int) -> Array:
        """Returns the residuals of the cells with the noise of their runs and points, (draws, K).

        The deviation between cells in `noise` is that of the law, so it is no noise here.
        """
        cell_P = _cells(self.data)[1]
        runs = np.unique(self.data.runs, return_inverse=True)[1]
        run_BR = deviations(rng, noise.run_sd, noise.run_df, draws, int(runs.max()) + 1)
        noise_BP = run_BR[:, runs] + noise.point_sd * rng.standard_normal((draws, len(runs)))
        mean_PK = np.eye(len(self.cells))[cell_P] / np.bincount(cell_P)
        return self.parameters + noise_BP @ mean_PK

    def _weights(self, sizes: Array | float, tokens: Array | float) -> Array:
        """Returns the weight of each cell at N and D, (..., K)."""
        log_n, log_d = np.log(sizes), np.log(tokens)
        log_sizes, found = np.log(np.unique(self.cells[:, 0])), []
        for number, size in enumerate(np.unique(self.cells[:, 0])):
            budgets = np.log(self.cells[self.cells[:, 0] == size, 1])
            by_size = np.interp(log_n, log_sizes, np.eye(len(log_sizes))[number])
            found += [by_size * np.interp(log_d, budgets, one) for one in np.eye(len(budgets))]
        return np.stack(found, axis=-1)


def _cells(data: Data) -> tuple[Array, np.ndarray]:
    """The distinct pairs of size and tokens, (K, 2), and the cell of each point, (P,)."""
    cells, cell_P = np.unique(np.stack([data.sizes, data.tokens], axis=1), axis=0, return_inverse=True)
    return cells, cell_P
