"""Greedy and beam search over `encode`, `start`, `step` and `project`. No architecture is named here.

At each step the K best continuations of each sentence are kept. Those that end in EOS are finished, and the next step
fills their places in the beam again; so a beam of 1 is greedy search. Within a step the host reads nothing from the
device except whether sentences are finished. Tokens are stored in tables of (token, parent) and read once per batch.

Shape letters: B sentences of the batch  A of these, those still active  W hypotheses per sentence (1, then up to K)
N = A * W  K beam  C candidates per hypothesis  X = W * C  V vocabulary  T steps  S source length
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.data.batches import source_batches
from bench.decoding.concurrent_batches import batches_at_once, map_batches
from bench.decoding.packed_weights import packed_weights
from bench.system.cuda_graphs import LENGTH_MULTIPLE
from models.parts.batch import BOS, EOS, Tokens
from models.parts.translator import State, Translator, evaluation_mode


@dataclass
class DecodingSettings:
    """Settings of the search for a translation.

    Attributes:
        beam: Hypotheses kept per sentence; 1 is greedy search.
        alpha: Strength of length normalisation: 0 prefers short sentences, 1 is nearly the mean per token.
        length_penalty: gnmt: ((5 + |Y|) / 6)^alpha. mean: |Y|^alpha, with alpha 1 the mean per token (ConvS2S).
        prune: Beam pruning threshold in nats (GNMT uses 3.0). A next word is discarded if its log P is lower than that
            of the best next word of the same hypothesis by more than the threshold. A hypothesis is discarded if its
            length-normalised log P is lower than the score of the best finished one by more than it. null: no pruning.
        coverage: Strength (beta) of the penalty for source tokens without attention; needs a model with attention.
        extra_length: A translation may have this many tokens more than its source.
        batch_sentences: Sentences translated at the same time.
        pos_unk: Replacement of unknown words in a translation (PosUnk). keep: they stay <unk>; copy: the source word
            with the most attention; dictionary: the translation of that word, learnt from the training pairs, or the
            word itself if it has none. Needs text.kind words and a model with attention. Applies to validation too.
    """

    beam: int = 5
    alpha: float = 1.0
    length_penalty: Literal["gnmt", "mean"] = "gnmt"
    prune: float | None = None
    coverage: float = 0.0
    extra_length: int = 50
    batch_sentences: int = 64
    pos_unk: Literal["keep", "copy", "dictionary"] = "keep"

    def __post_init__(self) -> None:
        smallest_values = {"beam": 1, "prune": 0, "coverage": 0, "extra_length": 0, "batch_sentences": 1}
        for name, smallest in smallest_values.items():
            if (getattr(self, name) or 0) < smallest:
                raise ValueError(f"decoding.{name}: {getattr(self, name)} is too small; at least {smallest}")

    @property
    def replaces_unknown_words(self) -> bool:
        """Whether unknown words are replaced. The search must then keep its attention."""
        return self.pos_unk != "keep"

    def length_normalizer(self, length: Any) -> Any:
        """The length penalty lp(Y) of a translation; `length` is |Y|, its tokens including EOS."""
        return length_penalty(length, self.alpha) if self.length_penalty == "gnmt" else length**self.alpha


class Hypothesis(NamedTuple):
    """One translation.

    Attributes:
        ids: Tokens without EOS.
        score: log P(Y|X) / lp(Y) + cp(X, Y); higher is better.
        log_probability: log P(Y|X) in nats.
        attention_TS: Attention weights: a row for each token and one for EOS, a column for each source token and one
            for EOS. None if it was not requested or the model has no attention.
    """

    ids: list[int]
    score: float
    log_probability: float
    attention_TS: np.ndarray | None = None


def length_penalty(length: Any, alpha: float) -> Any:
    """lp(Y) = ((5 + |Y|) / 6)^alpha, where |Y| includes EOS. Wu et al. 2016 (GNMT), equation 14."""
    return ((5 + length) / 6) ** alpha


def coverage_penalty(coverage_NS: Tensor, beta: float) -> Tensor:
    """cp_N = beta * sum_i log(min(sum_j p_ij, 1)). Wu et al. 2016 (GNMT), equation 14. It is at most 0.

    Coverage 0 counts as the smallest normal number, not as log 0. Otherwise all hypotheses that miss a token would
    score -inf and could not be ranked.

    Args:
        coverage_NS: sum_j p_ij, the attention that source token i has received at all steps j.
        beta: Strength.
    """
    return beta * coverage_NS.clamp(torch.finfo(coverage_NS.dtype).tiny, 1).log().sum(-1)


def translate(
    model: Translator,
    sources: Sequence[Sequence[int]],
    settings: DecodingSettings,
    *,
    attention: bool = False,
    forced_lengths: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """The best translations of each source, best first, at most `beam` for each.

    The score is log P(Y|X) / lp(Y) + cp(X, Y). Unfinished hypotheses are compared by log P only. The search of a
    sentence ends when no unfinished hypothesis can exceed the best finished one. The bound assumes that it grows to the
    length limit without losing probability and covers the whole source (cp = 0, its upper bound). At the length limit
    EOS is forced. The translation of an empty source is empty.

    Args:
        model: The translator.
        sources: Ids of each source without EOS.
        settings: Settings of the search.
        attention: Whether the hypotheses have their attention.
        forced_lengths: Exact length of each translation in tokens, including EOS. It is for speed measurements, where
            all models must do the same amount of work.
    """
    found: list[list[Hypothesis]] = [[Hypothesis([], 0.0, 0.0)] for _ in sources]
    indices = [index for index, source in enumerate(sources) if len(source) or forced_lengths is not None]
    keep_attention = attention or settings.replaces_unknown_words

    def search(batch: tuple[np.ndarray, Tokens]) -> list[list[Hypothesis]]:
        rows_B, tokens = batch
        if forced_lengths is None:
            limits_B = [n + settings.extra_length for n in tokens.lengths_B]
        else:
            limits_B = [forced_lengths[indices[row]] for row in rows_B]
        return Search(model, tokens, settings, limits_B, forced=forced_lengths is not None).run(keep_attention)

    batches = list(source_batches([sources[index] for index in indices], settings.batch_sentences))
    at_once = 1
    if len(batches) > 1:
        rows_B, longest = batches[0]
        at_once = batches_at_once(model, len(rows_B) * settings.beam, max(longest.lengths_B))
    with evaluation_mode(model), packed_weights(model):
        of_batches = map_batches(search, batches, at_once)
    for (rows_B, _), of_batch in zip(batches, of_batches, strict=True):
        for row, hypotheses in zip(rows_B, of_batch, strict=True):
            found[indices[row]] = hypotheses
    return found


def greedy(
    model: Translator,
    sources: Sequence[Sequence[int]],
    extra_length: int = 50,
    batch_sentences: int = 128,
    *,
    attention: bool = False,
) -> list[Hypothesis]:
    """The translation of each source by greedy search: the most probable token at each step, a beam of 1."""
    settings = DecodingSettings(beam=1, alpha=0.0, extra_length=extra_length, batch_sentences=batch_sentences)
    return [best for (best,) in translate(model, sources, settings, attention=attention)]


def check_attention(model: Translator, settings: DecodingSettings) -> None:
    """Check that the model has attention if a setting needs it. The model makes one step, so it need not be trained.

    Raises:
        ValueError: a setting needs attention and the model has none.
    """
    if not settings.coverage and not settings.replaces_unknown_words:
        return
    source = Tokens(torch.tensor([[EOS]], device=model.device), (1,))
    with evaluation_mode(model):
        step = model.step(torch.tensor([BOS], device=model.device), model.start(model.encode(source)))
    if step.attention_BS is not None:
        return
    if settings.coverage:
        raise ValueError("decoding.coverage: this model has no attention; set decoding.coverage to 0")
    raise ValueError("decoding.pos_unk: this model has no attention; set decoding.pos_unk to keep")


def should_check_finished(device: torch.device, step: int) -> bool:
    """Whether to check for finished sentences. On a GPU only at every fourth step, because the check synchronises."""
    return device.type == "cpu" or step % 4 == 3


def select_rows(tree: Any, rows_N: Tensor) -> Any:
    """The same tree (of tuples, named tuples and lists) with only these rows of every tensor."""
    if isinstance(tree, Tensor):
        return tree.index_select(0, rows_N)
    if tree is None:
        return None
    if isinstance(tree, (tuple, list)):
        branches = [select_rows(branch, rows_N) for branch in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    raise TypeError(f"a decoder state must be a tree of tensors; it contains {type(tree).__name__}")


def fast_topk(scores_NV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(values, indices) of the largest elements of each row, as `topk`; in two stages where that is twice as fast.

    If a row is laid out as a table, its `count` largest elements are in the `count` columns with the largest maxima.
    So only these columns are searched.
    """
    columns, vocabulary = 100, scores_NV.shape[1]
    rows = vocabulary // columns
    if scores_NV.device.type != "cpu" or count > columns or rows < 2 * count or scores_NV.numel() < 2**17:
        return scores_NV.topk(count)
    table_NRC = scores_NV[:, : rows * columns].unflatten(1, (rows, columns))
    best_NK = table_NRC.amax(1).topk(count).indices
    candidates_NX = table_NRC.gather(2, best_NK[:, None].expand(-1, rows, -1)).flatten(1)
    candidates_NX = torch.cat((candidates_NX, scores_NV[:, rows * columns :]), 1)  # the rest does not fill a table row
    values_NK, indices_NK = candidates_NX.topk(count)
    in_rest_NK = indices_NK + (rows * columns - rows * count)
    in_table_NK = indices_NK // count * columns + best_NK.gather(1, indices_NK % count)
    return values_NK, torch.where(indices_NK < rows * count, in_table_NK, in_rest_NK)


