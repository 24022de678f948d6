"""The texts of a report in one language, from languages/LANGUAGE.yaml. Every language has the same keys.

English labels and units of metrics stand in bench/measures/metric_registry.py; the other languages have them in their
catalogue, under `metric` and `unit`. Text that a run has stored (the question of a suite, the provenance of a number, a
reason) is English. The catalogue of another language translates it by the patterns under `recorded`; text that matches
no pattern is printed unchanged.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.measures import metric_registry
from bench.system import formatting
from reports.text import metric_format

LANGUAGES = Path(__file__).parent / "languages"


class Catalogue:
    """The texts in one language. The code calls it by the name `say`: say("table.run") is the text of that key.

    Attributes:
        language: Its code, such as en.
        texts: Key, such as table.run -> text.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        text = (LANGUAGES / f"{language}.yaml").read_text(encoding="utf-8")
        content = yaml.load(text, Loader=yaml.BaseLoader)  # every value is a string, also true and 1
        recorded = content.pop("recorded", None) or {}
        self._recorded = [(_pattern(english), translation) for english, translation in recorded.items()]
        self.texts = dict(_flatten(content))
        if language == "en":
            self.texts |= {f"metric.{metric.name}": metric.label for metric in metric_registry.METRICS if metric.label}
            self.texts |= {f"unit.{m.name}": m.printed_unit for m in metric_registry.METRICS if m.printed_unit}

    def __call__(self, key: str, /, **values: object) -> str:
        """The text of a key, with the values in place of their names in braces."""
        return self.texts[key].format(**values)

    def count(self, noun: str, number: int, least: int | None = None) -> str:
        """A number with its noun: 1 seed, 2 seeds; or a range such as 1–2 seeds if `least` is another number."""
        singular, _, plural = self.texts[f"count.{noun}"].partition("|")
        digits = formatting.count(number)
        if least not in (None, number):
            digits = f"{formatting.count(least)}–{digits}"
        return (singular if number == 1 or not plural else plural).format(digits)

    def listed(self, names: Sequence[str]) -> str:
        """A, B and C."""
        return self("list.last").join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

    def label(self, metric: str) -> str:
        """The printed label of a metric; its name if it has none."""
        return self.texts.get(f"metric.{metric}", metric)

    def unit(self, metric: str) -> str:
        """The printed unit of a metric; empty if it has none."""
        return self.texts.get(f"unit.{metric}", "")

    def number_with_unit(self, metric: str, number: float | None) -> str:
        """A number with its unit, for a sentence."""
        unit = self.unit(metric)
        return metric_format.value(metric, number) + (formatting.SPACE + unit if unit and number is not None else "")

    def compared(self, amount: float, other: float, name: str) -> str:
        """How much more or less an amount is than that of `name`: 25 % fewer than LSTM, 2.3 times those of LSTM."""
        ratio = amount / other
        if ratio >= 2:
            return self("compared.times", ratio=formatting.fixed(ratio, 1 if ratio < 100 else 0), name=name)
        percent = round(abs(ratio - 1) * 100)
        kind = "same" if not percent else "more" if ratio > 1 else "fewer"
        return self(f"compared.{kind}", percent=percent if percent < 100 else "> 99", name=name)

    def recorded(self, text: str) -> str:
        """The translation of a text that a run has stored; of a list with semicolons, each piece by itself."""
        if not self._recorded:
            return text
        translation = self._translate(text)
        if translation is not None:
            return translation
        return "; ".join(self._translate(piece) or piece for piece in text.split("; "))

    def _translate(self, text: str) -> str | None:
        for pattern, translation in self._recorded:
            if match := pattern.fullmatch(text):
                return translation.format(*match.groups())
        return None


@functools.cache
def load_catalogue(language: str = "en") -> Catalogue:
    """The catalogue of a language.

    Raises:
        ValueError: the language does not exist; the message lists those that do.
    """
    if language not in languages():
        raise ValueError(f"--lang: there is no language {language!r}; choose one of: {', '.join(languages())}")
    return Catalogue(language)


def languages() -> list[str]:
    """The codes of all languages, sorted."""
    return sorted(path.stem for path in LANGUAGES.glob("*.yaml"))


def _flatten(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The texts of nested dictionaries, with the keys joined by dots."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _pattern(english: str) -> re.Pattern[str]:
    """A pattern in which {} stands for any text within one piece of a list with semicolons."""
    return re.compile("((?:(?!; ).)+?)".join(re.escape(part) for part in english.split("{}")))
