"""The attention weights of a model while it translates one sentence: every kind, layer and head.

Forward hooks collect the weights from the modules through which all attention passes (`AttentionWeights` in
models/parts/attention.py), so this file knows no architecture. The kind of a module's attention follows from when it
runs and how many positions it sees: attention during `encode` is the encoder's self-attention; in the first `step`, the
decoder's self-attention sees one position, and attention over the source sees all source positions.

Letters: L layers  H heads  Q query positions (rows)  K key positions (columns)
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

from bench.data.vocabulary import JOINER, SPECIAL
from bench.decoding import beam_search
from bench.decoding.unk_replacement import hypothesis_texts
from bench.evaluation.trained_model import TrainedTranslator
from models.parts.attention import AttentionWeights
from models.parts.batch import BOS, EOS, Tokens
from models.parts.translator import Translator, evaluation_mode

KINDS = {
    "cross": "decoder over source",
    "encoder": "encoder self-attention",
    "decoder": "decoder self-attention",
}
SPACE = "\u2581"  # SentencePiece's mark for a space


@dataclass(frozen=True)
class Attention:
    """One kind of attention over one sentence pair. Each row of a map sums to 1, or less if the model defines it so.

    Attributes:
        kind: A key of KINDS.
        rows: The query tokens. In the decoder, row t belongs to the step that writes token t.
        columns: The key tokens. In the decoder's self-attention, the tokens read so far, <s> first.
        maps_LHQK: The weights.
    """

    kind: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    maps_LHQK: np.ndarray

    def select(self, layer: int | None, head: int | None) -> AttentionMap:
        """Returns the map of one layer (from 1; None: the last) and one head (from 1; None: the mean over heads).

        Raises:
            ValueError: the layer or head does not exist; the message gives the valid range.
        """
        layers, heads = self.maps_LHQK.shape[:2]
        for flag, given, most in (("--layer", layer, layers), ("--head", head, heads)):
            if given is not None and not 1 <= given <= most:
                raise ValueError(f"{flag}: {given} is not between 1 and {most}, the {flag[2:]}s of {KINDS[self.kind]}")
        number = layer or layers
        maps_HQK = self.maps_LHQK[number - 1]
        of = f"layer {number} of {layers}, " if layers > 1 else ""
        what = f"head {head} of {heads}" if head else f"mean over {heads} heads" if heads > 1 else "one head"
        return AttentionMap(self, f"{of}{what}", maps_HQK.mean(axis=0) if head is None else maps_HQK[head - 1])


@dataclass(frozen=True)
class AttentionMap:
    """One map of an attention, with its layer and head in words (`which`)."""

    attention: Attention
    which: str
    map_QK: np.ndarray

    @property
    def title(self) -> str:
        return f"{KINDS[self.attention.kind]}, {self.which}"


@dataclass(frozen=True)
class SentenceAttention:
    """A sentence, its translation by the run's own search, and all attention while it was translated."""

    source: str
    translation: str
    attentions: dict[str, Attention]

    @property
    def name(self) -> str:
        """A file name: the beginning of the sentence and a hash of it."""
        words = "-".join(re.findall(r"[a-z0-9]+", self.source.lower())[:6])[:80]  # names have at most 255 bytes
        return f"{words}-{hashlib.sha256(self.source.encode()).hexdigest()[:8]}".lstrip("-")

    def select(self, kinds: list[str] | None, layer: int | None, head: int | None) -> list[AttentionMap]:
        """Returns one map for each kind; by default cross-attention and encoder self-attention, if the model has them.

        Raises:
            ValueError: the model does not have the kind, layer or head.
        """
        for kind in kinds or ():
            if kind not in self.attentions:
                raise ValueError(f"--kind: this model has no {KINDS[kind]}; it has: {', '.join(self.attentions)}")
        selected = kinds or [kind for kind in ("cross", "encoder") if kind in self.attentions]
        return [self.attentions[kind].select(layer, head) for kind in selected]

    def data(self) -> dict[str, Any]:
        """Returns all weights for JSON: maps[layer][head][row][column]."""
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


def has_attention(model: Translator) -> bool:
    """True if the model has a module that computes attention weights."""
    return any(isinstance(module, AttentionWeights) for module in model.modules())


