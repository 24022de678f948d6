"""The times of translation of all rows of a suite, measured one after another on one machine.

The runs of a table may come from several machines and were often trained beside other jobs, so their own times cannot
be compared. `bench speed decode --suite FILE` measures all rows at once, with initial weights and outputs as long as
the references, and keeps the measures among the results of the suite. A reader of these results replaces the times of
the runs by them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from bench.measures.measure import Measure
from bench.system.files import write_file
from bench.tracking.private_paths import public_text

NAME = "speeds.json"
"""The file in the folder of results."""

FORMAT = 1

TOGETHER = "initial weights, all rows on one machine"
"""How the provenance of these measures begins."""


@dataclass(frozen=True)
class RowSpeed:
    """The measured times of a row on a corpus.

    Attributes:
        jobs: Job hashes of all seeds, to which the times apply. A job with other settings, such as another size or
            beam, has another hash, and keeps the times of its own run.
        measures: Of latency and throughput.
    """

    row: str
    corpus: str
    jobs: Sequence[str]
    measures: Sequence[Measure]


@dataclass(frozen=True)
class Speeds:
    """The measured times of the rows of one suite.

    Attributes:
        suite: Name of the suite.
        machine: Commit, versions and hardware, as in the tags of a run.
        rows: The times of each row on each of its corpora.
    """

    suite: str
    machine: Mapping[str, str]
    rows: Sequence[RowSpeed]

    @property
    def where(self) -> str:
        """The machine in a few words: its GPU or processor, and the number of threads."""
        gpu = self.machine.get("hardware.gpu", "none")
        device = self.machine.get("hardware.cpu", "unknown") if gpu == "none" else gpu
        return f"{device}, threads: {self.machine.get('threads', 'unknown')}"

    def has(self, tags: Mapping[str, str]) -> bool:
        """Whether the job of a run with these tags was measured."""
        return self._of(tags) is not None

    def _of(self, tags: Mapping[str, str]) -> RowSpeed | None:
        return next((row for row in self.rows if tags.get("job_hash", "") in row.jobs), None)

    def replace(self, tags: Mapping[str, str], own: Sequence[Measure]) -> list[Measure]:
        """The measures of a run with these tags, in which the times are those of this measurement."""
        found = self._of(tags)
        together = {measure.metric: measure for measure in (found.measures if found else ())}
        return [together.get(measure.metric, measure) for measure in own]

    def write(self, folder: Path) -> Path:
        """Writes the file into a folder of results; returns its path."""
        rows = [asdict(row) for row in self.rows]
        content = {"format": FORMAT, "suite": self.suite, "machine": dict(self.machine), "rows": rows}
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / NAME, json.dumps(content, indent=1) + "\n")
        return folder / NAME

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The measurement in a folder of results; None if it has none.

        Raises:
            ValueError: the file is not readable.
        """
        path = folder / NAME
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, but this version reads format {FORMAT}")
            machine = {str(key): str(value) for key, value in content["machine"].items()}
            rows = [
                RowSpeed(
                    str(one["row"]),
                    str(one["corpus"]),
                    [str(job) for job in one["jobs"]],
                    [_measure(each) for each in one["measures"]],
                )
                for one in content["rows"]
            ]
            return cls(str(content["suite"]), machine, rows)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ValueError(
                f"{path}: not readable: {reason}; measure again with bench speed decode --suite FILE, or remove it"
            ) from error


def _measure(stored: Mapping[str, object]) -> Measure:
    """A measure from the file. Raises TypeError for a value of another type."""
    found = Measure(**stored)  # pyright: ignore[reportArgumentType]
    for value, kinds in (
        (found.metric, str),
        (found.unit, str),
        (found.provenance, str),
        (found.noisy, bool),
        (found.value, (int, float, type(None))),
        (found.low, (int, float, type(None))),
        (found.high, (int, float, type(None))),
    ):
        if not isinstance(value, kinds):
            raise TypeError(f"{found.metric}: {value!r} has a wrong type")
    return Measure(
        found.metric, found.value, found.unit, found.low, found.high, public_text(found.provenance), noisy=found.noisy
    )
