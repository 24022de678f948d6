"""The mixture of experts against its equations: gates, losses, the layer, the translator around it."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.data.batches import PairBatches, Pairs, evaluation_batches
from bench.data.corpus_loading import load
from bench.data.vocabulary import build as build_vocabularies
from bench.experiment.loading import resolve
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.measures.flops import verify
from models.moe import (
    BalancedGate,
    Config,
    Experts,
    HierarchicalGate,
    MixtureOfExperts,
    Model,
    NoisyTopKGate,
    ProjectedLSTM,
    Assignment,
    squared_variation,
)
from models.parts.attention import FactoredAttention
from models.parts.batch import EOS, Batch, Tokens

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


def dense(routes: Assignment, tokens: int) -> Tensor:
    """G(x)_NE."""
    gates_NE = torch.zeros(tokens, len(routes.counts), dtype=routes.gate_R.dtype)
    expert_R = torch.arange(len(routes.counts)).repeat_interleave(torch.tensor(routes.counts))
    gates_NE[routes.token_R, expert_R] = routes.gate_R
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


def test_noisy_top_k_is_its_equations() -> None:
    """Equations 3 to 5, one number at a time, with the noise that the gate drew."""
    gate, x_ND = noisy(), tokens()
    for training in (True, False):
        gate.train(training)
        torch.manual_seed(7)
        found_NE = dense(gate(x_ND), len(x_ND))
        torch.manual_seed(7)
        noise_NE = torch.randn_like(found_NE) if training else torch.zeros_like(found_NE)
        w_g, w_noise = gate.W.weight.detach().chunk(2)
        for x_D, noise_E, found_E in zip(x_ND, noise_NE, found_NE, strict=True):
            h = [(w_g[i] @ x_D + noise_E[i] * math.log1p((w_noise[i] @ x_D).exp())).item() for i in range(6)]
            kept = sorted(h)[-4:]
            wanted = [math.exp(h_i) / sum(map(math.exp, kept)) if h_i in kept else 0.0 for h_i in h]
            torch.testing.assert_close(found_E, torch.tensor(wanted, dtype=torch.float64), atol=1e-10, rtol=0)


def test_load_is_the_probability_of_being_chosen_if_the_noise_is_drawn_again() -> None:
    """Appendix A, against drawing the noise of one expert again many times while the others keep theirs."""
    gate, x_ND, expert, draws = noisy(), tokens(1), 2, 20_000
    torch.manual_seed(7)
    load_E = gate(x_ND).load_E
    torch.manual_seed(7)
    noise_E = torch.randn(1, 6, dtype=torch.float64)[0]
    w_g, w_noise = gate.W.weight.chunk(2)
    clean_E, spread_E = w_g @ x_ND[0], nn.functional.softplus(w_noise @ x_ND[0])
    h_XE = (clean_E + noise_E * spread_E).expand(draws, 6).clone()
    h_XE[:, expert] = clean_E[expert] + torch.randn(draws, dtype=torch.float64) * spread_E[expert]
    share = (h_XE.topk(4).indices == expert).any(dim=1).double().mean().item()
    assert load_E[expert].item() == pytest.approx(share, abs=0.02)


def test_a_gate_at_its_start_gives_no_signal_and_some_noise() -> None:
    gate = NoisyTopKGate(8, 6, 4)
    gate.initialize(0.05)
    assert gate.W.weight.count_nonzero() == 0
    counts = torch.tensor(gate(torch.randn(3000, 8)).counts)
    assert counts.sum() == 3000 * 4
    assert (counts / 2000 - 1).abs().max() < 0.1


@pytest.mark.parametrize(("count", "counts"), [(40, [20] * 6), (5, [3, 3, 3, 2, 2, 2]), (1, [1, 1, 1, 0, 0, 0])])
def test_balanced_gates_give_every_expert_the_same_work(count: int, counts: list[int]) -> None:
    """Each has m = k |X| / n tokens, to one, and those with the largest gates; equations 16 and 18."""
    gate, x_ND = balanced(), tokens(count)
    routes = gate(x_ND)
    assert routes.counts == counts
    share_NE = torch.softmax(gate.W_g(x_ND), dim=1)
    mask_NE = torch.zeros_like(share_NE)
    for expert, kept in enumerate(counts):
        mask_NE[share_NE[:, expert].topk(kept).indices, expert] = 1
    wanted_NE = share_NE * mask_NE / (share_NE * mask_NE).sum(dim=1, keepdim=True).clamp(min=1e-30)
    torch.testing.assert_close(dense(routes, count), wanted_NE, atol=1e-12, rtol=0)
    gap_NE = (share_NE > gate.T).double() - mask_NE
    wanted = (gap_NE * (share_NE - gate.T)).sum() / count
    torch.testing.assert_close(routes.loss, wanted, atol=1e-12, rtol=0)


def test_thresholds_learn_to_choose_as_the_batch_does() -> None:
    """Equations 19 and 20: the loss moves T, and T alone, until each expert is chosen as often as in training."""
    gate, x_ND = balanced(), tokens(400)
    optimizer = torch.optim.Adam([gate.T], lr=0.01)
    for _ in range(300):
        loss = gate(x_ND).loss
        gate.zero_grad()
        loss.backward()
        optimizer.step()
    assert gate.W_g.weight.grad is None
    wanted_NE, found = dense(gate(x_ND), 400), gate.eval()(x_ND)
    torch.testing.assert_close(found.load_E, torch.full((6,), 200.0, dtype=torch.float64), atol=8, rtol=0)
    assert ((dense(found, 400) > 0) == (wanted_NE > 0)).double().mean() > 0.97


def test_a_token_that_passes_no_threshold_gets_nothing() -> None:
    gate, x_ND = balanced().eval(), tokens(3)
    nn.init.constant_(gate.T, 2.0)
    routes = gate(x_ND)
    assert routes.counts == [0] * 6
    experts = Experts(8, 10, 6).double()
    assert (experts(x_ND, routes) == 0).all()


@pytest.mark.parametrize("gating", ["noisy", "balanced"])
def test_a_hierarchy_is_a_product_of_gates(gating: str) -> None:
    """G_primary(x)_i G_i(x)_j and Load_primary_i Load_i / |X^(i)|; appendix B. No noise in evaluation mode."""
    torch.manual_seed(1)
    gate, x_ND = HierarchicalGate(gating, 8, 4, 12, 2).double().eval(), tokens()
    for name, parameter in gate.named_parameters():
        nn.init.constant_(parameter, 0.2) if name.endswith("T") else nn.init.normal_(parameter)
    routes, outer = gate(x_ND), gate.primary(x_ND)
    outer_NG, found_NE = dense(outer, 40), dense(routes, 40)
    for group in range(4):
        inside_N = outer_NG[:, group] > 0
        inner = gate.groups[group](x_ND[inside_N])
        inner_ME = dense(inner, int(inside_N.sum()))
        wanted_ME = outer_NG[inside_N, group, None] * inner_ME
        torch.testing.assert_close(found_NE[inside_N, 3 * group : 3 * group + 3], wanted_ME)
        assert (found_NE[~inside_N, 3 * group : 3 * group + 3] == 0).all()
        load_E = outer.load_E[group] * inner.load_E / inside_N.sum()
        torch.testing.assert_close(routes.load_E[3 * group : 3 * group + 3], load_E)
    if gating == "noisy":
        assert ((found_NE > 0).sum(dim=1) == 4).all()
        torch.testing.assert_close(found_NE.sum(dim=1), torch.ones(40, dtype=torch.float64))


# --- the layer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", GATINGS, ids=NAMES)
def test_the_layer_is_a_weighted_sum_of_experts(settings: dict[str, Any]) -> None:
    """That is x + sigma(sum_i G(x)_i E_i(x)) at each real token; padding goes to no expert."""
    torch.manual_seed(1)
    layer = MixtureOfExperts(config(**settings)).double().eval()
    for name, parameter in layer.named_parameters():
        nn.init.constant_(parameter, 0.3) if name.endswith("T") else nn.init.normal_(parameter)
    x_BTD, real_index_N = tokens(12).view(3, 4, 8), torch.tensor([0, 1, 4, 5, 6, 7, 8])
    found_XD = layer(x_BTD, real_index_N).flatten(0, 1)
    wanted_ND = mixed(layer, x_BTD.flatten(0, 1)[real_index_N])
    torch.testing.assert_close(found_XD[real_index_N], wanted_ND, atol=1e-10, rtol=0)


def test_only_chosen_experts_are_computed() -> None:
    experts, x_ND = Experts(8, 10, 1000).double(), tokens(3)
    nn.init.normal_(experts.W_1)
    nn.init.normal_(experts.W_2)
    gate = noisy(1000, 4).eval()
    with torch.no_grad():
        routes = gate(x_ND)
        with FlopCounterMode(display=False) as counter:
            experts(x_ND, routes)
    assert counter.get_total_flops() == 3 * 4 * 2 * (8 * 10 + 10 * 8)


def test_imbalance_is_the_squared_variation_of_importance_and_load() -> None:
    """Equations 6 and 7: [1, 2, 3] has mean 2 and variance 2/3, so CV^2 = 1/6."""
    assert squared_variation(torch.tensor([1.0, 2.0, 3.0])).item() == pytest.approx(1 / 6)
    assert squared_variation(torch.full((5,), 3.0)).item() == 0
    layer = MixtureOfExperts(config(gating="noisy", experts=3, groups=0, k=2, importance_weight=0.5, load_weight=0.25))
    gate_R, load_E = torch.tensor([0.25, 0.75, 2.0, 3.0]), torch.tensor([1.0, 1.0, 4.0])
    routes = Assignment(torch.tensor([0, 1, 0, 1]), gate_R, [2, 1, 1], load_E, torch.tensor(0.125))
    wanted = 0.5 * (1 / 6) + 0.25 * (2 / 4) + 0.125  # importance 1, 2, 3; load has mean 2, variance 2
    assert layer.imbalance(routes).item() == pytest.approx(wanted)


# --- the translator ---------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("settings", GATINGS, ids=NAMES)
def test_step_by_step_and_alone_equal_the_whole_batch(settings: dict[str, Any]) -> None:
    """The row's contract holds for each gating: in evaluation mode nothing depends on the batch."""
    model, pairs = build(**settings), Batch(SOURCE, TARGET)
    together_BTD = model.decode(model.encode(SOURCE), pairs.prefix)
    for row, (source_length, target_length) in enumerate(zip(LENGTHS, TARGET.lengths_B, strict=True)):
        source = Tokens(SOURCE.ids_BS[row : row + 1, :source_length], (source_length,))
        memory = model.encode(source)
        state, steps = model.start(memory), []
        for previous_B in pairs.prefix.ids_BS[row : row + 1, :target_length].unbind(dim=1):
            hidden_BD, state, _ = model.step(previous_B, state)
            steps.append(hidden_BD)
        torch.testing.assert_close(torch.stack(steps, dim=1)[0], together_BTD[row, :target_length], atol=1e-9, rtol=0)


