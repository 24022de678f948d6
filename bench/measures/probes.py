"""Probes by linguistic phenomenon: accuracy on contrasts, and BLEU by group of sentences.

A contrast is a source with its right translation and one or more wrong ones that differ in a single form. The model
decides for the translation with the highest probability, log P(Y|X) summed over all tokens and EOS.
Sennrich 2017, EACL, "How Grammatical is Character-level NMT?" (LingEval97); Müller et al. 2018, WMT (ContraPro).

Each accuracy has its 95 % interval, the chance level, and for comparison the accuracy of a target-only model
(`TargetOnly`). Accuracy up to that of the target-only model needs no translation.
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

from bench.data.corpus import Contrast
from bench.data.encoded_pairs import Sentences
from bench.data.text_lines import check_text, decode_lines
from bench.data.vocabulary import Vocabularies
from bench.measures.measure import Measure
from bench.measures.quality import Statistics, mean_with_interval
from models.parts.batch import Batch
from models.parts.translator import Translator, evaluation_mode

DISTANCES = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 15))
"""Groups of distances (first, last); larger distances form one more group, as in LingEval97."""

FEWEST = 20
"""A group of fewer sentences has no score, because its interval would be too wide."""

Key = TypeVar("Key", bound=Hashable)
Ids = Sequence[Sequence[int]]
Scorer = Callable[[Ids, Ids], np.ndarray]
"""Takes source and target ids; returns log P of each target in nats."""


def read(path: Path) -> list[Contrast]:
    """Reads contrasts from a file: JSON as in LingEval97 or ContraPro, otherwise tab-separated columns.

    LingEval97 has several errors for a sentence, and each is one contrast. In ContraPro the right pronoun has to beat
    all wrong ones at once. The columns are source, right, wrong, category and, optionally, distance.

    Raises:
        ValueError: the file is missing or has none of these formats; the message names the line or entry.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}; check the path")
    try:
        lines = decode_lines(path.read_bytes(), str(path))
        text = "\n".join(lines)
        entries = json.loads(text) if text.lstrip().startswith("[") else None
    except RecursionError as error:
        raise ValueError(f"{path}: JSON that is nested too deeply; docs/probes.md describes the formats") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    if entries is None:
        found = [_line(path, number, line) for number, line in enumerate(lines, start=1) if line]
    else:
        found = [one for number, entry in enumerate(entries) for one in _entry(path, number, entry)]
    if not found:
        raise ValueError(f"{path}: there are no contrasts in it; docs/probes.md describes the formats")
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
            raise ValueError(f"{where}: has no wrong translation; give at least one")
        if not all(isinstance(text, str) for text in (one.source, one.right, *one.wrong, one.category)):
            raise ValueError(f"{where}: a sentence or category is not a string")
        try:
            check_text("".join((one.source, one.right, *one.wrong, one.category)))
        except ValueError as error:
            raise ValueError(f"{where} {error}") from None
        if not (one.distance is None or isinstance(one.distance, int)):
            raise ValueError(f"{where}: the distance {one.distance!r} is not a whole number")
    return found


def _line(path: Path, number: int, line: str) -> Contrast:
    source, right, wrong, category, *rest = line.split("\t") if line.count("\t") in (3, 4) else [""] * 4
    if not source or (rest and not rest[0].isdecimal()):
        raise ValueError(
            f"{path}, line {number}: expected source, right, wrong, category and optionally a distance, in columns"
        )
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
    """Returns a scorer that computes log P(Y|X) of a translator from its token losses without label smoothing."""

    def score(sources: Ids, targets: Ids) -> np.ndarray:
        ours, theirs = Sentences.of(sources), Sentences.of(targets)
        by_length = np.argsort(-theirs.lengths, kind="stable")
        found = np.zeros(len(by_length))
        with evaluation_mode(model):
            for begin in range(0, len(by_length), batch_sentences):
                indices = by_length[begin : begin + batch_sentences]
                batch = Batch(ours.tokens(indices), theirs.tokens(indices)).to(model.device)
                losses = model.token_losses(batch).double().cpu().split(list(batch.target.lengths_B))
                found[indices] = [-float(torch.sum(loss_T)) for loss_T in losses]
        return found

    return score