class Search:
    """Beam search for one batch of sources.

    The hypotheses of a finished sentence have log probability -inf, so further steps cannot change its result. Removing
    its rows from the batch copies all other rows; so rows are removed only when at least an eighth of them is finished.

    Args:
        model: The translator.
        source: The sources.
        settings: Settings of the search.
        limits_B: Largest length |Y| of each translation, including EOS.
        forced: Whether each translation has exactly the length `limits_B`.
    """

    def __init__(
        self,
        model: Translator,
        source: Tokens,
        settings: DecodingSettings,
        limits_B: Sequence[int],
        forced: bool = False,
    ) -> None:
        self.model, self.settings, self.forced, self.device = model, settings, forced, model.device
        if self.device.type == "cuda":  # few shapes, whose kernels can be recorded
            source = source.padded(LENGTH_MULTIPLE)
        self.source = source.to(model.device)
        shape_TBK = (max(limits_B), len(limits_B), settings.beam)
        self.tokens_TBK = torch.zeros(shape_TBK, dtype=torch.long, device=self.device)
        self.parents_TBK = torch.zeros_like(self.tokens_TBK)
        # The best finished hypotheses: score, log probability, and step * K + index in the beam at which they ended.
        self.best_BK = torch.full(shape_TBK[1:], -torch.inf, device=self.device)
        self.probability_BK = torch.full_like(self.best_BK, -torch.inf)
        self.ended_BK = torch.zeros(shape_TBK[1:], dtype=torch.long, device=self.device)
        self.attention: list[tuple[Tensor | slice, int, Tensor]] = []
        self.rows_A: Tensor | slice = slice(None)  # the sentences that are still in the batch
        self.limits: list[int] = list(limits_B)  # their length limits
        self.limits_A = torch.tensor(self.limits, device=self.device)
        self.limit_normalizer_A = settings.length_normalizer(self.limits_A)

    def run(self, attention: bool) -> list[list[Hypothesis]]:
        """The finished hypotheses of each sentence, best first."""
        model, on_host = self.model, self.device.type == "cpu"
        state = model.start(model.encode(self.source))
        previous_N = torch.full((len(self.limits),), BOS, device=self.device)
        total_AW = torch.zeros((len(self.limits), 1), device=self.device)
        # Attention summed over steps. Padding counts as covered. It is reordered together with the decoder state.
        coverage_NS = (~self.source.mask_BS).float() if self.settings.coverage else None
        may_be_finished = not on_host  # on a GPU assumed, because finding out would synchronise
        for step in range(max(self.limits)):
            hidden_ND, state, attention_NS = model.step(previous_N, state)
            before = total_AW.shape[1]
            if attention and attention_NS is not None:
                self.attention.append((self.rows_A, before, attention_NS))
            if coverage_NS is not None:
                assert attention_NS is not None  # ensured by `check_attention`
                coverage_NS = coverage_NS + attention_NS
            total_AW, token_AW, parent_AW = self.expand(model.project(hidden_ND), total_AW, step + 1)
            self.tokens_TBK[step, self.rows_A, : total_AW.shape[1]] = token_AW
            self.parents_TBK[step, self.rows_A, : total_AW.shape[1]] = parent_AW

            ends_AW = token_AW == EOS
            if not on_host or bool(ends_AW.any()):
                may_be_finished = True
                self.add_finished(total_AW.masked_fill(~ends_AW, -torch.inf), parent_AW, coverage_NS, step)
                total_AW = total_AW.masked_fill(ends_AW, -torch.inf)
            keep: Sequence[int] = range(len(self.limits))
            if may_be_finished:
                # Upper bound of the scores of unfinished hypotheses: their log P cannot rise, and dividing it (<= 0) by
                # the largest normalizer of the remaining lengths gives the largest score.
                normalizer_A = self.limit_normalizer_A.clamp(min=self.settings.length_normalizer(step + 2))
                bound_A = total_AW.amax(1) / normalizer_A
                # NaN compares as False, so the search of a diverged model continues and returns a result at the limit.
                active_A = ~(bound_A <= self.best_BK[self.rows_A, 0])
                total_AW = total_AW.masked_fill(~active_A[:, None], -torch.inf)
                if self.settings.prune is not None:
                    threshold_A1 = self.best_BK[self.rows_A, :1] - self.settings.prune
                    normalized_AW = total_AW / self.settings.length_normalizer(step + 1)
                    total_AW = total_AW.masked_fill(normalized_AW < threshold_A1, -torch.inf)
                if should_check_finished(self.device, step):
                    keep = [row for row, active in enumerate(active_A.tolist()) if active]
            if not keep:
                break
            reordered, total_AW, token_AW = self.reorder(
                keep, before, State(state.source, (state.past, coverage_NS)), total_AW, token_AW, parent_AW
            )
            state, coverage_NS = State(reordered.source, reordered.past[0]), reordered.past[1]
            previous_N = token_AW.flatten()
        return self.backtrack()

    def reorder(
        self, keep: Sequence[int], before: int, state: State, total_AW: Tensor, token_AW: Tensor, parent_AW: Tensor
    ) -> tuple[State, Tensor, Tensor]:
        """The decoder state, totals and last tokens of the new hypotheses.

        Each hypothesis gets the state of its parent.

        Args:
            keep: Rows of the sentences that stay in the batch.
            before: Hypotheses per sentence before this step.
            state: Decoder state of the parents.
            total_AW: Log probabilities of the new hypotheses.
            token_AW: Their last tokens.
            parent_AW: Their parents, 0 to `before` - 1.
        """
        width, (source, past) = total_AW.shape[1], state
        if 8 * len(keep) > 7 * len(self.limits):
            if width == before == 1:
                return state, total_AW, token_AW
            row_A1 = torch.arange(len(self.limits), device=self.device)[:, None]
            if width != before:
                source = select_rows(source, (row_A1 * before).expand(-1, width).flatten())
        else:
            row_A = torch.tensor(keep, device=self.device)
            row_A1 = row_A[:, None]
            self.rows_A = row_A if isinstance(self.rows_A, slice) else self.rows_A[row_A]
            self.limits = [self.limits[row] for row in keep]
            self.limits_A, self.limit_normalizer_A = self.limits_A[row_A], self.limit_normalizer_A[row_A]
            total_AW, token_AW, parent_AW = total_AW[row_A], token_AW[row_A], parent_AW[row_A]
            source = select_rows(source, (row_A1 * before).expand(-1, width).flatten())
        return State(source, select_rows(past, (row_A1 * before + parent_AW).flatten())), total_AW, token_AW

    def expand(self, logits_NV: Tensor, total_AW: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """(log probability, last token, parent) of the K best continuations of each sentence; `length` is their |Y|."""
        dtype = torch.promote_types(logits_NV.dtype, torch.float32)
        log_NV = torch.log_softmax(logits_NV, dim=1, dtype=dtype)
        log_NV[:, :EOS] = -torch.inf  # PAD and BOS are never generated
        width = total_AW.shape[1]
        if self.forced and length < max(self.limits):
            log_NV[:, EOS].masked_fill_((self.limits_A > length).repeat_interleave(width), -torch.inf)
        if length >= min(self.limits):
            log_NV[:, EOS + 1 :].masked_fill_((self.limits_A <= length).repeat_interleave(width)[:, None], -torch.inf)
        beam = self.settings.beam
        best_NC, token_NC = fast_topk(log_NV, min(beam, log_NV.shape[1]))
        if self.settings.prune is not None:
            best_NC = best_NC.masked_fill(best_NC < best_NC[:, :1] - self.settings.prune, -torch.inf)
        total_AX = (best_NC.unflatten(0, (-1, width)) + total_AW[:, :, None]).flatten(1)
        total_AW, index_AW = total_AX.topk(min(beam, total_AX.shape[1]))
        token_AW = token_NC.unflatten(0, (-1, width)).flatten(1).gather(1, index_AW)
        return total_AW, token_AW, index_AW // best_NC.shape[1]

    def add_finished(self, ended_AW: Tensor, parent_AW: Tensor, coverage_NS: Tensor | None, step: int) -> None:
        """Update the best K finished hypotheses of each sentence.

        Args:
            ended_AW: Log probabilities of the hypotheses that end in this step, -inf for all others.
            parent_AW: Their parents.
            coverage_NS: Coverage of the parents after this step; None without a coverage penalty.
            step: This step, from 0.
        """
        if self.best_BK.dtype != ended_AW.dtype:
            self.best_BK, self.probability_BK = self.best_BK.to(ended_AW), self.probability_BK.to(ended_AW)
        rows_A, beam = self.rows_A, self.settings.beam
        slot_W = step * beam + torch.arange(ended_AW.shape[1], device=self.device)
        score_AW = ended_AW / self.settings.length_normalizer(step + 1)
        if coverage_NS is not None:
            penalty_AW = coverage_penalty(coverage_NS, self.settings.coverage).unflatten(0, (len(ended_AW), -1))
            score_AW = score_AW + penalty_AW.gather(1, parent_AW).to(score_AW)
        self.best_BK[rows_A], order_AK = torch.cat((self.best_BK[rows_A], score_AW), 1).topk(beam)
        for table_BK, new_AW in (
            (self.probability_BK, ended_AW),
            (self.ended_BK, slot_W.expand(ended_AW.shape)),
        ):
            table_BK[rows_A] = torch.cat((table_BK[rows_A], new_AW), 1).gather(1, order_AK)

    def backtrack(self) -> list[list[Hypothesis]]:
        """The finished hypotheses of each sentence, read by following the parents from the last token to the first."""
        beam = self.settings.beam
        tokens_TBK, parents_TBK = self.tokens_TBK.cpu().numpy(), self.parents_TBK.cpu().numpy()
        step_BK, slot_BK = np.divmod(self.ended_BK.cpu().numpy(), beam)
        rows_B1 = np.arange(len(step_BK))[:, None]
        longest = int(step_BK.max()) + 1
        tokens_BKT = np.zeros((*step_BK.shape, longest), dtype=np.int64)
        parents_BKT = np.zeros_like(tokens_BKT)
        for step in range(longest - 1, -1, -1):
            in_sentence_BK = step <= step_BK
            tokens_BKT[:, :, step] = np.where(in_sentence_BK, tokens_TBK[step, rows_B1, slot_BK], EOS)
            slot_BK = np.where(in_sentence_BK, parents_TBK[step, rows_B1, slot_BK], slot_BK)
            parents_BKT[:, :, step] = slot_BK
        attention_TBKS = self.attention_table() if self.attention else None
        scores_BK, probabilities_BK = self.best_BK.tolist(), self.probability_BK.tolist()
        found = []
        for row, scores_K in enumerate(scores_BK):
            hypotheses = []
            for rank, score in enumerate(scores_K):
                if score == -np.inf:
                    continue
                last = int(step_BK[row, rank])
                attention_TS = None
                if attention_TBKS is not None:
                    slots_T = parents_BKT[row, rank, : last + 1]
                    attention_TS = attention_TBKS[np.arange(last + 1), row, slots_T, : self.source.lengths_B[row]]
                ids = tokens_BKT[row, rank, :last].tolist()
                hypotheses.append(Hypothesis(ids, score, probabilities_BK[row][rank], attention_TS))
            found.append(hypotheses)
        return found

    def attention_table(self) -> np.ndarray:
        """attention_TBKS: at each step, the attention of the hypotheses that were expanded."""
        sentences, longest = self.source.ids_BS.shape
        attention_TBKS = np.zeros((len(self.attention), sentences, self.settings.beam, longest), dtype=np.float32)
        for step, (rows_A, width, attention_NS) in enumerate(self.attention):
            rows = rows_A if isinstance(rows_A, slice) else rows_A.cpu().numpy()
            attention_TBKS[step, rows, :width] = attention_NS.float().unflatten(0, (-1, width)).cpu().numpy()
        return attention_TBKS
