"""Where a model looks while it translates a sentence: every attention it has, layer by layer and head by head.

The weights are taken by forward hooks on the named modules through which all attention passes (`AttentionWeights` in
models/parts/attention.py), so nothing here knows an architecture. Which attention a module belongs to is told by when
it is used and by how much it sees: in `encode` it is the encoder's self-attention; in the first `step` self-attention
of the decoder sees one position, attention over the source all of them.

Letters: L layers  H heads  Q positions that look  K positions that are looked at
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.vocabulary import JOINER, SPECIAL, Vocabulary
from bench.decoding import beam_search
from bench.decoding.unk_replacement import hypothesis_texts
from bench.evaluation.trained_model import TrainedTranslator
from models.parts.attention import AttentionWeights
from models.parts.batch import BOS, EOS, Tokens
from models.parts.translator import Translator

KINDS = {
    "cross": "decoder over source",
    "encoder": "encoder self-attention",
    "decoder": "decoder self-attention",
}
SPACE = "\u2581"  # SentencePiece's


@dataclass(frozen=True)
class Attention:
    """One kind of attention over one sentence pair. Row q of a map sums to 1 (less where a model's own rule says so).

    Attributes:
        kind: A key of KINDS.
        rows: The tokens that look. In the decoder, row t is the step that writes token t.
        columns: The tokens that are looked at. In the decoder's self-attention, those read so far, <s> first.
        maps_LHQK: The weights.
    """

    kind: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    maps_LHQK: np.ndarray

    def picked(self, layer: int | None, head: int | None) -> AttentionMap:
        """One layer (counted from 1; the last if None) and one head (the mean over heads if None).

        Raises:
            ValueError: there is no such layer or head; says how many there are.
        """
        layers, heads = self.maps_LHQK.shape[:2]
        for flag, number, most in (("--layer", layer, layers), ("--head", head, heads)):
            if number is not None and not 1 <= number <= most:
                raise ValueError(f"{flag}: {number} is not between 1 and {most}, the {flag[2:]}s of {KINDS[self.kind]}")
        place = layer or layers
        maps_HQK = self.maps_LHQK[place - 1]
        of = f"layer {place} of {layers}, " if layers > 1 else ""
        what = f"head {head} of {heads}" if head else f"mean over {heads} heads" if heads > 1 else "one head"
        return AttentionMap(self, f"{of}{what}", maps_HQK.mean(axis=0) if head is None else maps_HQK[head - 1])


@dataclass(frozen=True)
class AttentionMap:
    """One map of an attention, and which it is, in words."""

    attention: Attention
    which: str
    map_QK: np.ndarray

    @property
    def title(self) -> str:
        return f"{KINDS[self.attention.kind]}, {self.which}"


@dataclass(frozen=True)
class SentenceAttention:
    """A sentence, its translation by the run's own search, and all attention while it was written."""

    source: str
    translation: str
    attentions: dict[str, Attention]

    @property
    def name(self) -> str:
        """For files: the first words of the sentence, and a hash of it."""
        words = re.findall(r"[a-z0-9]+", self.source.lower())[:6]
        return "-".join([*words, hashlib.sha256(self.source.encode()).hexdigest()[:8]])

    def picked(self, kinds: list[str] | None, layer: int | None, head: int | None) -> list[AttentionMap]:
        """The attentions asked for; by default that over the source and that of the encoder, where there is one.

        Raises:
            ValueError: the model lacks a kind, a layer or a head.
        """
        for kind in kinds or ():
            if kind not in self.attentions:
                raise ValueError(f"--kind: this model has no {KINDS[kind]}; it has: {', '.join(self.attentions)}")
        wanted = kinds or [kind for kind in ("cross", "encoder") if kind in self.attentions]
        return [self.attentions[kind].picked(layer, head) for kind in wanted]

    def data(self) -> dict[str, Any]:
        """All layers and heads, as plain lists: maps[layer][head][row][column]."""
        return {
            "source": self.source,
            "translation": self.translation,
            "attention": [
                {
                    "kind": one.kind,
                    "rows": one.rows,
                    "columns": one.columns,
                    "maps": np.round(one.maps_LHQK.astype(float), 4).tolist(),
                }
                for one in self.attentions.values()
            ],
        }


def has(model: Translator) -> bool:
    """Whether there is anything to look at."""
    return any(isinstance(module, AttentionWeights) for module in model.modules())


def look(loaded: TrainedTranslator, sentence: str) -> SentenceAttention:
    """Translates a sentence, and watches while that translation is written.

    Raises:
        ValueError: the model has no attention, or the sentence no words.
    """
    ids = loaded.ids([sentence])[0][0]
    if not ids:
        raise ValueError("the sentence is empty: there is nothing to look at")
    best = beam_search.translate(loaded.model, [ids], loaded.experiment.decoding)[0][0]
    found = watched(loaded.model, ids, best.ids)
    if not found:
        raise ValueError(f"{loaded.experiment.about.name} has no attention to look at; choose a run of another row")
    sides = loaded.vocabularies
    end = SPECIAL[EOS]
    source = (*labels(sides.source, sides.source.split(sentence)[: len(ids)]), end)
    target = (*labels(sides.target, [sides.target.piece(token) for token in best.ids]), end)
    rows = {"cross": target, "encoder": source, "decoder": target}
    columns = {"cross": source, "encoder": source, "decoder": (SPECIAL[BOS], *target[:-1])}
    attentions = {kind: Attention(kind, rows[kind], columns[kind], maps) for kind, maps in found.items()}
    (translation,) = hypothesis_texts([best], [sentence], sides, loaded.lexicon)
    return SentenceAttention(sentence, translation, attentions)


def watched(model: Translator, source: list[int], target: list[int]) -> dict[str, np.ndarray]:
    """maps_LHQK of every kind that a model has, while it reads `source` and is made to write `target`."""
    modules = [module for module in model.modules() if isinstance(module, AttentionWeights)]
    seen: dict[int, list[Tensor]] = defaultdict(list)

    def taker(number: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def take(_: nn.Module, __: Any, weights: Tensor) -> None:
            seen[number].append(_by_heads(weights))

        return take

    handles = [module.register_forward_hook(taker(number)) for number, module in enumerate(modules)]
    layers: dict[str, dict[int, np.ndarray]] = {kind: {} for kind in KINDS}
    try:
        with beam_search.evaluation_mode(model):
            read = Tokens(torch.tensor([[*source, EOS]], device=model.device), (len(source) + 1,))
            state = model.start(model.encode(read))
            for number, once in seen.items():
                layers["encoder"][number] = once[0].cpu().numpy()
            seen.clear()
            for token in (BOS, *target):
                _, state, _ = model.step(torch.tensor([token], device=model.device), state)
    finally:
        for handle in handles:
            handle.remove()
    for number, steps in seen.items():
        kind = "decoder" if steps[0].shape[2] == 1 else "cross"
        layers[kind][number] = _steps(steps)
    # A module's number is its place in the model, so layers come in their order.
    return {kind: np.stack([maps[number] for number in sorted(maps)]) for kind, maps in layers.items() if maps}


def _by_heads(weights: Tensor) -> Tensor:
    """weights_HQK of the one sentence, from what a module sees: BHQK, or BQK or BK of a single head."""
    while weights.dim() < 4:
        weights = weights.unsqueeze(1)
    return weights[0].float()


def _steps(steps: list[Tensor]) -> np.ndarray:
    """weights_HQK from those of each step; where a step sees more than the one before, the rest is 0."""
    longest = max(weights_H1K.shape[2] for weights_H1K in steps)
    rows = [nn.functional.pad(weights_H1K, (0, longest - weights_H1K.shape[2])) for weights_H1K in steps]
    return torch.cat(rows, dim=1).cpu().numpy()


def labels(vocabulary: Vocabulary, pieces: list[str]) -> list[str]:
    """Pieces as a reader wants them: no marks of the vocabulary's own, and a dot before what continues a word."""
    marked = any(SPACE in piece for piece in pieces)
    found = []
    for piece in pieces:
        bare = piece.replace(SPACE, " ").strip() if marked else piece.strip(JOINER)
        continues = marked and bool(bare) and not piece.startswith(SPACE) and (bare[0].isalnum())
        found.append(f"\u00b7{bare}" if continues else bare if bare.strip() else "\u2423")
    return found
