"""ConvS2S compared with the paper: gated blocks, attention, weight normalization, variances and gradients."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.decoding.beam_search import DecodingSettings, translate
from bench.measures.memory import without_caches
from models.convs2s import Config, EncoderBlock, Model, WeightNormLinear
from models.parts.batch import BOS, EOS, Tokens
from models.parts.convolution import windows

SMALL = Config(stack=[(2, 6, 3), (1, 8, 1)], embedding=5, out=7, positions=20, dropout=0.0)
SOURCE = Tokens(torch.tensor([[11, 12, 13, EOS]]), (4,))
PREFIX = Tokens(torch.tensor([[BOS, 21, 22, 23, 24]]), (5,))


def build(config: Config = SMALL) -> Model:
    torch.manual_seed(1)
    model = Model(config, 30, 40).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def weight(layer: torch.nn.Module) -> Tensor:
    """Return W = g v / ||v||, row by row."""
    assert isinstance(layer, WeightNormLinear)
    rows = zip(layer.g[:, 0], layer.weight, strict=True)
    return torch.stack([g * v_row / v_row.square().sum().sqrt() for g, v_row in rows])


def glu(y: Tensor) -> Tensor:
    a, b = y.split(y.shape[-1] // 2, dim=-1)
    return a * torch.sigmoid(b)


def test_windows_times_a_matrix_equal_a_convolution() -> None:
    x_BTD, w_ODK = torch.randn(2, 12, 3), torch.randn(5, 3, 3)
    matrix_OX = w_ODK.transpose(1, 2).flatten(1)  # kernel elements in the order of `windows`
    for dilation in (1, 2, 4):
        wanted_BTO = functional.conv1d(x_BTD.transpose(1, 2), w_ODK, dilation=dilation).transpose(1, 2)
        torch.testing.assert_close(windows(x_BTD, 3, dilation) @ matrix_OX.T, wanted_BTO, atol=1e-5, rtol=0)


def test_encoder_block_equals_its_equation() -> None:
    torch.manual_seed(2)
    block, x_TD = EncoderBlock(4, 6, 3, 0.0).double(), torch.randn(5, 4, dtype=torch.float64)
    assert isinstance(block.residual, WeightNormLinear)
    mask_1S1 = torch.tensor([True] * 3 + [False] * 2)[None, :, None]
    padded_TD = torch.cat((torch.zeros(1, 4), x_TD[:3], torch.zeros(3, 4)))  # words 3 and 4 are padding
    for i in range(5):
        h_D = glu(weight(block.W) @ padded_TD[i : i + 3].flatten() + block.W.bias)
        residual_D = weight(block.residual) @ x_TD[i] + block.residual.bias
        found_D = block(x_TD[None], mask_1S1)[0, i]
        torch.testing.assert_close(found_D, math.sqrt(0.5) * (h_D + residual_D), atol=1e-12, rtol=0)


def test_decoder_block_equals_its_equations() -> None:
    model = build()
    memory, block = model.encode(SOURCE), next(iter(model.decoder))
    z_SE, values_SE, half = memory.z_BSE[0], memory.values_BSE[0], math.sqrt(0.5)
    torch.testing.assert_close(
        values_SE, half * (z_SE + model.source_embedding(SOURCE.ids_BS, torch.tensor([0]))[0]), atol=1e-12, rtol=0
    )
    x_TD, g_TE = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    found_1TD, _, weights_1TS = block(x_TD[None], g_TE[None], memory, torch.zeros(1, 2, 6, dtype=torch.float64))
    inputs_TD = torch.cat((torch.zeros(2, 6), x_TD))
    for i in range(4):
        h_D = glu(weight(block.W) @ inputs_TD[i : i + 3].flatten() + block.W.bias)
        d_E = half * (weight(block.W_d) @ h_D + block.W_d.bias + g_TE[i])
        a_S = torch.softmax(z_SE @ d_E, dim=0)
        c_E = 4 * math.sqrt(1 / 4) * sum(a_S[j] * values_SE[j] for j in range(4))
        attended_D = half * (h_D + weight(block.W_c) @ c_E + block.W_c.bias)
        torch.testing.assert_close(weights_1TS[0, i], a_S, atol=1e-12, rtol=0)
        torch.testing.assert_close(found_1TD[0, i], half * (attended_D + x_TD[i]), atol=1e-12, rtol=0)


def test_all_weights_but_embeddings_have_weight_normalization() -> None:
    with_matrices = [module for module in build().modules() if isinstance(module, (nn.Linear, nn.Conv1d, nn.Embedding))]
    plain = [module for module in with_matrices if not isinstance(module, WeightNormLinear)]
    assert len(with_matrices) > 20
    assert len(plain) == 4
    assert all(isinstance(module, nn.Embedding) for module in plain)


def test_weight_normalization_separates_length_and_direction() -> None:
    layer, x_BD = WeightNormLinear(3, 4), torch.randn(2, 3)
    plain_BD = functional.linear(x_BD, layer.weight)
    torch.testing.assert_close(layer(x_BD), plain_BD)  # g is initialized with the length of v
    layer.weight.data *= 7
    torch.testing.assert_close(layer(x_BD), plain_BD)
    layer.g.data *= 2
    torch.testing.assert_close(layer(x_BD), 2 * plain_BD)


def test_cached_weights_are_computed_again_after_a_change() -> None:
    layer, x_BD = WeightNormLinear(3, 4), torch.randn(2, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(3):
        with torch.inference_mode():
            before_BD = layer(x_BD)
            assert layer.matrix() is layer.matrix()
        layer(x_BD).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            torch.testing.assert_close(layer(x_BD), functional.linear(x_BD, weight(layer), layer.bias))
            assert not torch.equal(layer(x_BD), before_BD)
    other = WeightNormLinear(3, 4)
    with torch.no_grad():
        other(x_BD)
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other(x_BD), layer(x_BD))
        assert torch.equal(copy.deepcopy(layer)(x_BD), layer(x_BD))
        torch.testing.assert_close(layer.double()(x_BD.double()).float(), other(x_BD))


def test_cache_is_discarded_before_memory_is_measured() -> None:
    """Decoding in training mode fills the cache, too. `emptied`, used to measure memory, starts without it."""
    model = build().train()
    layers = [module for module in model.modules() if isinstance(module, WeightNormLinear)]
    translate(model, [[11, 12]], DecodingSettings(beam=2))
    assert all(layer.cached for layer in layers)
    assert not any(layer.cached for layer in without_caches(model).modules() if isinstance(layer, WeightNormLinear))
    assert model.training
    model.eval()
    with torch.no_grad():
        cached = layers[0].matrix()
        model.eval()
        assert layers[0].matrix() is cached


def test_gradients_of_the_encoder_are_divided_by_twice_the_attention_layers() -> None:
    """The gradients of the source embeddings, which the attention's values contain, are not divided."""
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


