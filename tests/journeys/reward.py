"""Does the reward phase do what it is for? GNMT at half of the demo's budget, then a twentieth of it more, in two ways.

`python -m tests.journeys.reward SEED` prints held-out GLEU (greedy, 500 validation sentences) at the checkpoint,
after the reward phase, and after as many further pairs of likelihood alone. No test: none demands a finding.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from bench.evaluation.evaluate import validate
from bench.experiment.job_data import JobData
from bench.experiment.loading import resolve
from bench.experiment.spec import Experiment
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.training.checkpoints import Signals
from bench.training.reward import RewardSettings
from bench.training.trainer import TrainingHooks, TrainingSettings, train
from bench.training.validation import Score

HALF, MORE = 24_000, 1_200
REWARD = RewardSettings(share=MORE / (HALF + MORE), lr_factor=0.3)


def trained(experiment: Experiment, job_data: JobData, folder: Path, settings: TrainingSettings) -> float:
    """GLEU after the last update of a training that goes on from the checkpoint in `folder`, if there is one."""
    torch.manual_seed(experiment.seed)
    model = experiment.build(len(job_data.vocabularies.source), len(job_data.vocabularies.target))
    train(
        model,
        job_data.train,
        settings,
        experiment.machine,
        TrainingHooks(  # only the last weights are of interest, so the validations do not score
            job_data.vocabularies.target.decode, score=lambda _: Score(0.0, 0.0, 0.0)
        ),
        seed=experiment.seed,
        folder=folder,
        signals=Signals(),
    )
    return validate(model, job_data).gleu


def compared(seed: int, folder: Path) -> tuple[float, float, float]:
    """GLEU at the checkpoint, after the reward phase, after the same number of pairs without it."""
    flags = ["--seed", str(seed), "--machine.accelerator", "cpu", "--tracking.folder", str(folder)]
    experiment = resolve(EXPERIMENTS / "gnmt.yaml", flags=flags)
    plain = replace(experiment.training, reward=RewardSettings(), max_pairs=HALF, validations=1)
    found = [trained(experiment, JobData.of(experiment), folder / "half", plain)]
    for name, reward in (("reward", REWARD), ("likelihood", RewardSettings())):
        shutil.copytree(folder / "half", folder / name)
        longer = replace(plain, reward=reward, max_pairs=HALF + MORE)
        found.append(trained(experiment, JobData.of(experiment), folder / name, longer))
    return found[0], found[1], found[2]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        gleu = compared(int(sys.argv[1]), Path(name))
    print("seed {}: checkpoint {:.2f}, reward {:.2f}, likelihood {:.2f}".format(sys.argv[1], *gleu))
