"""Beam search against exhaustive enumeration, with a fake model that has random probabilities for each prefix."""

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.decoding.beam_search import (
    DecodingSettings,
    Hypothesis,
    check_attention,
    coverage_penalty,
    fast_topk,
    greedy,
    length_penalty,
    translate,
)
from models import seq2seq
from models.parts.batch import BOS, EOS, Tokens
from models.parts.translator import State, Step, Translator
from models.transformer import Config, Model
from tests.helpers.partial_translator import Partial

ROWS = 997


class RandomTable(Partial):
    """P(next token | source, prefix) is a row of a random table, selected by a hash of source and prefix.

    The hash is in State.past and the part of it that depends on the source in State.source. So a search that reorders
    either of them wrongly gets other probabilities. Attention to source position (step mod length) is 1.
    """

    def __init__(self, seed: int, vocabulary: int, sharpness: float = 2.0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.table = torch.randn(ROWS, vocabulary, generator=random, dtype=torch.float64).to(dtype) * sharpness

    def encode(self, source: Tokens) -> Any:
        position_S = torch.arange(1, source.ids_BS.shape[1] + 1)
        return (source.ids_BS * position_S * source.mask_BS).sum(1), torch.tensor(source.lengths_B), source.ids_BS

    def start(self, memory: Any) -> State:
        return State(memory, (torch.zeros_like(memory[0]), torch.zeros_like(memory[0])))

    def step(self, previous_B: Tensor, state: State) -> Step:
        (source_B, length_B, ids_BS), (hash_B, step_B) = state
        hash_B = (hash_B * 31 + previous_B * 7 + source_B) % ROWS
        attention_BS = torch.nn.functional.one_hot(step_B % length_B, ids_BS.shape[1]).float()
        return Step(self.table[hash_B], State(state.source, (hash_B, step_B + 1)), attention_BS)

    def project(self, hidden: Tensor) -> Tensor:
        return hidden


class SpreadAttention(RandomTable):
    """The attention is the softmax of a row of another random table, selected by the same hash."""

    def __init__(self, seed: int, vocabulary: int, sharpness: float = 2.0) -> None:
        super().__init__(seed, vocabulary, sharpness)
        self.attention_table = 2 * torch.randn(
            ROWS, 20, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64
        )

    def step(self, previous_B: Tensor, state: State) -> Step:
        hidden_BV, state, _ = super().step(previous_B, state)
        length_B, ids_BS = state.source[1:]
        real_BS = torch.arange(ids_BS.shape[1]) < length_B[:, None]
        scores_BS = self.attention_table[state.past[0], : ids_BS.shape[1]].masked_fill(~real_BS, -torch.inf)
        return Step(hidden_BV, state, scores_BS.softmax(dim=1))


def coverage_penalty_of(model: RandomTable, source: list[int], target: list[int], beta: float) -> float:
    """cp(X, Y), computed token by token."""
    ids = torch.tensor([[*source, EOS]])
    state = model.start(model.encode(Tokens(ids, (ids.shape[1],))))
    coverage = [0.0] * ids.shape[1]
    for previous in [BOS, *target]:
        _, state, attention_1S = model.step(torch.tensor([previous]), state)
        assert attention_1S is not None
        coverage = [total + new for total, new in zip(coverage, attention_1S[0].tolist(), strict=True)]
    return beta * sum(math.log(min(total, 1.0)) for total in coverage)


def probability(model: RandomTable, source: list[int], target: list[int]) -> float:
    """Log P(target, EOS | source), computed token by token."""
    ids = torch.tensor([[*source, EOS]])
    state = model.start(model.encode(Tokens(ids, (ids.shape[1],))))
    total, previous = 0.0, BOS
    for token in [*target, EOS]:
        hidden, state, _ = model.step(torch.tensor([previous]), state)
        total += torch.log_softmax(model.project(hidden), 1)[0, token].item()
        previous = token
    return total


def enumerate_translations(
    model: RandomTable, source: list[int], limit: int, alpha: float, beta: float = 0.0
) -> list[Hypothesis]:
    """All translations of at most `limit` tokens with EOS, best first."""
    words = range(EOS + 1, model.table.shape[1])
    found = []
    for length in range(limit):
        for target in product(words, repeat=length):
            log_probability = probability(model, source, list(target))
            score = log_probability / length_penalty(length + 1, alpha)
            if beta:
                score += coverage_penalty_of(model, source, list(target), beta)
            found.append(Hypothesis(list(target), score, log_probability))
    return sorted(found, key=lambda hypothesis: -hypothesis.score)


@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.6, 1.0, 2.0, -0.5]), words=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_a_beam_as_wide_as_the_search_space_finds_the_best_translation(seed: int, alpha: float, words: int) -> None:
    model = RandomTable(seed, EOS + 1 + words)
    wide = DecodingSettings(beam=200, alpha=alpha, extra_length=2)
    for source, found in zip([[5], [3, 4]], translate(model, [[5], [3, 4]], wide), strict=True):
        expected = enumerate_translations(model, source, len(source) + 3, alpha)
        assert found[0].ids == expected[0].ids
        assert found[0].score == pytest.approx(expected[0].score, abs=1e-9)
        assert found[0].log_probability == pytest.approx(expected[0].log_probability, abs=1e-9)
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        known = {tuple(h.ids): h.score for h in expected}
        assert all(h.score == pytest.approx(known[tuple(h.ids)], abs=1e-9) for h in found)


