"""Greedy and beam search over `encode`, `start`, `step` and `project`: no architecture is named here.

The K best continuations of a step are kept. Those that end in EOS are finished and free their places, which the next
step fills again; so a beam of 1 is greedy search. Nothing but the check whether a sentence is done reaches the host
inside a step: what was written is kept as (token, parent) tables and read back once per batch.

Letters: B sentences in the batch  A of them still searched  W hypotheses alive per sentence (at most K)  N = A * W
K beam  C candidates per hypothesis  V vocabulary  T steps  S source length
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.batches import source_batches
from models.parts.translator import BOS, EOS, State, Tokens, Translator


@dataclass
class DecodingSettings:
    """How a translation is searched for.

    Attributes:
        beam: Hypotheses kept per sentence; 1 is greedy search.
        alpha: Strength of length normalisation: 0 prefers short sentences, 1 is nearly the mean per token.
        extra_length: A translation may have this many tokens more than its source.
        batch_sentences: Sentences translated at the same time.
    """

    beam: int = 5
    alpha: float = 1.0
    extra_length: int = 50
    batch_sentences: int = 64


class Hypothesis(NamedTuple):
    """One translation: ids without EOS, its score, log P(Y|X) in nats, and where it looked.

    `attention_TS` has one row for each token and one for EOS, one column for each source token and one for EOS; None
    where it was not asked for or the model has none.
    """

    ids: list[int]
    score: float
    log_probability: float
    attention_TS: np.ndarray | None = None


def length_penalty(length: Any, alpha: float) -> Any:
    """lp(Y) = ((5 + |Y|) / 6)^alpha, EOS counted in |Y|. Wu et al. 2016 (GNMT), equation 14."""
    return ((5 + length) / 6) ** alpha


def translate(
    model: Translator,
    sources: Sequence[Sequence[int]],
    settings: DecodingSettings,
    *,
    attention: bool = False,
    forced_lengths: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """The best translations of each source (ids without EOS), best first, at most `beam` of them.

    The score is log P(Y|X) / lp(Y). A search ends when no living hypothesis can beat the best finished one any more,
    were it to grow to the length limit at no further cost; at the limit, EOS is forced. An empty source has the empty
    translation. With `forced_lengths` each translation has exactly so many tokens, EOS among them: for measuring
    speed, where models must do equal work.
    """
    found: list[list[Hypothesis]] = [[Hypothesis([], 0.0, 0.0)] for _ in sources]
    places = [place for place, source in enumerate(sources) if len(source) or forced_lengths is not None]
    with evaluating(model):
        for rows_B, tokens in source_batches([sources[place] for place in places], settings.batch_sentences):
            batch = [places[row] for row in rows_B]
            if forced_lengths is None:
                search = Search(model, tokens, settings, [n + settings.extra_length for n in tokens.lengths_B])
            else:
                search = Search(model, tokens, settings, [forced_lengths[place] for place in batch], forced=True)
            for place, hypotheses in zip(batch, search.run(attention), strict=True):
                found[place] = hypotheses
    return found


def greedy(
    model: Translator, sources: Sequence[Sequence[int]], extra_length: int = 50, batch_sentences: int = 64
) -> list[Hypothesis]:
    """The most probable token at each step: a beam of 1."""
    settings = DecodingSettings(beam=1, alpha=0.0, extra_length=extra_length, batch_sentences=batch_sentences)
    return [best for (best,) in translate(model, sources, settings)]


@contextmanager
def evaluating(model: Translator) -> Iterator[None]:
    """Inference mode, and evaluation mode for each module; afterwards each is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def tree_map(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """The same tree (of tuples, named or not) with every tensor changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if tree is None:
        return None
    if isinstance(tree, (tuple, list)):
        branches = [tree_map(change, branch) for branch in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    raise TypeError(f"a state is a tree of tensors, not of {type(tree).__name__}")


class Search:
    """Beam search for one batch of sources. `limits_B` bounds |Y| with EOS; with `forced` it is |Y|."""

    def __init__(
        self,
        model: Translator,
        source: Tokens,
        settings: DecodingSettings,
        limits_B: Sequence[int],
        forced: bool = False,
    ) -> None:
        self.model, self.source, self.settings, self.forced = model, source.to(model.device), settings, forced
        self.limits_B = torch.tensor(limits_B)
        self.device = model.device
        shape_TBK = (max(limits_B), len(limits_B), settings.beam)
        self.tokens_TBK = torch.zeros(shape_TBK, dtype=torch.long, device=self.device)
        self.parents_TBK = torch.zeros_like(self.tokens_TBK)
        # The best finished hypotheses: score, log probability, and step * K + place in the beam, where they ended.
        self.best_BK = torch.full(shape_TBK[1:], -torch.inf, device=self.device)
        self.probability_BK = torch.full_like(self.best_BK, -torch.inf)
        self.ended_BK = torch.zeros(shape_TBK[1:], dtype=torch.long, device=self.device)
        self.attention: list[tuple[Tensor, int, Tensor]] = []

    def run(self, attention: bool) -> list[list[Hypothesis]]:
        model, beam, alpha, device = self.model, self.settings.beam, self.settings.alpha, self.device
        rows_A, limits_A = torch.arange(len(self.limits_B)), self.limits_B
        state = model.start(model.encode(self.source))
        previous_N = torch.full((len(rows_A),), BOS, device=device)
        total_AW = None
        on_device = rows_A.to(device)
        for step in range(int(self.limits_B.max())):
            hidden_ND, state, attention_NS = model.step(previous_N, state)
            logits_NV = model.project(hidden_ND)
            width = len(previous_N) // len(rows_A)
            if attention and attention_NS is not None:
                self.attention.append((rows_A, width, attention_NS))
            chosen_NC, ids_NC = self.candidates(logits_NV, step + 1, limits_A, width)

            # The K best of all continuations of a sentence.
            total_AWC = chosen_NC.unflatten(0, (-1, width))
            if total_AW is not None:
                total_AWC = total_AWC + total_AW[:, :, None]
            total_AW, place_AW = total_AWC.flatten(1).topk(min(beam, total_AWC[0].numel()))
            token_AW = ids_NC.unflatten(0, (-1, width)).flatten(1).gather(1, place_AW)
            parent_AW = place_AW // ids_NC.shape[1]
            before, width = width, total_AW.shape[1]
            self.tokens_TBK[step, on_device, :width] = token_AW
            self.parents_TBK[step, on_device, :width] = parent_AW

            # What ends in EOS is finished and leaves the beam.
            ends_AW = token_AW == EOS
            self.finish(on_device, total_AW.masked_fill(~ends_AW, -torch.inf), step)
            total_AW = total_AW.masked_fill(ends_AW, -torch.inf)

            # The most that a living hypothesis can still reach.
            alive_A = total_AW.amax(1)
            limit_A = limits_A.to(device)
            reach_A = torch.maximum(alive_A / length_penalty(limit_A, alpha), alive_A / length_penalty(step + 2, alpha))
            going_A = reach_A > self.best_BK[on_device, 0]
            going = going_A.tolist()
            if not any(going):
                break
            keep_A = torch.tensor([row for row, goes in enumerate(going) if goes])
            if len(keep_A) < len(rows_A) or before != width:
                shared_N = (keep_A[:, None] * before).expand(-1, width).flatten().to(device)
                source = tree_map(lambda x: x.index_select(0, shared_N), state.source)  # noqa: B023
            else:
                source = state.source
            if len(keep_A) < len(rows_A):
                rows_A, limits_A = rows_A[keep_A], limits_A[keep_A]
                on_device = rows_A.to(device)
                kept = keep_A.to(device)
                parent_AW, token_AW, total_AW = parent_AW[kept], token_AW[kept], total_AW[kept]
            else:
                kept = keep_A.to(device)
            past = state.past
            if beam > 1 or len(keep_A) < len(going):
                follow_N = (kept[:, None] * before + parent_AW).flatten()
                past = tree_map(lambda x: x.index_select(0, follow_N), past)  # noqa: B023
            state = State(source, past)
            previous_N = token_AW.flatten()
        return self.results(attention)

    def candidates(self, logits_NV: Tensor, length: int, limits_A: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """(log probability, id) of the C best continuations of each hypothesis, without the rest of log softmax."""
        logits_NV = logits_NV.float() if logits_NV.dtype in (torch.float16, torch.bfloat16) else logits_NV
        norm_N1 = logits_NV.logsumexp(1, keepdim=True)
        logits_NV[:, :EOS] = -torch.inf  # nobody writes PAD or BOS
        if self.forced and length < int(limits_A.max()):
            early_N = (limits_A > length).repeat_interleave(width).to(self.device)
            logits_NV[:, EOS].masked_fill_(early_N, -torch.inf)
        if length >= int(limits_A.min()):
            late_N = (limits_A <= length).repeat_interleave(width).to(self.device)
            end_N = logits_NV[:, EOS].clone()
            logits_NV.masked_fill_(late_N[:, None], -torch.inf)
            logits_NV[:, EOS] = end_N
        if self.settings.beam == 1:
            chosen_NC, ids_NC = logits_NV.max(1, keepdim=True)
        else:
            chosen_NC, ids_NC = logits_NV.topk(min(self.settings.beam, logits_NV.shape[1]))
        return chosen_NC - norm_N1, ids_NC

    def finish(self, rows_A: Tensor, ended_AW: Tensor, step: int) -> None:
        """Keep the best K of what had finished and what finishes now (log probabilities; -inf elsewhere)."""
        beam = self.settings.beam
        score_AW = ended_AW / length_penalty(step + 1, self.settings.alpha)
        place_W = step * beam + torch.arange(ended_AW.shape[1], device=self.device)
        if self.best_BK.dtype != score_AW.dtype:
            self.best_BK, self.probability_BK = self.best_BK.to(score_AW), self.probability_BK.to(score_AW)
        self.best_BK[rows_A], order_AK = torch.cat((self.best_BK[rows_A], score_AW), 1).topk(beam)
        probability = torch.cat((self.probability_BK[rows_A], ended_AW), 1)
        self.probability_BK[rows_A] = probability.gather(1, order_AK)
        place = torch.cat((self.ended_BK[rows_A], place_W.expand_as(ended_AW)), 1)
        self.ended_BK[rows_A] = place.gather(1, order_AK)

    def results(self, attention: bool) -> list[list[Hypothesis]]:
        """Follow the finished hypotheses back to their beginning."""
        beam = self.settings.beam
        tokens_TBK, parents_TBK = self.tokens_TBK.cpu().numpy(), self.parents_TBK.cpu().numpy()
        step_BK, slot_BK = np.divmod(self.ended_BK.cpu().numpy(), beam)
        rows_B1 = np.arange(len(step_BK))[:, None]
        longest = int(step_BK.max()) + 1
        written_BKT = np.zeros((*step_BK.shape, longest), dtype=np.int64)
        parents_BKT = np.zeros_like(written_BKT)
        for step in range(longest - 1, -1, -1):
            inside_BK = step <= step_BK
            written_BKT[:, :, step] = np.where(inside_BK, tokens_TBK[step, rows_B1, slot_BK], EOS)
            slot_BK = np.where(inside_BK, parents_TBK[step, rows_B1, slot_BK], slot_BK)
            parents_BKT[:, :, step] = slot_BK
        looked_TBKS = self.looked() if attention and self.attention else None
        scores_BK, probabilities_BK = self.best_BK.tolist(), self.probability_BK.tolist()
        found = []
        for row, scores_K in enumerate(scores_BK):
            hypotheses = []
            for rank, score in enumerate(scores_K):
                if score == -np.inf:
                    continue
                last = int(step_BK[row, rank])
                looked_TS = None
                if looked_TBKS is not None:
                    slots_T = parents_BKT[row, rank, : last + 1]
                    looked_TS = looked_TBKS[np.arange(last + 1), row, slots_T, : self.source.lengths_B[row]]
                ids = written_BKT[row, rank, :last].tolist()
                hypotheses.append(Hypothesis(ids, score, probabilities_BK[row][rank], looked_TS))
            found.append(hypotheses)
        return found

    def looked(self) -> np.ndarray:
        """attention_TBKS of the hypotheses that each step continued."""
        sentences, longest = self.source.ids_BS.shape
        looked_TBKS = np.zeros((len(self.attention), sentences, self.settings.beam, longest), dtype=np.float32)
        for step, (rows_A, width, attention_NS) in enumerate(self.attention):
            looked_TBKS[step, rows_A.numpy(), :width] = attention_NS.float().unflatten(0, (-1, width)).cpu().numpy()
        return looked_TBKS
