"""Recorded updates, where "recording" is calling a function again: everything but the CUDA graph itself.

The contract tests compare losses and gradients of all architectures, on a GPU with graphs (`--device cuda`).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.data.batches import PairBatches
from bench.data.encoded_pairs import Pairs, Sentences
from bench.decoding.ensemble import Ensemble
from bench.measures.flops import FlopCounter, count
from bench.system import cuda_graphs
from bench.system.machine import MachineSettings
from bench.training import recorded_updates
from bench.training.recorded_updates import RecordedUpdates, record_updates
from bench.training.reward import RewardSettings
from bench.training.trainer import TrainingResult
from models import moe, seq2seq
from models.parts.batch import PAD
from tests.helpers.repeated_calls import repeated
from tests.training.test_trainer import Attempts, Killed, kill_at, model, pairs, settings


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "CudaRecorder", lambda: repeated)


def sentences(length: int) -> Sentences:
    return Sentences.of([[5] * length] * 2)


def trained(folder: Path, graphs: bool, **changes: object) -> TrainingResult:
    attempts = Attempts(folder, settings(**({"precision": "64-true"} | changes)), cuda_graphs=graphs)
    without_dropout = model()
    for module in without_dropout.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return attempts.train(module=without_dropout)


@pytest.mark.parametrize("parts", [None, 2])
def test_training_by_recorded_updates_gives_the_same_weights(tmp_path: Path, parts: int | None) -> None:
    usual, recorded = (trained(tmp_path / str(on), on, accumulate=parts, max_updates=40) for on in (False, True))
    assert usual.graph_launches == 0
    assert recorded.graph_launches >= 20, "most shapes came back"
    for name, tensor in usual.weights.items():
        torch.testing.assert_close(recorded.weights[name], tensor, rtol=0, atol=1e-9)
    losses = [[value for _, name, value in result.curve if name == "train/loss"] for result in (usual, recorded)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    ours, theirs = recorded.budget.flop_counter, usual.budget.flop_counter
    assert ours.model_flops == theirs.model_flops
    assert ours.executed_flops > theirs.executed_flops, "padding is computed, too"


def test_a_killed_run_resumes_with_the_same_bits(tmp_path: Path) -> None:
    """A resumed process records its shapes again; until then it computes them as usual, by the same operations."""
    whole = Attempts(tmp_path / "whole", cuda_graphs=True).train()
    attempts = Attempts(tmp_path / "killed", checkpoint_seconds=0, cuda_graphs=True)
    with pytest.raises(Killed):
        attempts.train(on_status=kill_at(11))
    resumed = attempts.train()
    assert 0 < resumed.graph_launches < whole.graph_launches
    assert all(torch.equal(resumed.weights[name], tensor) for name, tensor in whole.weights.items())


def test_a_run_with_rewards_is_not_recorded(tmp_path: Path) -> None:
    result = trained(tmp_path, True, reward=RewardSettings(share=0.5, samples=3))
    assert result.graph_launches == 0
    assert not result.budget.flop_counter.projects_padding


def test_the_shorter_side_is_padded_to_few_lengths() -> None:
    sources, targets = [[[5] * length for length in lengths] for lengths in ((9, 8, 9, 6), (3, 4, 9, 2))]
    data = PairBatches(Pairs(Sentences.of(sources), Sentences.of(targets)), 12, seed=3)
    before = [data.local_part(indices) for indices in data.epoch(0)]
    data.multiple = 4
    after = [data.local_part(indices) for indices in data.epoch(0)]
    for one, two in zip(before, after, strict=True):
        widths = [side.ids_BS.shape[1] for side in (one.source, one.target)]
        padded = [side.ids_BS.shape[1] for side in (two.source, two.target)]
        assert max(padded) == max(widths), "the longer side is left alone"
        assert min(padded) == min(max(widths), -(-min(widths) // 4) * 4)
        for side, wider in ((one.source, two.source), (one.target, two.target)):
            assert side.lengths_B == wider.lengths_B
            assert torch.equal(wider.ids_BS[:, : side.ids_BS.shape[1]], side.ids_BS)
            assert (wider.ids_BS[:, side.ids_BS.shape[1] :] == PAD).all()
    assert sorted(batch.target.ids_BS.shape[1] for batch in after) == [4, 4, 8, 10]


def test_executed_flops_are_those_that_run() -> None:
    module = model().train()
    data, flop_counter = PairBatches(pairs(), 60, seed=3), FlopCounter(module)
    updates = record_updates(module, data, flop_counter, reward_share=0)
    assert updates
    batch = data.local_part(data.epoch(0)[0])
    flop_counter.add(batch)
    inputs = batch.source.ids_BS, batch.target.ids_BS, torch.ones(())
    assert flop_counter.executed_flops == count(lambda: updates.compute(*inputs))
    assert flop_counter.model_flops < flop_counter.executed_flops


def test_more_shapes_than_graphs_are_computed_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_updates, "MOST_SHAPES", 1)
    module = model().train()
    updates = RecordedUpdates(module)
    short, long = (PairBatches(Pairs(side, side), 60, seed=3).longest() for side in (sentences(3), sentences(6)))
    for batch in (short, short, long, long, long):
        updates(batch)
    assert (updates.launches, len(updates.recorded.graphs)) == (1, 1)


def test_some_models_cannot_be_recorded() -> None:
    """NVIDIA's cuDNN reads the seed of dropout between fused layers back to the host; experts wait for their counts."""

    def fused(layers: int, dropout: float, training: bool = True) -> bool:
        lstm = seq2seq.Model(seq2seq.Config("lstm", layers, 8, 8, dropout=dropout), 9, 9)
        return lstm.is_repeatable(training=training)

    assert [fused(2, 0.1), fused(2, 0.0), fused(2, 0.1, training=False)] == [False, True, True]
    experts = moe.Model(moe.Config(width=8, cells=16, inner=8, experts=4, groups=0, k=2), 9, 9)
    assert not experts.is_repeatable(training=False)
    assert not Ensemble([model(), experts]).is_repeatable(training=False)
    assert model().is_repeatable(training=True)


def test_dropout_draws_new_numbers_in_a_repeated_update() -> None:
    module = model().train()
    updates, batch = RecordedUpdates(module), PairBatches(pairs(), 60, seed=3).longest()
    torch.manual_seed(7)
    losses = [updates(batch)[0].item() for _ in range(4)]
    assert len(set(losses)) == 4


def test_no_gpu_is_one_line() -> None:
    with (
        pytest.raises(ValueError, match="true needs a GPU"),
        MachineSettings("cpu", cuda_graphs=True).applied(),
    ):
        pass


def test_several_processes_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="this run has 2"), MachineSettings("gpu", 2, cuda_graphs=True).applied():
        pass
