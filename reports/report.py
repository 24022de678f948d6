"""The report of a suite and that of a scaling study, behind one interface for the commands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from bench.scaling import direct_pairs
from bench.scaling.analysis import Analysis, analyse
from bench.tracking import ui_view
from bench.tracking.reading import Reader
from reports import write
from reports.gathering.context import Context
from reports.gathering.gather_runs import gather
from reports.scaling import gather as studies
from reports.scaling import study_summary, tidy, verdicts
from reports.scaling import write as study_pages
from reports.scaling.study import Study
from reports.text import suite_summary
from reports.text.catalogue import Catalogue, load_catalogue


class Report(Protocol):
    """What commands do with a report."""

    @property
    def suite(self) -> str:
        """Name of the suite or study."""
        ...

    def write(self, out: Path) -> list[Path]:
        """Writes all files of the report, the page first, and returns their names."""
        ...

    def table(self) -> tuple[Sequence[tuple[str, str]], Sequence[Sequence[str]], str]:
        """Columns, rows and title of the table that the terminal shows."""
        ...

    def notes(self) -> list[str]:
        """What the terminal prints below the table."""
        ...

    def csv(self) -> str:
        """The tidy table."""
        ...

    def metrics(self) -> Mapping[str, float]:
        """Metrics of the suite's own run."""
        ...

    def description(self, experiment: str, parent: str, linked: Collection[str]) -> str:
        """The description of the suite's own run, in Markdown, with links to the runs of these ids."""
        ...

    def view(self, experiment: str, parent: str) -> tuple[str, str] | None:
        """The view of the runs in the MLflow UI, and the description of their experiment; None without scores."""
        ...


def read(
    reader: Reader,
    suite: str | None,
    ui_url: str | None = None,
    language: str = "en",
    compare_with: str | None = None,
    baseline: str | None = None,
) -> Report:
    """Reads the runs of a suite or a study; None for the newest.

    Raises:
        ValueError: there is no such suite, or an argument does not fit it.
    """
    suite = suite or next(iter(reader.suites()), None)
    if suite and studies.is_study(reader, suite):
        for flag, value in (("--compare", compare_with), ("--ui_url", ui_url), ("--baseline", baseline)):
            if value:
                raise ValueError(f"{flag}: {suite} is a scaling study, whose report does without; remove the flag")
        return StudyReport(studies.gather(reader, suite), load_catalogue(language))
    return SuiteReport(gather(reader, suite, ui_url, language, compare_with, baseline))


@dataclass(frozen=True)
class SuiteReport:
    """The report of a suite."""

    context: Context

    @property
    def suite(self) -> str:
        return self.context.suite

    def write(self, out: Path) -> list[Path]:
        return write.all_forms(self.context, out)

    def table(self) -> tuple[Sequence[tuple[str, str]], Sequence[Sequence[str]], str]:
        return write.terminal(self.context)

    def notes(self) -> list[str]:
        return write.terminal_notes(self.context)

    def csv(self) -> str:
        return write.csv(self.context)

    def metrics(self) -> Mapping[str, float]:
        return suite_summary.metrics(self.context)

    def description(self, experiment: str, parent: str, linked: Collection[str]) -> str:
        return suite_summary.description(self.context, experiment, parent, linked)

    def view(self, experiment: str, parent: str) -> tuple[str, str] | None:
        scores = dict.fromkeys(f"{track.test_set}/bleu" for track in self.context.tracks if track.test_set)
        if not scores:
            return None
        text = ui_view.suite_description(self.context.question, experiment, parent)
        return ui_view.suite_view(list(scores)), text


@dataclass(frozen=True)
class StudyReport:
    """The report of a scaling study."""

    study: Study
    say: Catalogue

    @property
    def suite(self) -> str:
        return self.study.name

    @cached_property
    def analysis(self) -> Analysis:
        return analyse(self.study.points, list(self.study.labels))

    def write(self, out: Path, home: str = "") -> list[Path]:
        """Writes all files. `home`: in a site, the relative address of its index."""
        return study_pages.write(self.study, self.analysis, out, self.say.language, home)

    def table(self) -> tuple[Sequence[tuple[str, str]], Sequence[Sequence[str]], str]:
        return study_summary.terminal_table(self.say, self.study)

    def notes(self) -> list[str]:
        warnings = verdicts.warnings(self.say, self.study, self.analysis)
        return [*verdicts.finding(self.say, self.study, self.analysis), *warnings, *self._unconfirmed()]

    def _unconfirmed(self) -> list[str]:
        """The direct pairs of runs that the crossings still need, as lines for the study's file."""
        lines = [
            f"{{flops: {flops:.3g}, sizes: {{{', '.join(f'{row}: {size}' for row, size in sizes.items())}}}}}"
            for flops, sizes in direct_pairs.missing(self.analysis, self.study.planned_direct)
        ]
        return [self.say("scale.confirm", lines=f"direct: [{', '.join(lines)}]")] if lines else []

    def csv(self) -> str:
        return tidy.csv_text(self.study, self.analysis)

    def metrics(self) -> Mapping[str, float]:
        return study_summary.metrics(self.study, self.analysis)

    def description(self, experiment: str, parent: str, linked: Collection[str]) -> str:
        return study_summary.description(self.say, self.study, self.analysis, experiment, parent, linked)

    def view(self, experiment: str, parent: str) -> tuple[str, str] | None:
        return ui_view.study_view(self.study.score), ui_view.study_description(self.study.question, experiment, parent)
