"""The mixture of experts compared with its equations: gates, losses, the layer, the translator around it."""

from __future__ import annotations

import math
import random
from itertools import islice
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.data.batches import PairBatches, evaluation_batches
from bench.data.corpora.grammar import Grammar
from bench.data.corpus import Split
from bench.data.encoded_pairs import Pairs
from bench.data.learn_vocabularies import build as build_vocabularies
from bench.experiment.loading import resolve
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.measures.flops import verify
from models.moe import Config, Model
from models.parts.attention import FactoredAttention
from models.parts.batch import EOS, Batch, Tokens
from models.parts.mixture_of_experts import (
    Assignment,
    BalancedGate,
    Experts,
    HierarchicalGate,
    MixtureOfExperts,
    NoisyTopKGate,
    squared_variation,
)
from tests.helpers.reference_lstm import lstm_step, run_lstm

GATINGS: list[dict[str, Any]] = [
    {"gating": "noisy", "experts": 6, "groups": 0, "k": 4},
    {"gating": "noisy", "experts": 12, "groups": 4, "k": 2},
    {"gating": "balanced", "experts": 6, "groups": 0, "k": 4},
    {"gating": "balanced", "experts": 12, "groups": 4, "k": 2},
]
NAMES = [f"{gating['gating']}-{'hierarchical' if gating['groups'] else 'flat'}" for gating in GATINGS]
LENGTHS = (5, 2, 4)
SOURCE = Tokens(torch.tensor([[11, 12, 13, 14, EOS], [21, EOS, 0, 0, 0], [16, 17, 18, EOS, 0]]), LENGTHS)
TARGET = Tokens(torch.tensor([[21, 22, 23, 24, 25, EOS], [26, 27, EOS, 0, 0, 0], [28, 29, 30, 31, EOS, 0]]), (6, 3, 5))


def config(**settings: Any) -> Config:
    sizes: dict[str, Any] = {"width": 8, "cells": 12, "inner": 10, "dropout": 0.0}
    return Config(**(sizes | settings))


def build(**settings: Any) -> Model:
    torch.manual_seed(1)
    model = Model(config(**settings), 40, 40).double().eval()
    for name, parameter in model.named_parameters():
        if not name.endswith(".T"):
            nn.init.normal_(parameter, std=0.5)
    return model


def dense_gates(assignment: Assignment, tokens: int) -> Tensor:
    """Return G(x) as a matrix, NE."""
    counts = assignment.tokens_per_expert
    gates_NE = torch.zeros(tokens, len(counts), dtype=assignment.gate_R.dtype)
    expert_R = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    gates_NE[assignment.token_R, expert_R] = assignment.gate_R
    return gates_NE


def tokens(count: int = 40, seed: int = 1) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noisy(experts: int = 6, k: int = 4) -> NoisyTopKGate:
    gate = NoisyTopKGate(8, experts, k).double()
    nn.init.normal_(gate.W.weight)
    return gate


def balanced(experts: int = 6, k: int = 3) -> BalancedGate:
    gate = BalancedGate(8, experts, k).double()
    gate.initialize(0.05)
    nn.init.normal_(gate.W_g.weight)
    return gate


# --- gates ------------------------------------------------------------------------------------------------------------


def test_noisy_top_k_gate_equals_its_equations() -> None:
    """Equations 3 to 5, one number at a time, with the same noise as the gate (same seed)."""
    gate, x_ND = noisy(), tokens()
    for training in (True, False):
        gate.train(training)
        torch.manual_seed(7)
        found_NE = dense_gates(gate(x_ND), len(x_ND))
        torch.manual_seed(7)
        noise_NE = torch.randn_like(found_NE) if training else torch.zeros_like(found_NE)
        w_g, w_noise = gate.W.weight.detach().chunk(2)
        for x_D, noise_E, found_E in zip(x_ND, noise_NE, found_NE, strict=True):
            h = [(w_g[i] @ x_D + noise_E[i] * (math.log1p((w_noise[i] @ x_D).exp()) + 0.01)).item() for i in range(6)]
            top = sorted(h)[-4:]
            wanted = [math.exp(h_i) / sum(map(math.exp, top)) if h_i in top else 0.0 for h_i in h]
            torch.testing.assert_close(found_E, torch.tensor(wanted, dtype=torch.float64), atol=1e-10, rtol=0)


