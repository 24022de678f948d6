"""What a job trains and is judged on: the corpus, its vocabularies, and the same text as ids."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass

import torch

from bench.data import corpus_loading, vocabulary
from bench.data.batches import PairBatches, Pairs, truncate
from bench.data.corpus import Corpus, CorpusSettings, Split
from bench.data.vocabulary import Vocabularies
from bench.decoding import beam_search
from bench.decoding.unk_replacement import Lexicon
from bench.experiment.spec import Experiment
from models.parts.translator import Translator

VALIDATION_SENTENCES = 500
"""Sentences that a validation translates, from the beginning of the validation set."""


@dataclass(frozen=True)
class JobData:
    """What a job trains and is judged on: text, and the same text as ids."""

    corpus: Corpus
    vocabularies: Vocabularies
    train: PairBatches
    validation: Split  # the sentences that a validation translates
    validation_pairs: Pairs
    batch_tokens: int
    max_length: int  # of both sides of a pair
    source_length_limit: int  # of a source to translate
    lexicon: Lexicon | None  # what unknown words of a translation are replaced by; None: they stay

    @classmethod
    def of(cls, experiment: Experiment) -> JobData:
        corpus = corpus_of(experiment)
        text, tokens = experiment.text, experiment.training.batch_tokens
        vocabularies = vocabulary.build(text, corpus.train, experiment.tracking.path / "vocabularies")
        batches = PairBatches(Pairs.of(corpus.train, vocabularies, text.max_length), tokens, experiment.seed)
        first = Split(
            corpus.validation.sources[:VALIDATION_SENTENCES], corpus.validation.targets[:VALIDATION_SENTENCES]
        )
        pairs = Pairs.of(first, vocabularies, text.max_length)
        lexicon = lexicon_of(experiment.decoding.pos_unk, corpus.train, vocabularies)
        return cls(
            corpus, vocabularies, batches, first, pairs, tokens, text.max_length, text.source_length_limit, lexicon
        )

    def sources(self, split: Split) -> list[list[int]]:
        return self.cut(split)[0]

    def cut(self, split: Split) -> tuple[list[list[int]], int]:
        """The sources to translate, and how many of them were over the limit and have been cut."""
        return truncate(self.vocabularies.source.encode(split.sources), self.source_length_limit)


def corpus_of(experiment: Experiment) -> Corpus:
    return _corpus(json.dumps(asdict(experiment.corpus)))


def lexicon_of(pos_unk: str, train: Split, vocabularies: Vocabularies) -> Lexicon | None:
    """What `decoding.pos_unk` asks for."""
    if pos_unk == "keep":
        return None
    return Lexicon.learn(train, vocabularies) if pos_unk == "dictionary" else Lexicon({})


def model_of(experiment: Experiment, job_data: JobData) -> Translator:
    """With its initial weights. Raises ValueError for sizes that do not fit and an optimiser that does not exist."""
    torch.manual_seed(experiment.seed)
    model = experiment.build(len(job_data.vocabularies.source), len(job_data.vocabularies.target))
    model.optimization = experiment.training
    model.configure_optimizers()
    beam_search.check_attention(model, experiment.decoding)
    return model


@functools.lru_cache(maxsize=4)
def _corpus(settings: str) -> Corpus:
    """The rows of a suite read the same text: it is made once."""
    return corpus_loading.load(CorpusSettings(**json.loads(settings)))