def search_without_early_stop(
    model: RandomTable, source: list[int], search: DecodingSettings
) -> list[tuple[float, list[int]]]:
    """Beam search with plain lists, which always continues to the length limit."""
    active: list[tuple[float, list[int]]] = [(0.0, [])]
    finished = []
    limit = len(source) + 1 + search.extra_length
    for length in range(1, limit + 1):
        continued = []
        for _, target in active:
            prefix = probability_of_prefix(model, source, target)
            words = range(EOS, model.table.shape[1] if length < limit else EOS + 1)
            threshold = max(prefix[1][token] for token in words) - (math.inf if search.prune is None else search.prune)
            for token in words:
                if prefix[1][token] >= threshold:
                    continued.append((prefix[0] + prefix[1][token], [*target, token]))
        continued = sorted(continued, key=lambda item: -item[0])[: search.beam]
        for total, y in continued:
            if y[-1] == EOS:
                penalty = coverage_penalty_of(model, source, y[:-1], search.coverage) if search.coverage else 0.0
                finished.append((total / search.length_normalizer(length) + penalty, y[:-1]))
        active = [(total, y) for total, y in continued if y[-1] != EOS]
        if finished and search.prune is not None:
            best = max(score for score, _ in finished)
            active = [
                (total, y) for total, y in active if total / search.length_normalizer(length) >= best - search.prune
            ]
    return sorted(finished, key=lambda item: -item[0])


def probability_of_prefix(model: RandomTable, source: list[int], target: list[int]) -> tuple[float, list[float]]:
    """Log P(prefix) and log P(next token | prefix) for every token."""
    ids = torch.tensor([[*source, EOS]])
    state = model.start(model.encode(Tokens(ids, (ids.shape[1],))))
    total, following, previous = 0.0, [], BOS
    for token in [*target, None]:
        hidden, state, _ = model.step(torch.tensor([previous]), state)
        following = torch.log_softmax(model.project(hidden), 1)[0].tolist()
        if token is not None:
            total, previous = total + following[token], token
    return total, following