def test_load_is_the_probability_of_selection_if_the_noise_is_drawn_again() -> None:
    """Appendix A, compared with many draws of the noise of one expert while the noise of the others is fixed."""
    gate, x_ND, expert, draws = noisy(), tokens(1), 2, 20_000
    torch.manual_seed(7)
    load_E = gate(x_ND).load_E
    torch.manual_seed(7)
    noise_E = torch.randn(1, 6, dtype=torch.float64)[0]
    w_g, w_noise = gate.W.weight.chunk(2)
    clean_E, spread_E = w_g @ x_ND[0], nn.functional.softplus(w_noise @ x_ND[0]) + 0.01
    h_XE = (clean_E + noise_E * spread_E).expand(draws, 6).clone()
    h_XE[:, expert] = clean_E[expert] + torch.randn(draws, dtype=torch.float64) * spread_E[expert]
    frequency = (h_XE.topk(4).indices == expert).any(dim=1).double().mean().item()
    assert load_E[expert].item() == pytest.approx(frequency, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_where_the_noise_vanishes(dtype: torch.dtype) -> None:
    """softplus(-800) is 0. Without the smallest spread of tensor2tensor (noise_epsilon = 0.01), gradients are NaN."""
    gate = NoisyTopKGate(8, 6, 4).to(dtype)
    nn.init.constant_(gate.W.weight[6:], -100.0)
    nn.init.normal_(gate.W.weight[:6], std=10.0)
    assignment = gate(torch.ones(5, 8, dtype=dtype))
    assignment.load_E.square().sum().backward()
    assert gate.W.weight.grad is not None
    assert gate.W.weight.grad.isfinite().all()


def test_initial_gate_has_zero_weights_and_its_noise_balances_the_experts() -> None:
    gate = NoisyTopKGate(8, 6, 4)
    gate.initialize(0.05)
    assert gate.W.weight.count_nonzero() == 0
    counts = torch.tensor(gate(torch.randn(3000, 8)).tokens_per_expert)
    assert counts.sum() == 3000 * 4
    assert (counts / 2000 - 1).abs().max() < 0.1


@pytest.mark.parametrize(("count", "counts"), [(40, [20] * 6), (5, [3, 3, 3, 2, 2, 2]), (1, [1, 1, 1, 0, 0, 0])])
def test_balanced_gate_gives_every_expert_the_same_number_of_tokens(count: int, counts: list[int]) -> None:
    """Each expert has the m = k |X| / n tokens (rounded up or down) with the largest gates; equations 16 and 18."""
    gate, x_ND = balanced(), tokens(count)
    assignment = gate(x_ND)
    assert assignment.tokens_per_expert == counts
    gate_NE = torch.softmax(gate.W_g(x_ND), dim=1)
    mask_NE = torch.zeros_like(gate_NE)
    for expert, tokens_of_expert in enumerate(counts):
        mask_NE[gate_NE[:, expert].topk(tokens_of_expert).indices, expert] = 1
    wanted_NE = gate_NE * mask_NE / (gate_NE * mask_NE).sum(dim=1, keepdim=True).clamp(min=1e-30)
    torch.testing.assert_close(dense_gates(assignment, count), wanted_NE, atol=1e-12, rtol=0)
    gap_NE = (gate_NE > gate.T).double() - mask_NE
    wanted = (gap_NE * (gate_NE - gate.T)).sum() / count
    torch.testing.assert_close(assignment.gate_loss, wanted, atol=1e-12, rtol=0)


def test_thresholds_learn_the_batchwise_mask() -> None:
    """Equations 19 and 20: the loss trains T only, until each expert has as many tokens as in training."""
    gate, x_ND = balanced(), tokens(400)
    optimizer = torch.optim.Adam([gate.T], lr=0.01)
    for _ in range(300):
        loss = gate(x_ND).gate_loss
        gate.zero_grad()
        loss.backward()
        optimizer.step()
    assert gate.W_g.weight.grad is None
    wanted_NE, found = dense_gates(gate(x_ND), 400), gate.eval()(x_ND)
    torch.testing.assert_close(found.load_E, torch.full((6,), 200.0, dtype=torch.float64), atol=8, rtol=0)
    assert ((dense_gates(found, 400) > 0) == (wanted_NE > 0)).double().mean() > 0.97


def test_token_below_all_thresholds_gets_zero() -> None:
    gate, x_ND = balanced().eval(), tokens(3)
    nn.init.constant_(gate.T, 2.0)
    assignment = gate(x_ND)
    assert assignment.tokens_per_expert == [0] * 6
    experts = Experts(8, 10, 6).double()
    assert (experts(x_ND, assignment) == 0).all()


@pytest.mark.parametrize("gating", ["noisy", "balanced"])
def test_hierarchical_gate_is_a_product_of_gates(gating: Literal["noisy", "balanced"]) -> None:
    """G_primary(x)_i G_i(x)_j and Load_primary_i Load_i / |X^(i)|; appendix B. No noise in evaluation mode."""
    torch.manual_seed(1)
    gate, x_ND = HierarchicalGate(gating, 8, 4, 12, 2).double().eval(), tokens()
    for name, parameter in gate.named_parameters():
        nn.init.constant_(parameter, 0.2) if name.endswith("T") else nn.init.normal_(parameter)
    assignment, primary = gate(x_ND), gate.primary(x_ND)
    primary_NG, found_NE = dense_gates(primary, 40), dense_gates(assignment, 40)
    for group in range(4):
        inside_N = primary_NG[:, group] > 0
        secondary = gate.groups[group](x_ND[inside_N])
        secondary_ME = dense_gates(secondary, int(inside_N.sum()))
        wanted_ME = primary_NG[inside_N, group, None] * secondary_ME
        torch.testing.assert_close(found_NE[inside_N, 3 * group : 3 * group + 3], wanted_ME)
        assert (found_NE[~inside_N, 3 * group : 3 * group + 3] == 0).all()
        load_E = primary.load_E[group] * secondary.load_E / inside_N.sum()
        torch.testing.assert_close(assignment.load_E[3 * group : 3 * group + 3], load_E)
    if gating == "noisy":
        assert ((found_NE > 0).sum(dim=1) == 4).all()
        torch.testing.assert_close(found_NE.sum(dim=1), torch.ones(40, dtype=torch.float64))


# --- the layer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", GATINGS, ids=NAMES)
def test_layer_is_a_weighted_sum_of_experts(settings: dict[str, Any]) -> None:
    """The output is x + sigma(sum_i G(x)_i E_i(x)) at each real token; no expert computes padding."""
    torch.manual_seed(1)
    layer = build(**settings).encoder_mixture
    for name, parameter in layer.named_parameters():
        nn.init.constant_(parameter, 0.3) if name.endswith("T") else nn.init.normal_(parameter)
    x_BTD, real_index_N = tokens(12).view(3, 4, 8), torch.tensor([0, 1, 4, 5, 6, 7, 8])
    found_XD = layer(x_BTD, real_index_N).flatten(0, 1)
    wanted_ND = reference_mixture(layer, x_BTD.flatten(0, 1)[real_index_N])
    torch.testing.assert_close(found_XD[real_index_N], wanted_ND, atol=1e-10, rtol=0)


def test_only_assigned_experts_are_computed() -> None:
    experts, x_ND = Experts(8, 10, 1000).double(), tokens(3)
    nn.init.normal_(experts.W_1)
    nn.init.normal_(experts.W_2)
    gate = noisy(1000, 4).eval()
    with torch.no_grad():
        assignment = gate(x_ND)
        with FlopCounterMode(display=False) as counter:
            experts(x_ND, assignment)
    assert counter.get_total_flops() == 3 * 4 * 2 * (8 * 10 + 10 * 8)


def test_balance_loss_is_the_squared_variation_of_importance_and_load() -> None:
    """Equations 6 and 7: [1, 2, 3] has mean 2 and variance 2/3, so CV^2 = 1/6."""
    assert squared_variation(torch.tensor([1.0, 2.0, 3.0])).item() == pytest.approx(1 / 6)
    assert squared_variation(torch.full((5,), 3.0)).item() == 0
    settings: dict[str, Any] = {"gating": "noisy", "experts": 3, "groups": 0, "k": 2}
    layer = build(**settings, importance_weight=0.5, load_weight=0.25).encoder_mixture
    gate_R, load_E = torch.tensor([0.25, 0.75, 2.0, 3.0]), torch.tensor([1.0, 1.0, 4.0])
    assignment = Assignment(torch.tensor([0, 1, 0, 1]), gate_R, [2, 1, 1], load_E, torch.tensor(0.125))
    wanted = 0.5 * (1 / 6) + 0.25 * (2 / 4) + 0.125  # importance 1, 2, 3; load has mean 2, variance 2
    assert layer.balance_loss(assignment).item() == pytest.approx(wanted)


# --- the translator ---------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("settings", GATINGS, ids=NAMES)
def test_step_by_step_and_alone_equal_the_whole_batch(settings: dict[str, Any]) -> None:
    """The contract holds for each gating: in evaluation mode no result depends on the other sentences of the batch."""
    model, pairs = build(**settings), Batch(SOURCE, TARGET)
    batch_BTD = model.decode(model.encode(SOURCE), pairs.prefix)
    for row, (source_length, target_length) in enumerate(zip(LENGTHS, TARGET.lengths_B, strict=True)):
        source = Tokens(SOURCE.ids_BS[row : row + 1, :source_length], (source_length,))
        memory = model.encode(source)
        state, steps = model.start(memory), []
        for previous_B in pairs.prefix.ids_BS[row : row + 1, :target_length].unbind(dim=1):
            hidden_BD, state, _ = model.step(previous_B, state)
            steps.append(hidden_BD)
        torch.testing.assert_close(torch.stack(steps, dim=1)[0], batch_BTD[row, :target_length], atol=1e-9, rtol=0)


@pytest.mark.parametrize("settings", GATINGS, ids=NAMES)
def test_every_weight_gets_a_gradient(settings: dict[str, Any]) -> None:
    model = build(**settings).train()
    model.training_step(Batch(SOURCE, TARGET), 0).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert model.auxiliary_loss() is None  # the last call has reset it


def test_auxiliary_loss_is_added_in_training_only() -> None:
    model, pairs = build(**GATINGS[1]), Batch(SOURCE, TARGET)
    wanted = model.token_losses(pairs).mean()
    assert model.training_step(pairs, 0).item() == wanted.item()
    model.train()
    torch.manual_seed(3)
    cross_entropy = model.token_losses(pairs).mean()
    auxiliary = model.auxiliary_loss()
    assert auxiliary is not None
    torch.manual_seed(3)
    assert model.training_step(pairs, 0).item() == pytest.approx((cross_entropy + auxiliary).item())
    assert auxiliary > 0


@pytest.mark.parametrize("settings", GATINGS, ids=NAMES)
def test_closed_form_flops_equal_the_counted_flops(settings: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = Model(config(**settings), 40, 40)
        source, target = (Tokens(torch.ones(3, length, dtype=torch.long), (length,) * 3) for length in (5, 4))
    for training in (True, False):
        counter = FlopCounterMode(display=False)
        with counter:
            model.train(training).training_step(Batch(source, target), 0).backward()
        assert counter.get_total_flops() == model.flops(5, 4).training * 3


@pytest.mark.parametrize("settings", GATINGS, ids=NAMES)
def test_closed_form_meta_and_real_counts_agree(settings: dict[str, Any]) -> None:
    """For counting, `verify` sets uniform routing; with thresholds the number of experts per token is not always k."""
    assert all(check.agrees for check in verify(Model(config(**settings), 40, 40), 7, 5))


@torch.no_grad()
@pytest.mark.parametrize("settings", GATINGS, ids=NAMES)
def test_experts_per_token_are_counted_in_evaluation_mode_only(settings: dict[str, Any]) -> None:
    model = build(**settings)
    model.train().decode(model.encode(SOURCE), Batch(SOURCE, TARGET).prefix)
    assert model.pop_routing_statistics() == {}
    model.eval()
    with torch.no_grad():
        for mixture in model.mixtures:
            for gate in mixture.modules():
                if isinstance(gate, BalancedGate):
                    gate.T.fill_(-1.0)  # every expert is above its threshold
    model.decode(model.encode(SOURCE), Batch(SOURCE, TARGET).prefix)
    top_k = settings["k"] ** (2 if settings["groups"] else 1)
    wanted = settings["experts"] if settings["gating"] == "balanced" else top_k
    assert model.pop_routing_statistics() == {"experts_per_token": wanted}
    assert model.pop_routing_statistics() == {}
    model.set_routing("uniform")
    model.decode(model.encode(SOURCE), Batch(SOURCE, TARGET).prefix)
    assert model.pop_routing_statistics() == {"experts_per_token": top_k}


@torch.no_grad()
def test_attention_equals_equation_22() -> None:
    torch.manual_seed(1)
    attention, x_BSD, y_BD = FactoredAttention(4), torch.randn(1, 3, 4), torch.randn(1, 4)
    nn.init.normal_(attention.V)
    scores_S = attention.scores(y_BD, attention.keys(x_BSD))[0]
    for score, x_D in zip(scores_S, x_BSD[0], strict=True):
        tanh_x_D, tanh_y_D = torch.tanh(attention.U(x_D)), torch.tanh(attention.W(y_BD[0]))
        wanted = sum(attention.V[d] * tanh_x_D[d] * tanh_y_D[d] for d in range(4))
        assert score.item() == pytest.approx(float(wanted), abs=1e-5)


def reference_mixture(mixture: MixtureOfExperts, x_TD: Tensor) -> Tensor:
    """Return x + sigma(sum_i G(x)_i E_i(x)) of every token, with every expert computed for every token."""
    w_1, w_2 = mixture.experts.W_1, mixture.experts.W_2
    outputs = []
    for x_D, gate_E in zip(x_TD, dense_gates(mixture.gate(x_TD), len(x_TD)), strict=True):
        y_D = torch.stack([gate * (torch.relu(x_D @ w_1[i]) @ w_2[i]) for i, gate in enumerate(gate_E)]).sum(dim=0)
        outputs.append(x_D + torch.sigmoid(y_D))
    return torch.stack(outputs)


@torch.no_grad()
@pytest.mark.parametrize("settings", GATINGS, ids=NAMES)
def test_encoder_equals_appendix_e_for_each_sentence_alone(settings: dict[str, Any]) -> None:
    """Words plus both directions, the mixture, the upper layer; a residual connection around each."""
    model = build(**settings)
    first, second, third = model.encoder
    x_BSD = model.encode(SOURCE).x_BSD
    for row, length in enumerate(LENGTHS):
        e_SD = model.source_embedding(SOURCE.ids_BS[row, :length])
        forward_SD, backward_SD = run_lstm(first, e_SD)[0], run_lstm(second, e_SD.flip(0))[0].flip(0)
        x_SD = reference_mixture(model.encoder_mixture, e_SD + forward_SD + backward_SD)
        torch.testing.assert_close(x_BSD[row, :length], x_SD + run_lstm(third, x_SD)[0], atol=1e-10, rtol=0)


@torch.no_grad()
def test_decoder_attends_with_the_lower_layer_of_the_previous_step() -> None:
    """Residual connections around LSTMs with projections and around the mixture; one sentence, one step at a time."""
    model = build(**GATINGS[0])
    memory = model.encode(SOURCE)
    prefix, lower = Batch(SOURCE, TARGET).prefix, []
    found_TD = model.decode(memory, prefix)[0]
    h_D, c_C = torch.zeros(8, dtype=torch.float64), torch.zeros(12, dtype=torch.float64)
    for word in prefix.ids_BS[0].tolist():
        scores_S = model.attention.scores(h_D[None], memory.keys_BSD[:1])[0]
        context_D = torch.softmax(scores_S, dim=0) @ memory.x_BSD[0]
        y_D = model.target_embedding.weight[word]
        gates = model.W_y.weight @ y_D + model.W_lower.weight @ torch.cat((context_D, h_D))
        o_C, c_C = lstm_step(gates, c_C, "ifog")
        h_D = model.P.weight @ o_C
        lower.append(y_D + h_D)
    x_TD = reference_mixture(model.decoder_mixture, torch.stack(lower))
    torch.testing.assert_close(found_TD, x_TD + run_lstm(model.upper, x_TD)[0], atol=1e-10, rtol=0)


@torch.no_grad()
def test_fused_layers_with_projections_equal_their_equations() -> None:
    model = build(**GATINGS[0])
    x_BSD, zeros_11D = tokens(6).view(1, 6, 8), torch.zeros(1, 1, 8, dtype=torch.float64)
    found_BSD, _ = model.upper(x_BSD, (zeros_11D, torch.zeros(1, 1, 12, dtype=torch.float64)))
    torch.testing.assert_close(found_BSD[0], run_lstm(model.upper, x_BSD[0])[0], atol=1e-10, rtol=0)


def test_gates_without_a_choice_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.experts: 10 is not divisible by model\.groups \(4\)"):
        config(experts=10, groups=4)
    for settings in ({"experts": 4, "groups": 0, "k": 4}, {"experts": 8, "groups": 4, "k": 2}, {"k": 0}):
        with pytest.raises(ValueError, match=r"model\.k"):
            config(**settings)


# --- sizes and balance ------------------------------------------------------------------------------------------------


def active_parameters(model: Model) -> int:
    """Return the parameters outside embeddings and softmax that one token uses: of a mixture, its experts and gates."""
    softmax = sum(parameter.numel() for parameter in model.output.parameters())
    return model.multiplied_parameters() - softmax


@pytest.mark.parametrize(
    ("preset", "used", "all_of_them"),
    [
        ("demo", 0.30e6, 0.53e6),
        ("multi30k-cpu", 1.52e6, 2.63e6),
        ("multi30k", 4.99e6, 23.3e6),
        ("paper", 0.07e9, 8.65e9),
    ],
)
def test_presets_are_sized_by_the_parameters_that_a_token_uses(preset: str, used: float, all_of_them: float) -> None:
    """The numbers are those in the header of experiments/moe.yaml."""
    job = resolve(EXPERIMENTS / "moe.yaml", preset=preset)
    with torch.device("meta"):
        model = job.build(400, 400)
    assert isinstance(model, Model)
    assert active_parameters(model) == pytest.approx(used, rel=0.05)
    assert model.parameter_counts()[1] == pytest.approx(all_of_them, rel=0.01)
    goal = {"demo": 0.3e6, "multi30k-cpu": 1.5e6, "multi30k": 5e6}.get(preset)
    assert goal is None or abs(active_parameters(model) / goal - 1) < 0.2


def test_paper_size_and_cost() -> None:
    """Published: 8.7B parameters with 2048 experts, 85M multiply-adds a timestep (source, target, softmax)."""
    with torch.device("meta"):
        model = Model(Config(), 32_000, 32_000)
    assert model.parameter_counts()[0] == pytest.approx(8.7e9, rel=0.02)
    assert 2 * model.encoder_mixture.experts.W_1.numel() == 2048 * 2 * 512 * 2048  # 2.1M per expert
    cost = model.flops_encode(1) + model.flops_step(1, 0) + model.flops_project()
    assert cost.forward / 2 == pytest.approx(85e6, rel=0.02)


def test_experts_are_evenly_loaded_on_text_they_have_not_seen() -> None:
    """Noisy top-k: coefficient of variation of the load under 0.5 after a short training on the grammar."""
    changed = {"text.vocabulary_size": 400, "model.dropout": 0.0, "model.initial": 0.2, "training.optimizer.lr": 0.008}
    schedule = {"decay": "none", "warmup": 10, "hold": 0, "warmup_share": "null"}  # the test has 70 updates only
    changed |= {f"training.schedule.{key}": value for key, value in schedule.items()}
    job = resolve(EXPERIMENTS / "moe.yaml", flags=[f"--{key}={value}" for key, value in changed.items()])
    assert job.model.gating == "noisy"
    grammar, random_numbers = Grammar("en", "de", job.corpus.lemmas, job.corpus.depth), random.Random(1)
    pairs = list(dict.fromkeys(grammar.texts(grammar.draw(random_numbers)) for _ in range(1600)))
    sources, targets = map(list, zip(*pairs, strict=True))
    vocabularies = build_vocabularies(job.text, Split(sources[200:], targets[200:]))
    unseen, train = (
        Pairs.encode(Split(sources[part], targets[part]), vocabularies) for part in (slice(200), slice(200, None))
    )
    torch.manual_seed(1)
    model = job.build(*map(len, vocabularies)).train()
    assert isinstance(model, Model)
    model.optimization = job.training
    optimizer = model.configure_optimizers()
    for batch in islice(PairBatches(train, 250, seed=1).train_dataloader(), 70):
        model.training_step(batch, 0).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer["optimizer"].step()
        optimizer["optimizer"].zero_grad()
        optimizer["lr_scheduler"]["scheduler"].step()
    load_E = {mixture: torch.zeros(job.model.experts) for mixture in (model.encoder_mixture, model.decoder_mixture)}
    for mixture, total_E in load_E.items():

        def add_load(_module: nn.Module, inputs: Any, _output: Tensor, total_E: Tensor = total_E) -> None:
            total_E += torch.tensor(inputs[1].tokens_per_expert)

        mixture.experts.register_forward_hook(add_load)
    model.eval()
    with torch.no_grad():
        for _, batch in evaluation_batches(unseen, 2000):
            model.token_losses(batch)
    for total_E in load_E.values():
        assert total_E.sum() > 1000
        assert squared_variation(total_E).sqrt() < 0.5
