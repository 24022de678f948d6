"""Unknown-word replacement (PosUnk): <unk> becomes the source word with the most attention, or its translation.

A word vocabulary has no entry for most names and rare words, and the model writes <unk> instead. Luong et al. 2015b,
"Addressing the Rare Word Problem in Neural Machine Translation", section 3.3, replace each <unk> after decoding: they
look up the aligned source word in a dictionary, and copy it if the dictionary does not have it. Here the aligned word
is the one with the most attention, as in Jean et al. 2015 and in Deep-Att. Search and training do not change, and no
FLOPs are added.

The dictionary is learnt from the training pairs by IBM Model 1 (Brown et al. 1993, section 4) in both directions. The
translation of s is the t with the largest t(t|s) t(s|t). One direction alone is unreliable for rare words, because they
get the probability of every word of their sentence that no other word explains.

Shape letters: L pairs of word positions of one sentence pair  K different pairs of words  P word positions of one side
W words
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from bench.data.corpus import Split
from bench.data.vocabulary import Vocabularies
from bench.decoding.beam_search import Hypothesis
from bench.system.files import write_file
from models.parts.batch import UNK

LEXICON = "lexicon.json"
"""Name of the lexicon file, which is stored beside the vocabularies of a run."""

ITERATIONS = 5
"""Iterations of the EM algorithm, as in Och and Ney 2003."""

MAX_WORD_PAIRS = 30_000_000
"""Largest number of pairs of word positions to learn from; of a larger text only the beginning is used. Multi30k has 5
million."""


@dataclass(frozen=True)
class Lexicon:
    """Source word -> its translation. A word without an entry is its own translation, so an empty lexicon copies."""

    words: Mapping[str, str]

    @classmethod
    def learn(cls, split: Split, vocabularies: Vocabularies) -> Lexicon:
        """Learns from the sentence pairs of a training text how each source word is translated.

        The lexicon has all words of the text, whether they are in the vocabularies or not.
        """
        sources, targets, word_pairs = [], [], 0
        for source, target in split:
            sources.append(vocabularies.source.split(source))
            targets.append(vocabularies.target.split(target))
            word_pairs += len(sources[-1]) * len(targets[-1])
            if word_pairs > MAX_WORD_PAIRS:
                break
        return cls(learn_dictionary(sources, targets))

    @classmethod
    def load(cls, path: Path) -> Lexicon:
        """The lexicon in a file that `save` wrote. Raises ValueError if it is damaged."""
        try:
            return cls(dict(json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: not a lexicon ({error}); restore the file, or run the job again") from error

    def save(self, path: Path) -> None:
        """Write the lexicon to a JSON file."""
        write_file(path, json.dumps(self.words, ensure_ascii=False, indent=0))

    def translation(self, word: str) -> str:
        """The translation of a word, or the word itself if it has no entry."""
        return self.words.get(word, word)


def hypothesis_texts(
    hypotheses: Sequence[Hypothesis], sources: Sequence[str], vocabularies: Vocabularies, lexicon: Lexicon | None
) -> list[str]:
    """The hypotheses as plain text; with a lexicon, each UNK is replaced.

    The attention of the end of the sentence, the last column, is ignored, because it is not a word.

    Args:
        hypotheses: Hypothesis i is a translation of sentence i. With a lexicon they need attention.
        sources: The source sentences.
        vocabularies: Vocabularies of both sides.
        lexicon: Replaces unknown words; None: they stay <unk>.
    """
    source, target = vocabularies
    if lexicon is None:
        return target.decode([hypothesis.ids for hypothesis in hypotheses])
    texts = []
    for hypothesis, sentence in zip(hypotheses, sources, strict=True):
        pieces = [target.piece(token) for token in hypothesis.ids]
        if UNK in hypothesis.ids:
            assert hypothesis.attention_TS is not None  # ensured by `beam_search.check_attention`
            words = source.split(sentence)
            aligned_T = hypothesis.attention_TS[:, :-1].argmax(1)
            for position, token in enumerate(hypothesis.ids):
                if token == UNK:
                    pieces[position] = lexicon.translation(words[aligned_T[position]])
        texts.append(target.join(pieces))
    return texts


def learn_dictionary(sources: Sequence[Sequence[str]], targets: Sequence[Sequence[str]]) -> dict[str, str]:
    """The best translation of each source word, learnt from sentences of words and their translations."""
    source_words, source_P = _numbered(sources)
    target_words, target_P = _numbered(targets)
    positions_L2, source_begin, target_begin = [], 0, 0
    for source, target in zip(sources, targets, strict=True):
        source_range, target_range = source_begin + np.arange(len(source)), target_begin + np.arange(len(target))
        grid = np.meshgrid(source_range, target_range, indexing="ij")
        positions_L2.append(np.stack(grid, axis=-1).reshape(-1, 2))
        source_begin, target_begin = source_begin + len(source), target_begin + len(target)
    source_L, target_L = np.concatenate(positions_L2).T
    keys_K, pair_L = np.unique(source_P[source_L] * len(target_words) + target_P[target_L], return_inverse=True)
    source_K, target_K = np.divmod(keys_K, len(target_words))

    forward_K = translation_probabilities(pair_L, target_L, target_P, source_K)
    backward_K = translation_probabilities(pair_L, source_L, source_P, target_K)
    best_K = np.lexsort((target_K, -forward_K * backward_K, source_K))  # ties: the first in alphabetical order
    found, first_W = np.unique(source_K[best_K], return_index=True)
    return {source_words[s]: target_words[target_K[best_K[index]]] for s, index in zip(found, first_W, strict=True)}


def _numbered(sentences: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """The words in alphabetical order, and the number of the word at each position of the text."""
    words = sorted(set(chain.from_iterable(sentences)))
    numbers = {word: number for number, word in enumerate(words)}
    return words, np.fromiter((numbers[word] for word in chain.from_iterable(sentences)), dtype=np.int64)


def translation_probabilities(
    pair_L: np.ndarray, position_L: np.ndarray, word_P: np.ndarray, given_K: np.ndarray
) -> np.ndarray:
    """t(w|g) of every pair of words that occurs in a sentence pair, by IBM Model 1.

    P(w_1 .. w_m | g_1 .. g_l)  ~  prod_{j=1..m} sum_{i=0..l} t(w_j|g_i),  where g_0 is the empty word.

    The model assumes that each word w is generated by one word g of the other sentence.

    Args:
        pair_L: The pair of words of each pair of positions, 0 to K - 1.
        position_L: Position of w in the text of its side.
        word_P: Word at each position of that side.
        given_K: Word g of each pair of words.
    """
    t_K, empty_W = np.ones(len(given_K)), np.ones(word_P.max(initial=0) + 1)
    for _ in range(ITERATIONS):
        t_L, empty_P = t_K[pair_L], empty_W[word_P]
        sum_P = np.bincount(position_L, t_L, len(word_P)) + empty_P
        count_K = np.bincount(pair_L, t_L / sum_P[position_L], len(given_K))
        t_K = count_K / np.bincount(given_K, count_K)[given_K]
        empty_W = np.bincount(word_P, empty_P / sum_P)
        empty_W /= empty_W.sum()
    return t_K
