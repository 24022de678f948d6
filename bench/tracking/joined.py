"""Several readers as one, such as a store and the results that other machines have added to a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from bench.measures.measure import Measure
from bench.tracking.exported import ORIGIN_TAG, read_exports, results_folder
from bench.tracking.reading import Reader, TrackedRun
from bench.tracking.speeds import Speeds

OF_ROWS = frozenset({"about", "tuning"})
"""Tags of the run of a suite that hold a JSON object of rows."""


class JoinedReader(Reader):
    """A suite of it has the runs of all readers. A run that several have is read from the first one.

    Args:
        readers: At least one. The experiment of a suite is that of the first reader that has the suite.
        speeds: Of suites whose rows were measured together. Their times replace those of the runs.
    """

    def __init__(self, readers: Sequence[Reader], speeds: Sequence[Speeds] = ()) -> None:
        self.readers = readers
        self.speeds = {one.suite: one for one in speeds}
        addresses = {reader.uri for reader in readers}
        self.uri = addresses.pop() if len(addresses) == 1 else ""  # else links would lead to runs that are not there
        self.reader_of: dict[str, Reader] = {}

    def suites(self) -> list[str]:
        names = dict.fromkeys(name for reader in self.readers for name in reader.suites())
        return sorted(names, key=lambda name: self.runs(name)[0].started, reverse=True)

    def _having(self, suite: str) -> list[Reader]:
        """The readers that have a suite. Raises ValueError if there are none."""
        found = [reader for reader in self.readers if suite in reader.suites()]
        if not found:
            known, number = ", ".join(self.suites()) or "none yet", len(self.readers)
            where = f"the {number} folders" if number > 1 else "the folder"
            raise ValueError(f"--suite: there is no suite {suite!r} in {where}; there are: {known}")
        return found

    def runs(self, suite: str) -> list[TrackedRun]:
        found: dict[str, TrackedRun] = {}
        for reader in self._having(suite):
            for run in reader.runs(suite):
                origin = run.tags.get(ORIGIN_TAG, run.id)
                if origin not in found:
                    found[origin] = self._remember(run, reader)
        return sorted(found.values(), key=lambda run: run.started, reverse=True)

    def _remember(self, run: TrackedRun, reader: Reader) -> TrackedRun:
        self.reader_of[run.id] = reader
        return run

    def parent_run(self, suite: str) -> TrackedRun | None:
        """The run of the suite with the most rows, in the reader with the newest job of several such.

        Somebody may have run a part of the suite last, with a baseline of its own. What parents say of single rows is
        joined (OF_ROWS); of a row that several have, by the newest one.
        """
        oldest_first = sorted(self._having(suite), key=lambda reader: reader.runs(suite)[0].started)
        found = [(parent, reader) for reader in oldest_first if (parent := reader.parent_run(suite))]
        if not found:
            return None
        parent, reader = max(reversed(found), key=lambda each: each[0].tags.get("rows", "").count(","))
        joined: dict[str, dict[str, object]] = {}
        for each, _ in found:
            for tag in OF_ROWS & each.tags.keys():
                joined.setdefault(tag, {}).update(json.loads(each.tags[tag]))
        tags = parent.tags | {tag: json.dumps(of_rows) for tag, of_rows in joined.items()}
        return self._remember(replace(parent, tags=tags), reader)

    def experiment_id(self, suite: str) -> str:
        return self._having(suite)[0].experiment_id(suite)

    def studies(self, suite: str | None = None) -> list[TrackedRun]:
        found: dict[str, TrackedRun] = {}
        for reader in self.readers:
            for study in reader.studies(suite):
                origin = study.tags.get(ORIGIN_TAG, study.id)
                if origin not in found:
                    found[origin] = self._remember(study, reader)
        return sorted(found.values(), key=lambda study: study.started, reverse=True)

    def speeds_of(self, suite: str) -> Speeds | None:
        return self.speeds.get(suite)

    def measures(self, run: TrackedRun) -> list[Measure]:
        own, together = super().measures(run), self.speeds_of(run.tags.get("suite", ""))
        return together.replace(run.tags, own) if together else own

    def artifact(self, run: TrackedRun, name: str) -> AbstractContextManager[Path | None]:
        return self.reader_of[run.id].artifact(run, name)

    def list_files(self, run: TrackedRun, folder: str) -> list[str]:
        return self.reader_of[run.id].list_files(run, folder)


def join(readers: Sequence[Reader], speeds: Sequence[Speeds] = ()) -> Reader:
    """One reader for several; a single one as it is, if no times replace those of its runs."""
    return readers[0] if len(readers) == 1 and not speeds else JoinedReader(readers, speeds)


def read_folders(folders: Sequence[Path]) -> Reader:
    """The runs of all exports in some folders (`read_exports`), with the speeds that were measured for them.

    Raises:
        ValueError: a folder holds no export, or a file of it is not readable.
    """
    speeds = [found for folder in folders if (found := Speeds.read(results_folder(folder)))]
    return join(read_exports(folders), speeds)
