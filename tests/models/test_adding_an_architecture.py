"""A new architecture needs one file in models/ and one in experiments/: a copy of the project finds both unedited."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]

MODEL = '''"""A GRU that reads the mean of the source embeddings at every position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.parts.batch import Tokens
from models.parts.flops import NO_FLOPS, Flops, matmul_flops
from models.parts.translator import State, Step, Translator


@dataclass
class Config:
    """Sizes.

    Attributes:
        width: Width of all layers.
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
        return matmul_flops(1, 3 * self.width, 3 * self.width)
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

CONTRACT = ["tests/models/test_contract.py", "tests/test_import_order.py"]
"""Tests of the new architecture: the contract, and what its file imports."""

OTHERS = [
    "tests/experiment/test_spec.py",
    "tests/experiment/test_paper_presets.py",
    "tests/checks/test_model_sizes.py",
    "tests/reports/test_catalogue.py",
]
"""Tests of everything that experiments/ contains."""

SELECTED = "yours or own.yaml or listed_here or large_suites or the_ladder or of_the_experiments"
"""Selects from these files the tests that see the new row, the new suite or the list of all rows."""

COMMAND = """
import sys, pytest
from bench.cli.main import main
failed = pytest.main(sys.argv[1:])
print("bench models:", flush=True)
sys.exit(main(["models", "--preset", "demo"]) or failed)
"""
"""Runs the tests and `bench models` in one process, because each process needs seconds to import the libraries."""


class Outcome(NamedTuple):
    """What the command in the copy printed, and how many tests of each file passed."""

    printed: str
    passed: Counter[str]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Copy the project, add an architecture and a suite, and run the tests and `bench models` there, without errors."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("models", "bench", "reports", "experiments", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("results"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "models" / "yours.py").write_text(MODEL, encoding="utf-8")
    (copy / "experiments" / "yours.yaml").write_text(EXPERIMENT, encoding="utf-8")
    (copy / "experiments" / "own.yaml").write_text(SUITE, encoding="utf-8")
    options = ["-p", "no:xdist", "-p", "no:cacheprovider", "--junitxml", "passed.xml", "-k", SELECTED]
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COMMAND, *options, *CONTRACT, *OTHERS]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = ElementTree.parse(copy / "passed.xml").iter("testcase")
    files = (case.attrib["classname"].replace(".", "/") + ".py" for case in cases if case.find("skipped") is None)
    return Outcome(done.stdout, Counter(files))


def test_contract_tests_find_the_architecture(outcome: Outcome) -> None:
    assert sum(outcome.passed[file] for file in CONTRACT) >= 19


def test_no_other_test_needs_an_edit(outcome: Outcome) -> None:
    assert all(outcome.passed[file] for file in OTHERS)  # a renamed test would no longer be selected
    assert sum(outcome.passed[file] for file in OTHERS) >= 10


def test_bench_models_prints_the_architecture(outcome: Outcome) -> None:
    _, table = outcome.printed.split("bench models:")
    (line,) = [line for line in table.splitlines() if "Yours" in line]
    assert line.split()[:2] == ["yours", "Yours"]
