"""GNMT's refinement: at the end of training, reward beside likelihood, for any model. Wu et al. 2016, section 5.

O_Mixed = alpha O_ML + O_RL,  O_ML = sum_i log P(Y*_i | X_i),  O_RL = sum_i sum_Y P(Y | X_i) r(Y, Y*_i)

The reward r is GLEU. For the sum over all Y stand m translations Y_k that the model draws itself; the gradient is

d O_RL = sum_i 1/m sum_k (r_k - b) d log P(Y_k | X_i),  b = 1/m sum_k r_k

As in the paper the baseline b holds r_k itself, so the mean of this estimate is (m - 1) / m of the true gradient. Both
sums go over sentences, and the batch gives their mean. There is no dropout in this phase (section 8.3), so that the
model that is trained is the one that drew; but for an MoE's gates, which keep their noise, or their shares of a batch,
while they are trained. Only the contract is used: encode, start and step to draw, decode and
project to learn from what was drawn.

Letters: B sentences  R = B m translations drawn, those of a sentence one after another  A of them not yet ended
N real tokens  T steps  V vocabulary without PAD and BOS, which nobody writes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from torch import Tensor
from torch.nn import functional

from bench.decoding.beam_search import evaluation_mode, select_rows, should_check_finished
from bench.training.budget import BudgetTracker, LearningCurves
from models.parts.batch import BOS, EOS, Batch, Tokens
from models.parts.translator import Translator, cross_entropy_loss

LONGEST = 2
"""A translation that is drawn ends at so many times the tokens of its reference: as a rule its GLEU is at most about a
half there."""


@dataclass
class RewardSettings:
    """GNMT's refinement by reward (Wu et al. 2016, section 5): what the last part of the budget is spent on.

    Attributes:
        share: Part of the budget that goes to this phase, at its end; 0 for none.
        samples: Translations drawn of each sentence; the baseline is their mean reward.
        ml_weight: Weight of the likelihood beside the reward (the paper's alpha).
        lr_factor: The scheduled learning rate is multiplied by this in the phase.
    """

    share: float = 0.0
    samples: int = 15
    ml_weight: float = 0.017
    lr_factor: float = 1.0

    def check(self) -> None:
        """Raises ValueError for settings that cannot be trained with."""
        if not 0 <= self.share < 1:
            raise ValueError(f"training.reward.share: {self.share} is no part of a budget; at least 0, less than 1")
        if self.samples < 2:
            raise ValueError(f"training.reward.samples: {self.samples} has no mean to differ from; at least 2")


# --- the reward -------------------------------------------------------------------------------------------------------


_words = Tokenizer13a()


def words(sentence: str) -> list[str]:
    """The words that BLEU counts, sacreBLEU's 13a: punctuation marks stand alone."""
    return _words(sentence).split()


def gleu(hypothesis: Sequence[str], reference: Sequence[str]) -> float:
    """min(precision, recall) over all 1- to 4-grams of words, between 0 and 1 and symmetric; Wu et al. 2016, section 5.

    Both share the numerator, the n-grams in common, so the larger total decides. No words match no words only.
    """
    ours, theirs = _grams(hypothesis), _grams(reference)
    total = max(ours.total(), theirs.total())
    return (ours & theirs).total() / total if total else 1.0


def _grams(sentence: Sequence[str]) -> Counter[tuple[str, ...]]:
    places = range(len(sentence))
    return Counter(tuple(sentence[place : place + n]) for n in range(1, 5) for place in places[: len(sentence) - n + 1])


def mean_gleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Mean over sentences, in percent."""
    pairs = zip(hypotheses, references, strict=True)
    return 100 * sum(gleu(words(ours), words(theirs)) for ours, theirs in pairs) / len(references)


# --- drawing ----------------------------------------------------------------------------------------------------------


class Samples(NamedTuple):
    """Translations of a batch: `pairs` holds each with its source; step t computed rows_T[t] of them."""

    pairs: Batch
    rows_T: list[int]


def sample_translations(model: Translator, source: Tokens, limits_B: Sequence[int], count: int) -> Samples:
    """`count` translations of each source, drawn token by token from P(y_t | y_<t, X) in evaluation mode.

    A source is read once. A translation that reaches its limit of tokens ends there, without EOS. Rows that have ended
    leave the batch once they are an eighth of it, since that copies the rest. A token is the place where the cumulated
    probabilities pass one uniform number: on a CPU a tenth of the time of torch.multinomial, which draws V of them.
    """
    sentence_R = torch.arange(len(limits_B), device=model.device).repeat_interleave(count)
    limits_R = torch.tensor(limits_B, device=model.device)[sentence_R]
    ids_RT = torch.zeros((len(limits_R), max(limits_B)), dtype=torch.long, device=model.device)
    rows_T: list[int] = []
    with evaluation_mode(model):
        state = select_rows(model.start(model.encode(source)), sentence_R)
        rows_A, limits_A = torch.arange(len(limits_R), device=model.device), limits_R
        previous_A = torch.full_like(rows_A, BOS)
        going_A = torch.ones_like(rows_A, dtype=torch.bool)
        for step in range(max(limits_B)):
            rows_T.append(len(rows_A))
            hidden_AD, state, _ = model.step(previous_A, state)
            logits_AV = model.project(hidden_AD)[:, EOS:]
            cumulated_AV = logits_AV.softmax(1, dtype=torch.float32).cumsum(1)
            point_A1 = torch.rand((len(rows_A), 1), device=model.device) * cumulated_AV[:, -1:]
            place_A1 = torch.searchsorted(cumulated_AV, point_A1, right=True).clamp(max=logits_AV.shape[1] - 1)
            previous_A = place_A1[:, 0] + EOS
            ids_RT[rows_A, step] = previous_A * going_A
            going_A = going_A & (previous_A != EOS) & (limits_A > step + 1)
            if not should_check_finished(model.device, step):
                continue
            alive = int(going_A.sum())
            if not alive:
                break
            if 8 * alive <= 7 * len(rows_A):
                kept_K = going_A.nonzero()[:, 0]
                state = select_rows(state, kept_K)
                rows_A, limits_A, previous_A, going_A = (
                    each_A[kept_K] for each_A in (rows_A, limits_A, previous_A, going_A)
                )
    torch.clear_autocast_cache()  # weights that were cast in inference mode cannot be learnt through
    lengths_R = tuple((ids_RT != 0).sum(1).tolist())
    rows = sentence_R.tolist()
    sources = Tokens(source.ids_BS[sentence_R], tuple(source.lengths_B[row] for row in rows))
    return Samples(Batch(sources, Tokens(ids_RT[:, : max(lengths_R)].clone(), lengths_R)), rows_T)


@contextmanager
def without_dropout(model: Translator) -> Iterator[None]:
    """Training mode without dropout: rates are floats called p (nn.Dropout) or dropout (recurrent layers, attention).

    Evaluation mode would not do: cuDNN's recurrent layers have no backward pass in it.
    """
    rates = [
        (module, name, rate)
        for module in model.modules()
        for name in ("p", "dropout")
        if isinstance(rate := getattr(module, name, None), float)
    ]
    for module, name, _ in rates:
        setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, rate in rates:
            setattr(module, name, rate)


# --- learning ---------------------------------------------------------------------------------------------------------


def mixed_loss(model: Translator, batch: Batch, samples: Samples, rewards_R: Tensor, ml_weight: float) -> Tensor:
    """-O_Mixed, mean over sentences; its gradient is that of the equations above. The source is read once."""
    sentences, count = len(batch.source.lengths_B), len(rewards_R) // len(batch.source.lengths_B)
    rewards_BM = rewards_R.view(sentences, count)
    weights_R = (rewards_BM - rewards_BM.mean(1, keepdim=True)).flatten() / len(rewards_R)
    lengths_R = torch.tensor(samples.pairs.target.lengths_B, device=weights_R.device)
    sentence_R = torch.arange(sentences, device=weights_R.device).repeat_interleave(count)
    with without_dropout(model):
        memory = model.encode(batch.source)
        logits_NV = model.logits(memory, batch)
        losses_N = functional.cross_entropy(
            logits_NV, batch.target.ids_N, label_smoothing=model.optimization.label_smoothing, reduction="none"
        )
        logits_NV = model.logits(select_rows(memory, sentence_R), samples.pairs)[:, EOS:]
        drawn_N = functional.cross_entropy(logits_NV, samples.pairs.target.ids_N - EOS, reduction="none")
    return ml_weight * losses_N.sum() / sentences + (weights_R.repeat_interleave(lengths_R) * drawn_N).sum()


class RewardPhase(pl.Callback):
    """The objective of a training whose budget ends with this phase: the likelihood before, the mixed one after.

    `text` turns ids of the target into sentences. What is drawn is charged to the meter's ledger, and its mean reward
    is the curve train/reward. The random numbers are those of the update, so a resumed run draws the same.
    """

    def __init__(
        self,
        settings: RewardSettings,
        budget: BudgetTracker,
        curves: LearningCurves,
        text: Callable[[Sequence[Sequence[int]]], list[str]],
    ) -> None:
        self.settings, self.budget, self.curves, self.text = settings, budget, curves, text
        self.acted = False  # in this process

    @property
    def begun(self) -> bool:
        return self.budget.fraction >= 1 - self.settings.share

    def objective(self, model: Translator, batch: Batch) -> Tensor:
        if not self.begun:
            return cross_entropy_loss(model, batch)
        self.acted = True
        limits_B = [LONGEST * length for length in batch.target.lengths_B]
        samples = sample_translations(model, batch.source, limits_B, self.settings.samples)
        self.budget.flop_counter.add_drawn(samples.pairs, self.settings.samples, samples.rows_T)
        rewards_R = self.rewards(batch.target, samples.pairs.target).to(model.device)
        self.curves.tell("reward", rewards_R.mean())
        return mixed_loss(model, batch, samples, rewards_R, self.settings.ml_weight)

    def rewards(self, references: Tokens, samples: Tokens) -> Tensor:
        """GLEU of every translation that was drawn."""
        wanted, written = (
            [words(sentence) for sentence in self.text(side.ids_BS.tolist())] for side in (references, samples)
        )
        count = len(written) // len(wanted)
        return torch.tensor([gleu(each, wanted[row // count]) for row, each in enumerate(written)])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """The schedule has just set the rate of the next update, from its own base rate."""
        if self.begun:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] *= self.settings.lr_factor
