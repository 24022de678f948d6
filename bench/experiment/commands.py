"""The commands that repeat a job or a suite."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import RESULT_SETTINGS, Experiment, flatten
from bench.experiment.yaml_layers import EXPERIMENTS


def job_command(experiment: Experiment) -> str:
    """The command that repeats a job: its file and preset, and a flag for each setting that differs from the preset.

    Settings of machine and tracking are left out, because they do not change the result. Empty if the row is not one
    of experiments/.
    """
    path = row_files().get(experiment.row)
    defaults = flatten(resolve(path, preset=experiment.preset, row=experiment.row).settings) if path else {}
    if path is None or defaults["model.name"] != experiment.architecture:
        return ""
    flags = [
        f"--{key} {shlex.quote('null' if value is None else str(value))}"
        for key, value in sorted(flatten(experiment.settings).items())
        if key.startswith(RESULT_SETTINGS) and key != "model.name" and value != defaults.get(key)
    ]
    words = [f"bench run {EXPERIMENTS.name}/{path.name} --row {experiment.row} --preset {experiment.preset}", *flags]
    return " ".join([*words, f"--seed {experiment.seed}"])


def suite_command(command: str, suite: Path, seeds: Sequence[int], flags: Sequence[str]) -> str:
    """The command that repeats a suite on another machine: its file, its seeds, and the flags that change its results.

    Other flags are left out, because they may hold local paths or a password in the address of a server.
    """
    included: list[str] = []
    include = False
    for word in flags:
        if word.startswith("--"):
            include = word.removeprefix("--").startswith(RESULT_SETTINGS)
        included += [word] if include else []
    file = f"{EXPERIMENTS.name}/{suite.name}" if suite.resolve().parent == EXPERIMENTS.resolve() else suite.name
    return shlex.join(["bench", command, file, "--seeds", *map(str, seeds), *included])
