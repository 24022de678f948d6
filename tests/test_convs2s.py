"""ConvS2S: gated blocks, attention, variances and gradients as written in the paper; sizes of the published stacks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bench.experiment import EXPERIMENTS, resolve
from models.convs2s import Config, EncoderBlock, Model, normalised
from models.parts.convolution import windows
from models.parts.translator import BOS, EOS, Tokens

SMALL = Config(stack=[(2, 6, 3), (1, 8, 1)], embedding=5, out=7, positions=20, dropout=0.0)
SOURCE = Tokens(torch.tensor([[11, 12, 13, EOS]]), (4,))
PREFIX = Tokens(torch.tensor([[BOS, 21, 22, 23, 24]]), (5,))


def build(config: Config = SMALL) -> Model:
    torch.manual_seed(1)
    model = Model(config, 30, 40).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def weight(layer: torch.nn.Linear) -> Tensor:
    """The product g v / ||v||, written out from the two tensors that are stored."""
    g, v = (layer.get_parameter(f"parametrizations.weight.original{part}") for part in (0, 1))
    return torch.stack([g_row * v_row / v_row.square().sum().sqrt() for g_row, v_row in zip(g, v, strict=True)])


def glu(y: Tensor) -> Tensor:
    a, b = y.split(y.shape[-1] // 2, dim=-1)
    return a * torch.sigmoid(b)


def test_windows_are_a_convolution() -> None:
    x_BTD, w_ODK = torch.randn(2, 12, 3), torch.randn(5, 3, 3)
    matrix_OX = w_ODK.transpose(1, 2).flatten(1)  # taps side by side, as windows have them
    for dilation in (1, 2, 4):
        wanted_BTO = functional.conv1d(x_BTD.transpose(1, 2), w_ODK, dilation=dilation).transpose(1, 2)
        torch.testing.assert_close(windows(x_BTD, 3, dilation) @ matrix_OX.T, wanted_BTO, atol=1e-5, rtol=0)


def test_an_encoder_block_is_its_equation() -> None:
    torch.manual_seed(2)
    block, x_TD = EncoderBlock(4, 6, 3, 0.0).double(), torch.randn(5, 4, dtype=torch.float64)
    mask_1S1 = torch.tensor([True] * 3 + [False] * 2)[None, :, None]
    padded_TD = torch.cat((torch.zeros(1, 4), x_TD[:3], torch.zeros(3, 4)))  # words 3 and 4 are padding
    for i in range(5):
        h_D = glu(weight(block.W) @ padded_TD[i : i + 3].flatten() + block.W.bias)
        residual_D = weight(block.residual) @ x_TD[i] + block.residual.bias  # type: ignore[arg-type]
        found_D = block(x_TD[None], mask_1S1)[0, i]
        torch.testing.assert_close(found_D, math.sqrt(0.5) * (h_D + residual_D), atol=1e-12, rtol=0)


def test_a_decoder_block_is_its_equations() -> None:
    model = build()
    memory, block = model.encode(SOURCE), next(iter(model.decoder))
    z_SE, values_SE, half = memory.z_BSE[0], memory.values_BSE[0], math.sqrt(0.5)
    torch.testing.assert_close(
        values_SE, half * (z_SE + model.source_embedding(SOURCE.ids_BS, torch.tensor([0]))[0]), atol=1e-12, rtol=0
    )
    x_TD, g_TE = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    found_1TD, _, weights_1TS = block(x_TD[None], g_TE[None], memory, torch.zeros(1, 2, 6, dtype=torch.float64))
    before_TD = torch.cat((torch.zeros(2, 6), x_TD))
    for i in range(4):
        h_D = glu(weight(block.W) @ before_TD[i : i + 3].flatten() + block.W.bias)
        d_E = half * (weight(block.W_d) @ h_D + block.W_d.bias + g_TE[i])
        a_S = torch.softmax(z_SE @ d_E, dim=0)
        c_E = 4 * math.sqrt(1 / 4) * sum(a_S[j] * values_SE[j] for j in range(4))
        looked_D = half * (h_D + weight(block.W_c) @ c_E + block.W_c.bias)
        torch.testing.assert_close(weights_1TS[0, i], a_S, atol=1e-12, rtol=0)
        torch.testing.assert_close(found_1TD[0, i], half * (looked_D + x_TD[i]), atol=1e-12, rtol=0)


def test_only_look_ups_are_not_normalised() -> None:
    """Whoever has a matrix has a length and a direction; the length is what its output is scaled by."""
    model = build()
    plain = {name for name, parameter in model.named_parameters() if parameter.dim() > 1 and "parametriz" not in name}
    assert plain == {
        f"{side}_embedding.{table}.weight" for side in ("source", "target") for table in ("words", "positions")
    }
    layer = normalised(3, 4)
    for name, parameter in layer.named_parameters():
        if name.endswith("original1"):
            before = layer.weight.detach().clone()
            parameter.data *= 7  # the length of v means nothing
            torch.testing.assert_close(layer.weight, before)


def test_gradients_of_the_encoder_are_divided_by_twice_the_attention_layers() -> None:
    """And those of the source embeddings, where attention reads them, are not."""
    model = build()
    memory = model.encode(SOURCE)
    (gradient,) = torch.autograd.grad(memory.z_BSE.sum(), [model.encoder_out.bias])
    torch.testing.assert_close(gradient, torch.full_like(gradient, len(SOURCE.ids_BS[0]) / (2 * 3)))
    model.zero_grad()
    memory = model.encode(SOURCE)
    (memory.values_BSE - math.sqrt(0.5) * memory.z_BSE).sum().backward()
    found = model.source_embedding.words.weight.grad
    assert found is not None
    torch.testing.assert_close(found[11], torch.full_like(found[11], math.sqrt(0.5)))


def test_weights_begin_as_in_section_3_5() -> None:
    torch.manual_seed(1)
    model = Model(Config(stack=[(2, 256, 3)], embedding=256, out=256, dropout=0.2), 500, 500)
    encoder_block, decoder_block = next(iter(model.encoder)), next(iter(model.decoder))
    expected = {
        model.source_embedding.words: 0.1,
        model.target_embedding.positions: 0.1,
        encoder_block.W: math.sqrt(4 * 0.8 / (3 * 256)),  # before a GLU, behind dropout
        decoder_block.W: math.sqrt(4 * 0.8 / (3 * 256)),
        decoder_block.W_d: math.sqrt(1 / 256),
        model.encoder_in: math.sqrt(0.8 / 256),
        model.output: math.sqrt(0.8 / 256),
    }
    for layer, std in expected.items():
        assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
    assert all(not layer.bias.any() for layer in (model.encoder_in, model.output, encoder_block.W))


@torch.no_grad()
def test_receptive_field_of_the_decoder() -> None:
    """Two blocks of kernel 3 and one of kernel 1 see 5 words of the target; every block looks at the source."""
    model, length = build(), 12
    ids_1T = torch.arange(20, 20 + length)[None]
    memory = model.encode(SOURCE)
    before_TD = model.decode(memory, Tokens(ids_1T, (length,)))[0]
    changed_1T = ids_1T.clone()
    changed_1T[0, 3] = 39
    moved = (model.decode(memory, Tokens(changed_1T, (length,)))[0] - before_TD).abs().amax(dim=1) > 1e-9
    assert moved.nonzero().flatten().tolist() == [3, 4, 5, 6, 7]


@torch.no_grad()
def test_positions_behind_the_last_learned_one_share_it() -> None:
    model = build()
    ids_1T = torch.full((1, 25), 21)
    embedded_TE = model.target_embedding(ids_1T, torch.tensor([0]))[0]
    assert not torch.equal(embedded_TE[18], embedded_TE[19])
    assert torch.equal(embedded_TE[19], embedded_TE[24])


@pytest.mark.parametrize(("preset", "total"), [("paper", 182.2e6), ("paper-code", 209.6e6), ("paper-en-fr", 258.1e6)])
def test_published_stacks_have_their_size(preset: str, total: float) -> None:
    """Not published; the sum over weights (v), lengths (g), biases and look-ups with 40,000 words on each side."""
    job = resolve(EXPERIMENTS / "convs2s.yaml", preset=preset)
    config, words = job.model, job.text.vocabulary_size
    assert words == 40_000

    def layer(inputs: int, outputs: int) -> int:
        return inputs * outputs + 2 * outputs

    first, last = config.stack[0][1], config.stack[-1][1]
    outside, inputs = 2 * layer(768, first) + layer(last, 768) + layer(last, 512), first
    for times, width, kernel in config.stack:
        for _ in range(times):
            outside += 2 * (layer(kernel * inputs, 2 * width) + (layer(inputs, width) if inputs != width else 0))
            outside += layer(width, 768) + layer(768, width)
            inputs = width
    with torch.device("meta"):
        found = job.build(words, words).parameter_counts()
    assert found == (outside + 2 * (words + 1024) * 768 + layer(512, words), outside)
    assert found[0] == pytest.approx(total, rel=1e-3)
