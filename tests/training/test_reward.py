"""The reward phase: GLEU against values computed by hand, samples against the model's distribution, gradient, cost."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from bench.decoding.beam_search import should_check_finished
from bench.experiment.loading import resolve, row_files
from bench.measures.flops import FlopCounter, count
from bench.system.machine import bf16_fallback
from bench.training import reward
from bench.training.budget import BudgetSettings, BudgetTracker, LearningCurves
from bench.training.reward import (
    RewardPhase,
    RewardSettings,
    Samples,
    gleu,
    mean_gleu,
    mixed_loss,
    sample_translations,
    without_dropout,
    words,
)
from models.parts.batch import BOS, EOS, Batch, Tokens
from models.parts.mixture_of_experts import NoisyTopKGate
from models.parts.translator import Translator, cross_entropy_loss
from models.transformer import Config, Model

FILES = row_files()
VOCABULARY = 23


def padded(sentences: list[list[int]]) -> Tokens:
    lengths = tuple(map(len, sentences))
    rows = [sentence + [0] * (max(lengths) - len(sentence)) for sentence in sentences]
    return Tokens(torch.tensor(rows), lengths)


SOURCE = padded([[5, 6, 7, 4, EOS], [8, 9, EOS], [10, 11, 12, EOS]])
TARGET = padded([[6, 7, 8, EOS], [9, 10, 11, 12, 13, EOS], [4, EOS]])
PAIRS = Batch(SOURCE, TARGET)


def build(row: str, flags: Sequence[str] = ()) -> Translator:
    job = resolve(FILES[row], row=row, flags=flags, tuned=False)
    torch.manual_seed(1)
    model = job.build(VOCABULARY, VOCABULARY)
    model.optimization = job.training
    return model


def sentences(tokens: Tokens) -> list[list[int]]:
    return [ids[:length] for ids, length in zip(tokens.ids_BS.tolist(), tokens.lengths_B, strict=True)]


def sample(model: Translator, seed: int = 1, samples: int = 4) -> Samples:
    torch.manual_seed(seed)
    return sample_translations(model, SOURCE, [2 * length for length in TARGET.lengths_B], samples)


# --- GLEU -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hypothesis", "reference", "value"),
    [
        ("a b c d", "a b c d", 1.0),
        ("a b c", "x y z", 0.0),
        ("a b c d", "a b d c", 5 / 10),  # a b c d; a b. Both have 4 + 3 + 2 + 1 n-grams
        ("a b", "a b c", 3 / 6),  # recall 3 of 6, precision 3 of 3
        ("a b c", "a b", 3 / 6),  # and with precision and recall exchanged
        (
            "the the the the the the the",
            "the cat is on the mat",
            2 / 22,
        ),  # a word matches at most as often as it occurs in both
        ("a b c d e f", "a b c d e", 14 / 18),  # no 5-grams
        ("", "", 1.0),
        ("", "a", 0.0),
        ("a", "", 0.0),
        # The example of NLTK's sentence_gleu: 29 n-grams in common, 18 + 17 + 16 + 15 in the hypothesis.
        (
            "It is a guide to action which ensures that the military always obeys the commands of the party",
            "It is a guide to action that ensures that the military will forever heed Party commands",
            29 / 66,
        ),
    ],
)
def test_gleu_is_the_smaller_of_precision_and_recall(hypothesis: str, reference: str, value: float) -> None:
    assert gleu(hypothesis.split(), reference.split()) == pytest.approx(value, abs=1e-15)


def gleu_by_definition(hypothesis: Sequence[str], reference: Sequence[str]) -> float:
    """Wu et al. 2016, section 5: matches of all 1- to 4-grams over the larger of their numbers on the two sides."""

    def grams(sentence: Sequence[str]) -> list[tuple[str, ...]]:
        return [
            tuple(sentence[i:j]) for i in range(len(sentence)) for j in range(i + 1, len(sentence) + 1) if j - i <= 4
        ]

    ours, theirs = grams(hypothesis), grams(reference)
    matches = sum(min(ours.count(gram), theirs.count(gram)) for gram in set(ours))
    return matches / max(len(ours), len(theirs)) if ours or theirs else 1.0


def test_gleu_equals_its_definition_for_all_short_sentences() -> None:
    """All pairs of sentences of at most 5 words from a vocabulary of 2, so every combination of lengths."""
    short = [words for length in range(6) for words in itertools.product("ab", repeat=length)]
    assert gleu(["a"], ["a", "b"]) == 1 / 3  # a of a, b and ab
    for hypothesis, reference in itertools.product(short, repeat=2):
        assert gleu(hypothesis, reference) == gleu_by_definition(hypothesis, reference), (hypothesis, reference)


def test_words_are_split_as_in_bleu() -> None:
    assert words("Der Mann, 30 Jahre alt.") == ["Der", "Mann", ",", "30", "Jahre", "alt", "."]
    assert mean_gleu(["A cat.", "a"], ["A cat!", "a"]) == pytest.approx(100 * (3 / 6 + 1) / 2)


# --- sampling ---------------------------------------------------------------------------------------------------------


def toy() -> Model:
    """Return a model that can write three tokens: EOS and two words."""
    torch.manual_seed(3)
    model = Model(Config(layers=1, width=4, inner=8, heads=1, dropout=0.0), 5, 5).double()
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape)
    return model


TOY_SOURCE = padded([[3, 4, EOS]])
EVERY = [[EOS], [3, EOS], [4, EOS], *([a, b] for a in (3, 4) for b in (3, 4))]
"""All translations of at most two tokens, which is the limit. The last four end at the limit without EOS."""


def probabilities(model: Translator, source: Tokens = TOY_SOURCE) -> Tensor:
    """Return P(Y | X) of each translation in EVERY, computed step by step."""
    found = []
    for sentence in EVERY:
        state, total = model.start(model.encode(source)), torch.zeros((), dtype=torch.float64)
        for previous, token in itertools.pairwise([BOS, *sentence]):
            hidden_BD, state, _ = model.step(torch.tensor([previous]), state)
            total = total + model.project(hidden_BD)[0, EOS:].log_softmax(0)[token - EOS]
        found.append(total.exp())
    return torch.stack(found)


def test_samples_follow_the_distribution_of_the_model() -> None:
    model, number = toy(), 40_000
    expected = probabilities(model)
    assert expected.sum().item() == pytest.approx(1)
    torch.manual_seed(1)
    written = sample_translations(model, TOY_SOURCE, [2], number).pairs.target
    counts = Counter(
        tuple(ids[:length]) for ids, length in zip(written.ids_BS.tolist(), written.lengths_B, strict=True)
    )
    assert set(counts) == set(map(tuple, EVERY))
    for sentence, probability in zip(EVERY, expected.tolist(), strict=True):
        deviation = math.sqrt(number * probability * (1 - probability))
        assert abs(counts[tuple(sentence)] - number * probability) < 4 * deviation, sentence


def test_each_source_of_a_batch_has_its_own_samples() -> None:
    """The samples of each of two sources in one batch follow the distribution of that source alone."""
    model, number, others = toy(), 4_000, padded([[4, 4, 3, EOS], [3, 4, EOS]])
    torch.manual_seed(1)
    written = sample_translations(model, others, [2, 2], number).pairs
    assert sentences(written.source)[::number] == sentences(others)
    for row, source in enumerate(sentences(others)):
        expected = probabilities(model, padded([source]))
        counts = Counter(map(tuple, sentences(written.target)[row * number : (row + 1) * number]))
        for sentence, probability in zip(EVERY, expected.tolist(), strict=True):
            deviation = math.sqrt(number * probability * (1 - probability))
            assert abs(counts[tuple(sentence)] - number * probability) < 4 * deviation, (source, sentence)


def test_samples_are_well_formed() -> None:
    pairs, rows_T = sample(build("gnmt"))
    assert len(pairs.source.lengths_B) == 3 * 4
    assert pairs.source.ids_BS[::4].tolist() == SOURCE.ids_BS.tolist()
    assert rows_T[0] == 12
    assert rows_T == sorted(rows_T, reverse=True)
    for row, (ids, length) in enumerate(zip(pairs.target.ids_BS.tolist(), pairs.target.lengths_B, strict=True)):
        limit = 2 * TARGET.lengths_B[row // 4]
        assert 1 <= length <= limit
        assert EOS not in ids[: length - 1]
        assert ids[length - 1] == EOS or length == limit
        assert min(ids[:length]) >= EOS
        assert not any(ids[length:])


def test_on_a_gpu_finished_samples_are_checked_at_every_fourth_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended rows remain until then. They are computed and counted, and no token is written after their end."""
    assert [should_check_finished(torch.device("cpu"), step) for step in range(4)] == [True] * 4
    assert [should_check_finished(torch.device("cuda"), step) for step in range(8)] == [False, False, False, True] * 2
    model = build("gnmt")
    often, seldom = sample(model), []
    monkeypatch.setattr(
        reward, "should_check_finished", lambda _device, step: should_check_finished(torch.device("cuda"), step)
    )
    counted = count(lambda: seldom.append(sample(model)))
    (pairs, rows_T) = seldom[0]
    assert rows_T != often.rows_T
    assert all(len(set(rows_T[step : step + 4])) == 1 for step in range(0, len(rows_T), 4))
    test_samples_are_well_formed()
    assert pairs.target.ids_BS.shape[1] == max(pairs.target.lengths_B)
    flop_counter = FlopCounter(model)
    flop_counter.add_samples(pairs, 4, rows_T)
    learning = count(lambda: mixed_loss(model, PAIRS, Samples(pairs, rows_T), torch.rand(12), 0.017).backward())
    flop_counter.add(PAIRS)
    assert counted + learning == flop_counter.executed_flops


