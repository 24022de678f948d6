"""Reads YAML files and flags into typed settings. Parsing is strict, and every key of a file is also a flag.

An architecture's file in experiments/ names the model, its presets and its rows. Settings are merged in the order
base < architecture < preset < row < row's preset < tuned < suite < flags, where a later layer overrides an earlier one
(tuned is the recipe that an equal search chose, see tuned.py), and are parsed against the dataclasses that the code
itself uses. An unknown key or a value of the wrong type is an error that names the key.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentParser

import models
from bench.data.corpus import CorpusSettings
from bench.experiment.spec import GROUPS, Experiment, RowInfo
from bench.experiment.tuned import read_tuned
from bench.experiment.yaml_layers import EXPERIMENTS, check_known, merge, merge_explicit, read_yaml
from bench.tracking.store_format import STORE_FORMAT, check_format

Kind = TypeVar("Kind")


def rows_of(path: Path) -> list[str]:
    """The row ids in an architecture's file; empty for base.yaml and the files of suites and sweeps."""
    content = read_yaml(path)
    return list(content.get("rows", {})) if "model" in content else []


def row_files() -> dict[str, Path]:
    """Row id -> the file that defines it, for all files of experiments/."""
    return {row: path for path in sorted(EXPERIMENTS.glob("*.yaml")) for row in rows_of(path)}


NOT_SETTINGS = ("presets", "rows", "search", "search_base", "search_spaces", "sizes", "variants")
"""Keys of a YAML file that are not settings of an experiment."""

ALLOWED = {"the file": NOT_SETTINGS, "a row": ("presets", "search", "sizes"), "a preset": ("search",)}
"""Where in an architecture's file which of these keys are read."""


def merge_settings(
    path: Path, preset: str, row: str | None, overrides: Sequence[Mapping[str, Any]], tuned: bool = True
) -> tuple[str, dict[str, Any]]:
    """Merges all layers of settings, before types are checked.

    Args:
        path: The file of an architecture.
        row: Row id; None for the first row of the file.
        overrides: Layers above those of the file, the last on top.
        tuned: Whether the recipe of an equal search is one of the layers.

    Returns:
        The row id and the merged settings.

    Raises:
        ValueError: the file, the row or the preset is invalid.
    """
    base, own = read_yaml(EXPERIMENTS / "base.yaml"), read_yaml(path)
    if "model" not in own or "rows" not in own:
        raise ValueError(
            f"{path}: not an architecture's file; expected the keys model: and rows:; start a suite with bench suite"
        )
    _check_levels(own, path)
    rows: dict[str, Any] = own["rows"]
    row = row or next(iter(rows))
    check_known("row", row, list(rows), path)
    row_layer = rows[row] or {}
    member = _member_layer(rows, row, path)  # an ensemble has the settings of its members
    check_known("preset", preset, presets_of(path, row), path)

    def plain(layer: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in layer.items() if key not in NOT_SETTINGS}

    def of_preset(layer: Mapping[str, Any]) -> Mapping[str, Any]:
        return plain((layer.get("presets") or {}).get(preset) or {})

    about = {"ensemble": {"about": member["about"]}} if "about" in member else {}
    row_layers = (plain(member), of_preset(member), about, plain(row_layer), of_preset(row_layer))
    recipes = read_tuned(preset) if tuned else None
    recipe = recipes.rows.get(_member_of(row_layer) or row) if recipes else None  # an ensemble has that of its members
    row_layers = (*row_layers, recipe.settings if recipe else {})
    explicit = merge_explicit(*overrides)
    return row, merge(plain(base), plain(own), of_preset(base), of_preset(own), *row_layers, explicit)


def _check_levels(own: Mapping[str, Any], path: Path) -> None:
    """Raises ValueError if a level of an architecture's file is not a mapping of settings."""
    rows, presets = own["rows"], own.get("presets")
    levels: dict[str, Any] = {"model": own["model"], "rows": rows}
    for above, level in (("rows", rows), ("presets", presets)):
        levels |= {f"{above}.{name}": each for name, each in (level.items() if isinstance(level, Mapping) else ())}
    levels |= {key: level for key, level in {"presets": presets}.items() if level is not None}
    for key, level in levels.items():
        if not (isinstance(level, Mapping) or (level is None and "." in key)):
            raise ValueError(
                f"{path}: {key}: expected keys with settings below it, got {level!r}; see "
                "docs/adding-an-architecture.md"
            )
    if not rows:
        raise ValueError(f"{path}: rows: names no row; add at least one row id below it")
    for row, layer in rows.items():
        _check_place(f"rows.{row}", layer, "a row", path)
        for preset, content in ((layer or {}).get("presets") or {}).items():
            _check_place(f"rows.{row}.presets.{preset}", content, "a preset", path)
    for preset, content in (presets or {}).items():
        _check_place(f"presets.{preset}", content, "a preset", path)