@pytest.mark.parametrize("settings", GATINGS, ids=NAMES)
def test_each_gating_trains_all_its_weights(settings: dict[str, Any]) -> None:
    model = build(**settings).train()
    model.training_step(Batch(SOURCE, TARGET), 0).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert model.auxiliary_loss() is None  # taken


def test_losses_enter_training_alone() -> None:
    model, pairs = build(**GATINGS[1]), Batch(SOURCE, TARGET)
    wanted = model.token_losses(pairs).mean()
    assert model.training_step(pairs, 0).item() == wanted.item()
    model.train()
    torch.manual_seed(3)
    likely = model.token_losses(pairs).mean()
    extra = model.auxiliary_loss()
    assert extra is not None
    torch.manual_seed(3)
    assert model.training_step(pairs, 0).item() == pytest.approx((likely + extra).item())
    assert extra > 0


@pytest.mark.parametrize("settings", GATINGS, ids=NAMES)
def test_each_gating_costs_what_is_counted(settings: dict[str, Any]) -> None:
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
    """Thresholds, which may choose more or fewer than k in evaluation mode, give way to even work while counting."""
    assert all(check.agrees for check in verify(Model(config(**settings), 40, 40), 7, 5))


@torch.no_grad()
@pytest.mark.parametrize("settings", GATINGS, ids=NAMES)
def test_experts_really_chosen_are_observed_in_evaluation_mode_only(settings: dict[str, Any]) -> None:
    model = build(**settings)
    model.train().decode(model.encode(SOURCE), Batch(SOURCE, TARGET).prefix)
    assert model.observed() == {}
    model.eval()
    with torch.no_grad():
        for mixture in model.mixtures:
            for gate in mixture.modules():
                if isinstance(gate, BalancedGate):
                    gate.T.fill_(-1.0)  # every gate passes
    model.decode(model.encode(SOURCE), Batch(SOURCE, TARGET).prefix)
    chosen = settings["k"] ** (2 if settings["groups"] else 1)
    wanted = settings["experts"] if settings["gating"] == "balanced" else chosen
    assert model.observed() == {"experts_per_token": wanted}
    assert model.observed() == {}


