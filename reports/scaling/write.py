"""Writes the report of a scaling study: HTML page, Markdown, tidy CSV, the points, and the figures as SVG and PDF."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.scaling.analysis import Analysis
from bench.scaling.points import csv_of_points
from bench.scaling.uncertainty import ENOUGH_DF
from bench.system import formatting
from bench.system.files import write_file
from reports.plots.drawing import Plot, draw_ahead, why_not_drawn
from reports.scaling import tables, tidy, verdicts
from reports.scaling.panels import Figures
from reports.scaling.study import Study
from reports.tables.table import Table
from reports.text.catalogue import Catalogue, load_catalogue
from reports.write import render


def write(study: Study, analysis: Analysis, folder: Path, language: str = "en", home: str = "") -> list[Path]:
    """Writes report.html, report.md, report.csv, points.csv and plots/ into a folder and returns them, the page first.

    The page needs no other file. A study in progress has a report, too, which says what is missing.

    Args:
        study: The study.
        analysis: The analysis of its points.
        folder: Where the files are written.
        language: Language of the report.
        home: In a site, the relative address of its index, which the page then links to.

    Raises:
        ValueError: the language does not exist.
    """
    say = load_catalogue(language)
    plots = Figures(say, study, analysis).all()
    draw_ahead(plots)
    content = _content(say, study, analysis, plots)
    files: dict[str, str | bytes] = {
        "report.html": render("scaling.html.j2", **content, home=home),
        "report.md": render("scaling.md.j2", **content),
        "report.csv": tidy.csv_text(study, analysis),
        "points.csv": csv_of_points(study.points),
    }
    for plot in plots:
        if not plot.failure:
            files[f"plots/{plot.id}.svg"], files[f"plots/{plot.id}.pdf"] = plot.svg(), plot.pdf()
    for name, text in files.items():
        write_file(folder / name, text)
    return [folder / name for name in files]


def _content(say: Catalogue, study: Study, analysis: Analysis, plots: Sequence[Plot]) -> dict[str, Any]:
    """The variables of both templates."""
    runs = len({point.run for point in study.points})
    figures = {plot.id: plot for plot in plots}
    return {
        "t": say,
        "study": study,
        "question": say.recorded(study.question),
        "finding": verdicts.finding(say, study, analysis),
        "warnings": verdicts.warnings(say, study, analysis),
        "meta": say(
            "scale.meta",
            study=study.name,
            rows=say.count("row", len(study.labels)),
            runs=say.count("run", runs),
            points=formatting.count(len(study.points)),
            date=study.date,
        ),
        "sections": _sections(say, study, analysis, figures),
        "not_drawn": functools.partial(why_not_drawn, say),
    }


@dataclass(frozen=True)
class Section:
    """A section of the page: figures, tables, notes, and pairs of label and value, in this order."""

    name: str
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()

    @property
    def empty(self) -> bool:
        """Whether it has nothing yet; notes alone explain a table or figure that is not there."""
        return not (self.plots or self.facts or any(table.rows for table in self.tables) or self.name == "limits")


def _sections(say: Catalogue, study: Study, analysis: Analysis, figures: dict[str, Plot]) -> list[Section]:
    """The sections that have content, in the order of the page."""

    def drawn(*names: str) -> list[Plot]:
        return [figures[name] for name in names if name in figures]

    def noted(name: str, *found: Table, plots: Sequence[Plot] = ()) -> Section:
        return Section(name, plots, [table for table in found if table.rows], [say(f"scale.note.{name}")])

    rule = [(say("scale.fact.rate_rule"), say.recorded(study.rate_rule))] if study.rate_rule else []
    found = [
        Section("curves", drawn("loss_flops")),
        noted("crossings", tables.crossings(say, study, analysis), tables.direct(say, study, analysis)),
        Section("bleu", drawn("bleu_flops")),
        Section("pairs", drawn("loss_pairs")),
        Section("seconds", drawn("loss_seconds")),
        Section("slices", drawn("slices")),
        noted("held_out", tables.held_out(say, study, analysis), plots=drawn("held_out")),
        Section("bleu_loss", drawn("bleu_loss")),
        Section("checks", drawn("residuals", "profiles")),
        noted("ladder", tables.ladder(say, study, analysis)),
        noted("parameters", tables.parameters(say, study, analysis)),
        noted(
            "optima",
            tables.optima(say, study, analysis),
            tables.exponents(say, study, analysis),
            tables.frontier_laws(say, study, analysis),
        ),
        Section(
            "rates",
            (),
            [tables.rates(say, study)] if study.rate_checks else [],
            [say("scale.note.rates")] if study.rate_checks else (),
            rule,
        ),
        Section("spent", (), [tables.spent(say, study, analysis)], (), _facts(say, study, analysis)),
        Section("limits", (), (), verdicts.limits(say, study, analysis), verdicts.missing(say, study, analysis)),
    ]
    return [section for section in found if not section.empty]


def _facts(say: Catalogue, study: Study, analysis: Analysis) -> list[tuple[str, str]]:
    """Noise, failed runs, corpus, loss, device and command, as pairs of label and value."""
    noise = say("scale.noise.unknown")
    if found := analysis.noise:
        noise = say("scale.noise.rows", enough=ENOUGH_DF, run=formatting.percent(found.run_sd), df=found.run_df)
        if found.point_sd:
            noise += " " + say("scale.noise.points", point=formatting.percent(found.point_sd))
    none = say("scale.fact.none")
    facts = {
        "noise": noise,
        "failed": ", ".join(study.failed) or none,
        "corpus": say("scale.fact.corpus_text", corpus=study.corpus, vocabulary=formatting.count(study.vocabulary)),
        "loss": say("scale.fact.loss_text", how=say.recorded(study.loss_provenance) or say("protocol.unknown")),
        "commits": ", ".join(study.commits) or say("protocol.unknown"),
        "device": study.device or say("protocol.unknown"),
        "command": study.command,
    }
    return [(say(f"scale.fact.{key}"), value) for key, value in facts.items()]
