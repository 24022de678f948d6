"""Search spaces of hyperparameters: the ranges under `search:` in the YAML files, as data. Needs no Optuna."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.experiment.fairness import SHARED_SETTINGS
from bench.experiment.spec import Experiment, flatten
from bench.experiment.yaml_layers import EXPERIMENTS, check_known, read_yaml


@dataclass(frozen=True)
class Range:
    """The values that one setting may take.

    Attributes:
        low: Smallest value. If low and high are both integers, integers are drawn.
        high: Largest value.
        log: Draw on a logarithmic scale.
        step: Distance between two neighbouring values.
        choices: List of the values, instead of low and high.
        when: Condition: another setting -> the value that it must have for this setting to be searched. The other
            setting is searched earlier in the space, or fixed.
    """

    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    step: float | int | None = None
    choices: tuple[Any, ...] = ()
    when: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_integer(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def check(self, key: str) -> None:
        """Raises ValueError for a range from which no value can be drawn."""
        if not isinstance(self.log, bool):
            raise ValueError(f"{key}: log is {self.log!r}; write true or false")
        if bool(self.choices) == (self.low is not None or self.high is not None):
            raise ValueError(f"{key}: give either low and high, or choices")
        if self.choices:
            if self.log or self.step is not None:
                raise ValueError(f"{key}: choices have neither log nor step; remove these keys")
            return
        for name, end in (("low", self.low), ("high", self.high)):
            if not _is_number(end):
                raise ValueError(f"{key}: {name} is {end!r}, no number; set a number")
        assert self.low is not None
        assert self.high is not None
        if self.low >= self.high:
            raise ValueError(f"{key}: low {self.low} is not below high {self.high}; exchange or change them")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"{key}: with log, low is above 0 and there is no step; change low, or remove log or step")
        if self.step is not None and (not _is_number(self.step) or self.step <= 0):
            raise ValueError(f"{key}: step {self.step} is no number above 0; set a positive step")
        if self.step is not None and self.is_integer and not isinstance(self.step, int):
            raise ValueError(
                f"{key}: step {self.step} is no integer, but low and high are; write low as {float(self.low)}, or "
                "change the step"
            )

    def contains(self, value: Any) -> bool:
        """Whether the value is one of those that may be drawn."""
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        assert self.low is not None
        assert self.high is not None
        steps = (value - self.low) / self.step if self.step else 0.0
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-6


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


Space = Mapping[str, Range]
"""Key of a setting, such as training.optimizer.lr -> its range, in the order in which the settings are drawn."""


def read_space(path: Path, preset: str, row: str) -> Space:
    """The search space of a row.

    The file names under `search_base:` one of the spaces that base.yaml defines under `search_spaces:`, if it uses one.
    The `search:` of the file, of its preset, of the row, and of the row's preset follow; each overrides and extends the
    earlier ones key by key.

    Raises:
        ValueError: the space is empty, or an entry is not a range; the message names file and key.
    """
    own = read_yaml(path)
    rows = own.get("rows") or {}
    layers = [
        {"search": _common_space(own, path)},
        own,
        (own.get("presets") or {}).get(preset),
        rows.get(row),
        ((rows.get(row) or {}).get("presets") or {}).get(preset),
    ]
    entries: dict[str, Any] = {}
    for layer in layers:
        entries |= (layer or {}).get("search") or {}
    if not entries:
        raise ValueError(f"{path}: search: names no setting of {row}; add at least one, as docs/sweeps.md describes")
    return parse_ranges(entries, path)


def parse_ranges(entries: Mapping[str, Any], path: Path) -> Space:
    """The space of the entries of a file. Raises ValueError, naming file and key, if an entry is not a range."""
    known = [part.name for part in dataclasses.fields(Range)]
    space = {}
    for key, entry in entries.items():
        if not isinstance(entry, Mapping):
            raise ValueError(f"{path}: search: {key}: expected low and high, or choices, got {entry!r}")
        for name in entry:
            check_known(f"search: {key}: key", str(name), known, path)
        choices = entry.get("choices", [])
        if not isinstance(choices, list):
            raise ValueError(f"{path}: search: {key}: choices is {choices!r}; write a list, such as [0.1, 0.2]")
        space[key] = Range(**{**entry, "choices": tuple(choices)})
        try:
            space[key].check(key)
        except ValueError as error:
            raise ValueError(f"{path}: search: {error}") from error
    return space


def _common_space(own: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The entries of the space in base.yaml that an architecture's file names; none if it names none."""
    name = own.get("search_base")
    if name is None:
        return {}
    spaces = read_yaml(EXPERIMENTS / "base.yaml").get("search_spaces") or {}
    check_known("search_base", str(name), list(spaces), path)
    return spaces[name]


