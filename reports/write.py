"""Writes a report in every form: HTML page, Markdown, LaTeX, tidy CSV, and its plots as SVG and PDF."""

from __future__ import annotations

import csv as csv_module
import functools
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2

from bench.measures import metric_registry
from bench.measures.selection import DEFAULT_TOKENIZER
from bench.system import formatting
from bench.system.files import write_file
from bench.system.visible_text import visible
from reports.gathering import translations
from reports.gathering.context import OTHER_CODE, Context
from reports.plots import main_plots
from reports.plots.drawing import FAMILIES, Plot, draw_ahead, why_not_drawn
from reports.tables import detail_tables
from reports.tables.comparison_table import comparison_table, direction_note
from reports.tables.table import Entry, Table
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
"""Columns of the tidy CSV. Scripts read them by name, so they do not change."""


def csv(context: Context) -> str:
    """The tidy table: one line for each row, direction, test set and metric; empty where nothing was measured.

    The test set of costs is empty. Seeds and runs are lists separated by spaces.
    """
    text = io.StringIO()
    writer = csv_module.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for track in context.tracks:
        for row in context.rows:
            cell = row.cells[track]
            entries = set(cell.numbers)
            for name in metric_registry.IN_EVERY_ROW:
                entries |= (
                    {(test_set, name) for test_set in (track.test_sets or ("",))}
                    if metric_registry.metric(name).score
                    else {("", name)}
                )
            seeds, runs = " ".join(map(str, cell.runs)), " ".join(run.id for run in cell.runs.values())
            front = [context.suite, track.corpus]
            for name in metric_registry.in_registry_order({name for _, name in entries}):
                for test_set in (*track.test_sets, ""):
                    if (test_set, name) in entries:
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
    return visible(text.getvalue())


def terminal(context: Context) -> tuple[list[tuple[str, str]], list[list[str]], str]:
    """Columns, rows and title of the comparison for bench.system.terminal.table. The last column has the runs."""
    say, table = context.catalogue, comparison_table(context)
    numbers = table.column_numbers("own")
    headings = [
        (column.full_heading.replace(", ", "\n"), column.side) for column in (table.columns[n] for n in numbers)
    ]
    lines = []
    for row in table.rows:
        cells = [
            _with_other_code(f"{entry.text} [{entry.details[0]}]" if number and entry.details else entry.text, entry)
            for number, entry in ((number, row[number]) for number in numbers)
        ]
        lines.append([*cells, " ".join(run.short for run in row[0].runs) or formatting.MISSING])
    return [*headings, (say("table.run"), "left")], lines, f"{say('title')} ({context.suite})"


def _with_other_code(text: str, entry: Entry) -> str:
    """A cell of the terminal, with the mark of runs of other code."""
    return f"{text} {OTHER_CODE}" if OTHER_CODE in entry.mark else text


def terminal_notes(context: Context) -> list[str]:
    """The lines below the comparison in the terminal: which runs other code has made."""
    return [f"{mark} {note}" for mark, note in comparison_table(context).footnotes if mark == OTHER_CODE]


def page(context: Context, home: str = "", row_pages: Mapping[str, str] | None = None) -> str:
    """The HTML page. It needs no other file.

    Args:
        home: In a site, the relative address of its index, which the page then links to.
        row_pages: In a site, row id -> relative address of the page of the row, which the comparison then links to.
    """
    plots = main_plots.all_plots(context)
    draw_ahead(plots)
    return _render("page.html.j2", context, plots, home, row_pages or {})


def all_forms(context: Context, out: Path) -> list[Path]:
    """Writes every form into the folder `out` and returns the paths of the files. A plot that failed has no files."""
    plots = main_plots.all_plots(context)
    draw_ahead(plots)
    files: dict[str, str | bytes] = {
        "report.html": _render("page.html.j2", context, plots),
        "report.md": _render("page.md.j2", context, plots),
        "report.tex": _render("page.tex.j2", context, plots),
        "report.csv": csv(context),
    }
    for plot in (plot for plot in plots if not plot.failure):
        files[f"plots/{plot.id}.svg"] = plot.svg()
        files[f"plots/{plot.id}.pdf"] = plot.pdf()
    for name, content in files.items():
        write_file(out / name, content)
    return [out / name for name in files]