def sentence_attention(trained: TrainedTranslator, sentence: str) -> SentenceAttention:
    """Translates a sentence and returns the attention weights of that translation.

    Raises:
        ValueError: the model has no attention, or the sentence is empty.
    """
    (sentence,) = trained.prepare([sentence])
    ids = trained.ids([sentence])[0][0]
    if not ids:
        raise ValueError("the sentence is empty, so there is no attention to show; give one with at least one word")
    best = beam_search.translate(trained.model, [ids], trained.experiment.decoding)[0][0]
    weights = attention_weights(trained.model, ids, best.ids)
    if not weights:
        raise ValueError(f"{trained.experiment.about.name} has no attention weights; choose a run of another row")
    vocabularies = trained.vocabularies
    end = SPECIAL[EOS]
    source = (*labels(vocabularies.source.split(sentence)[: len(ids)]), end)
    target = (*labels([vocabularies.target.piece(token) for token in best.ids]), end)
    rows = {"cross": target, "encoder": source, "decoder": target}
    columns = {"cross": source, "encoder": source, "decoder": (SPECIAL[BOS], *target[:-1])}
    attentions = {kind: Attention(kind, rows[kind], columns[kind], maps) for kind, maps in weights.items()}
    (translation,) = hypothesis_texts([best], [sentence], vocabularies, trained.lexicon)
    return SentenceAttention(sentence, translation, attentions)


def attention_weights(model: Translator, source: list[int], target: list[int]) -> dict[str, np.ndarray]:
    """Returns maps_LHQK of every kind that the model has, while it reads `source` and is forced to write `target`."""
    modules = [module for module in model.modules() if isinstance(module, AttentionWeights)]
    collected: dict[int, list[Tensor]] = defaultdict(list)

    def hook_of(number: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, weights: Tensor) -> None:
            collected[number].append(_by_heads(weights))

        return hook

    handles = [module.register_forward_hook(hook_of(number)) for number, module in enumerate(modules)]
    layers: dict[str, dict[int, np.ndarray]] = {kind: {} for kind in KINDS}
    try:
        with evaluation_mode(model):
            tokens = Tokens(torch.tensor([[*source, EOS]], device=model.device), (len(source) + 1,))
            state = model.start(model.encode(tokens))
            for number, calls in collected.items():
                layers["encoder"][number] = calls[0].cpu().numpy()
            collected.clear()
            for token in (BOS, *target):
                _, state, _ = model.step(torch.tensor([token], device=model.device), state)
    finally:
        for handle in handles:
            handle.remove()
    for number, steps in collected.items():
        kind = "decoder" if steps[0].shape[2] == 1 else "cross"
        layers[kind][number] = _join_steps(steps)
    # Modules are numbered in the order of the model, so sorting by number puts the layers in order.
    return {kind: np.stack([maps[number] for number in sorted(maps)]) for kind, maps in layers.items() if maps}


def _by_heads(weights: Tensor) -> Tensor:
    """Returns weights_HQK of the one sentence from a module's BHQK, or from BQK or BK of a single head."""
    while weights.dim() < 4:
        weights = weights.unsqueeze(1)
    return weights[0].float()


def _join_steps(steps: list[Tensor]) -> np.ndarray:
    """Joins the weights of all steps to weights_HQK. Positions that an early step did not see yet are 0."""
    longest = max(weights_H1K.shape[2] for weights_H1K in steps)
    rows = [nn.functional.pad(weights_H1K, (0, longest - weights_H1K.shape[2])) for weights_H1K in steps]
    return torch.cat(rows, dim=1).cpu().numpy()


def labels(pieces: list[str]) -> list[str]:
    """Returns readable labels of pieces: without the vocabulary's marks, with a dot before a piece inside a word."""
    marked = any(SPACE in piece for piece in pieces)
    found = []
    for piece in pieces:
        bare = piece.replace(SPACE, " ").strip() if marked else piece.strip(JOINER)
        continues = marked and bool(bare) and not piece.startswith(SPACE) and (bare[0].isalnum())
        found.append(f"\u00b7{bare}" if continues else bare if bare.strip() else "\u2423")
    return found