@torch.no_grad()
def test_the_attention_is_equation_22() -> None:
    torch.manual_seed(1)
    form, x_BSD, y_BD = FactoredAttention(4), torch.randn(1, 3, 4), torch.randn(1, 4)
    nn.init.normal_(form.V)
    scores_S = form.scores(y_BD, form.keys(x_BSD))[0]
    for score, x_D in zip(scores_S, x_BSD[0], strict=True):
        wanted = sum(form.V[d] * torch.tanh(form.U(x_D))[d] * torch.tanh(form.W(y_BD[0]))[d] for d in range(4))
        assert score.item() == pytest.approx(float(wanted), abs=1e-5)


def run(layer: ProjectedLSTM, x_TD: Tensor) -> Tensor:
    """An LSTM layer with projections written out, from zeros."""
    w_x, w_h, w_p = (layer.get_parameter(f"weight_{part}_l0") for part in ("ih", "hh", "hr"))
    h_D, c_C, states = torch.zeros(8, dtype=torch.float64), torch.zeros(12, dtype=torch.float64), []
    for x_D in x_TD:
        i_C, f_C, g_C, o_C = (w_x @ x_D + w_h @ h_D).chunk(4)
        c_C = torch.sigmoid(f_C) * c_C + torch.sigmoid(i_C) * torch.tanh(g_C)
        h_D = w_p @ (torch.sigmoid(o_C) * torch.tanh(c_C))
        states.append(h_D)
    return torch.stack(states)


