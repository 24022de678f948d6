"""Another program, measured in turn with a row of ours: `bench speed --against COMMAND`."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from bench.speed.figure import Figure, Measure, Measurement, joined
from bench.system.visible_text import visible_line

ROUNDS = 3


@dataclass(frozen=True)
class Ratio:
    """A figure of ours beside that of the other program.

    Attributes:
        here: The figure, with the samples of all rounds.
        there: Its value in each round of the other program.
        ratios: For each round, how many times as fast as the other program the row is: here / there for a rate,
            there / here for a time.
    """

    here: Figure
    there: list[float]
    ratios: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)


def compare(
    measure: Measure, seconds: float, command: str, on_progress: Callable[[str], None]
) -> tuple[Measurement, list[Ratio]]:
    """Measures the row and runs the command, in turn, ROUNDS times each, so that a slow change affects both.

    Args:
        command: A shell command that prints lines with the name of a figure and its value, such as
            `target_tokens_per_s 1675`. Other lines are ignored. Only one of both computes at a time.
        on_progress: Gets a line before each step.

    Raises:
        ValueError: the command fails, or prints no figure that the row has.
    """
    here, there = list[Measurement](), list[dict[str, float]]()
    for number in range(1, ROUNDS + 1):
        on_progress(f"  round {number} of {ROUNDS}: the row")
        here.append(measure(seconds))
        on_progress(f"  round {number} of {ROUNDS}: {command}")
        there.append(figures_of(command, [figure.name for figure in here[0].figures]))
    shared = [figure.name for figure in here[0].figures if all(figure.name in figures for figures in there)]
    ratios = []
    for name in shared:
        ours = [next(figure for figure in one.figures if figure.name == name) for one in here]
        theirs = [figures[name] for figures in there]
        times = [
            value / figure.median if figure.is_time else figure.median / value
            for figure, value in zip(ours, theirs, strict=True)
        ]
        ratios.append(Ratio(Figure(name, [x for figure in ours for x in figure.samples]), theirs, times))
    return joined(here), ratios


def figures_of(command: str, names: list[str]) -> dict[str, float]:
    """The figures that a command prints. Raises ValueError if it fails or prints none of these names."""
    done = subprocess.run(
        command,
        shell=True,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        check=False,
    )
    found = {}
    for line in done.stdout.splitlines():
        match line.split():
            case [name, value] if name in names:
                try:
                    found[name] = float(value)
                except ValueError:
                    continue
    if done.returncode or not all(value > 0 for value in found.values()) or not found:
        last = visible_line((done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1])[:200]
        reason = f"ended with exit code {done.returncode}" if done.returncode else "printed no figure above 0"
        raise ValueError(
            f"--against: the command {reason}; its last line: {last}; it must print lines such as "
            f"`{names[0]} 1675`, with at least one of: {', '.join(names)}"
        )
    return found
