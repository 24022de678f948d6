"""The words of a report: one catalogue a language, languages/LANGUAGE.yaml, with the same keys in each.

Text of the runs themselves (a suite's question, a recipe, a reason) was recorded in English; the catalogue's `recorded`
has its translations, and what it does not know is printed as it was recorded.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from reports.text import formatting as f

LANGUAGES = Path(__file__).parent / "languages"


class Words:
    """The texts in one language.

    Attributes:
        language: Its code, such as en.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        text = (LANGUAGES / f"{language}.yaml").read_text(encoding="utf-8")
        content = yaml.load(text, Loader=yaml.BaseLoader)  # every value is a text, true and 1 as well
        self._recorded = [(_pattern(known), ours) for known, ours in (content.pop("recorded", None) or {}).items()]
        self.texts = dict(_flat(content))

    def __call__(self, key: str, /, **values: object) -> str:
        """The text of a key, with values in place of their names in braces."""
        return self.texts[key].format(**values)

    def count(self, noun: str, number: int, least: int | None = None) -> str:
        """1 seed, 2 seeds, or 1–2 seeds where that is not the least."""
        one, _, more = self.texts[f"count.{noun}"].partition("|")
        said = f.whole(number) if least in (None, number) else f"{f.whole(least)}–{f.whole(number)}"
        return (one if number == 1 or not more else more).format(said)

    def listed(self, names: Sequence[str]) -> str:
        """A, B and C."""
        return self("list.last").join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

    def label(self, metric: str) -> str:
        """Name of a metric; its own where the catalogue has none."""
        return self.texts.get(f"metric.{metric}", metric)

    def unit(self, metric: str) -> str:
        return self.texts.get(f"unit.{metric}", "")

    def quantity(self, metric: str, number: float | None) -> str:
        """A number with its unit, to stand in a sentence."""
        unit = self.unit(metric)
        return f.value(metric, number) + (f.SPACE + unit if unit and number is not None else "")

    def compared(self, one: float, other: float, name: str) -> str:
        """How much more or less one amount is than that of another: 25 % fewer than LSTM, 2.3 times those of LSTM."""
        ratio = one / other
        if ratio >= 2:
            return self("compared.times", ratio=f.fixed(ratio, 1 if ratio < 100 else 0), name=name)
        percent = round(abs(ratio - 1) * 100)
        kind = "same" if not percent else "more" if ratio > 1 else "fewer"
        return self(f"compared.{kind}", percent=percent, name=name)

    def recorded(self, text: str) -> str:
        """A text of the runs in this language, piece by piece where it is a list of pieces."""
        if not self._recorded:
            return text
        whole = self._translated(text)
        return whole if whole is not None else "; ".join(self._translated(part) or part for part in text.split("; "))

    def _translated(self, text: str) -> str | None:
        for known, ours in self._recorded:
            if match := known.fullmatch(text):
                return ours.format(*match.groups())
        return None


@functools.cache
def words(language: str = "en") -> Words:
    """The catalogue of a language.

    Raises:
        ValueError: there is none; lists those that there are.
    """
    if language not in languages():
        raise ValueError(f"--lang: there is no {language!r}; there are: {', '.join(languages())}")
    return Words(language)


def languages() -> list[str]:
    return sorted(path.stem for path in LANGUAGES.glob("*.yaml"))


def _flat(content: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", str(value)


def _pattern(known: str) -> re.Pattern[str]:
    """{} stands for anything within one piece of a list."""
    return re.compile("((?:(?!; ).)+?)".join(re.escape(part) for part in known.split("{}")))