def _check_place(level: str, layer: Mapping[str, Any] | None, where: str, path: Path) -> None:
    """Raises ValueError for a key that is no setting and is not read at this level: it would have no effect."""
    for key in layer or {}:
        if key in NOT_SETTINGS and key not in ALLOWED[where]:
            raise ValueError(
                f"{path}: {level}: {key}: has no effect here; {where} may have {' and '.join(ALLOWED[where])} beside "
                f"its settings; move {key} to the top of the file"
            )


def presets_of(path: Path, row: str) -> list[str]:
    """The presets of a row: those of base.yaml, of its file, of its members if it is an ensemble, and its own."""
    base, own = read_yaml(EXPERIMENTS / "base.yaml"), read_yaml(path)
    rows: dict[str, Any] = own["rows"]
    layers = (base, own, _member_layer(rows, row, path), rows[row] or {})
    return list(dict.fromkeys(name for layer in layers for name in layer.get("presets") or {}))


def sizes_of(path: Path, row: str) -> dict[str, dict[str, Any]]:
    """The sizes of a row for `bench scale`: name of the size -> settings of the model, from the smallest size.

    Raises:
        ValueError: the file has no sizes for this row.
    """
    sizes = ((read_yaml(path).get("rows") or {}).get(row) or {}).get("sizes")
    if not isinstance(sizes, Mapping) or not all(isinstance(model, Mapping) and model for model in sizes.values()):
        raise ValueError(
            f"{path}: rows.{row}.sizes: missing or without settings; expected names of sizes with settings of the "
            "model below them, such as M: {width: 104}, from the smallest; see docs/scaling.md"
        )
    return {str(name): dict(model) for name, model in sizes.items()}


def member_row(path: Path, row: str) -> str:
    """The row id of the members of an ensemble; empty if the row is not an ensemble."""
    return _member_of((read_yaml(path).get("rows") or {}).get(row))


def _member_of(layer: Mapping[str, Any] | None) -> str:
    """The row id of the members of the ensemble that these settings of a row describe; empty if they describe none."""
    return str(((layer or {}).get("ensemble") or {}).get("of", ""))


def _member_layer(rows: Mapping[str, Any], row: str, path: Path) -> Mapping[str, Any]:
    """The settings of the members' row of an ensemble; empty if the row is not an ensemble."""
    member_rows = {name: _member_of(own) for name, own in rows.items()}
    if not member_rows[row]:
        return {}
    check_known("row", member_rows[row], [name for name, of in member_rows.items() if not of], path)
    return rows[member_rows[row]] or {}


@functools.cache  # a suite resolves dozens of jobs, and building the parser takes most of that time
def settings_parser(architecture: str) -> ArgumentParser:
    """A parser of all settings of an architecture, with one group per dataclass."""
    known = sorted(m.name for m in pkgutil.iter_modules(models.__path__) if not m.ispkg)
    check_known("model", architecture, known, Path("models"))
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
    tuned: bool = True,
) -> Experiment:
    """The experiment that a file and flags describe.

    Args:
        path: The file of an architecture.
        row: Row id; None for the first row of the file.
        suite: Layers of settings from a suite or sweep, the last on top.
        flags: Settings from the command line; they override everything else.
        tuned: Whether the recipe of an equal search is one of the layers; a search itself does without.

    Raises:
        ValueError: one line that names the file or the key, and the nearest known key.
    """
    row, merged = merge_settings(path, preset, row, suite, tuned)
    model = dict(merged.get("model") or {})
    architecture = str(model.pop("name", ""))
    settings = settings_parser(architecture)
    try:
        values = settings.parse_object(merged | {"model": model})
    except (ArgumentError, TypeError) as error:
        raise ValueError(f"{path}: {describe_parse_error(error, settings)}") from error
    try:
        values = settings.parse_args(list(flags), namespace=values, defaults=False) if flags else values
    except (ArgumentError, TypeError) as error:
        raise ValueError(describe_parse_error(error, settings)) from error
    groups = settings.instantiate(values)
    experiment = Experiment(row=row, preset=preset, architecture=architecture, **vars(groups))
    _check_combinations(experiment, merged)
    return experiment


