"""Synthetic scaling studies: points of rows whose laws are known, and the study around them."""

from __future__ import annotations

import numpy as np

from bench.checks.scaling_simulation import SIZES, TOKENS, Truth, flops_per_token, grid, noisy, with_losses
from bench.scaling.points import Point
from reports.scaling.study import RateCheck, Size, Study

REPLICATED = np.array([0.10, 0.10, 0.10, 0.26, 0.26, 0.26, 0.67, 1.7, 4.5]) * 1e6
"""Sizes of the runs of a row: three seeds of the two smallest."""

BUDGETS = TOKENS[::2]
FLOPS_PER_SECOND, TOKENS_PER_PAIR = 2e10, 12


def points(
    row: str, truth: Truth, seed: int, sizes: np.ndarray = REPLICATED, bleu: bool = True, run_sd: float = 0.007
) -> list[Point]:
    """Returns the points of a row: a run for each entry of `sizes`, in bodies, with a point at each budget."""
    data = grid(sizes, BUDGETS)
    data = noisy(np.random.default_rng(seed), with_losses(data, truth.loss(data.sizes, data.tokens)), run_sd)
    found = []
    for run, size, tokens, loss in zip(data.runs, data.sizes, data.tokens, data.losses, strict=True):
        softmax, flops = 4000 * np.sqrt(size / 56), float(flops_per_token(size) * tokens)
        found.append(
            Point(
                row=row,
                run=f"{row}-{run}",
                size=f"{size / 1e6:.2g}M",
                seed=int(run),
                body=int(size),
                body_softmax=int(size + softmax),
                all=int(size + 3 * softmax),
                tokens=float(tokens),
                pairs=float(tokens) / TOKENS_PER_PAIR,
                flops=flops,
                seconds=flops / FLOPS_PER_SECOND,
                loss=float(loss),
                bleu=float(300 * np.exp(-1.2 * loss)) if bleu else None,
            )
        )
    return found


def study(
    labels: dict[str, str], found: list[Point], checks: tuple[RateCheck, ...] = (), corpus: str = "grammar-en-de"
) -> Study:
    """Returns a study of these points, with a ladder of the sizes that they have."""
    ladder: dict[tuple[str, str], list[Point]] = {}
    for point in found:
        ladder.setdefault((point.row, point.size), []).append(point)
    sizes = tuple(
        Size(row, name, "width 104", of[0].body, of[0].body_softmax, of[0].all, 0.002, len({point.run for point in of}))
        for (row, name), of in ladder.items()
    )
    return Study(
        name="small",
        question="Does the ranking depend on the budget?",
        date="2026-11-27",
        command="bench scale experiments/scale.yaml",
        labels=labels,
        sizes=sizes,
        points=tuple(found),
        rate_rule="The learning rate is 0.002 at every size.",
        rate_checks=checks,
        corpus=corpus,
        vocabulary=1000,
        failed=("bahdanau-4.5M-seed2",),
        device="2 cores",
    )


LARGEST = f"{SIZES[-1] / 1e6:.2g}M"
