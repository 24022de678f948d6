"""Compares the reward phase with further likelihood training: GNMT after 24,000 pairs, half of the budget of the demo.

`python -m tests.journeys.reward SEED` prints GLEU on 500 validation sentences (greedy search, higher is better): at the
checkpoint after 24,000 pairs, after 1,200 more pairs of the reward phase, and after 1,200 more pairs of likelihood. It
is not a test, because no test may require a particular finding.
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

CHECKPOINT_PAIRS, FURTHER_PAIRS = 24_000, 1_200
REWARD = RewardSettings(share=FURTHER_PAIRS / (CHECKPOINT_PAIRS + FURTHER_PAIRS), lr_factor=0.3)


def train_gleu(experiment: Experiment, job_data: JobData, folder: Path, settings: TrainingSettings) -> float:
    """Train, from the checkpoint in `folder` if there is one, and return the GLEU of the last weights."""
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


def compare(seed: int, folder: Path) -> tuple[float, float, float]:
    """Return the GLEU at the checkpoint, after the reward phase, and after the same number of pairs without it."""
    flags = ["--seed", str(seed), "--machine.accelerator", "cpu", "--tracking.folder", str(folder)]
    experiment = resolve(EXPERIMENTS / "gnmt.yaml", flags=flags)
    plain = replace(experiment.training, reward=RewardSettings(), max_pairs=CHECKPOINT_PAIRS, validations=1)
    found = [train_gleu(experiment, JobData.of(experiment), folder / "checkpoint", plain)]
    for name, reward in (("reward", REWARD), ("likelihood", RewardSettings())):
        shutil.copytree(folder / "checkpoint", folder / name)
        longer = replace(plain, reward=reward, max_pairs=CHECKPOINT_PAIRS + FURTHER_PAIRS)
        found.append(train_gleu(experiment, JobData.of(experiment), folder / name, longer))
    return found[0], found[1], found[2]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        gleu = compare(int(sys.argv[1]), Path(name))
    print("seed {}: checkpoint {:.2f}, reward {:.2f}, likelihood {:.2f}".format(sys.argv[1], *gleu))
