"""Several readers as one, such as a store and the results that other machines have added to a folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from bench.tracking.exported import ORIGIN_TAG
from bench.tracking.reading import Reader, TrackedRun


class JoinedReader(Reader):
    """A suite of it has the runs of all readers. A run that several have is read from the first one.

    Args:
        readers: At least one. The experiment of a suite is that of the first reader that has the suite.
    """

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.readers = readers
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
            known = ", ".join(self.suites()) or "none yet"
            raise ValueError(
                f"--suite: there is no suite {suite!r} in the {len(self.readers)} folders; there are: {known}"
            )
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
        """The run of the suite in the reader with the newest job: it describes the suite as it was last."""
        newest = sorted(self._having(suite), key=lambda reader: reader.runs(suite)[0].started, reverse=True)
        found = ((parent, reader) for reader in newest if (parent := reader.parent_run(suite)))
        return next((self._remember(parent, reader) for parent, reader in found), None)

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

    def artifact(self, run: TrackedRun, name: str) -> AbstractContextManager[Path | None]:
        return self.reader_of[run.id].artifact(run, name)

    def list_files(self, run: TrackedRun, folder: str) -> list[str]:
        return self.reader_of[run.id].list_files(run, folder)


def join(readers: Sequence[Reader]) -> Reader:
    """One reader for several; a single one as it is."""
    return readers[0] if len(readers) == 1 else JoinedReader(readers)