@given(
    seed=st.integers(0, 10**6),
    beam=st.integers(1, 4),
    alpha=st.floats(0, 3),
    sharpness=st.sampled_from([0.5, 2.0, 5.0]),
    form=st.sampled_from(["gnmt", "mean"]),
    prune=st.sampled_from([None, 0.3, 1.0, 3.0]),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_early_stopping_does_not_change_the_result(
    seed: int, beam: int, alpha: float, sharpness: float, form: Any, prune: float | None, lengths: list[int]
) -> None:
    """With pruning too: `search_without_early_stop` has the two pruning rules of GNMT, with plain lists."""
    model = RandomTable(seed, 7, sharpness)
    sources = [[4 + (index + n) % 3 for n in range(length)] for index, length in enumerate(lengths)]
    search = DecodingSettings(
        beam=beam, alpha=alpha, length_penalty=form, prune=prune, extra_length=4, batch_sentences=3
    )
    for source, found in zip(sources, translate(model, sources, search), strict=True):
        score, ids = search_without_early_stop(model, source, search)[0]
        assert found[0].score == pytest.approx(score, abs=1e-9)
        assert found[0].ids == ids


@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.2, 1.0]), beta=st.sampled_from([0.2, 1.0, 5.0]))
@settings(max_examples=15, deadline=None)
def test_a_beam_as_wide_as_the_search_space_finds_the_best_translation_with_coverage(
    seed: int, alpha: float, beta: float
) -> None:
    model = SpreadAttention(seed, EOS + 3)
    wide = DecodingSettings(beam=200, alpha=alpha, coverage=beta, extra_length=2)
    for source, found in zip([[5], [3, 4]], translate(model, [[5], [3, 4]], wide), strict=True):
        expected = enumerate_translations(model, source, len(source) + 3, alpha, beta)
        assert found[0].ids == expected[0].ids
        assert found[0].score == pytest.approx(expected[0].score, abs=1e-5)  # coverage is summed in single precision
        known = {tuple(h.ids): h for h in expected}
        for hypothesis in found:
            assert hypothesis.score == pytest.approx(known[tuple(hypothesis.ids)].score, abs=1e-5)
            expected_log = known[tuple(hypothesis.ids)].log_probability
            assert hypothesis.log_probability == pytest.approx(expected_log, abs=1e-9)


