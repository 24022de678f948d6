"""Does attention find the word that is being translated? Alignment error rate against gold alignments.

Letters: S source tokens with EOS  T target tokens with EOS
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import torch

from bench.data.batches import Sentences
from bench.data.vocabulary import JOINER
from bench.decoding.beam_search import evaluation_mode
from bench.measures.measure import Measure
from models.parts.batch import BOS
from models.parts.translator import Translator

Link = tuple[int, int]
"""(source word, target word), counted from 0."""

RESAMPLES, SEED = 1000, 12345


def forced_attention(
    model: Translator, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], batch_sentences: int = 64
) -> list[np.ndarray] | None:
    """attention_TS of each pair while the model is made to write the target; None if the model does not attend.

    Gold alignments hold for the reference, so it is the reference that has to be written. Row t is where the model
    looked in the step that wrote token t.
    """
    ours, theirs = Sentences.of(sources), Sentences.of(targets)
    falling = np.argsort(-theirs.lengths, kind="stable")
    found: list[np.ndarray] = [np.zeros((0, 0))] * len(falling)
    with evaluation_mode(model):
        for begin in range(0, len(falling), batch_sentences):
            places = falling[begin : begin + batch_sentences]
            source, target = ours.tokens(places).to(model.device), theirs.tokens(places).to(model.device)
            state = model.start(model.encode(source))
            previous_B = torch.full((len(places),), BOS, device=model.device)
            looks = []
            for position in range(target.ids_BS.shape[1]):
                _, state, attention_BS = model.step(previous_B, state)
                if attention_BS is None:
                    return None
                looks.append(attention_BS.float())
                previous_B = target.ids_BS[:, position]
            looks_BTS = torch.stack(looks, dim=1).cpu().numpy()
            for row, place in enumerate(places):
                found[place] = looks_BTS[row, : target.lengths_B[row], : source.lengths_B[row]]
    return found


def words_of(pieces: Sequence[str], words: Sequence[str]) -> list[int]:
    """For each piece, the word that its first letter belongs to.

    Pieces and words spell the same letters, small or capital; white space, SentencePiece's mark for it and the joiner
    of `vocabulary.Words` count as nothing. A piece of white space alone belongs to the word that follows.

    Raises:
        ValueError: the letters differ.
    """
    letters = [place for place, word in enumerate(words) for _ in word]
    spelt = "".join(words)
    found, at = [], 0
    for piece in pieces:
        bare = "".join(piece.replace("\u2581", " ").strip(JOINER).split())
        if spelt[at : at + len(bare)].lower() != bare.lower():
            raise ValueError(f"the piece {piece!r} does not continue {spelt[:at]!r} as {spelt!r} does")
        found.append(letters[min(at, len(letters) - 1)])
        at += len(bare)
    if at != len(spelt):
        raise ValueError(f"the pieces end before {spelt[at:]!r}")
    return found


def links(attention_TS: np.ndarray, source_words: Sequence[int], target_words: Sequence[int]) -> set[Link]:
    """Each target word is linked with the source word that it looked at most.

    The weights of a word's pieces are summed on the source side and averaged on the target side. EOS of both sides
    takes part in nothing: weight on the source's EOS is as good as none.
    """
    weights = np.zeros((max(target_words) + 1, max(source_words) + 1))
    for piece, target in enumerate(target_words):
        np.add.at(weights[target], source_words, attention_TS[piece, : len(source_words)])
    counts = np.bincount(target_words, minlength=len(weights))
    weights /= np.maximum(counts, 1)[:, None]
    return {(int(row.argmax()), target) for target, row in enumerate(weights) if counts[target]}


def diagonal(source_words: int, target_words: int) -> set[Link]:
    """Each target word with the source word at the same part of the sentence: what needs no attention."""
    return {(min(source_words - 1, word * source_words // target_words), word) for word in range(target_words)}


def alignment_error_rate(
    found: Iterable[AbstractSet[Link]],
    sure: Iterable[AbstractSet[Link]],
    possible: Iterable[AbstractSet[Link]] | None = None,
) -> Measure:
    """AER = 1 - (|A with S| + |A with P|) / (|A| + |S|), A found, S sure, P possible links (S among them), in percent.

    Och and Ney 2003, Computational Linguistics 29(1), section 5. 0 is perfect. The interval is a bootstrap over
    sentences.
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
    """Error rate of one link a target word, judged by what one link can do: always right is 0.

    A target word without a gold link, such as a comma, has nothing to look for and is left out. A gold link is sure if
    it is its target word's only one; of several (zur: to the) each is possible and none can be missed.
    """
    links_of, sure, possible = [], [], []
    for ours, theirs in zip(found, gold, strict=True):
        counts = Counter(target for _, target in theirs)
        links_of.append({link for link in ours if link[1] in counts})
        sure.append({link for link in theirs if counts[link[1]] == 1})
        possible.append(theirs)
    return alignment_error_rate(links_of, sure, possible)
