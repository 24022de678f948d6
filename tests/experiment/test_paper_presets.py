"""The `paper` presets, compared with the numbers of the papers.

Each entry has the optimization and decoding settings of a row: optimizer, learning rate, gradient clipping, what the
loss is averaged over, schedule, beam, alpha, coverage, dropout, label smoothing, number of averaged checkpoints.
PAPERS holds rows whose values come from a paper; comments mark single values that are our choice. OURS holds rows
whose paper does not translate or gives no such settings.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from bench.experiment.loading import presets_of, resolve, row_files
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.runs.suite import Suite
from models.parts.optimization import LearningRateSchedule

FILES = row_files()
LADDER = Suite.read(EXPERIMENTS / "ladder.yaml").rows  # a row that a user adds is not listed here


class PaperSettings(NamedTuple):
    optimizer: str
    lr: float
    clip: float | None
    per: str
    schedule: LearningRateSchedule
    beam: int
    alpha: float
    coverage: float = 0.0
    dropout: float = 0.0
    label_smoothing: float = 0.0
    average: int = 0


CONSTANT = LearningRateSchedule()
PLATEAU = LearningRateSchedule(decay="plateau", floor=1e-4)
CONVS2S = PaperSettings("SGD", 0.25, 0.1, "token", PLATEAU, 5, 1.0, dropout=0.2)  # dropout from memory
GNMT = PaperSettings(
    "Adam",
    2e-4,
    5.0,
    "token",
    LearningRateSchedule(hold=1_200_000, decay="halve", every=200_000),
    8,
    0.2,
    0.2,
    dropout=0.2,
)
DEEP_ATT = PaperSettings("Adam", 5e-4, None, "token", CONSTANT, 5, 1.0, dropout=0.1)  # all but dropout are our choice
NOAM = LearningRateSchedule(warmup=4000, decay="inverse_sqrt")
BASE = PaperSettings("Adam", 512**-0.5 * 4000**-0.5, None, "token", NOAM, 4, 0.6, 0.0, 0.1, 0.1, 5)
MLP = PaperSettings("Adam", 5e-4, None, "token", NOAM, 5, 1.0, label_smoothing=0.1)
SHORT = LearningRateSchedule(warmup=1000, decay="inverse_sqrt")

OURS = {
    ("perceptron", "paper"): PaperSettings("Adam", 5e-4, None, "token", SHORT, 5, 1.0),
    ("mlp", "paper"): MLP,
    ("mlp-relu", "paper"): MLP._replace(dropout=0.2),
    ("cnn", "paper"): PaperSettings("Adam", 5e-4, None, "token", SHORT, 5, 1.0),
    ("rnn", "paper"): PaperSettings("Adam", 5e-4, 1.0, "token", SHORT, 5, 1.0),
    ("deep-att", "paper"): DEEP_ATT,
    ("deep-att-ensemble", "paper"): DEEP_ATT,
}

PAPERS = {
    # The learning rate is halved after 5 epochs of 12M / 128 = 93,750 updates, then every half epoch; 7.5 epochs in
    # all; beam 12.
    ("lstm", "paper"): PaperSettings(
        "SGD", 0.7, 5.0, "sentence", LearningRateSchedule(hold=5 * 93_750, decay="halve", every=93_750 // 2), 12, 0.0
    ),
    ("gru", "paper"): PaperSettings(
        "Adadelta", 1.0, None, "sentence", CONSTANT, 5, 1.0
    ),  # beam and alpha are our choice
    ("bahdanau", "paper"): PaperSettings(
        "Adadelta", 1.0, 1.0, "sentence", CONSTANT, 5, 1.0
    ),  # beam and alpha are our choice
    # The learning rate is halved after 8 epochs of 4.5M / 128 = 35,156 updates, then every epoch. Beam and
    # alpha are our choice.
    ("luong", "paper"): PaperSettings(
        "SGD",
        1.0,
        5.0,
        "sentence",
        LearningRateSchedule(hold=281_250, decay="halve", every=35_156),
        5,
        1.0,
        dropout=0.2,
    ),
    ("bytenet", "paper"): PaperSettings("Adam", 3e-4, None, "token", CONSTANT, 12, 0.0),
    ("gnmt", "paper"): GNMT,
    ("gnmt-ensemble", "paper"): GNMT,
    ("convs2s", "paper"): CONVS2S,
    ("convs2s", "paper-code"): CONVS2S,
    ("convs2s", "paper-en-fr"): CONVS2S._replace(dropout=0.1),
    ("convs2s", "paper-code-en-fr"): CONVS2S._replace(dropout=0.1),
    ("convs2s-ensemble", "paper"): CONVS2S,
    ("convs2s-ensemble", "paper-code"): CONVS2S,
    ("convs2s-ensemble", "paper-en-fr"): CONVS2S._replace(dropout=0.1),
    ("convs2s-ensemble", "paper-code-en-fr"): CONVS2S._replace(dropout=0.1),
    # The peak learning rate is from memory; the decoder settings are those of GNMT.
    ("moe", "paper"): PaperSettings(
        "Adam", 1e-3, None, "token", LearningRateSchedule(2000, 8000, "inverse_sqrt"), 8, 0.2, 0.2, dropout=0.4
    ),
    ("transformer-base", "paper"): BASE,
    ("self-attention", "paper"): BASE,
    ("transformer-big", "paper"): BASE._replace(lr=1024**-0.5 * 4000**-0.5, dropout=0.3, average=20),
}

WORDS = {"kind": "words", "joint": False}
JOINT = {"kind": "subwords", "joint": True}
TEXTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("lstm", "gru", "bahdanau", "luong", "cnn", "rnn", "deep-att", "deep-att-ensemble"), WORDS),
    "bytenet": {"kind": "characters", "joint": False},
}
"""Vocabularies of the `paper` presets. Rows that are not listed have one subword vocabulary for both sides."""

OTHERS: dict[tuple[str, str], dict[str, Any]] = {
    ("lstm", "paper"): {"training.max_pairs": 7.5 * 12e6},
    ("bahdanau", "paper"): {
        "text.max_length": 50,
        "training.optimizer.settings": {"rho": 0.95, "eps": 1e-6},
        "training.batch_tokens": 80 * 28,
    },
    ("luong", "paper"): {
        "text.max_length": 50,
        "decoding.pos_unk": "dictionary",
        "training.max_pairs": 12 * 4.5e6,
        "training.batch_tokens": 128 * 28,
    },
    ("deep-att", "paper"): {"decoding.pos_unk": "dictionary"},
    ("gnmt", "paper"): {"decoding.prune": 3.0, "training.reward.ml_weight": 0.017, "training.reward.samples": 15},
    ("convs2s", "paper"): {
        "decoding.length_penalty": "mean",
        "training.optimizer.settings": {"momentum": 0.99, "nesterov": True},
        "training.max_pairs": 18 * 4.5e6,
        "training.validations": 18,
    },
    ("convs2s", "paper-en-fr"): {
        "decoding.length_penalty": "mean",
        "training.max_pairs": 18 * 36e6,
        "training.validations": 18,
        "training.batch_tokens": 64 * 32,
    },
    ("transformer-base", "paper"): {"training.optimizer.settings": {"betas": [0.9, 0.98], "eps": 1e-9}},
}


def value(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name)
    return root


@pytest.mark.parametrize(("row", "preset"), [*PAPERS, *OURS])
def test_optimization_and_decoding_settings(row: str, preset: str) -> None:
    job = resolve(FILES[row], preset=preset, row=row)
    training, decoding = job.training, job.decoding
    found = PaperSettings(
        training.optimizer.name,
        training.optimizer.lr,
        training.clip,
        training.normalization,
        training.schedule,
        decoding.beam,
        decoding.alpha,
        decoding.coverage,
        getattr(job.model, "dropout", 0.0),  # the perceptron has no dropout
        training.label_smoothing,
        training.average,
    )
    expected = (PAPERS | OURS)[row, preset]
    assert found.lr == pytest.approx(expected.lr, rel=1e-5)
    assert found._replace(lr=expected.lr) == expected
    others = OTHERS.get((row, preset), {})
    assert {path: value(job, path) for path in others} == others
    assert {name: getattr(job.text, name) for name in JOINT} == TEXTS.get(row, JOINT)
    assert job.text.source_length_limit >= 200  # long enough for whole test sentences
    assert job.ensemble.members == 8
    assert training.precision == "bf16-mixed"


def test_every_paper_preset_is_listed_here() -> None:
    presets = {(row, preset) for row in LADDER for preset in presets_of(FILES[row], row) if "paper" in preset}
    assert presets == PAPERS.keys() | OURS.keys()
