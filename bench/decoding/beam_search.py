"""Greedy and beam search over `encode`, `start`, `step` and `project`: no architecture is named here.

The K best continuations of a step are kept. Those that end in EOS are finished and free their places, which the next
step fills again; so a beam of 1 is greedy search. Nothing but the check whether a sentence is done reaches the host
inside a step: what was written is kept as (token, parent) tables and read back once per batch.

Letters: B sentences in the batch  A of them still in it  W hypotheses per sentence (1, then up to K)  N = A * W
K beam  C candidates per hypothesis  X = W * C  V vocabulary  T steps  S source length
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.data.batches import source_batches
from models.parts.batch import BOS, EOS, Tokens
from models.parts.translator import State, Translator


@dataclass
class DecodingSettings:
    """How a translation is searched for.

    Attributes:
        beam: Hypotheses kept per sentence; 1 is greedy search.
        alpha: Strength of length normalisation: 0 prefers short sentences, 1 is nearly the mean per token.
        length_penalty: gnmt: ((5 + |Y|) / 6)^alpha. mean: |Y|^alpha, with alpha 1 the mean per token (ConvS2S).
        prune: Beam pruning (GNMT, 3.0 there): a word whose log P is this much below the best next word of its
            hypothesis is left out, and a hypothesis this much below the best finished one, both normalised by length;
            null for neither.
        coverage: Strength (beta) of the penalty for source tokens not looked at; needs a model with attention.
        extra_length: A translation may have this many tokens more than its source.
        batch_sentences: Sentences translated at the same time.
        pos_unk: What becomes of an unknown word that is written (PosUnk). keep: it stays <unk>; copy: it becomes the
            source word most attended; dictionary: that word's translation, learnt from the training pairs, or the word
            itself where it has none. Needs text.kind words and a model with attention; validations do it too.
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
        least_of = {"beam": 1, "prune": 0, "coverage": 0, "extra_length": 0, "batch_sentences": 1}
        for name, least in least_of.items():
            if (getattr(self, name) or 0) < least:
                raise ValueError(f"decoding.{name}: {getattr(self, name)} is too small; at least {least}")

    @property
    def replaces_unknown_words(self) -> bool:
        """Whether unknown words are replaced, for which a search keeps its attention."""
        return self.pos_unk != "keep"

    def length_normalizer(self, length: Any) -> Any:
        """The length penalty of a translation of so many tokens, EOS counted."""
        return length_penalty(length, self.alpha) if self.length_penalty == "gnmt" else length**self.alpha


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


def coverage_penalty(looked_NS: Tensor, beta: float) -> Tensor:
    """cp_N = beta * sum_i log(min(sum_j p_ij, 1)), with sum_j p_ij, all that source token i was looked at, given.

    Wu et al. 2016 (GNMT), equation 14. Never above 0. A token of attention 0 counts as the smallest normal number, so
    that hypotheses that missed one can still be told apart.
    """
    return beta * looked_NS.clamp(torch.finfo(looked_NS.dtype).tiny, 1).log().sum(-1)


