"""Words and their forms. A paradigm is data: the parts an entry lists, what they default to, and a table of forms.

    noun:
      entry: [base, plural]                            # child: child children
      defaults: {plural: {of: "{base}", rules: {"y$": ies, "$": s}}}
      features: [number]
      forms: {one: "{base}", many: "{plural}"}

A table is nested by the values of its features. A row with as many words as the last feature has values gives one to
each; a row that ends early holds for all values of the features it leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any


@dataclass(frozen=True, slots=True)
class Lexeme:
    """A word of one language: `forms` by the values of `features`, each of which comes with its unmarked value."""

    name: str
    group: str
    features: tuple[tuple[str, str], ...]
    forms: Mapping[tuple[str, ...], tuple[str, ...]]
    inherent: Mapping[str, str]


class Morphology:
    """The paradigms of one language."""

    def __init__(self, domains: Mapping[str, str], paradigms: Mapping[str, Mapping[str, Any]]):
        self.domains = {name: values.split() for name, values in domains.items()}
        self.paradigms = paradigms

    def lexeme(self, group: str, name: str, entry: str | Mapping[str, Any]) -> Lexeme:
        """The word with all its forms.

        Args:
            group: The paradigm, such as noun; `paradigm=NAME` in the entry chooses another one.
            name: The concept, or the name of a function word.
            entry: The parts in the paradigm's order, then others as part=text; or a table of its own (`forms`, its
                `features`, and whatever else holds of the word). _ is a blank within a part.
        """
        if isinstance(entry, Mapping):
            inherent = {key: text for key, text in entry.items() if key not in ("features", "forms")}
            return self._inflected(group, name, entry.get("features", ()), entry["forms"], inherent)
        words = (entry or "").split()
        parts = dict(word.split("=", 1) for word in words if "=" in word)
        paradigm = self.paradigms[parts.pop("paradigm", group)]
        parts |= dict(zip(paradigm["entry"], (word for word in words if "=" not in word), strict=False))
        for part, default in paradigm.get("defaults", {}).items():
            if part not in parts:
                parts[part] = default.format(**parts) if isinstance(default, str) else rewritten(default, parts)
        return self._inflected(group, name, paradigm.get("features", ()), paradigm["forms"], parts)

    def _inflected(self, group: str, name: str, features: Any, rows: Any, parts: Mapping[str, str]) -> Lexeme:
        forms = {
            key: tuple(pattern.format(**parts).replace("_", " ").split())
            for key, pattern in self.table(tuple(features), rows).items()
        }
        unmarked = tuple((feature, self.domains[feature][0]) for feature in features)
        return Lexeme(name, group, unmarked, forms, parts)

    def table(self, features: tuple[str, ...], rows: Any) -> dict[tuple[str, ...], str]:
        """A nested table, spread out: every combination of the features' values that it covers, with its pattern."""
        if not isinstance(rows, Mapping):
            text = str(rows if rows is not None else "")
            last = self.domains[features[-1]] if features else []
            columns = text.split()
            keys = product(*(self.domains[feature] for feature in features))
            if len(last) > 1 and len(columns) == len(last):
                return {key: columns[last.index(key[-1])] for key in keys}
            return dict.fromkeys(keys, text)
        spread: dict[tuple[str, ...], str] = {}
        for values, row in rows.items():
            for value in self.domains[features[0]] if values == "any" else values.split():
                assert value in self.domains[features[0]], f"{value} is no {features[0]}"
                spread |= {(value, *key): pattern for key, pattern in self.table(features[1:], row).items()}
        return spread


def rewritten(default: Mapping[str, Any], parts: Mapping[str, str]) -> str:
    """The first rule (a regular expression and what replaces it) that matches the text `of`."""
    text = default["of"].format(**parts)
    for pattern, replacement in default["rules"].items():
        if re.search(pattern, text):
            return re.sub(pattern, replacement, text, count=1)
    return text
