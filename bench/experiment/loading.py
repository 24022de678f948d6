"""Reads YAML files and flags into typed settings. Parsing is strict, and every key of a file is also a flag.

An architecture's file in experiments/ names the model, its presets and its rows. Settings are merged in the order
base < architecture < preset < row < row's preset < suite < flags, where a later layer overrides an earlier one, and
are parsed against the dataclasses that the code itself uses. An unknown key or a value of the wrong type is an error
that names the key.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentParser

import models
from bench.data.corpus import CorpusSettings
from bench.experiment.spec import GROUPS, Experiment, RowInfo
from bench.experiment.yaml_layers import EXPERIMENTS, choose, merge, read_yaml

Kind = TypeVar("Kind")


def rows_of(path: Path) -> list[str]:
    """The row ids of an architecture's file; none for a file of another kind (base, a suite, a sweep)."""
    content = read_yaml(path)
    return list(content.get("rows", {})) if "model" in content else []


def architectures() -> dict[str, Path]:
    """Row id -> the file that holds it, over all of experiments/."""
    return {row: path for path in sorted(EXPERIMENTS.glob("*.yaml")) for row in rows_of(path)}


def layered(path: Path, preset: str, row: str | None, above: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    """(row id, merged settings) of an architecture's file, before types are checked."""
    base, own = read_yaml(EXPERIMENTS / "base.yaml"), read_yaml(path)
    if "model" not in own or "rows" not in own:
        raise ValueError(f"{path}: not an architecture's file, it has no model: and rows:; a suite runs by bench suite")
    _check_levels(own, path)
    rows: dict[str, Any] = own["rows"]
    row = row or next(iter(rows))
    choose("row", row, list(rows), path)
    chosen = rows[row] or {}
    single = _single(rows, row, path)  # an ensemble stands on the row whose models it joins
    choose("preset", preset, presets_of(path, row), path)

    def plain(layer: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in layer.items() if key not in ("presets", "rows", "search", "variants")}

    layers = (base, own, single, chosen)
    of_base, of_own, of_single, of_row = ((layer.get("presets") or {}).get(preset) or {} for layer in layers)
    about = {"ensemble": {"about": single["about"]}} if "about" in single else {}
    rows_own = (plain(single), of_single, about, plain(chosen), of_row)
    return row, merge(plain(base), plain(own), of_base, of_own, *rows_own, *above)


def _check_levels(own: Mapping[str, Any], path: Path) -> None:
    """Raises ValueError where an architecture's file has something else than keys with settings."""
    rows, presets = own["rows"], own.get("presets")
    levels: dict[str, Any] = {"model": own["model"], "rows": rows}
    for above, level in (("rows", rows), ("presets", presets)):
        levels |= {f"{above}.{name}": each for name, each in (level.items() if isinstance(level, Mapping) else ())}
    levels |= {key: level for key, level in {"presets": presets}.items() if level is not None}
    for key, level in levels.items():
        if not (isinstance(level, Mapping) or (level is None and "." in key)):
            raise ValueError(f"{path}: {key}: expected keys with settings below it, got {level!r}")
    if not rows:
        raise ValueError(f"{path}: rows: names no row")


def presets_of(path: Path, row: str) -> list[str]:
    """The presets that a row can be run at: those of base.yaml, of its file, of the row that it joins, and its own."""
    base, own = read_yaml(EXPERIMENTS / "base.yaml"), read_yaml(path)
    rows: dict[str, Any] = own["rows"]
    layers = (base, own, _single(rows, row, path), rows[row] or {})
    return list(dict.fromkeys(name for layer in layers for name in layer.get("presets") or {}))


def joined(path: Path, row: str) -> str:
    """The row whose models this row joins; empty for a model of its own."""
    own = (read_yaml(path).get("rows") or {}).get(row) or {}
    return str((own.get("ensemble") or {}).get("of", ""))


def _single(rows: Mapping[str, Any], row: str, path: Path) -> Mapping[str, Any]:
    """The settings of the row whose models this row joins; none for a row that is a model of its own."""
    joined = {name: str(((own or {}).get("ensemble") or {}).get("of", "")) for name, own in rows.items()}
    if not joined[row]:
        return {}
    choose("row", joined[row], [name for name, of in joined.items() if not of], path)
    return rows[joined[row]] or {}


def parser(architecture: str) -> ArgumentParser:
    """The parser of all settings of an architecture: one group for each dataclass."""
    known = sorted(m.name for m in pkgutil.iter_modules(models.__path__) if not m.ispkg)
    choose("model", architecture, known, Path("models"))
    config = importlib.import_module(f"models.{architecture}").Config
    settings = ArgumentParser(prog="bench run FILE", exit_on_error=False, allow_abbrev=False)
    for group, dataclass_ in {"about": RowInfo, "model": config, **GROUPS}.items():
        settings.add_class_arguments(dataclass_, group, help=group)
    settings.add_argument("--seed", type=int, default=1, help="Seed of the initial weights, the order and dropout.")
    return settings


def resolve(
    path: Path,
    *,
    preset: str = "demo",
    row: str | None = None,
    suite: Sequence[Mapping[str, Any]] = (),
    flags: Sequence[str] = (),
) -> Experiment:
    """The experiment that a file, a preset, a row, a suite's settings (layers, the last on top) and flags describe.

    Raises:
        ValueError: one line that names the file or key, and the nearest known one.
    """
    row, merged = layered(path, preset, row, suite)
    model = dict(merged.get("model") or {})
    architecture = str(model.pop("name", ""))
    settings = parser(architecture)
    try:
        values = settings.parse_object(merged | {"model": model})
    except (ArgumentError, TypeError) as error:
        raise ValueError(f"{path}: {explain(error, settings)}") from error
    try:
        values = settings.parse_args(list(flags), namespace=values) if flags else values
    except (ArgumentError, TypeError) as error:
        raise ValueError(explain(error, settings)) from error
    groups = settings.instantiate(values)
    experiment = Experiment(row=row, preset=preset, architecture=architecture, **vars(groups))
    experiment.training.check()
    least = 1 if experiment.members else 0
    if experiment.seed < least:
        raise ValueError(f"seed: {experiment.seed} is too small; at least {least}")
    if experiment.machine.processes > 1 and experiment.training.reward.share:
        raise ValueError(
            "training.reward.share: the phase of reward trains in one process; set it to 0, or machine.devices to 1"
        )
    if experiment.machine.num_nodes > 1 and experiment.members:
        raise ValueError("machine.num_nodes: the members of an ensemble on several machines are runs of their own")
    if experiment.ensemble.of != (merged.get("ensemble") or {}).get("of", ""):
        raise ValueError("ensemble.of: is no flag; write a row of the architecture's file")
    if experiment.decoding.replaces_unknown_words and experiment.text.kind != "words":
        raise ValueError(f"decoding.pos_unk: needs text.kind words, not {experiment.text.kind}; set either")
    return experiment


def restored(settings: Mapping[str, Any]) -> Experiment:
    """The experiment whose `settings` these are: what config.yaml of a run holds. Newer settings take their defaults.

    Raises:
        ValueError: they are of a version with other settings, or of none.
    """
    rest = dict(settings)
    try:
        row, preset, architecture = (rest.pop(key) for key in ("row", "preset", "architecture"))
        model = {key: value for key, value in rest.pop("model").items() if key != "name"}
        known = parser(architecture)
        groups = known.instantiate(known.parse_object(rest | {"model": model}))
    except (ArgumentError, TypeError, KeyError) as error:
        raise ValueError(f"config.yaml: not the settings of a run of this version ({error})") from error
    return Experiment(row=row, preset=preset, architecture=architecture, **vars(groups))


def corpus_settings(name: str, flags: Sequence[str]) -> CorpusSettings:
    """The corpus of this name, with flags such as --corpus.path.

    Raises:
        ValueError: an unknown key or a value of the wrong type.
    """
    settings = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    settings.add_class_arguments(CorpusSettings, "corpus")
    try:
        return settings.instantiate(settings.parse_args(["--corpus.name", name, *flags])).corpus
    except (ArgumentError, TypeError) as error:
        raise ValueError(explain(error, settings)) from error


def read_typed(path: Path, kind: type[Kind]) -> Kind:
    """A YAML file as a dataclass. Raises ValueError, one line, for an unknown key or a value of the wrong type."""
    settings = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    settings.add_class_arguments(kind, "file")
    try:
        return settings.instantiate(settings.parse_object({"file": read_yaml(path)})).file
    except (ArgumentError, TypeError) as error:
        raise ValueError(f"{path}: {explain(error, settings).replace('file.', '')}") from error


def explain(error: Exception, settings: ArgumentParser) -> str:
    """An error of jsonargparse in one line: the key, what is wrong with it, and the nearest known key."""
    text = " ".join(str(error).split())
    known = [option.lstrip("-") for action in settings._actions for option in action.option_strings]
    patterns = (
        r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'",
        r"unrecognized arguments: --(?P<key>[\w.]+)",
        r"[Kk]ey '(?P<key>[\w.]+)' is not expected",
        r"Option '(?P<key>[\w.]+)' is not accepted",
    )
    for pattern in patterns:
        if found := re.search(pattern, text):
            parts = found.groupdict()
            key = ".".join(part for part in (parts.get("group"), parts["key"]) if part)
            near = difflib.get_close_matches(key, known, 1, 0.5)
            return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else "")
    if found := re.search(r'Parser key "(?P<key>[\w.]+)": (?P<what>.*)', text):
        given = re.search(r"(?:Got|Given) value: (.*)$", found["what"])
        types = dict.fromkeys(
            re.findall(r"Expected (?:an? )?(?:<class ')?([\w.\[\], '-]+?)(?:'>)?\.?(?: -| Got| Given|$)", found["what"])
        )
        expected = re.sub(r"typing\.Literal\[(.*?)\]", lambda choices: f"one of {choices[1]}", " or ".join(types))
        expected = expected.replace("NoneType", "null").replace("'", "")
        return f"{found['key']}: expected {expected}, got {given[1] if given else '?'}" if types else text
    return text