def translate(
    model: Translator,
    sources: Sequence[Sequence[int]],
    settings: DecodingSettings,
    *,
    attention: bool = False,
    forced_lengths: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """The best translations of each source (ids without EOS), best first, at most `beam` of them.

    The score is log P(Y|X) / lp(Y) + cp(X, Y); living hypotheses are compared by log P alone. A search ends when no
    living one can beat the best finished one any more, were it to grow to the length limit at no further cost and to
    look at the whole source on its way (cp = 0, its upper bound); at the limit, EOS is forced. An empty source has the
    empty translation. With `forced_lengths` each translation has exactly so many tokens, EOS among them: for measuring
    speed, where models must do equal work.
    """
    found: list[list[Hypothesis]] = [[Hypothesis([], 0.0, 0.0)] for _ in sources]
    places = [place for place, source in enumerate(sources) if len(source) or forced_lengths is not None]
    with evaluation_mode(model):
        for rows_B, tokens in source_batches([sources[place] for place in places], settings.batch_sentences):
            batch = [places[row] for row in rows_B]
            if forced_lengths is None:
                search = Search(model, tokens, settings, [n + settings.extra_length for n in tokens.lengths_B])
            else:
                search = Search(model, tokens, settings, [forced_lengths[place] for place in batch], forced=True)
            for place, hypotheses in zip(batch, search.run(attention or settings.replaces_unknown_words), strict=True):
                found[place] = hypotheses
    return found


def greedy(
    model: Translator,
    sources: Sequence[Sequence[int]],
    extra_length: int = 50,
    batch_sentences: int = 128,
    *,
    attention: bool = False,
) -> list[Hypothesis]:
    """The most probable token at each step: a beam of 1."""
    settings = DecodingSettings(beam=1, alpha=0.0, extra_length=extra_length, batch_sentences=batch_sentences)
    return [best for (best,) in translate(model, sources, settings, attention=attention)]


def check_attention(model: Translator, settings: DecodingSettings) -> None:
    """Asks the model for one step, before it is trained.

    Raises:
        ValueError: a setting needs attention, and the model has none; says which.
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


@contextmanager
def evaluation_mode(model: Translator) -> Iterator[None]:
    """Inference mode, and evaluation mode for each module; afterwards each is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def should_check_finished(device: torch.device, step: int) -> bool:
    """Whether the host asks at this step what has ended: it then waits for a GPU, so there at every fourth only."""
    return device.type == "cpu" or step % 4 == 3


def select_rows(tree: Any, rows_N: Tensor) -> Any:
    """The same tree (of tuples, named or not) with these rows of every tensor."""
    if isinstance(tree, Tensor):
        return tree.index_select(0, rows_N)
    if tree is None:
        return None
    if isinstance(tree, (tuple, list)):
        branches = [select_rows(branch, rows_N) for branch in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    raise TypeError(f"a state is a tree of tensors, not of {type(tree).__name__}")


def fast_topk(scores_NV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(values, places) of the largest of each row: topk, in two stages where that is twice as fast.

    The `count` largest elements stand in the `count` columns with the largest maxima, if a row is laid out as a table.
    """
    columns, vocabulary = 100, scores_NV.shape[1]
    rows = vocabulary // columns
    if scores_NV.device.type != "cpu" or rows < 2 * count or scores_NV.numel() < 2**17:
        return scores_NV.topk(count)
    table_NRC = scores_NV[:, : rows * columns].unflatten(1, (rows, columns))
    best_NK = table_NRC.amax(1).topk(count).indices
    first_NX = table_NRC.gather(2, best_NK[:, None].expand(-1, rows, -1)).flatten(1)
    first_NX = torch.cat((first_NX, scores_NV[:, rows * columns :]), 1)  # and what does not fill a row
    values_NK, places_NK = first_NX.topk(count)
    rest_NK = places_NK + (rows * columns - rows * count)
    inside_NK = places_NK // count * columns + best_NK.gather(1, places_NK % count)
    return values_NK, torch.where(places_NK < rows * count, inside_NK, rest_NK)


class Search:
    """Beam search for one batch of sources. `limits_B` bounds |Y|, EOS counted; with `forced` it is |Y|.

    A sentence that is done has log probabilities of -inf from then on, so nothing that happens to its rows matters;
    its rows are taken out of the batch once an eighth of the batch is done, since that copies the rest.
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
        self.source = source.to(model.device)
        shape_TBK = (max(limits_B), len(limits_B), settings.beam)
        self.tokens_TBK = torch.zeros(shape_TBK, dtype=torch.long, device=self.device)
        self.parents_TBK = torch.zeros_like(self.tokens_TBK)
        # The best finished hypotheses: score, log probability, and step * K + place in the beam, where they ended.
        self.best_BK = torch.full(shape_TBK[1:], -torch.inf, device=self.device)
        self.probability_BK = torch.full_like(self.best_BK, -torch.inf)
        self.ended_BK = torch.zeros(shape_TBK[1:], dtype=torch.long, device=self.device)
        self.attention: list[tuple[Tensor | slice, int, Tensor]] = []
        self.rows_A: Tensor | slice = slice(None)  # the sentences that are still in the batch
        self.limits: list[int] = list(limits_B)  # of those
        self.limits_A = torch.tensor(self.limits, device=self.device)
        self.longest_A = settings.length_normalizer(self.limits_A)

    def run(self, attention: bool) -> list[list[Hypothesis]]:
        """Search to the end."""
        model, on_host = self.model, self.device.type == "cpu"
        state = model.start(model.encode(self.source))
        previous_N = torch.full((len(self.limits),), BOS, device=self.device)
        total_AW = torch.zeros((len(self.limits), 1), device=self.device)
        # What each hypothesis has looked at; padding counts as seen. It follows its beam as the model's past does.
        looked_NS = (~self.source.mask_BS).float() if self.settings.coverage else None
        finished = not on_host  # whether there may be finished hypotheses; unknown where asking would cost time
        for step in range(max(self.limits)):
            hidden_ND, state, attention_NS = model.step(previous_N, state)
            before = total_AW.shape[1]
            if attention and attention_NS is not None:
                self.attention.append((self.rows_A, before, attention_NS))
            if looked_NS is not None:
                assert attention_NS is not None  # `check_attention` has seen to it
                looked_NS = looked_NS + attention_NS
            total_AW, token_AW, parent_AW = self.continuations(model.project(hidden_ND), total_AW, step + 1)
            self.tokens_TBK[step, self.rows_A, : total_AW.shape[1]] = token_AW
            self.parents_TBK[step, self.rows_A, : total_AW.shape[1]] = parent_AW

            ends_AW = token_AW == EOS
            if not on_host or bool(ends_AW.any()):
                finished = True
                self.finish(total_AW.masked_fill(~ends_AW, -torch.inf), parent_AW, looked_NS, step)
                total_AW = total_AW.masked_fill(ends_AW, -torch.inf)
            keep: Sequence[int] = range(len(self.limits))
            if finished:
                # The best that is alive, if it grew to its limit at no further cost, against the best finished one.
                reach_A = total_AW.amax(1) / self.longest_A.clamp(min=self.settings.length_normalizer(step + 2))
                # Written so that NaN goes on: a model that has diverged ends at the limit, with something to show.
                going_A = ~(reach_A <= self.best_BK[self.rows_A, 0])
                total_AW = total_AW.masked_fill(~going_A[:, None], -torch.inf)
                if self.settings.prune is not None:
                    least_A1 = self.best_BK[self.rows_A, :1] - self.settings.prune
                    total_AW = total_AW.masked_fill(
                        total_AW / self.settings.length_normalizer(step + 1) < least_A1, -torch.inf
                    )
                if should_check_finished(self.device, step):
                    keep = [row for row, goes in enumerate(going_A.tolist()) if goes]
            if not keep:
                break
            kept, total_AW, token_AW = self.follow(
                keep, before, State(state.source, (state.past, looked_NS)), total_AW, token_AW, parent_AW
            )
            state, looked_NS = State(kept.source, kept.past[0]), kept.past[1]
            previous_N = token_AW.flatten()
        return self.results()

    def follow(
        self, keep: Sequence[int], before: int, state: State, total_AW: Tensor, token_AW: Tensor, parent_AW: Tensor
    ) -> tuple[State, Tensor, Tensor]:
        """Give each hypothesis the past of its parent, one of `before`; sentences that are not in `keep` leave."""
        width, (source, past) = total_AW.shape[1], state
        if 8 * len(keep) > 7 * len(self.limits):
            if width == before == 1:
                return state, total_AW, token_AW
            kept_A1 = torch.arange(len(self.limits), device=self.device)[:, None]
            if width != before:
                source = select_rows(source, (kept_A1 * before).expand(-1, width).flatten())
        else:
            kept_A = torch.tensor(keep, device=self.device)
            kept_A1 = kept_A[:, None]
            self.rows_A = kept_A if isinstance(self.rows_A, slice) else self.rows_A[kept_A]
            self.limits = [self.limits[row] for row in keep]
            self.limits_A, self.longest_A = self.limits_A[kept_A], self.longest_A[kept_A]
            total_AW, token_AW, parent_AW = total_AW[kept_A], token_AW[kept_A], parent_AW[kept_A]
            source = select_rows(source, (kept_A1 * before).expand(-1, width).flatten())
        return State(source, select_rows(past, (kept_A1 * before + parent_AW).flatten())), total_AW, token_AW

    def continuations(self, logits_NV: Tensor, total_AW: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """(log probability, last token, parent) of the K best continuations of each sentence, |Y| being `length`."""
        kind = torch.promote_types(logits_NV.dtype, torch.float32)
        log_NV = torch.log_softmax(logits_NV, dim=1, dtype=kind)
        log_NV[:, :EOS] = -torch.inf  # nobody writes PAD or BOS
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
        total_AW, place_AW = total_AX.topk(min(beam, total_AX.shape[1]))
        token_AW = token_NC.unflatten(0, (-1, width)).flatten(1).gather(1, place_AW)
        return total_AW, token_AW, place_AW // best_NC.shape[1]

    def finish(self, ended_AW: Tensor, parent_AW: Tensor, looked_NS: Tensor | None, step: int) -> None:
        """Keep the best K of what had finished and what finishes now (log probabilities; -inf elsewhere)."""
        if self.best_BK.dtype != ended_AW.dtype:
            self.best_BK, self.probability_BK = self.best_BK.to(ended_AW), self.probability_BK.to(ended_AW)
        rows_A, beam = self.rows_A, self.settings.beam
        place_W = step * beam + torch.arange(ended_AW.shape[1], device=self.device)
        score_AW = ended_AW / self.settings.length_normalizer(step + 1)
        if looked_NS is not None:
            penalty_AW = coverage_penalty(looked_NS, self.settings.coverage).unflatten(0, (len(ended_AW), -1))
            score_AW = score_AW + penalty_AW.gather(1, parent_AW).to(score_AW)
        self.best_BK[rows_A], order_AK = torch.cat((self.best_BK[rows_A], score_AW), 1).topk(beam)
        for table_BK, new_AW in (
            (self.probability_BK, ended_AW),
            (self.ended_BK, place_W.expand(ended_AW.shape)),
        ):
            table_BK[rows_A] = torch.cat((table_BK[rows_A], new_AW), 1).gather(1, order_AK)

    def results(self) -> list[list[Hypothesis]]:
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
        looked_TBKS = self.looked() if self.attention else None
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
            rows = rows_A if isinstance(rows_A, slice) else rows_A.cpu().numpy()
            looked_TBKS[step, rows, :width] = attention_NS.float().unflatten(0, (-1, width)).cpu().numpy()
        return looked_TBKS
