"""Reads YAML files strictly and merges them as layers of settings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


class _StrictLoader(yaml.CSafeLoader):
    """A YAML loader that refuses duplicate keys and reads 1e-9 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: list[Any] = []
        for key, _ in node.value:
            if key.value in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice; remove one", key.start_mark
                )
            keys.append(key.value)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a YAML file.

    Raises:
        ValueError: the file is missing, is not YAML, or is not a mapping; the message names file and line.
    """
    if not path.is_file():
        raise ValueError(
            f"{path}: file not found; check the path; files in {EXPERIMENTS.name}/: {', '.join(_file_names())}"
        )
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ValueError(f"{path}, line {line}: {error.problem}") from error
    except yaml.YAMLError as error:  # a character that is not allowed in YAML
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}; convert it, for example with iconv") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: holds no settings; expected keys such as model:, presets:, rows:; see "
            "docs/adding-an-architecture.md"
        )
    return content


def _file_names() -> list[str]:
    return sorted(path.name for path in EXPERIMENTS.glob("*.yaml"))


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merges layers of settings, key by key. Later layers override earlier ones.

    A mapping whose `name` differs from the `name` in the layer below (another optimizer, another model) replaces that
    mapping completely, because the settings of Adam are not valid for SGD. This is the only way in which a key is
    dropped. Names that are equal up to the first hyphen are of one kind: the corpus grammar-en-fr has as many pairs as
    grammar-en-de below it. A mapping below that has no name keeps its keys, and a key without a value (`training:` and
    nothing after it) changes nothing below it. Dotted keys are nested first, see `nested_settings`.
    """
    return _merge(map(nested_settings, layers), "", may_replace=True)


def merge_explicit(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merges layers that a user has written for one command: a suite's settings, the best settings of a sweep.

    Raises:
        ValueError: as `merge`, a mapping with another name would replace one with further settings. Those were chosen
            for this command too, so dropping them would be a silent change of what was asked for.
    """
    return _merge(map(nested_settings, layers), "", may_replace=False)


def nested_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested settings: {"training.clip": 0.1} becomes {"training": {"clip": 0.1}}.

    If a layer kept both forms of a key, the one that is parsed last would win, not the one of the later layer.
    """
    result: dict[str, Any] = {}
    for key, value in settings.items():
        head, _, rest = str(key).partition(".")
        content = {rest: value} if rest else value
        result = _join(result, {head: nested_settings(content) if isinstance(content, Mapping) else content})
    return result


def _join(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = {key for key in one.keys() & other.keys() if isinstance(one[key], Mapping)}
    return {**one, **{k: _join(one[k], v) if k in both and isinstance(v, Mapping) else v for k, v in other.items()}}


def _merge(layers: Iterable[Mapping[str, Any]], prefix: str, may_replace: bool) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            if isinstance(below, Mapping) and value is None:
                continue
            if not isinstance(below, Mapping) or not isinstance(value, Mapping):
                merged[key] = _merge([value], "", may_replace) if isinstance(value, Mapping) else value
                continue
            name = below.get("name")
            replaces = name is not None and _kind(value.get("name", name)) != _kind(name)
            dropped = sorted(below.keys() - value.keys() - {"name"}) if replaces else []
            if dropped and not may_replace:
                raise ValueError(
                    f"{prefix}{key}: the settings {', '.join(dropped)} were given for {name}, but a later layer sets "
                    f"name to {value['name']}; expected one name in all layers; remove the settings, or set them "
                    f"together with name {value['name']}"
                )
            merged[key] = _merge([value] if replaces else [below, value], f"{prefix}{key}.", may_replace)
    return merged


def _kind(name: object) -> str:
    return str(name).partition("-")[0]


def check_known(kind: str, name: str, known: Sequence[str], where: Path) -> None:
    """Raises ValueError if `name` is not among the known names; the message lists them and the nearest one."""
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f", did you mean {near[0]}?" if near else ";"
        raise ValueError(f"{where}: no {kind} {name!r}{hint} there are: {', '.join(known)}")