class TargetOnly:
    """An n-gram model of the target language: it can only decide contrasts that need no source.

    P(w | h) = (c(h w) + t(h) P(w | h')) / (c(h) + t(h)). h' is h without its oldest word, c are counts, and t(h) is the
    number of different words that follow h; below the unigrams, P is 1 / V. Witten and Bell 1991, IEEE Transactions on
    Information Theory 37(4).
    """

    def __init__(self, targets: Ids, vocabulary: int, order: int = 5) -> None:
        self.order, self.vocabulary = order, vocabulary
        self.follows: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
        for words, position in self._positions(targets):
            for length in range(order):
                followers = self.follows[words[position - length : position]]
                followers[words[position]] = followers.get(words[position], 0) + 1
        self.totals = {history: sum(followers.values()) for history, followers in self.follows.items()}

    def _positions(self, sentences: Ids) -> Iterable[tuple[tuple[int, ...], int]]:
        """Yields each position with the words of its sentence, padded by start marks and one end mark."""
        for sentence in sentences:
            words = (-1,) * (self.order - 1) + tuple(sentence) + (-2,)
            yield from ((words, position) for position in range(self.order - 1, len(words)))

    def probability(self, words: tuple[int, ...], position: int) -> float:
        """P of the word at a position, given the words before it."""
        found = 1 / self.vocabulary
        for length in range(self.order):
            followers = self.follows.get(words[position - length : position])
            if followers is None:
                break
            total, kinds = self.totals[words[position - length : position]], len(followers)
            found = (followers.get(words[position], 0) + kinds * found) / (total + kinds)
        return found

    def __call__(self, sources: Ids, targets: Ids) -> np.ndarray:
        """Returns log P of each target. The sources are ignored."""
        return np.array(
            [sum(math.log(self.probability(*one)) for one in self._positions([target])) for target in targets]
        )


@dataclass(frozen=True)
class Decision:
    """The result of a contrast: credit 1 for the right translation, 0 for a wrong one, 1 / n if n are identical."""

    contrast: Contrast
    credit: float

    @property
    def chance(self) -> float:
        """The credit that guessing gets on average."""
        return 1 / (1 + len(self.contrast.wrong))


def decide(contrasts: Sequence[Contrast], vocabularies: Vocabularies, score: Scorer) -> list[Decision]:
    """Scores every translation once and decides every contrast."""
    counts = [1 + len(contrast.wrong) for contrast in contrasts]
    sources = vocabularies.source.encode([contrast.source for contrast in contrasts])
    targets = vocabularies.target.encode([text for one in contrasts for text in (one.right, *one.wrong)])
    scores = score([source for source, count in zip(sources, counts, strict=True) for _ in range(count)], targets)
    decisions, begin = [], 0
    for contrast, count in zip(contrasts, counts, strict=True):
        (right, *wrong), (ids, *others) = scores[begin : begin + count], targets[begin : begin + count]
        # Two texts with the same ids (unknown words) are a tie, even if rounding makes their scores differ.
        equals = sum(other == ids for other in others)
        beaten = all(score < right for score, other in zip(wrong, others, strict=True) if other != ids)
        decisions.append(Decision(contrast, 1 / (1 + equals) if beaten else 0.0))
        begin += count
    return decisions


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion; Wilson 1927. Unlike p +- 1.96 sd it is valid for few trials and near 0 and 1."""
    z, p = 1.959964, successes / trials
    middle, width = p + z * z / (2 * trials), z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    return max(0.0, (middle - width) / (1 + z * z / trials)), min(1.0, (middle + width) / (1 + z * z / trials))


def _accuracy(metric: str, decisions: Sequence[Decision]) -> Measure:
    """The mean credit in percent, with its interval and the chance level."""
    number, credit = len(decisions), sum(decision.credit for decision in decisions)
    if not number:
        return Measure(metric, None, "percent", provenance="not measured: there are no contrasts", count=0)
    low, high = wilson(credit, number)
    chance = 100 * sum(decision.chance for decision in decisions) / number
    provenance = f"{number} contrasts, chance {chance:.1f}%, Wilson's 95 % interval"
    return Measure(metric, 100 * credit / number, "percent", 100 * low, 100 * high, provenance, number, chance)


def distance_group(distance: int) -> str:
    """0, 1, 2, 3-4, 5-8, 9-15 or over-15; each group is about twice as wide. (MLflow allows no > in metric names.)"""
    for begin, end in DISTANCES:
        if distance <= end:
            return str(end) if begin == end else f"{begin}-{end}"
    return f"over-{DISTANCES[-1][1]}"


def accuracies(decisions: Sequence[Decision], name: str = "contrastive") -> list[Measure]:
    """Accuracy over all decisions, of each category, and of each distance with at least FEWEST decisions of a category.

    The metrics are NAME, NAME/CATEGORY and NAME/CATEGORY/DISTANCE.
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
    """Returns the score of each group of sentences. `groups` has the group of each sentence of `system`."""
    rows: dict[Key, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows[group].append(row)
    found = {}
    for group, members in rows.items():
        if len(members) < FEWEST:
            provenance = f"not measured: {len(members)} sentences, fewer than {FEWEST}"
            found[group] = Measure(system.metric, None, "percent", provenance=provenance, count=len(members))
        else:
            one = mean_with_interval([replace(system, rows_NK=system.rows_NK[members])])
            found[group] = replace(one, provenance=f"{len(members)} sentences; {one.provenance}", count=len(members))
    return found


def length_groups(sources: Sequence[str], width: int = 5, last: int = 30) -> list[str]:
    """Returns the length group of each source, in words: 1-5, 6-10, ..., 26-30, over-30."""
    groups = []
    for source in sources:
        words = max(1, len(source.split()))
        begin = (words - 1) // width * width
        groups.append(f"over-{last}" if words > last else f"{begin + 1}-{begin + width}")
    return groups
