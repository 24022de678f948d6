"""Words and their forms. A paradigm is data: the parts of a lexicon entry, their defaults, and a table of forms.

    noun:
      entry: [base, plural]                            # child: child children
      defaults: {plural: {of: "{base}", rules: {"y$": ies, "$": s}}}
      features: [number]
      forms: {one: "{base}", many: "{plural}"}

A table is nested by the values of its features. If a row has as many words as the last feature has values, each value
gets one word. A row that is not nested down to the last feature applies to all values of the remaining features.

A word can be a different one by a feature: `old: {by: sort, forms: {thing: ..., person animal: ...}}` has an entry for
each value; that of the first value stands for those without one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any


@dataclass(frozen=True, slots=True)
class Lexeme:
    """A word of one language.

    Attributes:
        name: Its concept, or the name of a function word.
        group: Its paradigm.
        features: (name, unmarked value) of each feature that its forms depend on.
        forms: Values of the features -> the words of the form.
        inherent: Features of the word itself, such as its gender.
    """

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
        """A word with all its forms.

        Args:
            group: The paradigm, such as noun; `paradigm=NAME` in the entry selects another one.
            name: The concept, or the name of a function word.
            entry: The parts in the order of the paradigm, then further parts as part=text; or a table of its own
                (`forms`, `features`, and other features of the word). _ is a space within a part.
        """
        if isinstance(entry, Mapping) and "by" in entry:
            return self._variants(group, name, entry["by"], entry["forms"])
        if isinstance(entry, Mapping):
            inherent = {key: text for key, text in entry.items() if key not in ("features", "forms")}
            return self._inflected(group, name, entry.get("features", ()), entry["forms"], inherent)
        words = (entry or "").split()
        parts = dict(word.split("=", 1) for word in words if "=" in word)
        paradigm = self.paradigms[parts.pop("paradigm", group)]
        parts |= dict(zip(paradigm["entry"], (word for word in words if "=" not in word), strict=False))
        for part, default in paradigm.get("defaults", {}).items():
            if part not in parts:
                parts[part] = default.format(**parts) if isinstance(default, str) else apply_rules(default, parts)
        return self._inflected(group, name, paradigm.get("features", ()), paradigm["forms"], parts)

    def _variants(self, group: str, name: str, feature: str, entries: Mapping[str, Any]) -> Lexeme:
        variants = {
            value: self.lexeme(group, name, entry) for values, entry in entries.items() for value in values.split()
        }
        unmarked = self.domains[feature][0]
        default = variants[unmarked]
        forms = {
            (value, *key): form
            for value in self.domains[feature]
            for key, form in variants.get(value, default).forms.items()
        }
        return Lexeme(name, group, ((feature, unmarked), *default.features), forms, default.inherent)

    def _inflected(self, group: str, name: str, features: Any, rows: Any, parts: Mapping[str, str]) -> Lexeme:
        forms = {
            key: tuple(unicodedata.normalize("NFC", pattern.format(**parts)).replace("_", " ").split())
            for key, pattern in self.table(tuple(features), rows).items()
        }
        unmarked = tuple((feature, self.domains[feature][0]) for feature in features)
        return Lexeme(name, group, unmarked, forms, parts)

    def table(self, features: tuple[str, ...], rows: Any) -> dict[tuple[str, ...], str]:
        """A nested table as a flat one: each combination of feature values that it has -> its pattern."""
        if not isinstance(rows, Mapping):
            text = str(rows if rows is not None else "")
            last = self.domains[features[-1]] if features else []
            columns = text.split()
            keys = product(*(self.domains[feature] for feature in features))
            if len(last) > 1 and len(columns) == len(last):
                return {key: columns[last.index(key[-1])] for key in keys}
            return dict.fromkeys(keys, text)
        flat: dict[tuple[str, ...], str] = {}
        for values, row in rows.items():
            for value in self.domains[features[0]] if values == "any" else values.split():
                assert value in self.domains[features[0]], f"{value} is not a value of {features[0]}"
                flat |= {(value, *key): pattern for key, pattern in self.table(features[1:], row).items()}
        return flat


def apply_rules(default: Mapping[str, Any], parts: Mapping[str, str]) -> str:
    """The text `of` of a default, changed by the first rule (regular expression: replacement) that matches."""
    text = default["of"].format(**parts)
    for pattern, replacement in default["rules"].items():
        if re.search(pattern, text):
            return re.sub(pattern, replacement, text, count=1)
    return text
