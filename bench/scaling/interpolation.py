"""The losses of a row that no law describes: its means at each size and budget, and what lies between them.

A law that misses sizes and budgets by more than seeds explain has the wrong form. Its errors are not those of chance:
they are the same in every repetition. So the frontier must not follow it, and intervals must not treat its errors as
noise. What is uncertain instead is the noise of the means, and how the loss bends between them.
Letters in names: B draws, C costs, K cells, N sizes of the grid, P points, R runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bench.scaling.fit import Data, Fit
from bench.scaling.laws import Array
from bench.scaling.uncertainty import Noise, deviations


@dataclass(frozen=True)
class Interpolation:
    """The mean log loss of each measured size and budget (a cell), with the shape of a law between the cells.

        log L(N, D) = log law(N, D) + sum_k w_k(N, D) r_k + sum_g c_g b_g(N, D)

    r_k is the mean log residual of cell k. The weight w_k is 1 at its cell and 0 at the others; between the budgets of
    a size it is linear in log D, beyond them that of the nearest budget, and between sizes linear in log N.

    c_g is the unknown curvature in gap g, between two budgets of a size or between two sizes; the best guess is 0. At
    a distance x from one end of a gap of length h, both in the logarithm, it bends the loss by b_g = x (h - x) / 2.

    Attributes:
        fit: The law.
        cells: (K, 2) size and target tokens of each cell, by size and then by tokens.
        parameters: The residuals r and the curvatures c, those of gaps between budgets first.
    """

    fit: Fit
    cells: Array
    parameters: Array

    @classmethod
    def of(cls, fit: Fit) -> Interpolation:
        """The interpolation of the points of a fit."""
        cells, cell_P = _cells(fit.data)
        residuals = np.bincount(cell_P, fit.residuals) / np.bincount(cell_P)
        return cls(fit, cells, np.concatenate([residuals, np.zeros(len(cells) - 1)]))

    @property
    def data(self) -> Data:
        """The points."""
        return self.fit.data

    @property
    def residuals(self) -> Array:
        """The mean log residual of the law at each cell, (K,)."""
        return self.parameters[: len(self.cells)]

    @cached_property
    def curvatures(self) -> tuple[float, float]:
        """Rms curvature of the log residual over log D and over log N; 0 where no three cells show one.

        A cell between two others of its size, or of its budget, is left out: a curvature c explains an error of
        c x y / 2 at the distances x and y from its neighbours.
        """
        found = []
        for of, along in ((0, 1), (1, 0)):
            bends = []
            for value in np.unique(self.cells[:, of]):
                mine = self.cells[:, of] == value
                places, residuals = np.log(self.cells[mine, along]), self.residuals[mine]
                for k in range(1, len(places) - 1):
                    ends = [k - 1, k + 1]
                    missed = residuals[k] - np.interp(places[k], places[ends], residuals[ends])
                    bends.append(2 * missed / ((places[k] - places[k - 1]) * (places[k + 1] - places[k])))
            found.append(float(np.sqrt(np.mean(np.square(bends)))) if bends else 0.0)
        return found[0], found[1]

    def predict(self, sizes: Array | float, tokens: Array | float, parameters: Array | None = None) -> Array:
        """Returns the loss in nats at N and D. `parameters`, (..., K + gaps), are others than the measured ones.

        With draws (B, ...), give sizes and tokens shapes that broadcast with (B,) at the front: parameters[:, None].
        """
        at = self.parameters if parameters is None else parameters
        return self.fit.predict(sizes, tokens) * np.exp(np.einsum("...k,...k->...", self._weights(sizes, tokens), at))

    def simulate(self, noise: Noise, rng: np.random.Generator, draws: int) -> Array:
        """Returns residuals with the noise of their runs and points, and curvatures of every gap, (draws, ...).

        The deviation between cells in `noise` is that of the law, so it is no noise here.
        """
        cell_P = _cells(self.data)[1]
        runs = np.unique(self.data.runs, return_inverse=True)[1]
        run_BR = deviations(rng, noise.run_sd, noise.run_df, draws, int(runs.max()) + 1)
        noise_BP = run_BR[:, runs] + noise.point_sd * rng.standard_normal((draws, len(runs)))
        mean_PK = np.eye(len(self.cells))[cell_P] / np.bincount(cell_P)
        between_budgets, between_sizes = self.curvatures
        sizes = len(np.unique(self.cells[:, 0]))
        spread = np.repeat([between_budgets, between_sizes], [len(self.cells) - sizes, sizes - 1])
        bent = spread * rng.standard_normal((draws, len(spread)))
        return self.parameters + np.concatenate([noise_BP @ mean_PK, bent], axis=1)

    def _weights(self, sizes: Array | float, tokens: Array | float) -> Array:
        """Returns the weight of each parameter at N and D, (..., K + gaps)."""
        log_n, log_d = np.log(sizes), np.log(tokens)
        all_sizes = np.unique(self.cells[:, 0])
        cells, bends = [], []
        for size, by_size in zip(all_sizes, _hats(log_n, np.log(all_sizes)), strict=True):
            budgets = np.log(self.cells[self.cells[:, 0] == size, 1])
            cells += [by_size * by_budget for by_budget in _hats(log_d, budgets)]
            bends += [by_size * bend for bend in _bends(log_d, budgets)]
        bends += [bend + 0.0 * log_d for bend in _bends(log_n, np.log(all_sizes))]
        return np.stack([*cells, *bends], axis=-1)


def _cells(data: Data) -> tuple[Array, np.ndarray]:
    """The distinct pairs of size and tokens, (K, 2), and the cell of each point, (P,)."""
    cells, cell_P = np.unique(np.stack([data.sizes, data.tokens], axis=1), axis=0, return_inverse=True)
    return cells, cell_P


def _hats(x: Array, nodes: Array) -> Iterator[Array]:
    """For each node the function that is 1 there, 0 at the other nodes, linear between and constant beyond them."""
    return (np.interp(x, nodes, one) for one in np.eye(len(nodes)))


def _bends(x: Array, nodes: Array) -> Iterator[Array]:
    """For each gap between nodes x' (h - x') / 2, where x' is the place in the gap and h its length; 0 elsewhere."""
    return (np.maximum((x - low) * (high - x), 0.0) / 2 for low, high in itertools.pairwise(nodes))
