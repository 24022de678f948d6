"""Writes a report in every form: a page, Markdown, LaTeX, tidy CSV, and its plots as files."""

from __future__ import annotations

import csv as csv_module
import functools
import io
from pathlib import Path
from typing import Any

import jinja2

from bench.measures import registry
from bench.system import formatting
from bench.system.files import write_file
from reports.gathering import comparison
from reports.gathering.context import Context
from reports.plots import main_plots
from reports.plots.drawing import COLOURS, Plot, draw_ahead
from reports.tables import detail_tables, table
from reports.text import escaping, experimental_setup, findings

COLUMNS = (
    "suite",
    "corpus",
    "test_set",
    "row",
    "preset",
    "direction",
    "seeds",
    "metric",
    "value",
    "low",
    "high",
    "unit",
    "run",
)
"""Of the tidy CSV; scripts lean on them."""


def csv(context: Context) -> str:
    """The tidy table: one line per row, direction, test set and metric. What was not measured is empty.

    Costs belong to no test set; seeds and runs are lists with spaces between.
    """
    text = io.StringIO()
    writer = csv_module.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for track in context.tracks:
        for row in context.rows:
            cell = row.cells[track]
            wanted = set(cell.numbers)
            for name in registry.IN_EVERY_ROW:
                wanted |= (
                    {(test_set, name) for test_set in (track.test_sets or ("",))}
                    if registry.metric(name).score
                    else {("", name)}
                )
            seeds, runs = " ".join(map(str, cell.runs)), " ".join(run.id for run in cell.runs.values())
            front = [context.suite, track.corpus]
            for name in registry.in_registry_order({name for _, name in wanted}):
                for test_set in (*track.test_sets, ""):
                    if (test_set, name) in wanted:
                        number = cell.numbers.get((test_set, name))
                        ends = [number.value, number.low, number.high] if number else [None] * 3
                        middle = [
                            test_set,
                            row.id,
                            track.preset,
                            track.direction,
                            seeds,
                            name,
                            *map(formatting.exact, ends),
                        ]
                        writer.writerow([*front, *middle, number.unit if number else "", runs])
    return text.getvalue()


def terminal(context: Context) -> tuple[list[tuple[str, str]], list[list[str]], str]:
    """Columns, rows and title for bench.terminal.table: what the rows measured, their runs behind them."""
    say, main = context.catalogue, table.main(context)
    kept = main.kept("own")
    headings = [(column.whole.replace(", ", "\n"), column.side) for column in (main.columns[n] for n in kept)]
    lines = []
    for row in main.rows:
        cells = [
            f"{e.text} [{e.details[0]}]" if number and (e := row[number]).details else row[number].text
            for number in kept
        ]
        lines.append([*cells, " ".join(run.short for run in row[0].runs) or formatting.MISSING])
    return [*headings, (say("table.run"), "left")], lines, f"{say('title')} ({context.suite})"


def page(context: Context) -> str:
    """The page: one file that needs no other."""
    return _render("page.html.j2", context, main_plots.all_plots(context))


def all_forms(context: Context, out: Path) -> list[Path]:
    """Writes every form into `out`, each beside its place and then renamed; returns the files."""
    drawn = main_plots.all_plots(context)
    draw_ahead(drawn)
    files: dict[str, str | bytes] = {
        "report.html": _render("page.html.j2", context, drawn),
        "report.md": _render("page.md.j2", context, drawn),
        "report.tex": _render("page.tex.j2", context, drawn),
        "report.csv": csv(context),
    }
    for plot in drawn:
        files[f"plots/{plot.id}.svg"] = plot.svg()
        files[f"plots/{plot.id}.pdf"] = plot.pdf()
    for name, content in files.items():
        write_file(out / name, content)
    return [out / name for name in files]


def _render(template: str, context: Context, drawn: list[Plot]) -> str:
    return _environment(template).get_template(template).render(**_content(context, drawn))


def _content(context: Context, drawn: list[Plot]) -> dict[str, Any]:
    """What the three templates print: all of it made once, here."""
    say = context.catalogue
    groups: dict[str, list[Plot]] = {}
    for plot in drawn:
        groups.setdefault(plot.group or plot.id, []).append(plot)
    figures = list(groups.values())
    baseline = context.row(context.baseline).name
    return {
        "t": say,
        "context": context,
        "finding": findings.sentences(context),
        "caveat": findings.caveat(context),
        "warnings": findings.warnings(context),
        "meta": say("page.meta", suite=context.suite, rows=say.count("row", len(context.rows)), date=context.written),
        "question": say.recorded(context.question),
        "main": table.main(context),
        "main_notes": _main_notes(context),
        "scores": detail_tables.scores(context),
        "changes": detail_tables.changes(context),
        "significance": detail_tables.significance(context),
        "significance_note": say("tests.note", baseline=baseline),
        "settings": detail_tables.settings(context),
        "fronts": detail_tables.fronts(context),
        "sources": detail_tables.sources(context),
        "probes": detail_tables.probes(context),
        "published": detail_tables.published(context),
        "figures": {
            kind: [figure for figure in figures if figure[0].id.startswith(kind)]
            for kind in ("bleu", "curves", "tuning", "length", "depth", "probes", "sources", "attention")
        },
        "translations": _side_by_side(context),
        "facts": [
            (track, experimental_setup.facts(context, track), detail_tables.corpus_stats(context, track))
            for track in context.tracks
        ],
        "departures": experimental_setup.departures(context),
        "commands": experimental_setup.commands(context),
        "missing": experimental_setup.missing(context),
        "known_families": list(COLOURS),
    }


def _main_notes(context: Context) -> list[str]:
    """What is to be known of the comparison, below it."""
    cells = [cell for row in context.rows for cell in row.cells.values()]
    noisy = any(number.noisy for cell in cells for number in cell.numbers.values())
    keys = {"note": True, "first_direction": len(context.tracks) > 1, "noisy": noisy, "costs": True, "published": True}
    return [context.catalogue(f"table.{key}") for key, holds in keys.items() if holds]


def _side_by_side(context: Context) -> list[dict[str, Any]]:
    """For each track the chosen sentences: heading, source, reference, and each row's translation in pieces."""
    say, found = context.catalogue, []
    for track, texts in context.translations.items():
        source, _, target = track.direction.partition("-")
        total = formatting.count(len(texts.references))
        sentences = []
        for number in texts.shown:
            rows = [
                (
                    row.name,
                    comparison.differing(
                        next(iter(texts.hypotheses[row.id].values()))[number], texts.references[number]
                    ),
                )
                for row in context.rows
                if row.id in texts.hypotheses
            ]
            heading = say("translations.sentence", number=number + 1, total=total, test_set=track.test_set)
            sentences.append((heading, texts.sources[number], texts.references[number], rows))
        found.append({"track": track, "from": source, "to": target, "sentences": sentences})
    return found


@functools.cache
def _environment(template: str) -> jinja2.Environment:
    html, tex = template.endswith(".html.j2"), template.endswith(".tex.j2")
    # Braces and percent signs are LaTeX's own.
    marks: dict[str, Any] = {
        "block_start_string": "<%",
        "block_end_string": "%>",
        "variable_start_string": "<<",
        "variable_end_string": ">>",
        "comment_start_string": "<#",
        "comment_end_string": "#>",
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=html,
        finalize=None if html else escaping.latex if tex else escaping.markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **(marks if tex else {}),
    )
    environment.filters["raw"] = escaping.Raw
    environment.filters["code"] = escaping.code
    return environment
