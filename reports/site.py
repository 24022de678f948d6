"""Writes a static site: an index of suites, the report of each suite, and a page for each row.

index.html                      the suites, newest first, and the rows
suites/SUITE/report.html, .csv  the report of a suite, or of a scaling study
rows/ROW.html                   one architecture: what it is, and its results in every suite

Every page holds its own styles, scripts and drawings, and links are relative, so the site works from a file system.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.system.files import inside, write_file
from bench.tracking.reading import Reader
from reports import row_page, write
from reports.gathering.context import Context, Row, slug
from reports.gathering.gather_runs import gather
from reports.plots.drawing import draw_ahead
from reports.report import StudyReport
from reports.scaling import verdicts
from reports.scaling.gather import gather as gather_study
from reports.scaling.gather import is_study
from reports.text import findings
from reports.text.catalogue import load_catalogue

INDEX = "index.html"
LONGEST_NAME = 80
"""Characters of a suite or row in the name of its file. Names with the same first characters get a number."""


@dataclass(frozen=True, eq=False)
class Suite:
    """A suite of the site, and the name of its folder."""

    folder: str
    context: Context

    @property
    def link(self) -> str:
        """The address of its page, from the index."""
        return f"suites/{quote(self.folder)}/report.html"


def write_site(readers: Sequence[Reader], out: Path, language: str = "en", ui_url: str | None = None) -> list[Path]:
    """Writes the site into a folder and returns the paths of its pages, the index first.

    The index is removed first and written last, so that an interrupted run leaves no folder that looks whole.

    Raises:
        ValueError: there is no suite, or the language does not exist.
    """
    found: list[Context] = []
    studies: list[StudyReport] = []
    for reader in readers:
        names = reader.suites()
        of_studies = [name for name in names if is_study(reader, name)]
        found += [gather(reader, name, ui_url, language) for name in names if name not in of_studies]
        studies += [StudyReport(gather_study(reader, name), load_catalogue(language)) for name in of_studies]
    if not found and not studies:
        places = " and ".join(reader.uri or "the exports" for reader in readers)
        raise ValueError(f"there are no runs in {places}; make some with bench suite experiments/demo.yaml")
    found.sort(key=lambda context: context.suite)
    found.sort(key=lambda context: context.written, reverse=True)
    folders = _file_names([*(context.suite for context in found), *(report.suite for report in studies)])
    suites = [Suite(folder, context) for folder, context in zip(folders, found, strict=False)]
    rows = list(dict.fromkeys(row.id for context in found for row in context.rows))
    pages = dict(zip(rows, (f"{name}.html" for name in _file_names(rows)), strict=True))
    index = out / INDEX
    index.unlink(missing_ok=True)
    written = []
    for suite in suites:
        folder = inside(out, "suites", suite.folder)
        links = {row.id: f"../../rows/{quote(pages[row.id])}" for row in suite.context.rows}
        content = {
            "report.html": write.page(suite.context, f"../../{INDEX}", links),
            "report.csv": write.csv(suite.context),
        }
        for name, text in content.items():
            write_file(folder / name, text)
        written.append(folder / "report.html")
    study_folders = dict(zip(folders[len(found) :], studies, strict=True))
    for folder, report in study_folders.items():
        written.append(report.write(inside(out, "suites", folder), f"../../{INDEX}")[0])
    results = {row: _results(suites, row) for row in rows}
    draw_ahead([plot for of_row in results.values() for result in of_row for plot in result.plots])
    for row, of_row in results.items():
        path = inside(out, "rows", pages[row])
        write_file(path, _row_page(of_row))
        written.append(path)
    write_file(index, write.render("index.html.j2", **_index(suites, study_folders, pages), t=load_catalogue(language)))
    return [index, *written]


def _file_names(names: Iterable[str]) -> list[str]:
    """A name of a file or folder for each name, all different, also where a file system ignores case."""
    found: list[str] = []
    for name in names:
        start = slug(name)[:LONGEST_NAME].strip("-") or "unnamed"
        candidate, number = start, 1
        while candidate in found:
            number += 1
            candidate = f"{start}-{number}"
        found.append(candidate)
    return found


def _results(suites: Sequence[Suite], row: str) -> list[row_page.Result]:
    """The results of a row in every suite that has it."""
    return [
        row_page.result(suite.context, suite.context.row(row), number, f"../{suite.link}")
        for number, suite in enumerate(suites, start=1)
        if any(each.id == row for each in suite.context.rows)
    ]


def _row_page(results: Sequence[row_page.Result]) -> str:
    """The page of the row with these results."""
    return write.render("row.html.j2", home=f"../{INDEX}", **row_page.content(results))


def _index(suites: Sequence[Suite], studies: Mapping[str, StudyReport], pages: dict[str, str]) -> dict[str, Any]:
    """The variables of the index. `studies`: folder -> the report of a scaling study."""
    newest: dict[str, tuple[Row, Context]] = {}
    for suite in suites:
        for row in suite.context.rows:
            newest.setdefault(row.id, (row, suite.context))
    links = {row: f"rows/{quote(name)}" for row, name in pages.items()}
    entries = [_entry(suite, links) for suite in suites]
    entries += [_study_entry(folder, report, links) for folder, report in studies.items()]
    return {
        "suites": sorted(entries, key=lambda entry: entry["date"], reverse=True),
        "rows": [
            (row.name, links[identifier], row_page.what(context.catalogue, row))
            for identifier, (row, context) in sorted(newest.items(), key=lambda item: (item[1][0].year or 0, item[0]))
        ],
    }


def _entry(suite: Suite, links: dict[str, str]) -> dict[str, Any]:
    """What the index says of a suite."""
    context = suite.context
    say, cells = context.catalogue, [cell for row in context.rows for cell in row.cells.values()]
    runs, seeds = sum(len(cell.runs) for cell in cells), {seed for cell in cells for seed in cell.runs}
    size = [say.count("row", len(context.rows)), say.count("run", runs), say.count("seed", len(seeds))]
    tested = [track for track in context.tracks if track.test_set]
    return {
        "name": context.suite,
        "date": context.written,
        "link": suite.link,
        "question": say.recorded(context.question),
        "findings": findings.sentences(context),
        "warnings": findings.warnings(context),
        "meta": ", ".join([context.written, *size]),
        "without_text": bool(tested) and not any(context.has_sentences(track) for track in tested),
        "rows": [(row.name, links[row.id]) for row in context.rows],
    }


def _study_entry(folder: str, report: StudyReport, links: dict[str, str]) -> dict[str, Any]:
    """What the index says of a scaling study. Rows have pages only if a suite has them."""
    study, say = report.study, report.say
    return {
        "name": study.name,
        "date": study.date,
        "link": f"suites/{quote(folder)}/report.html",
        "question": say.recorded(study.question),
        "findings": verdicts.finding(say, study, report.analysis),
        "warnings": verdicts.warnings(say, study, report.analysis),
        "meta": ", ".join([study.date, say.count("row", len(study.labels)), say.count("run", len(study.points))]),
        "without_text": False,
        "rows": [(label, links[row]) for row, label in study.labels.items() if row in links],
    }
