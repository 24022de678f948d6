"""PosUnk: an unknown word of a translation is replaced by the source word that the model looked at, or its translation.

A word vocabulary is too small for names and rare words, and the model writes <unk> for them. Luong et al. 2015b,
"Addressing the Rare Word Problem in Neural Machine Translation", section 3.3, replace each afterwards: they look up the
aligned source word in a dictionary, and copy it if the dictionary does not have it. Here the aligned word is the most
attended one, as in Jean et al. 2015 and in Deep-Att. Neither search nor training changes, and no FLOPs are added.

The dictionary is learnt from the training pairs by IBM Model 1 (Brown et al. 1993, section 4) in both directions. The
translation of s is the t with the largest t(t|s) t(s|t): one direction alone is wrong about rare words, which explain
whatever no other word of their sentence does.

Letters: L pairs of words in one sentence pair  K different ones of them  P places in the sentences of one side  W words
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
from models.parts.batch import UNK

LEXICON = "lexicon.json"
"""Its file beside the vocabularies of a run."""

ITERATIONS = 5
"""Of the EM algorithm; Och and Ney 2003 use as many."""

MOST_LINKS = 30_000_000
"""Pairs of words that are learnt from: Multi30k has 5 million. A larger text is read from its beginning."""


@dataclass(frozen=True)
class Lexicon:
    """Source word -> its translation; a word that is not in it is its own: an empty lexicon copies."""

    words: Mapping[str, str]

    @classmethod
    def learn(cls, split: Split, vocabularies: Vocabularies) -> Lexicon:
        """From the surface of all words, whether the vocabularies have them or not."""
        sources, targets, links = [], [], 0
        for source, target in split:
            sources.append(vocabularies.source.split(source))
            targets.append(vocabularies.target.split(target))
            links += len(sources[-1]) * len(targets[-1])
            if links > MOST_LINKS:
                break
        return cls(dictionary(sources, targets))

    @classmethod
    def load(cls, path: Path) -> Lexicon:
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.words, ensure_ascii=False, indent=0), encoding="utf-8")

    def of(self, word: str) -> str:
        return self.words.get(word, word)


def hypothesis_texts(
    hypotheses: Sequence[Hypothesis], sources: Sequence[str], vocabularies: Vocabularies, lexicon: Lexicon | None
) -> list[str]:
    """Hypothesis i as plain text, a translation of sentence i of `sources`.

    With a lexicon each UNK is replaced; that needs the attention of the hypotheses. The end of the sentence, which has
    the last column of it, is no word, and is not replaced by.
    """
    source, target = vocabularies
    if lexicon is None:
        return target.decode([hypothesis.ids for hypothesis in hypotheses])
    texts = []
    for hypothesis, sentence in zip(hypotheses, sources, strict=True):
        pieces = [target.piece(token) for token in hypothesis.ids]
        if UNK in hypothesis.ids:
            assert hypothesis.attention_TS is not None  # `decoding.check` has seen to it
            words = source.split(sentence)
            looked_T = hypothesis.attention_TS[:, :-1].argmax(1)
            for place, token in enumerate(hypothesis.ids):
                if token == UNK:
                    pieces[place] = lexicon.of(words[looked_T[place]])
        texts.append(target.join(pieces))
    return texts


def dictionary(sources: Sequence[Sequence[str]], targets: Sequence[Sequence[str]]) -> dict[str, str]:
    """The best translation of each source word; sentence i of one side translates sentence i of the other."""
    source_words, source_P = np.unique(np.array([*chain.from_iterable(sources)]), return_inverse=True)
    target_words, target_P = np.unique(np.array([*chain.from_iterable(targets)]), return_inverse=True)
    places_L2, begin, other = [], 0, 0
    for source, target in zip(sources, targets, strict=True):
        both = np.meshgrid(begin + np.arange(len(source)), other + np.arange(len(target)), indexing="ij")
        places_L2.append(np.stack(both, axis=-1).reshape(-1, 2))
        begin, other = begin + len(source), other + len(target)
    from_L, to_L = np.concatenate(places_L2).T
    keys_K, pair_L = np.unique(source_P[from_L] * len(target_words) + target_P[to_L], return_inverse=True)
    source_K, target_K = np.divmod(keys_K, len(target_words))

    there_K = translation_probabilities(pair_L, to_L, target_P, source_K)
    back_K = translation_probabilities(pair_L, from_L, source_P, target_K)
    best_K = np.lexsort((target_K, -there_K * back_K, source_K))  # ties go to the first in the alphabet
    found, first_W = np.unique(source_K[best_K], return_index=True)
    return {str(source_words[s]): str(target_words[target_K[best_K[at]]]) for s, at in zip(found, first_W, strict=True)}


def translation_probabilities(
    pair_L: np.ndarray, place_L: np.ndarray, word_P: np.ndarray, given_K: np.ndarray
) -> np.ndarray:
    """t(w|g) of every pair of words that meet, by IBM Model 1: each word comes from one word of the other sentence,

    P(w_1 .. w_m | g_1 .. g_l)  ~  prod_{j=1..m} sum_{i=0..l} t(w_j|g_i),  where g_0 is the empty word.

    Args:
        pair_L: Which pair it is, 0 to K - 1.
        place_L: The place of w in the text of its side.
        word_P: The word at each place.
        given_K: The word g of each pair.
    """
    t_K, empty_W = np.ones(len(given_K)), np.ones(word_P.max(initial=0) + 1)
    for _ in range(ITERATIONS):
        t_L, empty_P = t_K[pair_L], empty_W[word_P]
        sum_P = np.bincount(place_L, t_L, len(word_P)) + empty_P
        count_K = np.bincount(pair_L, t_L / sum_P[place_L], len(given_K))
        t_K = count_K / np.bincount(given_K, count_K)[given_K]
        empty_W = np.bincount(word_P, empty_P / sum_P)
        empty_W /= empty_W.sum()
    return t_K
