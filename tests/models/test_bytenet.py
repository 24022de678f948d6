"""ByteNet: equation of the block, receptive fields, causality, dynamic unfolding, the paper's preset."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bench.experiment.loading import resolve
from bench.experiment.yaml_layers import EXPERIMENTS
from models.bytenet import Block, Config, DecoderBlock, Model
from models.parts.batch import BOS, EOS, Tokens


def build(blocks: int = 2, width: int = 3, **settings: Any) -> Model:
    torch.manual_seed(1)
    model = Model(Config(blocks=blocks, width=width, **settings), 30, 40).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def sentence(length: int) -> Tokens:
    return Tokens(torch.tensor([[*(11 + i % 15 for i in range(length - 1)), EOS]]), (length,))


def layer_norm(norm: torch.nn.LayerNorm, x_D: Tensor) -> Tensor:
    variance = (x_D - x_D.mean()).square().mean()
    return (x_D - x_D.mean()) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def layer(block: Block, name: str) -> tuple[Tensor, Tensor]:
    return block.get_parameter(f"{name}.weight"), block.get_parameter(f"{name}.bias")


def run_block(block: Block, x_TX: Tensor, offsets: list[int]) -> Tensor:
    """Return the output of every position; the convolution reads the positions at these offsets from its own."""
    w_1, b_1 = layer(block, "narrow.2")
    w_2, b_2 = layer(block, "convolve")
    w_3, b_3 = layer(block, "widen.2")
    norm_1, norm_2, norm_3 = block.narrow[0], block.norm, block.widen[0]
    assert isinstance(norm_1, torch.nn.LayerNorm)
    assert isinstance(norm_3, torch.nn.LayerNorm)
    inputs_TD = [torch.relu(layer_norm(norm_2, w_1 @ torch.relu(layer_norm(norm_1, x_X)) + b_1)) for x_X in x_TX]
    zero_D, out = torch.zeros(block.width, dtype=x_TX.dtype), []
    for t, x_X in enumerate(x_TX):
        read = [inputs_TD[t + offset] if 0 <= t + offset < len(x_TX) else zero_D for offset in offsets]
        out.append(x_X + w_3 @ torch.relu(layer_norm(norm_3, w_2 @ torch.cat(read) + b_2)) + b_3)
    return torch.stack(out)


def test_blocks_equal_their_equation() -> None:
    model, x_TX = build(blocks=3), torch.randn(9, 6, dtype=torch.float64)
    for block, masked, dilation in zip(model.encoder, model.decoder, (1, 2, 4), strict=True):
        offsets = [-dilation, 0, dilation]
        found_TX = block(x_TX[None], torch.ones(1, 9, 1))[0]
        torch.testing.assert_close(found_TX, run_block(block, x_TX, offsets), atol=1e-12, rtol=0)
        offsets = [-2 * dilation, -dilation, 0]
        found_TX = masked(x_TX[None], torch.zeros(1, 2 * dilation, 3))[0][0]
        torch.testing.assert_close(found_TX, run_block(masked, x_TX, offsets), atol=1e-12, rtol=0)


def changed_positions(model: Model, blocks: int, length: int, position: int) -> list[int]:
    """Return the positions whose output changes after a number of decoder blocks if one input changes."""
    x_1TX = torch.randn(1, length, 2 * model.config.width, dtype=torch.float64)
    changed_1TX = x_1TX.clone()
    changed_1TX[0, position] += torch.randn(2 * model.config.width)
    for block in list(model.decoder)[:blocks]:
        past_BPD = torch.zeros(1, block.context, block.width, dtype=torch.float64)
        x_1TX, changed_1TX = block(x_1TX, past_BPD)[0], block(changed_1TX, past_BPD)[0]
    changed_T = (x_1TX - changed_1TX).abs().amax(dim=(0, 2)) > 0
    return changed_T.nonzero().flatten().tolist()


@torch.no_grad()
def test_five_blocks_see_63_positions_and_no_later_one() -> None:
    """1 + 2 (1 + 2 + 4 + 8 + 16) = 63; thirty blocks see 6 x 62 + 1 = 373."""
    model = build(blocks=5, width=8)
    assert changed_positions(model, 5, 80, 10) == list(range(10, 73))
    assert sum(block.context for block in model.decoder) + 1 == 63
    with torch.device("meta"):
        assert sum(block.context for block in Model(Config(), 30, 30).decoder) + 1 == 373


@torch.no_grad()
def test_encoder_sees_31_positions_on_both_sides() -> None:
    model, length = build(blocks=5, width=8), 90
    source, changed_1S = sentence(length), sentence(length).ids_BS.clone()
    changed_1S[0, 45] = 27
    changed_U = (model.encode(source) - model.encode(Tokens(changed_1S, (length,)))).abs().amax(dim=(0, 2)) > 0
    assert changed_U.nonzero().flatten().tolist() == list(range(45 - 31, 45 + 32))


@pytest.mark.parametrize("dilations", [[1], [2], [1, 2, 4, 8, 16]])
@torch.no_grad()
def test_no_position_sees_a_later_one(dilations: list[int]) -> None:
    model = build(blocks=5, width=4, dilations=dilations)
    memory, ids_1T = model.encode(sentence(10)), torch.arange(20)[None] + 15
    before_1TX = model.decode(memory, Tokens(ids_1T, (20,)))
    for position in range(1, 20):
        changed_1T = ids_1T.clone()
        changed_1T[0, position:] = 38 - changed_1T[0, position:] // 2
        after_1TX = model.decode(memory, Tokens(changed_1T, (20,)))
        assert torch.equal(after_1TX[:, :position], before_1TX[:, :position])


@pytest.mark.parametrize(("length", "unfolded"), [(1, 2), (4, 5), (5, 6), (6, 8), (10, 12), (25, 30), (100, 120)])
def test_unfolded_length_is_1_20_of_the_source(length: int, unfolded: int) -> None:
    model = build()
    assert model.unfolded(length) == unfolded >= 1.2 * length
    assert model.encode(sentence(length)).shape == (1, unfolded, 6)


@torch.no_grad()
def test_decoder_reads_the_encoder_position_by_position() -> None:
    """Target position t reads encoder position t and no later one; beyond the unfolded length it reads zeros."""
    model, prefix = build(), Tokens(torch.tensor([[BOS, *range(20, 29)]]), (10,))
    memory_1UX = model.encode(sentence(5))
    before_TX = model.decode(memory_1UX, prefix)[0]
    for position in range(6):
        changed_1UX = memory_1UX.clone()
        changed_1UX[0, position] += torch.randn(6, dtype=torch.float64)
        changed_T = (model.decode(changed_1UX, prefix)[0] - before_TX).abs().amax(dim=1) > 0
        assert changed_T.nonzero()[0].item() == position
    longer_1UX = functional.pad(memory_1UX, (0, 0, 0, 7))
    assert torch.equal(model.decode(longer_1UX, prefix)[0], before_TX)


@torch.no_grad()
def test_decoding_continues_beyond_the_unfolded_length() -> None:
    model, length = build(blocks=5), 40
    memory, prefix = model.encode(sentence(3)), Tokens(torch.arange(length)[None] % 35 + 4, (length,))
    wanted_TX, state = model.decode(memory, prefix)[0], model.start(memory)
    for position in range(length):
        hidden_1X, state, _ = model.step(prefix.ids_BS[:, position], state)
        torch.testing.assert_close(hidden_1X[0], wanted_TX[position], atol=1e-10, rtol=0)
    assert wanted_TX.isfinite().all()


@torch.no_grad()
def test_state_has_only_the_last_inputs_of_each_convolution() -> None:
    model = build(blocks=5)
    state = model.start(model.encode(sentence(3)))
    for _ in range(3):
        state = model.step(torch.tensor([7]), state).state
    assert [past_BPD.shape[1] for past_BPD in state.past.inputs] == [2, 4, 8, 16, 32]


def test_paper_preset_has_the_settings_of_the_paper() -> None:
    """30 + 30 blocks, unfolding to 1.2 times the source, Adam with 3e-4, beam 12 without length normalization."""
    job = resolve(EXPERIMENTS / "bytenet.yaml", preset="paper")
    with torch.device("meta"):
        model = job.build(300, 300)
    assert (job.decoding.beam, job.decoding.alpha, job.training.optimizer.lr) == (12, 0.0, 3e-4)
    assert isinstance(model.get_submodule("decoder.29"), DecoderBlock)
    assert math.isclose(job.model.unfold, 1.2)
