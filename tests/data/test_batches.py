"""Batches keep the token budget, contain every pair once in each epoch, and are the same after an interruption."""

import os
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.data.batches import PairBatches, evaluation_batches, source_batches
from bench.data.corpus import CorpusSettings, Split
from bench.data.encoded_pairs import Pairs, Sentences, truncate
from bench.data.find_corpus import load
from bench.data.learn_vocabularies import build
from bench.data.vocabulary import TextSettings
from models.parts.batch import EOS, PAD, Batch

Lists = list[tuple[list[int], list[int]]]
sentence = st.lists(st.integers(3, 60), max_size=12)
some_pairs = st.lists(st.tuples(sentence, sentence), min_size=1, max_size=40)


def pairs_of(lists: Lists) -> Pairs:
    return Pairs(Sentences.of([source for source, _ in lists]), Sentences.of([target for _, target in lists]))


def unpadded(batch: Batch) -> Lists:
    """The id lists in a batch. Asserts that EOS and padding are where they belong."""
    sides = []
    for ids_BS, lengths_B in batch[:2]:
        assert ids_BS.dtype == torch.int64
        assert ids_BS.shape == (len(lengths_B), max(lengths_B))
        for ids_S, length in zip(ids_BS, lengths_B, strict=True):
            assert ids_S[length - 1] == EOS
            assert (ids_S[length:] == PAD).all()
        sides.append([ids_S[: length - 1].tolist() for ids_S, length in zip(ids_BS, lengths_B, strict=True)])
    return list(zip(*sides, strict=True))


MANY = [([5] * (1 + n * 7 % 11), [6] * (1 + n * 5 % 13) + [10 + n]) for n in range(60)]


@given(some_pairs, st.integers(13, 60), st.integers(0, 5))
def test_each_epoch_yields_every_pair_once_within_the_budget(lists: Lists, budget: int, seed: int) -> None:
    batches = PairBatches(pairs_of(lists), budget, seed)
    drawn = iter(batches.train_dataloader())
    for _ in range(2):
        epoch = list(islice(drawn, batches.batches_per_epoch))
        assert sorted(pair for batch in epoch for pair in unpadded(batch)) == sorted(lists)
        assert all(max(side.ids_BS.numel() for side in batch[:2]) <= budget for batch in epoch)


@given(some_pairs, st.integers(1, 9), st.integers(0, 5))
def test_batches_of_pairs_have_that_many_pairs_whatever_their_length(lists: Lists, size: int, seed: int) -> None:
    batches = PairBatches(pairs_of(lists), 1000, seed, batch_pairs=size)
    epoch = list(islice(batches.train_dataloader(), batches.batches_per_epoch))
    assert sorted(pair for batch in epoch for pair in unpadded(batch)) == sorted(lists)
    full, rest = divmod(len(lists), size)
    assert sorted(len(batch.source.lengths_B) for batch in epoch) == [rest] * bool(rest) + [size] * full
    longest = max(max(len(source), len(target)) for source, target in lists) + 1
    assert max(batches.longest().source.ids_BS.shape[1], batches.longest().target.ids_BS.shape[1]) == longest
    small = PairBatches(pairs_of(lists), 13, seed, batch_pairs=size)  # the limit in tokens holds too, for the memory
    for batch in islice(small.train_dataloader(), small.batches_per_epoch):
        assert max(side.ids_BS.numel() for side in batch[:2]) <= 13
        assert len(batch.source.lengths_B) <= size


@given(st.integers(0, 50), st.integers(0, 3))
def test_after_an_interruption_the_batches_are_those_of_an_uninterrupted_run(consumed: int, seed: int) -> None:
    uninterrupted = [unpadded(batch) for batch in islice(PairBatches(pairs_of(MANY), 40, seed).train_dataloader(), 60)]
    interrupted = PairBatches(pairs_of(MANY), 40, seed)
    assert interrupted.batches_per_epoch < 50
    list(islice(interrupted.train_dataloader(), consumed + 3))  # fetched in advance; must not change the state
    interrupted.consumed = consumed
    resumed = PairBatches(pairs_of(MANY), 40, seed)
    resumed.load_state_dict(interrupted.state_dict())
    assert [unpadded(batch) for batch in islice(resumed.train_dataloader(), 60 - consumed)] == uninterrupted[consumed:]


def test_the_order_depends_on_the_seed_and_the_epoch() -> None:
    batches = PairBatches(pairs_of(MANY), 40, 1)

    def order(batches: PairBatches, epoch: int) -> list[list[int]]:
        return [indices.tolist() for indices in batches.epoch(epoch)]

    assert order(batches, 0) == order(PairBatches(pairs_of(MANY), 40, 1), 0)
    assert order(batches, 0) != order(batches, 1)
    assert order(batches, 0) != order(PairBatches(pairs_of(MANY), 40, 2), 0)