def without_fixed(space: Space, flags: Sequence[str]) -> Space:
    """The space without the settings that command-line flags fix."""
    fixed = _flagged(flags)
    return {key: span for key, span in space.items() if key not in fixed}


def fixed_settings(experiment: Experiment, flags: Sequence[str]) -> dict[str, Any]:
    """The settings of model and training that command-line flags fix, without those that all rows of a table share."""
    flagged = _flagged(flags)
    shared = {f"{group}.{key}" for group, keys in SHARED_SETTINGS.items() for key in keys}
    return {
        key: value
        for key, value in flatten(experiment.settings).items()
        if key.startswith(("model.", "training.")) and key not in shared
        if any(key == name or key.startswith(f"{name}.") for name in flagged)
    }


def _flagged(flags: Sequence[str]) -> set[str]:
    """The keys that flags set."""
    return {flag.partition("=")[0].removeprefix("--") for flag in flags if flag.startswith("--")}


def setting_value(experiment: Experiment, key: str) -> Any:
    """The value of a setting by its key, such as training.optimizer.lr. Raises ValueError if there is none."""
    try:
        return functools.reduce(lambda part, name: part[name], key.split("."), experiment.settings)
    except (KeyError, TypeError):
        raise ValueError(
            f"search: {key}: {experiment.row} has no such setting; bench run FILE --settings lists all"
        ) from None


def with_values(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """The experiment with other values of some settings, which must exist. Keys are those of flags."""
    changed: Any = experiment
    for key, value in values.items():
        changed = _with_value(changed, key.split("."), value)
    return changed


def _with_value(part: Any, names: Sequence[str], value: Any) -> Any:
    name, *rest = names
    return dataclasses.replace(part, **{name: _with_value(getattr(part, name), rest, value) if rest else value})


def is_active(span: Range, drawn: Mapping[str, Any], experiment: Experiment) -> bool:
    """Whether the condition `when` of a setting holds, so that the setting is searched.

    Args:
        drawn: Key -> value, for the settings drawn before this one.
        experiment: Supplies the values of all other settings.
    """
    return all(
        (drawn[key] if key in drawn else setting_value(experiment, key)) == value for key, value in span.when.items()
    )


def preset_values(space: Space, experiment: Experiment) -> dict[str, Any]:
    """The experiment's own values of the searched settings. They are the first trial of a sweep.

    Raises:
        ValueError: a value is outside its range, so that the sweep could never draw the preset again.
    """
    values: dict[str, Any] = {}
    for key, span in space.items():
        value = setting_value(experiment, key)
        if not is_active(span, values, experiment):
            continue
        if not span.contains(value):
            raise ValueError(
                f"search: {key}: the preset's {value!r} is none of its values; widen the range, or fix it by --{key}"
            )
        values[key] = value
    return values


def space_hash(space: Space, *more: str) -> str:
    """Hash of the space and `more`. It is part of a study's name, because the space of a study must not change."""
    parts = {key: dataclasses.asdict(span) for key, span in space.items()}
    return hashlib.sha256(json.dumps([parts, *more]).encode()).hexdigest()[:8]
