"""GNMT's refinement: training ends with a phase that maximizes reward beside likelihood. Works for any model.

Source: Wu et al. 2016, section 5.

O_Mixed = alpha O_ML + O_RL,  O_ML = sum_i log P(Y*_i | X_i),  O_RL = sum_i sum_Y P(Y | X_i) r(Y, Y*_i)

The reward r is GLEU. The sum over all Y is estimated from m translations Y_k sampled from the model. Its gradient is

d O_RL = sum_i 1/m sum_k (r_k - b) d log P(Y_k | X_i),  b = 1/m sum_k r_k

As in the paper, the baseline b contains r_k itself, so the expected value of this estimate is (m - 1) / m of the true
gradient. Both objectives sum over sentences; the loss is their mean over the batch. O_ML has the label smoothing of the
training before this phase, which the paper does not mention.

There is no dropout in this phase (section 8.3), so that the model that is trained is the one that was sampled from. The
gates of the MoE are an exception: in training they keep their noise or their shares of a batch. Only the contract of
Translator is used: encode, start and step to sample, decode and project to learn from the samples.

Letters: B sentences  M samples per sentence  R = B M samples, those of one sentence side by side  A samples that are
still computed  N real tokens  T steps  V vocabulary without PAD and BOS, which are never written
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from bench.decoding.beam_search import select_rows, should_check_finished
from bench.measures import selection
from bench.measures.selection import DEFAULT_TOKENIZER
from bench.training.budget import BudgetTracker, LearningCurves
from models.parts.batch import BOS, EOS, Batch, Tokens
from models.parts.cross_entropy import cross_entropy
from models.parts.translator import Translator, cross_entropy_loss, evaluation_mode

MAX_LENGTH_RATIO = 2
"""A sample ends when it has this many times the tokens of its reference. A longer one would usually have a GLEU of
at most about a half."""


@dataclass
class RewardSettings:
    """The reward phase at the end of training: GNMT's refinement (Wu et al. 2016, section 5).

    Attributes:
        share: Fraction of the budget, at its end, that is used for this phase; 0 for no such phase.
        samples: Translations sampled per sentence. The baseline is their mean reward.
        ml_weight: Weight of the likelihood beside the reward (the paper's alpha).
        lr_factor: Factor on the scheduled learning rate in this phase.
    """

    share: float = 0.0
    samples: int = 15
    ml_weight: float = 0.017
    lr_factor: float = 1.0

    def check(self) -> None:
        """Check the settings before training.

        Raises:
            ValueError: a setting is outside its range.
        """
        if not 0 <= self.share < 1:
            raise ValueError(
                f"training.reward.share: {self.share} is not a fraction of the budget; at least 0, less than 1"
            )
        if self.samples < 2:
            raise ValueError(f"training.reward.samples: {self.samples} is too small for a baseline; at least 2")


# --- the reward -------------------------------------------------------------------------------------------------------


def words(sentence: str, tokenizer: str = DEFAULT_TOKENIZER) -> list[str]:
    """Split a sentence into the tokens that BLEU counts, by one of sacreBLEU's tokenizers.

    For 13a they are words and punctuation marks.
    """
    return selection.tokenizer(tokenizer)(sentence).split()


def gleu(hypothesis: Sequence[str], reference: Sequence[str]) -> float:
    """Return min(precision, recall) over all 1- to 4-grams of words, from 0 to 1. Wu et al. 2016, section 5.

    It is symmetric. Precision and recall have the same numerator, the n-grams in common, so the larger denominator
    decides. An empty sentence matches only an empty sentence.
    """
    ours, theirs = _ngrams(hypothesis), _ngrams(reference)
    total = max(ours.total(), theirs.total())
    return (ours & theirs).total() / total if total else 1.0


def _ngrams(sentence: Sequence[str]) -> Counter[tuple[str, ...]]:
    """Count the 1- to 4-grams. A sentence of fewer than n words has no n-gram."""
    length = len(sentence)
    return Counter(tuple(sentence[start : start + n]) for n in range(1, 5) for start in range(length - n + 1))


def mean_gleu(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str = DEFAULT_TOKENIZER) -> float:
    """Return the mean GLEU over sentences, in percent."""
    pairs = zip(hypotheses, references, strict=True)
    found = (gleu(words(ours, tokenizer), words(theirs, tokenizer)) for ours, theirs in pairs)
    return 100 * sum(found) / len(references)


# --- sampling ---------------------------------------------------------------------------------------------------------


class Samples(NamedTuple):
    """Sampled translations of a batch.

    Attributes:
        pairs: Each translation with its source.
        rows_T: Number of translations that were computed at each step, ended ones that had not been removed included.
    """

    pairs: Batch
    rows_T: list[int]


def sample_translations(model: Translator, source: Tokens, limits_B: Sequence[int], count: int) -> Samples:
    """Sample `count` translations of each source, token by token from P(y_t | y_<t, X), in evaluation mode.

    Each source is encoded once. A translation that reaches its limit of tokens ends there without EOS. Ended rows are
    removed from the batch only when they are at least an eighth of it, because removing them copies the other rows.

    A token is the first position at which the cumulated probabilities exceed a uniform random number. On a CPU this
    takes a tenth of the time of torch.multinomial, which draws V random numbers.

    Args:
        limits_B: Maximum number of tokens of a translation, for each source.
    """
    sentence_R = torch.arange(len(limits_B), device=model.device).repeat_interleave(count)
    limits_R = torch.tensor(limits_B, device=model.device)[sentence_R]
    ids_RT = torch.zeros((len(limits_R), max(limits_B)), dtype=torch.long, device=model.device)
    rows_T: list[int] = []
    with evaluation_mode(model):
        state = select_rows(model.start(model.encode(source)), sentence_R)
        rows_A, limits_A = torch.arange(len(limits_R), device=model.device), limits_R
        previous_A = torch.full_like(rows_A, BOS)
        active_A = torch.ones_like(rows_A, dtype=torch.bool)
        for step in range(max(limits_B)):
            rows_T.append(len(rows_A))
            hidden_AD, state, _ = model.step(previous_A, state)
            logits_AV = model.project(hidden_AD)[:, EOS:]
            cumulated_AV = logits_AV.softmax(1, dtype=torch.float32).cumsum(1)
            point_A1 = torch.rand((len(rows_A), 1), device=model.device) * cumulated_AV[:, -1:]
            index_A1 = torch.searchsorted(cumulated_AV, point_A1, right=True).clamp(max=logits_AV.shape[1] - 1)
            previous_A = index_A1[:, 0] + EOS
            ids_RT[rows_A, step] = previous_A * active_A
            active_A = active_A & (previous_A != EOS) & (limits_A > step + 1)
            if not should_check_finished(model.device, step):
                continue
            remaining = int(active_A.sum())
            if not remaining:
                break
            if 8 * remaining <= 7 * len(rows_A):
                remaining_K = active_A.nonzero()[:, 0]
                state = select_rows(state, remaining_K)
                rows_A, limits_A, previous_A, active_A = (
                    values_A[remaining_K] for values_A in (rows_A, limits_A, previous_A, active_A)
                )
    torch.clear_autocast_cache()  # weights cast in inference mode would block the gradient of the loss
    lengths_R = tuple((ids_RT != 0).sum(1).tolist())
    rows = sentence_R.tolist()
    sources = Tokens(source.ids_BS[sentence_R], tuple(source.lengths_B[row] for row in rows))
    return Samples(Batch(sources, Tokens(ids_RT[:, : max(lengths_R)].clone(), lengths_R)), rows_T)


@contextmanager
def without_dropout(model: Translator) -> Iterator[None]:
    """Set all dropout rates to 0 for the length of the block, in training mode.

    A dropout rate is a float attribute called p (nn.Dropout) or dropout (recurrent layers, attention). Evaluation mode
    cannot be used instead, because cuDNN's recurrent layers have no backward pass in it.
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
    """Return -O_Mixed, the mean over sentences. Its gradient is that of the module's docstring.

    Each source is encoded once, for the reference and for its samples.
    """
    sentences, count = len(batch.source.lengths_B), len(rewards_R) // len(batch.source.lengths_B)
    rewards_BM = rewards_R.view(sentences, count)
    weights_R = (rewards_BM - rewards_BM.mean(1, keepdim=True)).flatten() / len(rewards_R)
    lengths_R = torch.tensor(samples.pairs.target.lengths_B, device=weights_R.device)
    sentence_R = torch.arange(sentences, device=weights_R.device).repeat_interleave(count)
    with without_dropout(model):
        memory = model.encode(batch.source)
        logits_NV = model.logits(memory, batch)
        reference_losses_N = cross_entropy(logits_NV, batch.target.ids_N, model.optimization.label_smoothing)
        logits_NV = model.logits(select_rows(memory, sentence_R), samples.pairs)[:, EOS:]
        sample_losses_N = cross_entropy(logits_NV, samples.pairs.target.ids_N - EOS)
    return (
        ml_weight * reference_losses_N.sum() / sentences
        + (weights_R.repeat_interleave(lengths_R) * sample_losses_N).sum()
    )


class RewardPhase(pl.Callback):
    """The training objective: cross entropy, and the mixed objective in the last part of the budget.

    The FLOPs of sampling are added to the budget's FLOP counter. The mean reward of the samples is the curve
    train/reward. The random numbers are those of the update (SeedPerUpdate), so a resumed run draws the same samples.

    Args:
        decode_text: Turns sentences of target ids into text.
        tokenizer: sacreBLEU's tokenizer, whose tokens GLEU counts.

    Attributes:
        has_trained: Whether this process has trained with the mixed objective.
    """

    def __init__(
        self,
        settings: RewardSettings,
        budget: BudgetTracker,
        curves: LearningCurves,
        decode_text: Callable[[Sequence[Sequence[int]]], list[str]],
        tokenizer: str = DEFAULT_TOKENIZER,
    ) -> None:
        self.settings, self.budget, self.curves, self.decode_text = settings, budget, curves, decode_text
        self.tokenizer = tokenizer
        self.has_trained = False

    @property
    def active(self) -> bool:
        """Whether the budget has reached the reward phase."""
        return self.budget.fraction >= 1 - self.settings.share

    def objective(self, model: Translator, batch: Batch) -> Tensor:
        """Return the weighted loss of a batch."""
        if not self.active:
            return cross_entropy_loss(model, batch)
        self.has_trained = True
        limits_B = [MAX_LENGTH_RATIO * length for length in batch.target.lengths_B]
        samples = sample_translations(model, batch.source, limits_B, self.settings.samples)
        self.budget.flop_counter.add_samples(samples.pairs, self.settings.samples, samples.rows_T)
        rewards_R = self.rewards(batch.target, samples.pairs.target).to(model.device)
        self.curves.record("reward", rewards_R.mean())
        return mixed_loss(model, batch, samples, rewards_R, self.settings.ml_weight) * batch.sentence_loss_weight

    def rewards(self, references: Tokens, samples: Tokens) -> Tensor:
        """Return the GLEU of every sample (R) against the reference of its sentence."""
        reference_words, sample_words = (
            [words(sentence, self.tokenizer) for sentence in self.decode_text(side.ids_BS.tolist())]
            for side in (references, samples)
        )
        count = len(sample_words) // len(reference_words)
        return torch.tensor([gleu(each, reference_words[row // count]) for row, each in enumerate(sample_words)])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Scale the rate of the next update, which the schedule has just set from its own base rate."""
        if self.active:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] *= self.settings.lr_factor
