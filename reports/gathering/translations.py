"""The translations of a test set by all rows, and the words in which one differs from the reference."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from bench.measures.quality import Statistics

SHOWN_SENTENCES = 5
"""Number of sentences shown side by side. They stand at equal distances in the test set, so nobody selects them."""


@dataclass(frozen=True, eq=False)
class Translations:
    """The translations of a test set: row -> seed -> lines, and metric -> row -> seed -> sentence statistics."""

    direction: str
    test_set: str
    sources: list[str]
    references: list[str]
    hypotheses: dict[str, dict[int, list[str]]]
    statistics: dict[str, dict[str, dict[int, Statistics]]]

    @property
    def shown_sentences(self) -> list[int]:
        """Indices of the sentences shown side by side."""
        last = len(self.references) - 1
        return sorted({round(last * n / (SHOWN_SENTENCES - 1)) for n in range(SHOWN_SENTENCES)})


def mark_differences(hypothesis: str, reference: str) -> list[tuple[str, bool]]:
    """A translation in pieces: (text, whether it differs from the reference at this position)."""
    ours, theirs = hypothesis.split(), reference.split()
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    pieces = []
    for kind, begin, end, _, _ in matcher.get_opcodes():
        if begin < end:
            pieces.append((" ".join(ours[begin:end]), kind != "equal"))
    return pieces