def mixed(mixture: MixtureOfExperts, x_TD: Tensor) -> Tensor:
    """The sum x + sigma(sum_i G(x)_i E_i(x)) of every token."""
    w_1, w_2 = mixture.computed.W_1, mixture.computed.W_2
    written = []
    for x_D, gate_E in zip(x_TD, dense(mixture.gate(x_TD), len(x_TD)), strict=True):
        y_D = torch.stack([gate * (torch.relu(x_D @ w_1[i]) @ w_2[i]) for i, gate in enumerate(gate_E)]).sum(dim=0)
        written.append(x_D + torch.sigmoid(y_D))
    return torch.stack(written)


@torch.no_grad()
@pytest.mark.parametrize("settings", GATINGS, ids=NAMES)
def test_the_encoder_is_appendix_e_of_each_sentence_alone(settings: dict[str, Any]) -> None:
    """The words and both directions added up, the mixture, the upper layer; a residual connection around each."""
    model = build(**settings)
    first, second, third = model.encoder
    x_BSD = model.encode(SOURCE).x_BSD
    for row, length in enumerate(LENGTHS):
        e_SD = model.source_embedding(SOURCE.ids_BS[row, :length])
        x_SD = mixed(model.encoder_mixture, e_SD + run(first, e_SD) + run(second, e_SD.flip(0)).flip(0))
        torch.testing.assert_close(x_BSD[row, :length], x_SD + run(third, x_SD), atol=1e-10, rtol=0)


@torch.no_grad()
def test_the_decoder_looks_from_the_lowest_layer_of_the_step_before() -> None:
    """Residual connections around LSTMs with projections and around the mixture; one sentence, one number at a time."""
    model = build(**GATINGS[0])
    memory = model.encode(SOURCE)
    prefix, lowest = Batch(SOURCE, TARGET).prefix, []
    found_TD = model.decode(memory, prefix)[0]
    h_D, c_C = torch.zeros(8, dtype=torch.float64), torch.zeros(12, dtype=torch.float64)
    for word in prefix.ids_BS[0].tolist():
        scores_S = model.attention.scores(h_D[None], memory.keys_BSD[:1])[0]
        context_D = torch.softmax(scores_S, dim=0) @ memory.x_BSD[0]
        y_D = model.target_embedding.weight[word]
        gates = model.W_y.weight @ y_D + model.lowest.weight @ torch.cat((context_D, h_D))
        i_C, f_C, o_C, g_C = gates.chunk(4)
        c_C = torch.sigmoid(f_C) * c_C + torch.sigmoid(i_C) * torch.tanh(g_C)
        h_D = model.P.weight @ (torch.sigmoid(o_C) * torch.tanh(c_C))
        lowest.append(y_D + h_D)
    x_TD = mixed(model.decoder_mixture, torch.stack(lowest))
    torch.testing.assert_close(found_TD, x_TD + run(model.upper, x_TD), atol=1e-10, rtol=0)


