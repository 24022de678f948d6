"""The typed configuration of one job: the dataclasses that YAML files and flags are parsed into."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bench.data import filters
from bench.data.corpus import CorpusSettings
from bench.data.find_corpus import qualified_name
from bench.data.vocabulary import TextSettings
from bench.decoding.beam_search import DecodingSettings
from bench.decoding.ensemble import Ensemble
from bench.measures.selection import DEFAULT_TOKENIZER, tokenizer_of
from bench.system.machine import MachineSettings
from bench.tracking.store import TrackingSettings
from bench.training.trainer import TrainingSettings
from models.parts.translator import Translator


@dataclass
class RowInfo:
    """Description of a row in tables.

    Attributes:
        name: Printed name.
        year: Year of the paper.
        paper: Citation.
        family: feed-forward, recurrent, convolutional, mixture or attention.
        note: How this row differs from the other rows of a table, or from its paper.
        size: Name of the size of the model in a scaling study; empty for the preset's size.
    """

    name: str = ""
    year: int = 0
    paper: str = ""
    family: str = ""
    note: str = ""
    size: str = ""


@dataclass
class EnsembleSettings:
    """Settings of a row that is an ensemble of models of another row.

    Attributes:
        of: Row id of the members, in the same file; empty if the row is not an ensemble.
        members: Number M of members. The members of an ensemble with seed s have the seeds M (s - 1) + 1 to M s.
        about: Description of the members' row, copied from there.
    """

    of: str = ""
    members: int = 2
    about: RowInfo = field(default_factory=RowInfo)

    def __post_init__(self) -> None:
        if self.members < 2:
            raise ValueError(f"ensemble.members: {self.members} is too few; at least 2")


GROUPS = {
    "corpus": CorpusSettings,
    "text": TextSettings,
    "training": TrainingSettings,
    "decoding": DecodingSettings,
    "ensemble": EnsembleSettings,
    "machine": MachineSettings,
    "tracking": TrackingSettings,
}


@dataclass(frozen=True)
class Experiment:
    """One job: a configuration with a seed."""

    row: str
    preset: str
    architecture: str
    about: RowInfo
    model: Any  # the Config of models/<architecture>.py
    corpus: CorpusSettings
    text: TextSettings
    training: TrainingSettings
    decoding: DecodingSettings
    ensemble: EnsembleSettings
    machine: MachineSettings
    tracking: TrackingSettings
    seed: int

    @property
    def members(self) -> list[Experiment]:
        """The jobs that train the members of an ensemble; empty if this is not an ensemble."""
        ensemble = self.ensemble
        if not ensemble.of:
            return []
        member = replace(self, row=ensemble.of, about=ensemble.about, ensemble=EnsembleSettings())
        first = ensemble.members * (self.seed - 1) + 1
        return [replace(member, seed=seed) for seed in range(first, first + ensemble.members)]

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that are needed to repeat the job, as nested dictionaries."""
        settings = dataclasses.asdict(self)
        if not self.ensemble.of:
            del settings["ensemble"]
        return settings | {"model": {"name": self.architecture} | settings["model"]}

    @property
    def corpus_name(self) -> str:
        return qualified_name(self.corpus)

    @property
    def job_hash(self) -> str:
        """The id of the job: a hash of the settings that determine its result.

        Paths, machine, tracking and the version of the code are left out. Settings that are null are left out too, so
        that a setting that a later version adds, with the default null, does not change the hashes of existing jobs.
        In place of the setting `text.bleu_tokenizer` stands the tokenizer that it selects for the language, without
        13a. If only the script of the text tells the tokenizer, the text does (tag `data` of a run). The setting
        `text.normalization` is left out at its default, and so are the filters of the corpus that are off.
        """
        settings = self.settings
        tokenizer = tokenizer_of(self.text.bleu_tokenizer, self.corpus_name.rpartition("-")[2])
        settings["text"]["bleu_tokenizer"] = None if tokenizer == DEFAULT_TOKENIZER else tokenizer
        corpus = {key: value for key, value in settings["corpus"].items() if key in ("pairs", "lemmas", "depth")}
        if active := filters.active(self.corpus.filters):
            corpus["filters"] = active
        parts = {key: settings[key] for key in ("row", "model", "text", "training", "decoding", "seed")}
        # The default is left out: earlier jobs have no such setting, and NFC changes nothing in text that is in NFC.
        parts["text"] = {key: value for key, value in parts["text"].items() if (key, value) != ("normalization", "NFC")}
        parts["corpus"] = corpus | {"name": self.corpus_name}
        if self.members:
            parts["members"] = [member.job_hash for member in self.members]
        return hashlib.sha256(json.dumps(_without_nulls(parts), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """The name of the job in messages: row, corpus, preset and seed; in a scaling study also size and budget."""
        step = f"{self._step} " if self._step else ""
        return f"{self.row} {step}{self.corpus_name} {self.preset} s{self.seed}"

    @property
    def run_name(self) -> str:
        """The name of the run in MLflow: what tells the runs of a suite apart, such as Transformer (base) en-de s1."""
        return f"{self.about.name} {self._step or self.direction} s{self.seed}"

    @property
    def _step(self) -> str:
        """Size and budget of a job of a scaling study, which has one direction; empty for other jobs."""
        if not self.about.size:
            return ""
        pairs, flops = self.training.max_pairs, self.training.max_flops
        return f"{self.about.size} {f'{flops:.3g} FLOPs' if pairs is None else f'{pairs:,} pairs'}"

    @property
    def direction(self) -> str:
        """Source and target language, such as en-de: the end of the corpus's name."""
        return "-".join(self.corpus_name.split("-")[-2:])

    def build(self, source_vocabulary: int, target_vocabulary: int) -> Translator:
        """The model with its initial weights, which are drawn from the current state of torch's random generator."""
        module = importlib.import_module(f"models.{self.architecture}")
        count = len(self.members) or 1
        models = [module.Model(self.model, source_vocabulary, target_vocabulary) for _ in range(count)]
        return Ensemble(models) if self.members else models[0]


RESULT_SETTINGS = ("model.", "corpus.", "text.", "training.", "decoding.")
"""Prefixes of the settings that determine the result of a job."""


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dictionary with dotted keys."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        result |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return result


def _without_nulls(settings: Any) -> Any:
    """A copy without the settings that are null."""
    if isinstance(settings, dict):
        return {key: _without_nulls(value) for key, value in settings.items() if value is not None}
    return settings