# --- learning ---------------------------------------------------------------------------------------------------------


def gradient(model: Translator, loss: Tensor) -> Tensor:
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(model.parameters()))])


def test_the_expected_value_of_the_estimate_is_the_policy_gradient() -> None:
    """Summed over all pairs of samples with their probability: (m - 1) / m of the gradient of the expected reward."""
    model = toy()
    rewards = torch.linspace(-1, 2, len(EVERY), dtype=torch.float64) ** 2
    found = probabilities(model)
    wanted = gradient(model, -(found * rewards).sum())
    assert wanted.abs().max() > 1e-3
    batch = Batch(TOY_SOURCE, padded([[3, EOS]]))
    mean = torch.zeros_like(wanted)
    for one, other in itertools.product(range(len(EVERY)), repeat=2):
        written = padded([EVERY[one], EVERY[other]])
        twice = Tokens(TOY_SOURCE.ids_BS.expand(2, -1), TOY_SOURCE.lengths_B * 2)
        loss = mixed_loss(model, batch, Samples(Batch(twice, written), []), rewards[[one, other]], 0.0)
        mean += (found[one] * found[other]).item() * gradient(model, loss)
    torch.testing.assert_close(mean, wanted / 2, atol=1e-12, rtol=1e-9)


def test_the_likelihood_is_the_sum_over_tokens_and_the_mean_over_sentences() -> None:
    model = build("gnmt").double()
    loss = mixed_loss(
        model, PAIRS, sample(model), torch.ones(12, dtype=torch.float64), 0.017
    )  # equal rewards give no gradient
    losses_N = model.token_losses(PAIRS, model.optimization.label_smoothing)
    assert loss.item() == pytest.approx(0.017 * losses_N.sum().item() / 3)


