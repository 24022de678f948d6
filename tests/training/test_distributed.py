"""Distributed training gives the result of one process up to rounding. Whole runs: journeys/test_processes.py."""

from __future__ import annotations

import os
import random
from typing import Literal

import pytest
import torch

# PyTorch documents TCPStore under this name, but leaves it out of __all__, so a checker takes it for private.
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from bench.data.batches import PairBatches
from bench.data.encoded_pairs import Pairs, Sentences
from bench.system.machine import MachineSettings
from bench.training.distributed import SINGLE_PROCESS, Rendezvous, master_address
from models.parts.batch import Batch
from models.parts.optimization import OptimizationSettings
from models.parts.translator import Translator
from models.transformer import Config, Model

VOCABULARY = 23


def pairs(count: int) -> Pairs:
    rng = random.Random(1)
    sources, targets = (
        Sentences.of([[rng.randrange(4, VOCABULARY) for _ in range(rng.randint(0, 9))] for _ in range(count)])
        for _ in range(2)
    )
    return Pairs(sources, targets)


def parts(text: Pairs, processes: int, batch: int) -> list[Batch]:
    """Return the part of a batch that each of `processes` processes reads."""
    found = []
    for rank in range(processes):
        batches = PairBatches(text, 40, seed=3)
        batches.rank, batches.processes = rank, processes
        found.append(batches.local_part(batches.epoch(0)[batch]))
    return found


def sentences(batch: Batch) -> list[tuple[int, ...]]:
    """Return each pair of a batch as one tuple of ids, sorted."""
    return sorted(
        tuple(torch.cat([ids_S, ids_T]).tolist())
        for ids_S, ids_T in zip(
            (ids_S[:length] for ids_S, length in zip(*batch.source, strict=True)),
            (ids_T[:length] for ids_T, length in zip(*batch.target, strict=True)),
            strict=True,
        )
    )


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("batch", range(6))
def test_the_parts_of_all_processes_make_up_the_batch(processes: int, batch: int) -> None:
    text = pairs(50)
    (full_batch,) = parts(text, 1, batch)
    split = parts(text, processes, batch)
    assert len(full_batch.source.lengths_B) >= processes
    assert sorted(pair for part in split for pair in sentences(part)) == sentences(full_batch)
    assert all(part.shapes == split[0].shapes for part in split)
    assert [shape.source_lengths for shape in split[0].shapes] == [part.source.lengths_B for part in split]
    assert [shape.target_lengths for shape in split[0].shapes] == [part.target.lengths_B for part in split]
    assert [shape.padded_lengths for shape in split[0].shapes] == [
        (part.source.ids_BS.shape[1], part.target.ids_BS.shape[1]) for part in split
    ]


def gradient(model: Translator, batch: Batch) -> tuple[float, torch.Tensor]:
    """Return the loss, and all gradients as one vector."""
    model.zero_grad()
    loss = model.training_step(batch, 0)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("per", ["token", "sentence"])
@pytest.mark.parametrize("processes", [2, 3, 60])  # 60 is more than the pairs of a batch
def test_the_mean_gradient_of_the_parts_is_the_gradient_of_the_batch(
    processes: int, per: Literal["token", "sentence"]
) -> None:
    torch.manual_seed(1)
    model = Model(Config(layers=1, width=16, inner=32, heads=2, dropout=0.0), VOCABULARY, VOCABULARY).double()
    model.optimization = OptimizationSettings(normalization=per)
    (full_batch,) = parts(pairs(50), 1, 0)
    assert full_batch.loss_weight == full_batch.sentence_loss_weight == 1.0
    loss, gradient_P = gradient(model, full_batch)
    losses, gradients = zip(*(gradient(model, part) for part in parts(pairs(50), processes, 0)), strict=True)
    assert sum(losses) / processes == pytest.approx(loss, abs=1e-12)
    torch.testing.assert_close(torch.stack(gradients).mean(0), gradient_P, rtol=0, atol=1e-12)


def test_a_single_process_needs_no_communication() -> None:
    assert SINGLE_PROCESS.broadcast("x") == "x"
    assert SINGLE_PROCESS.mean([1.5, 2.5]) == [1.5, 2.5]


def test_the_address_of_process_0_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ValueError, match="MASTER_ADDR"):
        master_address()
    monkeypatch.setenv("MASTER_ADDR", "host")
    monkeypatch.setenv("MASTER_PORT", "4000")
    assert master_address() == ("host", 4000)


def test_lightning_does_not_change_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the variable is set, its launcher sets them: on two cores to two, for a process that should use one."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    store = TCPStore("127.0.0.1", 0, 1, True)
    machine = MachineSettings(accelerator="cpu", threads=1)
    with machine.applied(), Rendezvous(0, 1, "127.0.0.1", store.port).initialize(store, machine.device):
        assert os.environ["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    ("name", "machine"), [("devices", MachineSettings(devices=0)), ("num_nodes", MachineSettings(num_nodes=0))]
)
def test_a_run_needs_at_least_one_process(name: str, machine: MachineSettings) -> None:
    with pytest.raises(ValueError, match=f"machine.{name}: 0 is too small"), machine.applied():
        pass
