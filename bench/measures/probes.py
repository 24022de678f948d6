"""What a model knows of a language, one phenomenon at a time: contrastive accuracy, and BLEU by group.

A contrast is a source with its right translation and one or more wrong ones that differ in a single form. The model
decides for the translation to which it gives the highest probability, log P(Y|X) summed over all tokens and EOS.
Sennrich 2017, EACL, "How Grammatical is Character-level NMT?" (LingEval97); Müller et al. 2018, WMT (ContraPro).

Beside each accuracy stand chance, its 95 % interval, and the accuracy of a model that sees the target only
(`TargetOnly`): what a probe's author gave away in the target cannot be credited to a translator.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from bench.data.batches import Sentences
from bench.data.corpus import Contrast
from bench.data.vocabulary import Vocabularies
from bench.decoding.beam_search import evaluation_mode
from bench.measures.measure import Measure
from bench.measures.quality import Statistics, measure
from models.parts.batch import Batch
from models.parts.translator import Translator

DISTANCES = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 15))
"""Groups of distances; contrasts further apart are one more group, as in LingEval97."""

FEWEST = 20
"""Sentences below which a group has no score: its interval would say nothing."""

Key = TypeVar("Key", bound=Hashable)
Ids = Sequence[Sequence[int]]
Scorer = Callable[[Ids, Ids], np.ndarray]
"""From source and target ids to log P of each target, in nats."""


def read(path: Path) -> list[Contrast]:
    """Contrasts from a file: JSON as in LingEval97 or ContraPro, else tab-separated columns.

    LingEval97 holds several errors for a sentence, each a decision of its own; in ContraPro the right pronoun has to
    beat all the others at once. The columns are source, right, wrong, category and, if there is a fifth, distance.

    Raises:
        ValueError: the file is missing or none of these; says where.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        entries = json.loads(text) if text.lstrip().startswith("[") else None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8; convert it, for example with iconv") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    if entries is None:
        lines = [line.removesuffix("\r") for line in text.split("\n")]
        found = [_line(path, number, line) for number, line in enumerate(lines, start=1) if line]
    else:
        found = [one for number, entry in enumerate(entries) for one in _entry(path, number, entry)]
    if not found:
        raise ValueError(f"{path}: there are no contrasts in it")
    return found


def _entry(path: Path, number: int, entry: Any) -> list[Contrast]:
    where = f"{path}, entry {number}"
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected an object as in LingEval97 or ContraPro, got {type(entry).__name__}")
    try:
        found = _contrapro(entry) if "ref pronoun" in entry else _lingeval(entry)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: lacks {error}") from error
    for one in found:
        if not one.wrong:
            raise ValueError(f"{where}: has no wrong translation")
        if not all(isinstance(text, str) for text in (one.source, one.right, *one.wrong, one.category)):
            raise ValueError(f"{where}: a sentence or category is no text")
        if not (one.distance is None or isinstance(one.distance, int)):
            raise ValueError(f"{where}: the distance {one.distance!r} is no whole number")
    return found


def _line(path: Path, number: int, line: str) -> Contrast:
    source, right, wrong, category, *rest = line.split("\t") if line.count("\t") in (3, 4) else [""] * 4
    if not source or (rest and not rest[0].isdecimal()):
        raise ValueError(f"{path}, line {number}: expected source, right, wrong, category and perhaps a distance")
    return Contrast(source, right, (wrong,), category, int(rest[0]) if rest else None)


def _lingeval(entry: dict[str, Any]) -> list[Contrast]:
    return [
        Contrast(entry["source"], entry["reference"], (error["contrastive"],), error["type"], error.get("distance"))
        for error in entry["errors"]
    ]


def _contrapro(entry: dict[str, Any]) -> list[Contrast]:
    wrong = tuple(error["contrastive"] for error in entry["errors"])
    category = f"{entry['src pronoun']}:{entry['ref pronoun']}".lower()
    return [Contrast(entry["src segment"], entry["ref segment"], wrong, category, entry.get("ante distance"))]


# --- decisions --------------------------------------------------------------------------------------------------------


def of_model(model: Translator, batch_sentences: int = 64) -> Scorer:
    """Log P(Y|X) by a translator, from the losses that it is trained on, without label smoothing."""

    def score(sources: Ids, targets: Ids) -> np.ndarray:
        ours, theirs = Sentences.of(sources), Sentences.of(targets)
        falling = np.argsort(-theirs.lengths, kind="stable")
        found = np.zeros(len(falling))
        with evaluation_mode(model):
            for begin in range(0, len(falling), batch_sentences):
                places = falling[begin : begin + batch_sentences]
                batch = Batch(ours.tokens(places), theirs.tokens(places)).to(model.device)
                losses = model.token_losses(batch).double().cpu().split(list(batch.target.lengths_B))
                found[places] = [-float(torch.sum(loss_T)) for loss_T in losses]
        return found

    return score