class Recorder(pl.LightningModule):
    """Records the batches it receives and sets `consumed` of the data module, as training does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[Lists] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.append(unpadded(batch))
        return self.weight.sum()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        data = cast(Any, self.trainer).datamodule  # Lightning sets it without declaring it
        data.consumed = self.trainer.global_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning", "ignore:.*LeafSpec:FutureWarning")
def test_lightning_resumes_with_the_next_batch(tmp_path: Path) -> None:
    def fit(steps: int, resume: str | None = None) -> tuple[list[Lists], pl.Trainer]:
        model = Recorder()
        trainer = pl.Trainer(
            max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(model, datamodule=PairBatches(pairs_of(MANY), 40, 7), ckpt_path=resume, weights_only=True)
        return model.seen, trainer

    uninterrupted, _ = fit(40)
    first, trainer = fit(17)
    checkpoint = str(tmp_path / "last.ckpt")
    trainer.save_checkpoint(checkpoint)
    rest, _ = fit(40, checkpoint)
    assert first + rest == uninterrupted


@given(some_pairs)
def test_evaluation_batches_contain_every_pair_once_with_its_index(lists: Lists) -> None:
    restored: dict[int, tuple[list[int], list[int]]] = {}
    widths = []
    for indices, batch in evaluation_batches(pairs_of(lists), 50):
        restored.update(zip(indices.tolist(), unpadded(batch), strict=True))
        widths.append(max(side.ids_BS.shape[1] for side in batch[:2]))
    assert [restored[index] for index in range(len(lists))] == lists
    assert widths == sorted(widths, reverse=True)


@given(st.lists(sentence, max_size=20), st.integers(1, 7))
def test_source_batches_contain_every_source_once_with_its_index(sources: list[list[int]], size: int) -> None:
    restored: dict[int, list[int]] = {}
    for indices, tokens in source_batches(sources, size):
        assert len(indices) <= size
        restored.update(zip(indices.tolist(), (pair[0] for pair in unpadded(Batch(tokens, tokens))), strict=True))
    assert [restored[index] for index in range(len(sources))] == sources


def test_pairs_over_the_limit_are_dropped_and_sentences_are_truncated() -> None:
    split = Split(["a b c", "a", "a b"], ["x y", "x y z", "x y"])
    vocabularies = build(TextSettings("words", 5), split)
    pairs = Pairs.encode(split, vocabularies, max_length=2)
    assert (len(pairs), pairs.dropped) == (1, 2)
    assert len(Pairs.encode(split, vocabularies)) == 3
    with pytest.raises(ValueError, match=r"^text\.max_length: none of 3 sentence pairs of validation has at most 0 "):
        Pairs.encode(split, vocabularies, 0, "validation")
    with pytest.raises(ValueError, match="no sentence pairs"):
        Pairs.encode(Split([], []), vocabularies)
    at_once, in_chunks = (Sentences.encode(vocabularies.source, split.sources, size) for size in (100, 2))
    assert all(np.array_equal(getattr(at_once, name), getattr(in_chunks, name)) for name in ("ids", "lengths", "ends"))
    assert truncate([[4, 5, 6], [4], []], 2) == ([[4, 5], [4], []], 1)


@given(some_pairs)
def test_shuffled_sources_are_those_of_the_next_pair(lists: Lists) -> None:
    everything = np.arange(len(lists))
    moved = unpadded(pairs_of(lists).with_shuffled_sources().batch(everything))
    sources = [source for source, _ in lists]
    assert moved == list(zip(sources[1:] + sources[:1], [target for _, target in lists], strict=True))


def test_evaluation_needs_no_batch_as_long_as_the_longest_pair() -> None:
    lists = [([5] * 40, [6]), ([5], [6] * 30), ([5], [6])]
    batches = [indices.tolist() for indices, _ in evaluation_batches(pairs_of(lists), 20)]
    assert batches == [[0], [1], [2]]


def test_a_sentence_over_the_budget_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^training\.batch_tokens: 14 is less than the longest sentence, 15 tokens"):
        PairBatches(pairs_of(MANY), 14, 1)


@pytest.mark.skipif(
    "MULTI30K" not in os.environ, reason="The environment variable MULTI30K is not set to the folder of Multi30k"
)
@pytest.mark.parametrize("batch_tokens", [3000, 4096])
def test_little_of_multi30k_is_padding(batch_tokens: int) -> None:
    train = load(CorpusSettings("multi30k-en-de")).train
    pairs = Pairs.encode(train, build(TextSettings(vocabulary_size=8000), train), 100)
    assert pairs.dropped == 0
    epoch = PairBatches(pairs, batch_tokens, 1).epoch(0)
    sides = [side for indices in epoch for side in (pairs.batch(indices).source, pairs.batch(indices).target)]
    assert sum(sum(side.lengths_B) for side in sides) / sum(side.ids_BS.numel() for side in sides) >= 0.88
