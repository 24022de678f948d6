"""The data of a job: the corpus, its vocabularies, and the text as token ids."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from typing import Literal

import torch

from bench.data import encoded_corpus, learn_vocabularies, prepared_corpus
from bench.data.batches import PairBatches
from bench.data.corpus import Corpus, CorpusSettings, FilterSettings, Split
from bench.data.encoded_pairs import Pairs, encode_sources
from bench.data.vocabulary import TextSettings, Vocabularies
from bench.decoding import beam_search
from bench.decoding.unk_replacement import Lexicon
from bench.experiment.spec import Experiment
from bench.measures import selection
from bench.measures.selection import Selection
from bench.system.files import inside
from bench.system.machine import available_cores
from models.parts.translator import Translator

VALIDATION_SENTENCES = 500
"""Number of sentences that a validation translates, from the beginning of the validation set."""


@dataclass(frozen=True)
class JobData:
    """The data that a job is trained and evaluated on, as text and as token ids."""

    corpus: Corpus
    vocabularies: Vocabularies
    train: PairBatches
    validation: Split  # the sentences that a validation translates
    validation_pairs: Pairs
    batch_tokens: int
    max_length: int  # tokens of each side of a training pair
    source_length_limit: int  # tokens of a source to translate
    lexicon: Lexicon | None  # translations for unknown-word replacement; None if unknown words are not replaced
    selection: Selection  # the validation score that selects weights, and the tokenizer of BLEU
    extra_length: int  # tokens by which a translation may be longer than its source

    @classmethod
    def of(cls, experiment: Experiment) -> JobData:
        corpus, chosen = corpus_of(experiment), selection_of(experiment)
        text, tokens = experiment.text, experiment.training.batch_tokens
        vocabularies = learn_vocabularies.build(text, corpus.train, inside(experiment.tracking.path, "vocabularies"))
        cores = experiment.machine.threads or available_cores()
        encoded = encoded_corpus.encode(corpus.train, vocabularies, text.max_length, cores)
        batches = PairBatches(encoded, tokens, experiment.seed, experiment.training.batch_pairs)
        first = validation_of(corpus)
        pairs = Pairs.encode(first, vocabularies, text.max_length, "validation")
        lexicon = lexicon_of(experiment.decoding.pos_unk, corpus.train, vocabularies)
        return cls(
            corpus,
            vocabularies,
            batches,
            first,
            pairs,
            tokens,
            text.max_length,
            text.source_length_limit,
            lexicon,
            chosen,
            experiment.decoding.extra_length,
        )

    @property
    def left_out(self) -> str:
        """The piece of a validation loss's provenance that says how many pairs are too long; empty if none is."""
        dropped = self.validation_pairs.dropped
        return f"; {dropped} pairs over {self.max_length} tokens left out" if dropped else ""

    def sources(self, split: Split) -> list[list[int]]:
        """The sources of a split as token ids, cut at the length limit."""
        return self.cut(split)[0]

    def cut(self, split: Split) -> tuple[list[list[int]], int]:
        """The sources of a split as token ids, and how many of them were longer than the limit and were cut."""
        return encode_sources(split.sources, self.vocabularies.source, self.source_length_limit)


def corpus_of(experiment: Experiment) -> Corpus:
    """The corpus of a job, in the Unicode normalization of its text."""
    return _corpus(json.dumps(asdict(experiment.corpus)), experiment.text.normalization)


def validation_of(corpus: Corpus) -> Split:
    """The sentences that a validation translates."""
    sources, targets = corpus.validation.sources, corpus.validation.targets
    return Split(sources[:VALIDATION_SENTENCES], targets[:VALIDATION_SENTENCES])


def selection_of(experiment: Experiment) -> Selection:
    """The validation score that selects weights, trials and runs of a job, and the tokenizer of its BLEU scores.

    Raises:
        ValueError: the corpus cannot be read, or the tokenizer needs a package that is not installed.
    """
    corpus = corpus_of(experiment)
    targets = validation_of(corpus).targets
    return selection.choose(experiment.text.bleu_tokenizer, corpus.target_language, targets)


def lexicon_of(pos_unk: str, train: Split, vocabularies: Vocabularies) -> Lexicon | None:
    """The lexicon that the setting `decoding.pos_unk` needs; None for "keep", an empty one for "copy"."""
    if pos_unk == "keep":
        return None
    return Lexicon.learn(train, vocabularies) if pos_unk == "dictionary" else Lexicon({})


def model_of(experiment: Experiment, job_data: JobData) -> Translator:
    """The model with its initial weights. Raises ValueError for invalid sizes or an unknown optimizer."""
    torch.manual_seed(experiment.seed)
    model = experiment.build(len(job_data.vocabularies.source), len(job_data.vocabularies.target))
    model.optimization = experiment.training
    model.configure_optimizers()
    beam_search.check_attention(model, experiment.decoding)
    return model


@functools.lru_cache(maxsize=4)
def _corpus(settings: str, normalization: Literal["NFC", "none"]) -> Corpus:
    """Loads a corpus. Cached, because the rows of a suite read the same text."""
    values = json.loads(settings)
    chosen = CorpusSettings(**values | {"filters": FilterSettings(**values["filters"])})
    return prepared_corpus.load(chosen, TextSettings(normalization=normalization))