@torch.no_grad()
def test_fused_layers_have_projections() -> None:
    model = build(**GATINGS[0])
    x_BSD, zeros_11D = tokens(6).view(1, 6, 8), torch.zeros(1, 1, 8, dtype=torch.float64)
    found_BSD, _ = model.upper(x_BSD, (zeros_11D, torch.zeros(1, 1, 12, dtype=torch.float64)))
    torch.testing.assert_close(found_BSD[0], run(model.upper, x_BSD[0]), atol=1e-10, rtol=0)


def test_settings_that_leave_no_choice_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.experts: 10 is not divisible by model\.groups \(4\)"):
        config(experts=10, groups=4)
    for settings in ({"experts": 4, "groups": 0, "k": 4}, {"experts": 8, "groups": 4, "k": 2}, {"k": 0}):
        with pytest.raises(ValueError, match=r"model\.k"):
            config(**settings)


# --- sizes and balance ------------------------------------------------------------------------------------------------


def active(model: Model) -> int:
    """Parameters outside embeddings and softmax that a token uses: of a mixture, its experts and gates on the way."""
    unused = 0
    for mixture in (model.encoder_mixture, model.decoder_mixture):
        every = sum(parameter.numel() for parameter in mixture.parameters())
        unused += every - mixture.flops().forward // 2
    return model.parameter_counts()[1] - unused


@pytest.mark.parametrize(
    ("preset", "used", "all_of_them"),
    [
        ("demo", 0.30e6, 0.53e6),
        ("multi30k-cpu", 1.52e6, 2.63e6),
        ("multi30k", 4.99e6, 23.3e6),
        ("paper", 0.07e9, 8.65e9),
    ],
)
def test_presets_are_sized_by_what_a_token_uses(preset: str, used: float, all_of_them: float) -> None:
    """The numbers in the YAML's header."""
    job = resolve(EXPERIMENTS / "moe.yaml", preset=preset)
    with torch.device("meta"):
        model = job.build(400, 400)
    assert isinstance(model, Model)
    assert active(model) == pytest.approx(used, rel=0.05)
    assert model.parameter_counts()[1] == pytest.approx(all_of_them, rel=0.01)
    goal = {"demo": 0.3e6, "multi30k-cpu": 1.5e6, "multi30k": 5e6}.get(preset)
    assert goal is None or abs(active(model) / goal - 1) < 0.2


def test_paper_size_and_cost() -> None:
    """Published: 8.7B parameters with 2048 experts, 85M multiply-adds a timestep (source, target, softmax)."""
    with torch.device("meta"):
        model = Model(Config(), 32_000, 32_000)
    assert model.parameter_counts()[0] == pytest.approx(8.7e9, rel=0.02)
    assert 2 * model.encoder_mixture.computed.W_1.numel() == 2048 * 2 * 512 * 2048  # 2.1M for each expert
    cost = model.flops_encode(1) + model.flops_step(1, 0) + model.flops_project()
    assert cost.forward / 2 == pytest.approx(85e6, rel=0.02)


def test_experts_are_evenly_loaded_on_text_they_have_not_seen() -> None:
    """Noisy top-k: coefficient of variation of the load under 0.5 after a short training on the grammar."""
    job = resolve(EXPERIMENTS / "moe.yaml", flags=["--corpus.pairs", "2000", "--text.vocabulary_size", "400"])
    assert job.model.gating == "noisy"
    corpus = load(job.corpus)
    vocabularies = build_vocabularies(job.text, corpus.train)
    train, unseen = (Pairs.of(split, vocabularies) for split in (corpus.train, corpus.validation))
    torch.manual_seed(1)
    model = job.build(*map(len, vocabularies)).train()
    assert isinstance(model, Model)
    model.optimization = job.training
    optimizer = model.configure_optimizers()
    for batch in islice(PairBatches(train, job.training.batch_tokens, seed=1).train_dataloader(), 200):
        model.training_step(batch, 0).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer["optimizer"].step()
        optimizer["optimizer"].zero_grad()
        optimizer["lr_scheduler"]["scheduler"].step()
    load_E = {mixture: torch.zeros(job.model.experts) for mixture in (model.encoder_mixture, model.decoder_mixture)}
    for mixture, total_E in load_E.items():

        def note(_module: nn.Module, inputs: Any, _output: Tensor, total_E: Tensor = total_E) -> None:
            total_E += torch.tensor(inputs[1].counts)

        mixture.computed.register_forward_hook(note)
    model.eval()
    with torch.no_grad():
        for _, batch in evaluation_batches(unseen, 2000):
            model.token_losses(batch)
    for total_E in load_E.values():
        assert total_E.sum() > 1000
        assert squared_variation(total_E).sqrt() < 0.5