def test_samples_are_compared_within_their_sentence() -> None:
    """The gradient of a batch of sentences with different rewards is the mean of their separate gradients."""
    model = build("gnmt", ["--model.dropout", "0.0"]).double()
    samples, rewards_BM = sample(model), torch.rand(3, 4, dtype=torch.float64) + torch.arange(3)[:, None]
    together = gradient(model, mixed_loss(model, PAIRS, samples, rewards_BM.flatten(), 0.017))
    alone = []
    for row, sides in enumerate(zip(sentences(SOURCE), sentences(TARGET), strict=True)):
        written = padded(sentences(samples.pairs.target)[4 * row : 4 * row + 4])
        pairs = Batch(padded([sides[0]] * 4), written)
        one = Batch(padded([sides[0]]), padded([sides[1]]))
        loss = mixed_loss(model, one, Samples(pairs, []), rewards_BM[row], 0.017)
        alone.append(gradient(model, loss))
    torch.testing.assert_close(together, torch.stack(alone).mean(0), atol=1e-12, rtol=1e-9)


def test_a_sample_is_compared_with_its_own_reference() -> None:
    references = padded([[5, 6, 7, 8, EOS], [9, 10, 11, 12, EOS]])
    samples = padded([sentences(references)[0]] * 3 + [sentences(references)[1], [5, 6, 7, 8, EOS], [13, EOS]])
    found = phase_at(build("perceptron"), 0.5, 8).rewards(references, samples).tolist()
    assert found == pytest.approx([1, 1, 1, 1, 1 / 14, 1 / 14])  # of the last two samples only EOS is right


def test_an_update_makes_better_samples_more_probable() -> None:
    model = build("gnmt").double()
    pairs, rows_T = sample(model)
    good_R = torch.tensor([length == 3 for length in pairs.target.lengths_B], dtype=torch.float64)
    assert 0 < good_R.sum() < len(good_R)

    def mean_log_probability() -> float:
        losses = model.token_losses(pairs).split(list(pairs.target.lengths_B))
        return -sum(each.sum().item() for each, good in zip(losses, good_R.tolist(), strict=True) if good)

    before, optimizer = mean_log_probability(), torch.optim.SGD(model.parameters(), lr=0.01)
    mixed_loss(model, PAIRS, Samples(pairs, rows_T), good_R, 0.0).backward()
    optimizer.step()
    assert mean_log_probability() > before


def phase_at(model: Translator, share: float, updates: int) -> RewardPhase:
    budget = BudgetTracker(BudgetSettings(max_updates=10), FlopCounter(model))
    budget.updates = updates
    curves = LearningCurves(budget, lambda _: None, lambda _: None)
    return RewardPhase(
        RewardSettings(share, samples=3), budget, curves, lambda ids: [" ".join(map(str, each)) for each in ids]
    )


