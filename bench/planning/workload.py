"""The sentence lengths that a job trains on, validates and tests: what its cost depends on besides the model."""

from __future__ import annotations

import functools
import json
import random
from dataclasses import asdict, dataclass

import numpy as np

from bench.data import find_corpus, learn_vocabularies
from bench.data.batches import PairBatches
from bench.data.corpora._download import downloads
from bench.data.corpus import Split
from bench.data.encoded_pairs import Pairs, Sentences
from bench.data.vocabulary import TextSettings, Vocabularies
from bench.experiment.job_data import corpus_of, validation_of
from bench.experiment.spec import Experiment
from bench.system.files import inside
from models.parts.batch import EOS, UNK

ENOUGH_PAIRS = 100_000
"""Training pairs, drawn evenly, whose lengths stand for those of a larger corpus: its vocabulary would take minutes."""

ASSUMED_LENGTH, ASSUMED_PAIRS = 25, 20_000
"""Subwords or words of each side (as in `bench models`), and training pairs, of a corpus that is not here."""

ASSUMED_CHARACTERS = 5
"""Characters of a subword or word then."""

ASSUMED_VALIDATION, ASSUMED_TEST = 500, 3000
"""Sentences that are validated and tested then; the test sets of WMT have about 3,000."""

Lengths = tuple[np.ndarray, np.ndarray]
"""Tokens of each source and of each target, EOS included."""


@dataclass(frozen=True)
class Workload:
    """The lengths of the sentences of a job.

    Attributes:
        train: Training pairs, or an even sample of them.
        validation: The pairs that each validation translates.
        tests: Test set -> its pairs. Test sets of probes, such as deeper clauses, are among them.
        contrasts: Pairs that the probes score without translating them.
        vocabulary: Sizes of both vocabularies.
        provenance: Where the lengths come from, if they are not exactly those of the corpus; else empty.
    """

    train: Lengths
    validation: Lengths
    tests: dict[str, Lengths]
    contrasts: Lengths
    vocabulary: tuple[int, int]
    provenance: str = ""

    @functools.cached_property
    def target_tokens_per_pair(self) -> float:
        return float(self.train[1].mean())

    def batches(self, experiment: Experiment) -> PairBatches:
        """The training batches of a job, with random tokens in sentences of these lengths."""
        training, random_ids = experiment.training, np.random.default_rng(experiment.seed)
        pairs = random_pairs(self.train, self.vocabulary, random_ids)
        return PairBatches(pairs, training.batch_tokens, experiment.seed, training.batch_pairs)


def random_pairs(lengths: Lengths, vocabulary: tuple[int, int], draw: np.random.Generator) -> Pairs:
    """Pairs of sentences of these lengths with random tokens."""
    source = random_sentences(lengths[0], vocabulary[0], draw)
    return Pairs(source, random_sentences(lengths[1], vocabulary[1], draw))


def random_sentences(lengths: np.ndarray, vocabulary_size: int, draw: np.random.Generator) -> Sentences:
    """Sentences of these lengths (EOS included) with random tokens."""
    ends = np.cumsum(lengths)
    ids = draw.integers(UNK + 1, max(UNK + 2, vocabulary_size), int(lengths.sum()), dtype=np.int32)
    ids[ends - 1] = EOS
    return Sentences(ids, lengths.astype(np.int64), ends)


def workload_of(experiment: Experiment) -> Workload:
    """The workload of a job. Nothing is downloaded; a large local text is kept in the cache.

    Jobs with the same text share the workload. If the corpus is not on this machine, lengths and sizes of the
    vocabularies are assumed.

    Raises:
        ValueError: the corpus cannot be read, or a setting does not fit its text.
    """
    key = json.dumps([asdict(experiment.corpus), asdict(experiment.text), str(experiment.tracking.path)])
    if key not in _workloads:
        _workloads[key] = _read(experiment)
    return _workloads[key]


_workloads: dict[str, Workload] = {}
"""Settings of corpus and text -> workload, because the rows of a suite read the same text."""


def _read(experiment: Experiment) -> Workload:
    with downloads.forbidden() as attempted:
        try:
            corpus = corpus_of(experiment)
        except ValueError:
            if attempted.refused:
                return assumed(experiment.text)
            raise
    sample, text = _sample(corpus.train), experiment.text
    vocabularies = learn_vocabularies.build(text, sample, inside(experiment.tracking.path, "vocabularies"))
    known = find_corpus.probes(experiment.corpus)
    tests = {name: _lengths(split, vocabularies, text) for name, split in corpus.tests.items()}
    contrasts = Split([], [])
    if known:
        deeper = Split([one.source for one in known.deeper], [one.target for one in known.deeper])
        tests |= {"deeper": _lengths(deeper, vocabularies, text)} if len(deeper) else {}
        each = [(one.source, target) for one in known.contrasts for target in (one.right, *one.wrong)]
        contrasts = Split([source for source, _ in each], [target for _, target in each])
    pairs = Pairs.encode(sample, vocabularies, text.max_length)
    of_sample = len(sample) < len(corpus.train)
    return Workload(
        (pairs.sources.lengths, pairs.targets.lengths),
        _lengths(validation_of(corpus), vocabularies, text),
        tests,
        _lengths(contrasts, vocabularies, text),
        (len(vocabularies.source), len(vocabularies.target)),
        f"lengths of {len(sample):,} of {len(corpus.train):,} training pairs" if of_sample else "",
    )


def _sample(train: Split) -> Split:
    if len(train) <= ENOUGH_PAIRS:
        return train
    chosen = sorted(random.Random(0).sample(range(len(train)), ENOUGH_PAIRS))
    return Split([train.sources[n] for n in chosen], [train.targets[n] for n in chosen])


def _lengths(split: Split, vocabularies: Vocabularies, text: TextSettings) -> Lengths:
    """The lengths of a split to translate: sources are cut at the limit, and outputs are as long as the references."""
    if not len(split):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    sources, targets = vocabularies.source.encode(split.sources), vocabularies.target.encode(split.targets)
    return (
        np.array([min(len(ids), text.source_length_limit) + 1 for ids in sources]),
        np.array([min(len(ids), text.max_length) + 1 for ids in targets]),
    )


def assumed(text: TextSettings) -> Workload:
    """The workload of a corpus that is not on this machine: every sentence has ASSUMED_LENGTH tokens."""
    length = ASSUMED_LENGTH * (ASSUMED_CHARACTERS if text.kind == "characters" else 1)

    def equal(count: int) -> Lengths:
        lengths = np.full(count, min(length, text.max_length + 1))
        return lengths, lengths

    provenance = f"assumed: the corpus is not on this machine; sentences of {length} {text.kind}, "
    provenance += f"{ASSUMED_TEST:,} to test"
    validation, tests = equal(ASSUMED_VALIDATION), {"test": equal(ASSUMED_TEST)}
    return Workload(equal(ASSUMED_PAIRS), validation, tests, equal(0), text.sizes, provenance)