@given(
    seed=st.integers(0, 10**6),
    beam=st.integers(1, 4),
    alpha=st.floats(0, 2),
    beta=st.sampled_from([0.1, 0.5, 3.0]),
    prune=st.sampled_from([None, 1.0, 3.0]),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_early_stopping_does_not_change_the_result_with_coverage(
    seed: int, beam: int, alpha: float, beta: float, prune: float | None, lengths: list[int]
) -> None:
    """With pruning too, because the GNMT paper uses both."""
    model = SpreadAttention(seed, 7)
    sources = [[4 + (index + n) % 3 for n in range(length)] for index, length in enumerate(lengths)]
    search = DecodingSettings(beam=beam, alpha=alpha, coverage=beta, prune=prune, extra_length=4, batch_sentences=3)
    for source, found in zip(sources, translate(model, sources, search), strict=True):
        score, ids = search_without_early_stop(model, source, search)[0]
        assert found[0].score == pytest.approx(score, abs=1e-5)
        assert found[0].ids == ids


def test_the_coverage_penalty_equals_that_of_gnmt() -> None:
    """Beta * sum_i log(min(sum_j p_ij, 1)): coverage 0.5 costs log 2, and coverage above 1 has no effect."""
    coverage_NS = torch.tensor([[1.0, 0.5, 3.0], [1.0, 1.0, 1.0], [0.25, 0.5, 0.0]], dtype=torch.float64)
    found = coverage_penalty(coverage_NS, 0.2).tolist()
    assert found[0] == pytest.approx(-0.2 * math.log(2))
    assert found[1] == 0
    assert -math.inf < found[2] < -100


def test_coverage_prefers_the_translation_that_attends_to_the_whole_source() -> None:
    """The fake model attends to one more source token at each step, so a longer translation has more coverage."""
    source = [5, 6, 7]
    short, long = (
        translate(RandomTable(3, 6), [source], DecodingSettings(beam=50, alpha=0.0, coverage=beta))[0][0]
        for beta in (0.0, 9.0)
    )
    assert len(short.ids) + 1 < len(source) + 1 <= len(long.ids) + 1
    assert long.log_probability < short.log_probability == short.score


def test_settings_that_need_attention_are_refused_for_a_model_without_it() -> None:
    torch.manual_seed(1)
    without_attention = seq2seq.Model(seq2seq.Config(layers=1, embedding=4, hidden=4), 9, 9)
    with pytest.raises(
        ValueError, match=r"^decoding\.coverage: this model has no attention; set decoding.coverage to 0"
    ):
        check_attention(without_attention, DecodingSettings(coverage=0.2))
    with pytest.raises(
        ValueError, match=r"^decoding\.pos_unk: this model has no attention; set decoding.pos_unk to keep"
    ):
        check_attention(without_attention, DecodingSettings(pos_unk="copy"))
    check_attention(without_attention, DecodingSettings())
    check_attention(small_transformer(), DecodingSettings(coverage=0.2, pos_unk="dictionary"))


def small_transformer() -> Model:
    torch.manual_seed(3)
    return Model(Config(layers=2, width=16, inner=32, heads=2), 40, 40).double()


SOURCES = [[4 + (7 * index + 3 * n) % 36 for n in range(1 + index % 9)] for index in range(23)]


@pytest.mark.parametrize("model", [RandomTable(5, 12), small_transformer()], ids=["random", "transformer"])
def test_a_beam_of_one_equals_greedy_search(model: Translator) -> None:
    for source, found in zip(SOURCES, greedy(model, SOURCES, extra_length=6), strict=True):
        ids = torch.tensor([[*source, EOS]])
        output: list[int] = []
        model.eval()
        with torch.inference_mode():
            state = model.start(model.encode(Tokens(ids, (ids.shape[1],))))
            while len(output) < len(source) + 6:
                hidden, state, _ = model.step(torch.tensor([output[-1] if output else BOS]), state)
                logits_V = model.project(hidden)[0].clone()
                logits_V[:EOS] = -torch.inf
                if (token := int(logits_V.argmax())) == EOS:
                    break
                output.append(token)
        assert found.ids == output


@pytest.mark.parametrize("model", [RandomTable(5, 12), small_transformer()], ids=["random", "transformer"])
@pytest.mark.parametrize("beam", [1, 4])
def test_the_result_does_not_depend_on_the_other_sentences_of_a_batch(model: Translator, beam: int) -> None:
    def search(sentences: int) -> list[list[Hypothesis]]:
        settings = DecodingSettings(beam=beam, extra_length=8, batch_sentences=sentences)
        return translate(model, SOURCES, settings, attention=True)

    alone = search(1)
    for sentences in (2, 7, 64):
        for one, other in zip(alone, search(sentences), strict=True):
            assert [h.ids for h in one] == [h.ids for h in other]
            assert [h.score for h in one] == pytest.approx([h.score for h in other], abs=1e-9)
            for a, b in zip(one, other, strict=True):
                assert a.attention_TS is not None
                assert b.attention_TS is not None
                np.testing.assert_allclose(a.attention_TS, b.attention_TS, atol=1e-6)


def test_attention_belongs_to_the_hypothesis() -> None:
    """The fake model attends to source position (step mod length) for any output."""
    for source, found in zip(
        SOURCES, translate(RandomTable(1, 9), SOURCES, DecodingSettings(beam=3), attention=True), strict=True
    ):
        for hypothesis in found:
            assert hypothesis.attention_TS is not None
            assert hypothesis.attention_TS.shape == (len(hypothesis.ids) + 1, len(source) + 1)
            attended = hypothesis.attention_TS.argmax(1).tolist()
            assert attended == [step % (len(source) + 1) for step in range(len(attended))]


@pytest.mark.parametrize("beam", [1, 5])
def test_translations_have_the_forced_lengths(beam: int) -> None:
    lengths = [1 + 3 * index % 11 for index in range(len(SOURCES))]
    found = translate(RandomTable(2, 30), SOURCES, DecodingSettings(beam=beam), forced_lengths=lengths)
    assert [[len(h.ids) + 1 for h in hypotheses] for hypotheses in found] == [
        [length] * len(hypotheses) for length, hypotheses in zip(lengths, found, strict=True)
    ]


def test_the_translation_of_an_empty_source_is_empty() -> None:
    found = translate(RandomTable(2, 30), [[], [5], []], DecodingSettings(extra_length=3))
    assert found[0] == found[2] == [Hypothesis([], 0.0, 0.0)]
    assert found[1] == translate(RandomTable(2, 30), [[5]], DecodingSettings(extra_length=3))[0]
    assert translate(RandomTable(2, 30), [], DecodingSettings()) == []


def test_each_module_returns_to_its_previous_mode() -> None:
    model = small_transformer()
    model.train()
    model.decoder.eval()
    before = [module.training for module in model.modules()]
    greedy(model, [[5]])
    assert [module.training for module in model.modules()] == before


def test_the_length_penalty_equals_that_of_gnmt() -> None:
    assert length_penalty(1, 0.6) == 1.0
    assert length_penalty(7, 1.0) == 2.0
    assert length_penalty(19, 0.5) == 2.0
    assert length_penalty(30, 0.0) == 1.0


def test_with_length_penalty_mean_a_score_is_the_mean_log_p_per_token() -> None:
    """As in ConvS2S: log P / |Y|."""
    model, wide = RandomTable(6, EOS + 3), DecodingSettings(beam=200, alpha=1.0, length_penalty="mean", extra_length=2)
    (found,) = translate(model, [[5]], wide)
    assert all(h.score == pytest.approx(h.log_probability / (len(h.ids) + 1), abs=1e-9) for h in found)
    means = [(h.log_probability / (len(h.ids) + 1), h.ids) for h in enumerate_translations(model, [5], 4, 0.0)]
    assert found[0].ids == max(means)[1]
    assert wide.length_normalizer(7) == 7
    assert replace(wide, alpha=0.5).length_normalizer(9) == 3


def test_pruning_at_0_nats_equals_greedy_search() -> None:
    model = RandomTable(5, 12)
    pruned = translate(model, SOURCES, DecodingSettings(beam=4, prune=0.0, extra_length=6))
    assert [[h.ids for h in found] for found in pruned] == [[h.ids] for h in greedy(model, SOURCES, extra_length=6)]


def test_scores_of_a_half_precision_model_are_summed_in_single_precision() -> None:
    (hypotheses,) = translate(RandomTable(4, 9, dtype=torch.bfloat16), [[5, 6]], DecodingSettings(beam=3, alpha=0.6))
    for ids, score, log_probability, _ in hypotheses:
        assert score == pytest.approx(log_probability / length_penalty(len(ids) + 1, 0.6), rel=1e-5)
        assert round(log_probability * 256) != log_probability * 256


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("vocabulary", [3, 400, 999, 1000, 1001, 4037, 8000])
def test_fast_topk_equals_topk(vocabulary: int, count: int) -> None:
    check_fast_topk(140, vocabulary, count)


def test_fast_topk_of_a_beam_wider_than_its_table() -> None:
    check_fast_topk(6, 30_000, 101)


def check_fast_topk(hypotheses: int, vocabulary: int, count: int) -> None:
    scores_NV = torch.randn(hypotheses, vocabulary, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores_NV[3:5, 1:] = -torch.inf
    scores_NV[5, :-1] = -torch.inf
    count = min(count, vocabulary)
    values_NK, indices_NK = fast_topk(scores_NV, count)
    assert torch.equal(values_NK, scores_NV.topk(count).values)
    assert torch.equal(scores_NV.gather(1, indices_NK), values_NK)
    assert all(len(set(indices_K)) == count for indices_K in indices_NK.tolist())


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^decoding.coverage: -0.1 is too small; at least 0"):
        DecodingSettings(coverage=-0.1)
    with pytest.raises(ValueError, match=r"^decoding.prune: -3.0 is too small; at least 0"):
        DecodingSettings(prune=-3.0)
    for name in ("beam", "batch_sentences"):
        with pytest.raises(ValueError, match=f"^decoding.{name}: 0 is too small; at least 1"):
            replace(DecodingSettings(), **{name: 0})
    with pytest.raises(ValueError, match=r"^decoding.extra_length: -1 is too small; at least 0"):
        DecodingSettings(extra_length=-1)


@pytest.mark.parametrize("beam", [1, 3])
def test_the_search_of_a_diverged_model_ends(beam: int) -> None:
    model = RandomTable(1, 12)
    model.table.fill_(torch.nan)
    for found in translate(model, SOURCES, DecodingSettings(beam=beam, extra_length=2)):
        assert found
        assert np.isnan(found[0].score)