@pytest.mark.parametrize("row", sorted(FILES))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_architecture_can_be_trained_with_reward(row: str, precision: str) -> None:
    """Each trained weight gets a gradient, also under autocast, which could reuse the casts made for sampling."""
    model = build(row)
    phase = phase_at(model, share=0.25, updates=8)
    model.objective = phase.objective
    model.train()
    with (
        bf16_fallback(torch.device("cpu"), precision == "bf16"),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        loss = model.training_step(PAIRS, 0)
    loss.backward()
    assert math.isfinite(loss.item())
    without = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert without == []
    assert all(module.training for module in model.modules())
    assert len(phase.curves.recent["reward"]) == 1
    assert 0 <= phase.curves.recent["reward"][0] <= 1


def test_the_phase_is_the_last_part_of_the_budget() -> None:
    model = build("transformer-base").eval()
    for share, updates, begun in ((0.0, 9, False), (0.2, 7, False), (0.2, 8, True), (0.5, 5, True)):
        phase = phase_at(model, share, updates)
        assert phase.active is begun
        loss = phase.objective(model, PAIRS)
        assert (loss.item() == cross_entropy_loss(model, PAIRS).item()) is not begun
        assert (phase.budget.flop_counter.model_flops > 0) is begun


DROPPING = [row for row in FILES if hasattr(resolve(FILES[row], row=row).model, "dropout")]


@pytest.mark.parametrize(
    ("row", "rate"), [*((row, "dropout") for row in DROPPING), ("transformer-base", "attention_dropout")]
)
def test_dropout_is_turned_off_in_the_phase_only(row: str, rate: str) -> None:
    others = ["--model.dropout", "0.0"] if rate != "dropout" else []
    model = build(row, flags=[*others, f"--model.{rate}", "0.3"]).train()
    if row == "moe":  # its gates add noise that is not dropout
        for module in model.modules():
            module.training = not isinstance(module, NoisyTopKGate)
    passes = [model.token_losses(PAIRS) for _ in range(2)]
    assert not torch.equal(*passes)
    with without_dropout(model):
        passes = [model.token_losses(PAIRS) for _ in range(2)]
    assert torch.equal(*passes)
    assert not torch.equal(*(model.token_losses(PAIRS) for _ in range(2)))


# --- the cost ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["perceptron", "lstm", "bahdanau", "gnmt", "convs2s", "moe", "transformer-base"])
def test_the_counted_flops_are_the_executed_flops(row: str) -> None:
    model = build(row).train()
    found: list[Samples] = []
    counted = count(lambda: found.append(sample(model)))
    samples, rewards_R = found[0], torch.rand(12)
    assert len(set(samples.pairs.target.lengths_B)) > 1
    learning = count(lambda: mixed_loss(model, PAIRS, samples, rewards_R, 0.017).backward())
    flop_counter = FlopCounter(model)
    flop_counter.add(PAIRS)
    flop_counter.add_samples(samples.pairs, 4, samples.rows_T)
    assert counted + learning == flop_counter.executed_flops
    assert flop_counter.model_flops < flop_counter.executed_flops


@pytest.mark.parametrize("row", ["lstm", "gnmt", "transformer-base", "moe"])
def test_without_padding_model_flops_are_executed_flops(row: str) -> None:
    model, written = build(row), padded([[5, 6, EOS]] * 6)
    sources = padded([[7, 8, 9, EOS]] * 6)
    flop_counter = FlopCounter(model)
    flop_counter.add_samples(Batch(sources, written), 3, [6] * 3)
    assert flop_counter.model_flops == flop_counter.executed_flops
    once = model.flops_encode(4).forward + model.flops_start(4).forward
    steps = sum(model.flops_step(4, position).forward for position in range(3)) + 3 * model.flops_project().forward
    training = model.flops_decode(4, 3).training + 3 * model.flops_project().training
    assert flop_counter.model_flops == 2 * once + 6 * (steps + training)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (RewardSettings(share=1.0), r"training\.reward\.share: 1\.0 is not a fraction of the budget"),
        (RewardSettings(share=-0.1), r"training\.reward\.share: -0\.1"),
        (RewardSettings(samples=1), r"training\.reward\.samples: 1 is too small for a baseline"),
    ],
)
def test_settings_out_of_range_are_rejected(settings: RewardSettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings.check()


def test_gleu_counts_the_tokens_of_the_tokenizer_of_bleu() -> None:
    """By hand: 5 characters of which 4 match give (4 + 3 + 2 + 1) of (5 + 4 + 3 + 2) n-grams."""
    assert words("他看见狗。", "zh") == ["他", "看", "见", "狗", "。"]
    assert mean_gleu(["他看见狗！"], ["他看见狗。"], "zh") == pytest.approx(100 * 10 / 14)
    assert mean_gleu(["他看见狗！"], ["他看见狗。"]) == 0.0
