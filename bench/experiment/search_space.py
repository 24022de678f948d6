"""What a sweep searches: the ranges under `search:` in an architecture's file, as data. No sampler is named here."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.experiment.spec import Experiment
from bench.experiment.yaml_layers import choose, merge, read_yaml


@dataclass(frozen=True)
class Range:
    """What one setting may be.

    Attributes:
        low: Smallest value; whole numbers are drawn if both ends are whole.
        high: Largest value.
        log: Draw on a logarithmic scale.
        step: Distance between two values.
        choices: The values themselves, instead of low and high.
        when: Other settings, searched above this one or fixed, and the value at which this one is searched.
    """

    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    step: float | int | None = None
    choices: tuple[Any, ...] = ()
    when: Mapping[str, Any] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def check(self, key: str) -> None:
        """Raises ValueError for a range that cannot be drawn from."""
        if bool(self.choices) == (self.low is not None or self.high is not None):
            raise ValueError(f"{key}: give either low and high, or choices")
        if self.choices:
            if self.log or self.step is not None:
                raise ValueError(f"{key}: choices have neither log nor step")
            return
        for name, end in (("low", self.low), ("high", self.high)):
            if isinstance(end, bool) or not isinstance(end, (int, float)):
                raise ValueError(f"{key}: {name} is {end!r}, no number")
        assert self.low is not None
        assert self.high is not None
        if self.low >= self.high:
            raise ValueError(f"{key}: low {self.low} is not below high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"{key}: with log, low is above 0 and there is no step")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"{key}: step {self.step} is not above 0")

    def holds(self, value: Any) -> bool:
        """Whether it is one of the values that may be drawn."""
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        assert self.low is not None
        assert self.high is not None
        steps = (value - self.low) / self.step if self.step else 0.0
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-6


Space = Mapping[str, Range]
"""Key, as in a flag -> what it may be; in the order in which they are drawn."""


def read(path: Path, preset: str, row: str) -> Space:
    """The space of a row: the file's `search:`, then its preset's, its row's and the row's preset's, key by key.

    Raises:
        ValueError: it is empty, or an entry is not a range; names file and key.
    """
    own = read_yaml(path)
    rows = own.get("rows") or {}
    layers = [
        own,
        (own.get("presets") or {}).get(preset),
        rows.get(row),
        ((rows.get(row) or {}).get("presets") or {}).get(preset),
    ]
    entries: dict[str, Any] = {}
    for layer in layers:
        entries |= (layer or {}).get("search") or {}
    if not entries:
        raise ValueError(f"{path}: search: names no setting of {row}; docs/sweeps.md says how")
    known = [part.name for part in dataclasses.fields(Range)]
    space = {}
    for key, entry in entries.items():
        if not isinstance(entry, Mapping):
            raise ValueError(f"{path}: search: {key}: expected low and high, or choices, got {entry!r}")
        for name in entry:
            choose(f"search: {key}: key", str(name), known, path)
        space[key] = Range(**{**entry, "choices": tuple(entry.get("choices", ()))})
        try:
            space[key].check(key)
        except ValueError as error:
            raise ValueError(f"{path}: search: {error}") from error
    return space


def free(space: Space, flags: Sequence[str]) -> Space:
    """Without the keys that flags have fixed."""
    fixed = {flag.partition("=")[0].removeprefix("--") for flag in flags if flag.startswith("--")}
    return {key: span for key, span in space.items() if key not in fixed}


def setting(experiment: Experiment, key: str) -> Any:
    """The value of a key such as training.optimizer.lr. Raises ValueError if there is no such setting."""
    try:
        return functools.reduce(lambda part, name: part[name], key.split("."), experiment.settings)
    except (KeyError, TypeError):
        raise ValueError(f"search: {key}: {experiment.row} has no such setting") from None


def wanted(span: Range, drawn: Mapping[str, Any], experiment: Experiment) -> bool:
    """Whether a setting is to be searched, given what has been drawn before it."""
    return all((drawn[key] if key in drawn else setting(experiment, key)) == value for key, value in span.when.items())


def preset(space: Space, experiment: Experiment) -> dict[str, Any]:
    """The experiment's own values of all that is searched: a sweep's first trial.

    Raises:
        ValueError: one of them cannot be drawn, so that the sweep could not find the preset again.
    """
    found: dict[str, Any] = {}
    for key, span in space.items():
        value = setting(experiment, key)
        if not wanted(span, found, experiment):
            continue
        if not span.holds(value):
            raise ValueError(
                f"search: {key}: the preset's {value!r} is none of its values; widen it, or fix it by --{key}"
            )
        found[key] = value
    return found


def layer(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"training.optimizer.lr": 0.1} as a layer of settings, {"training": {"optimizer": {"lr": 0.1}}}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        *groups, last = key.split(".")
        nested: Any = {last: value}
        for group in reversed(groups):
            nested = {group: nested}
        found = merge(found, nested)
    return found


def digest(space: Space, *more: str) -> str:
    """Names the space in a study's name: the values of a study's settings cannot change while it lasts."""
    parts = {key: dataclasses.asdict(span) for key, span in space.items()}
    return hashlib.sha256(json.dumps([parts, *more]).encode()).hexdigest()[:8]