def _check_combinations(experiment: Experiment, merged: Mapping[str, Any]) -> None:
    """Raises ValueError for settings that are valid on their own but not together.

    Args:
        merged: The settings of the files, without flags.
    """
    experiment.training.check()
    least = 1 if experiment.members else 0
    if experiment.seed < least:
        raise ValueError(f"seed: {experiment.seed} is too small; at least {least}")
    if experiment.machine.processes > 1 and experiment.training.reward.share:
        raise ValueError(
            "training.reward.share: the reward phase trains in one process; set it to 0, or machine.devices to 1"
        )
    if experiment.machine.num_nodes > 1 and experiment.members:
        raise ValueError(
            "machine.num_nodes: the members of an ensemble on several machines are runs of their own; train each "
            "member by its own command, then run the ensemble with machine.num_nodes 1"
        )
    if experiment.ensemble.of != (merged.get("ensemble") or {}).get("of", ""):
        raise ValueError("ensemble.of: is no flag; add a row with this setting to the architecture's file")
    if experiment.decoding.replaces_unknown_words and experiment.text.kind != "words":
        raise ValueError(f"decoding.pos_unk: needs text.kind words, not {experiment.text.kind}; set either")


def config_yaml(experiment: Experiment) -> str:
    """The content of config.yaml: the format of stored data, and all settings of the experiment.

    The address of the store is left out, because it may have a password.
    """
    document = {"format": STORE_FORMAT} | replace(experiment, tracking=replace(experiment.tracking, uri=None)).settings
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def read_config(path: Path) -> Experiment:
    """The experiment that `config_yaml` has described in a file.

    Raises:
        ValueError: the file has another format or other settings than this version.
    """
    document = read_yaml(path)
    advice = "train the model again with this version, or open it with the version that wrote it"
    check_format(document.pop("format", None), str(path), advice)
    return experiment_from_settings(document)


def experiment_from_settings(settings: Mapping[str, Any]) -> Experiment:
    """The experiment that has these `Experiment.settings`. A missing setting takes its default.

    Raises:
        ValueError: a group or key is missing or unknown to this version.
    """
    rest = dict(settings)
    try:
        row, preset, architecture = (rest.pop(key) for key in ("row", "preset", "architecture"))
        model = {key: value for key, value in rest.pop("model").items() if key != "name"}
        known = settings_parser(architecture)
        groups = known.instantiate(known.parse_object(rest | {"model": model}))
    except (ArgumentError, TypeError, KeyError) as error:
        raise ValueError(
            f"config.yaml: not the settings of a run of this version ({error}); open it with the version that wrote it"
        ) from error
    return Experiment(row=row, preset=preset, architecture=architecture, **vars(groups))


def corpus_settings(name: str, flags: Sequence[str]) -> CorpusSettings:
    """The settings of a corpus, from its name and flags such as --corpus.path.

    Raises:
        ValueError: an unknown key or a value of the wrong type.
    """
    settings = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    settings.add_class_arguments(CorpusSettings, "corpus")
    try:
        return settings.instantiate(settings.parse_args(["--corpus.name", name, *flags])).corpus
    except (ArgumentError, TypeError) as error:
        raise ValueError(describe_parse_error(error, settings)) from error


def read_typed(path: Path, kind: type[Kind]) -> Kind:
    """Reads a YAML file into a dataclass. Raises ValueError, one line, for an unknown key or a wrong type."""
    settings = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    settings.add_class_arguments(kind, "file")
    try:
        return settings.instantiate(settings.parse_object({"file": read_yaml(path)})).file
    except (ArgumentError, TypeError) as error:
        raise ValueError(f"{path}: {describe_parse_error(error, settings).replace('file.', '')}") from error


def describe_parse_error(error: Exception, settings: ArgumentParser) -> str:
    """An error of jsonargparse in one line: the key, what is wrong, and the nearest known key or the expected type."""
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
        value = re.search(r"(?:Got|Given) value: (.*)$", found["what"])
        types = dict.fromkeys(
            re.findall(r"Expected (?:an? )?(?:<class ')?([\w.\[\], '-]+?)(?:'>)?\.?(?: -| Got| Given|$)", found["what"])
        )
        expected = re.sub(r"typing\.Literal\[(.*?)\]", lambda choices: f"one of {choices[1]}", " or ".join(types))
        expected = expected.replace("NoneType", "null").replace("'", "")
        return f"{found['key']}: expected {expected}, got {value[1] if value else '?'}" if types else text
    return text