def _render(
    template: str, context: Context, plots: list[Plot], home: str = "", row_pages: Mapping[str, str] | None = None
) -> str:
    """A template with the content of the report."""
    return render(template, **_content(context, plots, home, row_pages or {}))


def render(template: str, **content: Any) -> str:
    """A template with its variables. What every HTML page needs besides them is added."""
    return _environment(template).get_template(template).render(known_families=FAMILIES, **content)


def _content(context: Context, plots: list[Plot], home: str, row_pages: Mapping[str, str]) -> dict[str, Any]:
    """The variables of the three templates."""
    say = context.catalogue
    groups: dict[str, list[Plot]] = {}
    for plot in plots:
        groups.setdefault(plot.group or plot.id, []).append(plot)
    figures = list(groups.values())
    baseline = context.row(context.baseline).name
    not_drawn = functools.partial(why_not_drawn, say)
    failed = [plot for plot in plots if plot.failure]
    return {
        "t": say,
        "context": context,
        "finding": findings.sentences(context),
        "caveat": findings.caveat(context),
        "warnings": findings.warnings(context),
        "meta": meta(context),
        "question": say.recorded(context.question),
        "home": home,
        "main": _linked(comparison_table(context), context, row_pages),
        "main_notes": table_notes(context),
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
        "deviations": experimental_setup.deviations(context),
        "commands": experimental_setup.commands(context),
        "not_drawn": not_drawn,
        "missing": experimental_setup.missing(context)
        + [(": ".join(filter(None, (plot.title, plot.tab))), not_drawn(plot)) for plot in failed],
    }


def meta(context: Context) -> str:
    """The suite, its number of rows, its date and, if it was planned, the predicted and the real time."""
    say = context.catalogue
    text = say("page.meta", suite=context.suite, rows=say.count("row", len(context.rows)), date=context.written)
    if context.planned is None:
        return text
    planned, took = map(formatting.hours_and_minutes, context.planned)
    return f"{text} {say('page.planned', planned=planned, took=took)}"


def _linked(table: Table, context: Context, row_pages: Mapping[str, str]) -> Table:
    """The comparison, in which the names of rows lead to their pages."""
    rows = zip(context.rows, table.rows, strict=True)
    return replace(
        table,
        rows=tuple((replace(first, link=row_pages.get(row.id, "")), *others) for row, (first, *others) in rows),
    )


def table_notes(context: Context) -> list[str]:
    """The notes below the comparison."""
    cells = [cell for row in context.rows for cell in row.cells.values()]
    noisy = any(number.noisy for cell in cells for number in cell.numbers.values())
    notes = {"first_direction": len(context.tracks) > 1, "noisy": noisy, "costs": True, "published": True}
    printed = [context.catalogue(f"table.{key}") for key, holds in notes.items() if holds]
    tokenizers = [
        context.catalogue("table.tokenizer", track=track.label, tokenizer=tokenizer)
        for track in context.tracks
        if (tokenizer := context.selection(track).tokenizer) != DEFAULT_TOKENIZER
    ]
    together = [context.catalogue("table.timed_on", machine=context.timed_on)] if context.timed_on else []
    if alone := [row.name for row in context.rows if row.id in context.timed_alone]:
        together.append(context.catalogue("table.timed_alone", rows=context.catalogue.listed(alone)))
    return [context.catalogue("table.note"), direction_note(context), *tokenizers, *together, *printed]


def _side_by_side(context: Context) -> list[dict[str, Any]]:
    """For each track the sentences that are shown: heading, source, reference, and the translation of each row."""
    say, found = context.catalogue, []
    for track, texts in context.translations.items():
        if not texts.references:  # the runs were exported without sentences
            continue
        source, _, target = track.direction.partition("-")
        total = formatting.count(len(texts.references))
        sentences = []
        for number in texts.shown_sentences:
            rows = [
                (
                    row.name,
                    translations.mark_differences(
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
    """The Jinja2 environment of a template, with the escaping of its format."""
    html, tex = template.endswith(".html.j2"), template.endswith(".tex.j2")
    # Not {{ and {%, because braces and percent signs are LaTeX syntax.
    delimiters: dict[str, Any] = {
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
        finalize=escaping.html if html else escaping.latex if tex else escaping.markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **(delimiters if tex else {}),
    )
    environment.filters["raw"] = escaping.Raw
    environment.filters["code"] = escaping.code
    return environment
