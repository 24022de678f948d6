"""The typed configuration of one job: the dataclasses that YAML files and flags are parsed into."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bench.data.corpus import CorpusSettings
from bench.data.corpus_loading import qualified_name
from bench.data.vocabulary import TextSettings
from bench.decoding.beam_search import DecodingSettings
from bench.decoding.ensemble import Ensemble
from bench.system.machine import MachineSettings
from bench.tracking.store import TrackingSettings
from bench.training.trainer import TrainingSettings
from models.parts.translator import Translator


@dataclass
class RowInfo:
    """What a table says of a row.

    Attributes:
        name: Printed name.
        year: Year of the paper.
        paper: Citation.
        family: feed-forward, recurrent, convolutional, mixture or attention.
        note: In what this row departs from the others of a table, or from its paper.
    """

    name: str = ""
    year: int = 0
    paper: str = ""
    family: str = ""
    note: str = ""


@dataclass
class EnsembleSettings:
    """Of a row that joins models of another row.

    Attributes:
        of: Row id of the single model, in the same file; empty for a row that is a model of its own.
        members: M, the models that translate together; an ensemble of seed s has seeds M (s - 1) + 1 to M s.
        about: What a table says of the single row; taken from there.
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
    """One configuration with its seed: a job."""

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
        """The jobs whose models an ensemble joins, those of the single row; none for a model of its own."""
        joined = self.ensemble
        if not joined.of:
            return []
        single = replace(self, row=joined.of, about=joined.about, ensemble=EnsembleSettings())
        first = joined.members * (self.seed - 1) + 1
        return [replace(single, seed=seed) for seed in range(first, first + joined.members)]

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that is needed to repeat the job, as plain data."""
        settings = dataclasses.asdict(self)
        if not self.ensemble.of:
            del settings["ensemble"]
        return settings | {"model": {"name": self.architecture} | settings["model"]}

    @property
    def corpus_name(self) -> str:
        return qualified_name(self.corpus)

    @property
    def job_hash(self) -> str:
        """Hash that names the job: what decides its result, not where or by which version of the code it is run.

        Settings that are null are left out: a new one that nobody has set, and is null then, renames no job.
        """
        settings = self.settings
        corpus = {key: value for key, value in settings["corpus"].items() if key in ("pairs", "lemmas", "depth")}
        parts = {key: settings[key] for key in ("row", "model", "text", "training", "decoding", "seed")}
        parts["corpus"] = corpus | {"name": self.corpus_name}
        if self.members:
            parts["members"] = [member.job_hash for member in self.members]
        return hashlib.sha256(json.dumps(_given(parts), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """The run's name: what, on what, at which size, with which seed."""
        return f"{self.row} {self.corpus_name} {self.preset} s{self.seed}"

    def build(self, source_vocabulary: int, target_vocabulary: int) -> Translator:
        """The model with its initial weights, drawn from torch's generator as it stands."""
        module = importlib.import_module(f"models.{self.architecture}")
        count = len(self.members) or 1
        models = [module.Model(self.model, source_vocabulary, target_vocabulary) for _ in range(count)]
        return Ensemble(models) if self.members else models[0]


DECIDING = ("model.", "corpus.", "text.", "training.", "decoding.")
"""Groups of settings that decide a job's result."""


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings under dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return found


def _given(settings: Any) -> Any:
    """Without what is null."""
    if isinstance(settings, dict):
        return {key: _given(value) for key, value in settings.items() if value is not None}
    return settings