class TargetOnly:
    """An n-gram model of the target language: what can be decided without the source.

    P(w | h) = (c(h w) + t(h) P(w | h')) / (c(h) + t(h)), h' being h without its oldest word, c counts, and t(h) how
    many different words followed h; below the unigrams, 1 / V. Witten and Bell 1991, IEEE Transactions on Information
    Theory 37(4).
    """

    def __init__(self, targets: Ids, vocabulary: int, order: int = 5) -> None:
        self.order, self.vocabulary = order, vocabulary
        self.follows: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
        for words, place in self._places(targets):
            for length in range(order):
                followers = self.follows[words[place - length : place]]
                followers[words[place]] = followers.get(words[place], 0) + 1
        self.totals = {history: sum(followers.values()) for history, followers in self.follows.items()}

    def _places(self, sentences: Ids) -> Iterable[tuple[tuple[int, ...], int]]:
        """Every word with its history: begin marks before the first, one end mark after the last."""
        for sentence in sentences:
            words = (-1,) * (self.order - 1) + tuple(sentence) + (-2,)
            yield from ((words, place) for place in range(self.order - 1, len(words)))

    def probability(self, words: tuple[int, ...], place: int) -> float:
        found = 1 / self.vocabulary
        for length in range(self.order):
            followers = self.follows.get(words[place - length : place])
            if followers is None:
                break
            total, kinds = self.totals[words[place - length : place]], len(followers)
            found = (followers.get(words[place], 0) + kinds * found) / (total + kinds)
        return found

    def __call__(self, sources: Ids, targets: Ids) -> np.ndarray:
        """Log P of each target; the sources are not looked at."""
        return np.array(
            [sum(math.log(self.probability(*where)) for where in self._places([target])) for target in targets]
        )


@dataclass(frozen=True)
class Decision:
    """How a contrast was decided: credit 1 for the right translation, 0 for a wrong one, shared between equals."""

    contrast: Contrast
    credit: float

    @property
    def chance(self) -> float:
        return 1 / (1 + len(self.contrast.wrong))


def decide(contrasts: Sequence[Contrast], vocabularies: Vocabularies, score: Scorer) -> list[Decision]:
    """Scores every translation once and decides each contrast."""
    counts = [1 + len(contrast.wrong) for contrast in contrasts]
    sources = vocabularies.source.encode([contrast.source for contrast in contrasts])
    targets = vocabularies.target.encode([text for one in contrasts for text in (one.right, *one.wrong)])
    scores = score([source for source, count in zip(sources, counts, strict=True) for _ in range(count)], targets)
    decisions, begin = [], 0
    for contrast, count in zip(contrasts, counts, strict=True):
        (right, *wrong), (ids, *others) = scores[begin : begin + count], targets[begin : begin + count]
        # Two texts may have the same ids (unknown words): a tie, whatever rounding makes of it.
        equals = sum(other == ids for other in others)
        beaten = all(score < right for score, other in zip(wrong, others, strict=True) if other != ids)
        decisions.append(Decision(contrast, 1 / (1 + equals) if beaten else 0.0))
        begin += count
    return decisions


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion; Wilson 1927. Sound for few trials and near 0 and 1, unlike p +- 1.96 sd."""
    z, p = 1.959964, successes / trials
    middle, width = p + z * z / (2 * trials), z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    return max(0.0, (middle - width) / (1 + z * z / trials)), min(1.0, (middle + width) / (1 + z * z / trials))


def _accuracy(metric: str, decisions: Sequence[Decision]) -> Measure:
    number, credit = len(decisions), sum(decision.credit for decision in decisions)
    low, high = wilson(credit, number)
    chance = 100 * sum(decision.chance for decision in decisions) / number
    provenance = f"{number} contrasts, chance {chance:.1f}%, Wilson's 95 % interval"
    return Measure(metric, 100 * credit / number, "percent", 100 * low, 100 * high, provenance, number, chance)


def distance_group(distance: int) -> str:
    """0, 1, 2, 3-4, 5-8, 9-15 or over-15: about as far again in each. (MLflow has no > in the name of a metric.)"""
    for begin, end in DISTANCES:
        if distance <= end:
            return str(end) if begin == end else f"{begin}-{end}"
    return f"over-{DISTANCES[-1][1]}"


def accuracies(decisions: Sequence[Decision], name: str = "contrastive") -> list[Measure]:
    """Accuracy over all decisions, for each category, and for each distance that has FEWEST of a category's.

    Named NAME, NAME/CATEGORY and NAME/CATEGORY/DISTANCE.
    """
    groups: dict[str, list[Decision]] = {name: list(decisions)}
    for category in dict.fromkeys(decision.contrast.category for decision in decisions):
        own = [decision for decision in decisions if decision.contrast.category == category]
        groups[f"{name}/{category}"] = own
        distances: dict[str, list[Decision]] = defaultdict(list)
        for decision in sorted(own, key=lambda one: one.contrast.distance or 0):
            if decision.contrast.distance is not None:
                distances[distance_group(decision.contrast.distance)].append(decision)
        groups |= {f"{name}/{category}/{group}": few for group, few in distances.items() if len(few) >= FEWEST}
    return [_accuracy(metric, group) for metric, group in groups.items()]


# --- BLEU by group ----------------------------------------------------------------------------------------------------


def by_group(system: Statistics, groups: Sequence[Key]) -> dict[Key, Measure]:
    """The score of each group of sentences, from rows that were read already: by length, by depth of clauses, ..."""
    rows: dict[Key, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows[group].append(row)
    found = {}
    for group, places in rows.items():
        if len(places) < FEWEST:
            provenance = f"not measured: {len(places)} sentences, fewer than {FEWEST}"
            found[group] = Measure(system.metric, None, "percent", provenance=provenance, count=len(places))
        else:
            one = measure([replace(system, rows_NK=system.rows_NK[places])])
            found[group] = replace(one, provenance=f"{len(places)} sentences; {one.provenance}", count=len(places))
    return found


def length_groups(sources: Sequence[str], width: int = 5, last: int = 30) -> list[str]:
    """The group of each source by its words: 1-5, 6-10, ..., 26-30, over-30."""
    groups = []
    for source in sources:
        words = max(1, len(source.split()))
        begin = (words - 1) // width * width
        groups.append(f"over-{last}" if words > last else f"{begin + 1}-{begin + width}")
    return groups
