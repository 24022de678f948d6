"""An architecture is one file in models/ and one in experiments/: a copy of the project finds both without an edit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODEL = '''"""A GRU that reads the mean of the source's words at every position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.parts.batch import Tokens
from models.parts.flops import NO_FLOPS, Flops, product
from models.parts.translator import State, Step, Translator


@dataclass
class Config:
    """Sizes.

    Attributes:
        width: Of everything.
    """

    width: int = 64


class Model(Translator):
    def __init__(self, config: Config, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.width = config.width
        self.source_embedding = nn.Embedding(source_vocabulary, config.width)
        self.target_embedding = nn.Embedding(target_vocabulary, config.width)
        self.cell = nn.GRU(2 * config.width, config.width, bias=False, batch_first=True)
        self.output = nn.Linear(config.width, target_vocabulary, bias=False)

    def encode(self, source: Tokens) -> Tensor:
        words_BSD = self.source_embedding(source.ids_BS) * source.mask_BS[..., None]
        return words_BSD.sum(dim=1) / source.mask_BS.sum(dim=1, keepdim=True)

    def start(self, memory: Tensor) -> State:
        return State(memory, self.initial_state(len(memory), 1, self.width, like=memory))

    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, Tensor]:
        mean_BTD = state.source[:, None].expand(-1, ids_BT.shape[1], -1)
        past_1BD = state.past.transpose(0, 1).contiguous()
        hidden_BTD, last_1BD = self.cell(torch.cat((self.target_embedding(ids_BT), mean_BTD), dim=-1), past_1BD)
        return hidden_BTD, last_1BD.transpose(0, 1)

    def decode(self, memory: Tensor, target: Tokens) -> Tensor:
        return self.advance(target.ids_BS, self.start(memory))[0]

    def step(self, previous_B: Tensor, state: State) -> Step:
        hidden_B1D, past_B1D = self.advance(previous_B[:, None], state)
        return Step(hidden_B1D[:, 0], State(state.source, past_B1D), None)

    def flops_encode(self, source_length: int) -> Flops:
        return NO_FLOPS

    def flops_decode(self, source_length: int, target_length: int) -> Flops:
        return self.flops_step(source_length, 0) * target_length

    def flops_step(self, source_length: int, position: int) -> Flops:
        return product(1, 3 * self.width, 3 * self.width)
'''

EXPERIMENT = """model: {name: yours}
presets:
  demo: {model: {width: 182}, training: {optimizer: {name: Adam, lr: 0.01}}}
  multi30k-cpu: {model: {width: 408}}
  multi30k: {model: {width: 745}}
  paper: {model: {width: 1000}, training: {max_updates: 1000}}
rows:
  yours:
    about: {name: Yours, year: 2026, paper: Somebody 2026, family: recurrent, note: Reads the mean of the source}
"""

SUITE = """question: Is yours better?
rows: [gru, yours]
"""

OF_ALL = "yours or in_the_table or themselves or the_ladder or own.yaml"
"""Tests of it, and of all that experiments/ has, by their names."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("project")
    for name in ("models", "bench", "reports", "experiments", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "models" / "yours.py").write_text(MODEL, encoding="utf-8")
    (copy / "experiments" / "yours.yaml").write_text(EXPERIMENT, encoding="utf-8")
    (copy / "experiments" / "own.yaml").write_text(SUITE, encoding="utf-8")
    return copy


def python(copy: Path, *arguments: str) -> str:
    """What the command prints in the copy; it must end well."""
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_contract_tests_find_it(copy: Path) -> None:
    files = ["tests/test_contract.py", "tests/test_imports.py"]
    printed = python(copy, "pytest", "-p", "no:xdist", "-k", "yours", *files)
    (passed,) = re.findall(r"(\d+) passed", printed)
    assert int(passed) >= 19


def test_no_other_test_wants_an_edit(copy: Path) -> None:
    names = ("experiment", "paper_recipes", "report_snapshots", "sizes", "verification")
    printed = python(copy, "pytest", "-p", "no:xdist", "-k", OF_ALL, *(f"tests/test_{name}.py" for name in names))
    (passed,) = re.findall(r"(\d+) passed", printed)
    assert int(passed) >= 10


def test_bench_models_prints_it(copy: Path) -> None:
    (line,) = [
        line for line in python(copy, "bench.cli.main", "models", "--preset", "demo").splitlines() if "Yours" in line
    ]
    assert line.split()[:2] == ["yours", "Yours"]