def test_initial_weights_are_those_of_section_3_5() -> None:
    torch.manual_seed(1)
    model = Model(Config(stack=[(2, 256, 3)], embedding=256, out=256, dropout=0.2), 500, 500)
    encoder_block, decoder_block = next(iter(model.encoder)), next(iter(model.decoder))
    expected = {
        model.source_embedding.words: 0.1,
        model.target_embedding.positions: 0.1,
        encoder_block.W: math.sqrt(4 * 0.8 / (3 * 256)),  # before a gated linear unit, after dropout
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
    """Two blocks of kernel 3 and one of kernel 1 see 5 target words."""
    model, length = build(), 12
    ids_1T = torch.arange(20, 20 + length)[None]
    memory = model.encode(SOURCE)
    before_TD = model.decode(memory, Tokens(ids_1T, (length,)))[0]
    changed_1T = ids_1T.clone()
    changed_1T[0, 3] = 39
    changed = (model.decode(memory, Tokens(changed_1T, (length,)))[0] - before_TD).abs().amax(dim=1) > 1e-9
    assert changed.nonzero().flatten().tolist() == [3, 4, 5, 6, 7]


@torch.no_grad()
def test_positions_beyond_the_last_learned_one_use_it() -> None:
    model = build()
    ids_1T = torch.full((1, 25), 21)
    embedded_TE = model.target_embedding(ids_1T, torch.tensor([0]))[0]
    assert not torch.equal(embedded_TE[18], embedded_TE[19])
    assert torch.equal(embedded_TE[19], embedded_TE[24])
