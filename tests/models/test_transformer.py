"""The Transformer compared with its equations; differences between its rows; the paper's optimization settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.experiment.loading import resolve
from bench.experiment.spec import Experiment
from bench.experiment.yaml_layers import EXPERIMENTS
from models.parts.attention import MultiHeadAttention
from models.parts.batch import BOS, EOS, Tokens
from models.transformer import Config, Model, sinusoids

LENGTHS = (4, 2)
SOURCE = Tokens(torch.tensor([[11, 12, 13, EOS], [14, EOS, 0, 0]]), LENGTHS)
PREFIX = Tokens(torch.tensor([[BOS, 21, 22, 23, 24]] * 2), (5, 5))


def build(**settings: Any) -> Model:
    """Return two layers with random weights: a missing LayerNorm with gain 1 and bias 0 might go unnoticed."""
    torch.manual_seed(1)
    model = Model(Config(layers=2, width=8, inner=12, heads=2, **settings), 30, 30).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.6)
    return model


# --- the equations, one sentence and one position at a time -----------------------------------------------------------


def layer_norm(x_D: Tensor, norm: nn.Module) -> Tensor:
    """Return (x - mean) / standard deviation, times gain, plus bias."""
    mean, variance = x_D.mean(), ((x_D - x_D.mean()) ** 2).mean()
    gain_D, bias_D = norm.get_parameter("weight"), norm.get_parameter("bias")
    return (x_D - mean) / torch.sqrt(variance + 1e-5) * gain_D + bias_D


def attend(multi: MultiHeadAttention, queries_TD: Tensor, keys_SD: Tensor, causal: bool = False) -> Tensor:
    """Return the heads (width 4) softmax(q k / sqrt(d_k)) v, concatenated, times W^O."""
    w_k, w_v = multi.key_value.weight.split(8)
    rows = []
    for position, x_D in enumerate(queries_TD):
        visible_SD = keys_SD[: position + 1] if causal else keys_SD
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            q_C = (multi.query.weight @ x_D)[head]
            scores = torch.stack([q_C @ (w_k @ key_D)[head] / 2 for key_D in visible_SD])
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(a * (w_v @ key_D)[head] for a, key_D in zip(weights, visible_SD, strict=True)))
        rows.append(multi.out.weight @ torch.cat(heads))
    return torch.stack(rows)


def feed_forward(net: nn.Module, x_TD: Tensor) -> Tensor:
    """Return max(0, x W_1 + b_1) W_2 + b_2; equation 2."""
    w_1, b_1, w_2, b_2 = (net.get_parameter(name) for name in ("0.weight", "0.bias", "3.weight", "3.bias"))
    return torch.stack([w_2 @ (w_1 @ x_D + b_1).clamp(min=0) + b_2 for x_D in x_TD])


def residual(sublayer: Any, x_TD: Tensor, norm: nn.Module, pre_norm: bool) -> Tensor:
    """Return LN(x + f(x)), or with pre-norm x + f(LN(x))."""

    def normalized(y_TD: Tensor) -> Tensor:
        return torch.stack([layer_norm(y_D, norm) for y_D in y_TD])

    return x_TD + sublayer(normalized(x_TD)) if pre_norm else normalized(x_TD + sublayer(x_TD))


def embed(table: nn.Embedding, ids_T: Tensor) -> Tensor:
    """Return word times sqrt(d_model) plus position: a sine in even columns, the cosine of the same angle after it."""
    rows = []
    for position, word in enumerate(ids_T.tolist()):
        angles = [position / 10000 ** (2 * i / 8) for i in range(4)]
        encoding = [wave(angle) for angle in angles for wave in (math.sin, math.cos)]
        rows.append(table.weight[word] * math.sqrt(8) + torch.tensor(encoding, dtype=torch.float64))
    return torch.stack(rows)


def encode_sentence(model: Model, ids_S: Tensor, pre_norm: bool) -> Tensor:
    x_SD = embed(model.source_embedding, ids_S)
    for layer in model.encoder:
        norms = [module.norm for module in layer.residuals]
        x_SD = residual(lambda y, f=layer.self_attention: attend(f, y, y), x_SD, norms[0], pre_norm)
        x_SD = residual(lambda y, f=layer.feed_forward: feed_forward(f, y), x_SD, norms[1], pre_norm)
    return torch.stack([layer_norm(x_D, model.encoder_norm) for x_D in x_SD]) if pre_norm else x_SD


def decode_sentence(model: Model, source_SD: Tensor, ids_T: Tensor, pre_norm: bool) -> Tensor:
    x_TD = embed(model.target_embedding, ids_T)
    for layer in model.decoder:
        norms = [module.norm for module in layer.residuals]
        x_TD = residual(lambda y, f=layer.self_attention: attend(f, y, y, causal=True), x_TD, norms[0], pre_norm)
        x_TD = residual(lambda y, f=layer.source_attention: attend(f, y, source_SD), x_TD, norms[1], pre_norm)
        x_TD = residual(lambda y, f=layer.feed_forward: feed_forward(f, y), x_TD, norms[2], pre_norm)
    return torch.stack([layer_norm(x_D, model.decoder_norm) for x_D in x_TD]) if pre_norm else x_TD


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"pre_norm": True}, {"shared_embeddings": False}], ids=str)
def test_encoder_and_decoder_equal_figure_1(settings: dict[str, Any]) -> None:
    model, pre_norm = build(**settings), "pre_norm" in settings
    memory = model.encode(SOURCE)
    found_BTD = model.decode(memory, PREFIX)
    for row, length in enumerate(LENGTHS):
        source_SD = encode_sentence(model, SOURCE.ids_BS[row, :length], pre_norm)
        torch.testing.assert_close(memory.memory_BSD[row, :length], source_SD, atol=1e-10, rtol=0)
        wanted_TD = decode_sentence(model, source_SD, PREFIX.ids_BS[row], pre_norm)
        torch.testing.assert_close(found_BTD[row], wanted_TD, atol=1e-10, rtol=0)


def test_positions_are_those_of_section_3_5() -> None:
    """Columns: sin and cos of pos, sin and cos of pos / 100. Wavelengths go from 2 pi to 10000 x 2 pi."""
    found = sinusoids(0, 3, 4, like=torch.zeros(1, dtype=torch.float64))
    wanted = [
        [0.0, 1.0, 0.0, 1.0],
        [0.8414709848, 0.5403023059, 0.0099998333, 0.9999500004],
        [0.9092974268, -0.4161468365, 0.0199986667, 0.9998000067],
    ]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-9, rtol=0)


def test_positions_first_used_in_decoding_can_be_used_in_training() -> None:
    """Their table is kept; a tensor of inference mode would stop training with an error."""
    with torch.inference_mode():
        sinusoids(0, 700, 6, like=torch.zeros(1, dtype=torch.float64))
    scale = torch.ones(6, dtype=torch.float64, requires_grad=True)
    (sinusoids(698, 700, 6, like=scale) * scale).sum().backward()
    assert scale.grad is not None


def test_embeddings_and_softmax_share_one_matrix() -> None:
    """Section 3.4: both embeddings and the softmax."""
    model = build()
    assert model.source_embedding.weight is model.target_embedding.weight is model.output.weight


# --- rows and settings ------------------------------------------------------------------------------------------------


def row(name: str, preset: str = "paper") -> Experiment:
    return resolve(EXPERIMENTS / "transformer.yaml", preset=preset, row=name)


def test_self_attention_differs_from_base_in_one_head_only() -> None:
    for preset in ("demo", "multi30k-cpu", "multi30k", "paper"):
        path = EXPERIMENTS / "transformer.yaml"  # each row has a recipe of its own, so without them
        base, other = (
            resolve(path, preset=preset, row=name, tuned=False) for name in ("transformer-base", "self-attention")
        )
        assert other.model.heads == 1 < base.model.heads
        other.model.heads = base.model.heads
        assert (other.model, other.training, other.text) == (base.model, base.training, base.text)


def test_big_has_twice_the_width_and_heads_of_base() -> None:
    for preset in ("demo", "multi30k-cpu", "multi30k", "paper"):
        base, big = row("transformer-base", preset).model, row("transformer-big", preset).model
        assert (big.layers, big.width, big.inner) == (base.layers, 2 * base.width, 2 * base.inner)
        assert big.heads == 2 * base.heads


def test_paper_presets_have_the_settings_of_the_paper() -> None:
    """Sections 5 and 6.1: updates, dropout, and the average of the last 5 or 20 checkpoints, ten minutes apart."""
    base, big = row("transformer-base"), row("transformer-big")
    assert (base.training.max_updates, base.training.average, base.model.dropout) == (100_000, 5, 0.1)
    assert (big.training.max_updates, big.training.average, big.model.dropout) == (300_000, 20, 0.3)
    for job, hours in ((base, 12), (big, 3.5 * 24)):
        assert job.training.validations == hours * 6
        peak = job.model.width**-0.5 * job.training.schedule.warmup**-0.5
        assert job.training.optimizer.lr == pytest.approx(peak, rel=1e-5)
        assert job.training.optimizer.settings == {"betas": [0.9, 0.98], "eps": 1e-9}
