"""Reads YAML files strictly and merges them as layers of settings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
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
    mapping completely, because the settings of Adam are not valid for SGD.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            if not isinstance(value, Mapping):
                merged[key] = value
            elif isinstance(below, Mapping) and value.get("name", below.get("name")) == below.get("name"):
                merged[key] = merge(below, value)
            else:
                merged[key] = merge(value)
    return merged


def check_known(kind: str, name: str, known: Sequence[str], where: Path) -> None:
    """Raises ValueError if `name` is not among the known names; the message lists them and the nearest one."""
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f", did you mean {near[0]}?" if near else ";"
        raise ValueError(f"{where}: no {kind} {name!r}{hint} there are: {', '.join(known)}")
