"""Writes a report in every form: a page, Markdown, LaTeX, tidy CSV, and its plots as files."""

from __future__ import annotations

import csv as csv_module
import functools
import io
import os
from pathlib import Path
from typing import Any

import jinja2

from reports import escaping, evidence, finding, plots, protocol, table
from reports import formatting as f
from reports.context import TITLE, Context, metric_order
from reports.drawing import COLOURS, Plot

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
            for name in f.TABLE:
                wanted |= (
                    {(test_set, name) for test_set in (track.test_sets or ("",))}
                    if f.metric(name).score
                    else {("", name)}
                )
            seeds, runs = " ".join(map(str, cell.runs)), " ".join(run.id for run in cell.runs.values())
            front = [context.suite, track.corpus]
            for name in metric_order([name for _, name in wanted]):
                for test_set in (*track.test_sets, ""):
                    if (test_set, name) in wanted:
                        number = cell.numbers.get((test_set, name))
                        ends = [number.value, number.low, number.high] if number else [None] * 3
                        middle = [test_set, row.id, track.preset, track.direction, seeds, name, *map(f.exact, ends)]
                        writer.writerow([*front, *middle, number.unit if number else "", runs])
    return text.getvalue()


def terminal(context: Context) -> tuple[list[tuple[str, str]], list[list[str]], str]:
    """Columns, rows and title for bench.terminal.table: what the rows measured, their runs behind them."""
    main = table.main(context)
    kept = [number for number, column in enumerate(main.columns) if column.own]
    short = {"Training FLOPs, counted": "FLOPs"}
    headings = []
    for column in (main.columns[number] for number in kept):
        group = short.get(column.group, column.group)
        headings.append((f"{group} {column.heading}".strip().replace("Latency, ms", "ms"), column.side))
    lines = []
    for row in main.rows:
        cells = [
            f"{e.text} [{e.details[0]}]" if number and (e := row[number]).details else row[number].text
            for number in kept
        ]
        lines.append([*cells, " ".join(run[: table.SHORT] for run, _ in row[0].runs) or f.MISSING])
    return [*headings, ("Run", "left")], lines, f"{TITLE} ({context.suite})"


def page(context: Context) -> str:
    """The page: one file that needs no other."""
    return _render("page.html.j2", context, plots.all_plots(context))


def all_forms(context: Context, out: Path) -> list[Path]:
    """Writes every form into `out`, each beside its place and then renamed; returns the files."""
    drawn = plots.all_plots(context)
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
        _write(out / name, content.encode() if isinstance(content, str) else content)
    return [out / name for name in files]


def _write(path: Path, content: bytes) -> None:
    """Beside its place first: a reader finds the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _render(template: str, context: Context, drawn: list[Plot]) -> str:
    return _environment(template).get_template(template).render(**_content(context, drawn))


def _content(context: Context, drawn: list[Plot]) -> dict[str, Any]:
    """What the three templates print: all of it made once, here."""
    groups: dict[str, list[Plot]] = {}
    for plot in drawn:
        groups.setdefault(plot.group or plot.id, []).append(plot)
    figures = list(groups.values())
    return {
        "title": TITLE,
        "context": context,
        "baseline": context.row(context.baseline).name,
        "finding": finding.sentences(context),
        "caveat": finding.caveat(context),
        "main": table.main(context),
        "scores": table.scores(context),
        "significance": table.significance(context),
        "sources": table.sources(context),
        "published": table.published(context),
        "figures": {
            kind: [figure for figure in figures if figure[0].id.startswith(kind)]
            for kind in ("bleu", "curves", "sources")
        },
        "translations": _side_by_side(context),
        "facts": [(track, protocol.facts(context, track)) for track in context.tracks],
        "departures": protocol.departures(context),
        "commands": protocol.commands(context),
        "missing": protocol.missing(context),
        "short": table.SHORT,
        "missing_mark": f.MISSING,
        "known_families": list(COLOURS),
    }


def _side_by_side(context: Context) -> list[dict[str, Any]]:
    """For each track the chosen sentences: source, reference, and each row's translation in pieces."""
    found = []
    for track, texts in context.translations.items():
        source, _, target = track.direction.partition("-")
        sentences = []
        for number in texts.shown:
            rows = [
                (
                    row.name,
                    evidence.differing(next(iter(texts.hypotheses[row.id].values()))[number], texts.references[number]),
                )
                for row in context.rows
                if row.id in texts.hypotheses
            ]
            sentences.append((number + 1, texts.sources[number], texts.references[number], rows))
        total = f"{len(texts.references):,}"
        found.append({"track": track, "from": source, "to": target, "sentences": sentences, "total": total})
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
