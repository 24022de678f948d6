"""Alignment error rate of attention against gold alignments: does it find the source word that is being translated?

Letters: B batch  S source tokens with EOS  T target tokens with EOS
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import torch

from bench.data.encoded_pairs import Sentences
from bench.data.vocabulary import JOINER
from bench.measures.measure import Measure
from models.parts.batch import BOS
from models.parts.translator import Translator, evaluation_mode

Link = tuple[int, int]
"""(source word, target word), counted from 0."""

RESAMPLES, SEED = 1000, 12345


def forced_attention(
    model: Translator, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], batch_sentences: int = 64
) -> list[np.ndarray] | None:
    """Returns attention_TS of each pair while the model is forced to write the target; None if it has no attention.

    The model writes the reference because gold alignments hold for the reference. Row t is the attention of the step
    that writes token t.
    """
    ours, theirs = Sentences.of(sources), Sentences.of(targets)
    by_length = np.argsort(-theirs.lengths, kind="stable")
    found: list[np.ndarray] = [np.zeros((0, 0))] * len(by_length)
    with evaluation_mode(model):
        for begin in range(0, len(by_length), batch_sentences):
            indices = by_length[begin : begin + batch_sentences]
            source, target = ours.tokens(indices).to(model.device), theirs.tokens(indices).to(model.device)
            state = model.start(model.encode(source))
            previous_B = torch.full((len(indices),), BOS, device=model.device)
            steps = []
            for position in range(target.ids_BS.shape[1]):
                _, state, attention_BS = model.step(previous_B, state)
                if attention_BS is None:
                    return None
                steps.append(attention_BS.float())
                previous_B = target.ids_BS[:, position]
            attention_BTS = torch.stack(steps, dim=1).cpu().numpy()
            for row, index in enumerate(indices):
                found[index] = attention_BTS[row, : target.lengths_B[row], : source.lengths_B[row]]
    return found


def words_of(pieces: Sequence[str], words: Sequence[str]) -> list[int]:
    """Returns for each piece the index of the word that contains its first letter.

    Pieces and words must have the same letters; case is ignored. White space, SentencePiece's mark for it and the
    joiner of `vocabulary.Words` are not letters. A piece that is only white space belongs to the word that follows it.

    Raises:
        ValueError: the letters differ.
    """
    word_of_letter = [index for index, word in enumerate(words) for _ in word]
    text = "".join(words)
    found, position = [], 0
    for piece in pieces:
        letters = "".join(piece.replace("\u2581", " ").strip(JOINER).split())
        if text[position : position + len(letters)].lower() != letters.lower():
            raise ValueError(f"the piece {piece!r} does not continue {text[:position]!r} as {text!r} does")
        found.append(word_of_letter[min(position, len(word_of_letter) - 1)])
        position += len(letters)
    if position != len(text):
        raise ValueError(f"the pieces end before {text[position:]!r}")
    return found


def links(attention_TS: np.ndarray, source_words: Sequence[int], target_words: Sequence[int]) -> set[Link]:
    """Links each target word with the source word that receives the largest attention weight.

    The weights of a word's pieces are summed on the source side and averaged on the target side. EOS is excluded on
    both sides; attention to the source's EOS is not redistributed.
    """
    weights = np.zeros((max(target_words) + 1, max(source_words) + 1))
    for piece, target in enumerate(target_words):
        np.add.at(weights[target], source_words, attention_TS[piece, : len(source_words)])
    counts = np.bincount(target_words, minlength=len(weights))
    weights /= np.maximum(counts, 1)[:, None]
    return {(int(row.argmax()), target) for target, row in enumerate(weights) if counts[target]}


def diagonal(source_words: int, target_words: int) -> set[Link]:
    """Links each target word with the source word at the same relative position: a baseline without attention."""
    return {(min(source_words - 1, word * source_words // target_words), word) for word in range(target_words)}


def alignment_error_rate(
    found: Iterable[AbstractSet[Link]],
    sure: Iterable[AbstractSet[Link]],
    possible: Iterable[AbstractSet[Link]] | None = None,
) -> Measure:
    """AER = 1 - (|A with S| + |A with P|) / (|A| + |S|) in percent; 0 is perfect.

    Args:
        found: A, the links to evaluate, for each sentence.
        sure: S, the sure gold links.
        possible: P, the possible gold links, to which the sure ones are added; by default only the sure ones.

    Och and Ney 2003, Computational Linguistics 29(1), section 5. The interval is a bootstrap over sentences.
    """
    gold = list(sure)
    wider = gold if possible is None else [p | s for p, s in zip(possible, gold, strict=True)]
    rows_N2 = np.array(
        [(len(a & s) + len(a & p), len(a) + len(s)) for a, s, p in zip(found, gold, wider, strict=True)], dtype=float
    )
    if not rows_N2.size or rows_N2[:, 1].sum() == 0:
        return Measure("aer", None, "percent", provenance="not measured: no links")
    drawn_RN = np.random.default_rng(SEED).integers(len(rows_N2), size=(RESAMPLES, len(rows_N2)))
    sums_R2 = rows_N2[drawn_RN].sum(axis=1)
    rates_R = 1 - sums_R2[:, 0] / np.maximum(sums_R2[:, 1], 1)
    low, high = np.quantile(rates_R, (0.025, 0.975))
    agreeing, all_links = rows_N2.sum(axis=0)
    provenance = (
        f"{len(rows_N2)} sentences; most attended source word of each target word; 95 % bootstrap over sentences"
    )
    return Measure("aer", 100 * (1 - agreeing / all_links), "percent", 100 * low, 100 * high, provenance)


def one_link_error_rate(found: Iterable[AbstractSet[Link]], gold: Iterable[AbstractSet[Link]]) -> Measure:
    """AER where each target word has one link, adapted so that always correct links give 0.

    A target word without a gold link, such as a comma, is excluded. A gold link is sure if it is the only one of its
    target word; if a target word has several (zur: to the), each of them is possible and none is sure.
    """
    links_of, sure, possible = [], [], []
    for ours, theirs in zip(found, gold, strict=True):
        counts = Counter(target for _, target in theirs)
        links_of.append({link for link in ours if link[1] in counts})
        sure.append({link for link in theirs if counts[link[1]] == 1})
        possible.append(theirs)
    return alignment_error_rate(links_of, sure, possible)
