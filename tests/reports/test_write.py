"""The forms of a report: page, Markdown, LaTeX, CSV, terminal. Foreign text acts as markup in none of them."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree
from dataclasses import replace
from pathlib import Path

import html5lib
import pytest

from bench.tracking.store import Store
from reports import write
from reports.gathering.context import Context
from reports.gathering.gather_runs import gather
from reports.plots import drawing
from reports.text import escaping
from tests.helpers import synthetic_runs
from tests.helpers.synthetic_runs import HOSTILE, UNSAFE, UNSAFE_SHOWN, Synthetic

Tree = xml.etree.ElementTree.Element

pytestmark = synthetic_runs.quiet_mlflow


def csv_lines(context: Context) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(write.csv(context))))


@pytest.fixture(scope="session", params=["odd", "level"])
def tree(request: pytest.FixtureRequest) -> Tree:
    """A page, parsed with all errors reported."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    if request.param == "odd":
        return parser.parse((request.getfixturevalue("odd_report") / "report.html").read_text())
    return parser.parse(request.getfixturevalue("level_page"))


def text_of(element: Tree) -> str:
    return " ".join("".join(element.itertext()).split())


def test_csv_has_its_columns_and_a_line_for_every_row_and_metric(odd: Context):
    text = write.csv(odd)
    header = "suite,corpus,test_set,row,preset,direction,seeds,metric,value,low,high,unit,run"
    assert text.splitlines()[0] == header
    found = csv_lines(odd)
    run = odd.row("best").cells[odd.tracks[0]].runs[1].id
    flops = [line for line in found if (line["row"], line["metric"]) == ("best", "train_flops")]
    start = ["odd", "toy-en-de", "", "best", "demo", "en-de", "1", "train_flops"]
    assert [list(line.values()) for line in flops] == [[*start, "4000000000000", "", "", "FLOP", run]]
    keys = [(line["row"], line["test_set"], line["metric"]) for line in found]
    assert len(keys) == len(set(keys))
    metrics = ["bleu", "chrf", "ter", "params", "train_flops", "executed_flops", "clock_flops", "energy_j"]
    metrics += ["latency_p50_ms", "latency_p95_ms", "sentences_per_s", "peak_memory_bytes", "wall_s"]
    for row in ("plain", "twin", "broken", "absent", "best"):
        assert [metric for of_row, _, metric in keys if of_row == row][:13] == metrics


def test_csv_is_empty_where_nothing_was_measured(odd: Context):
    for line in csv_lines(odd):
        if line["row"] in ("broken", "absent"):
            assert (line["value"], line["low"], line["high"], line["run"], line["seeds"]) == ("", "", "", "", "")
        if line["metric"] in ("executed_flops", "peak_memory_bytes"):
            assert line["value"] == ""
    values = {(line["row"], line["metric"]): line["value"] for line in csv_lines(odd)}
    assert (values["plain", "latency_p50_ms"], values["twin", "latency_p50_ms"]) == ("", "12.5")


def test_terminal_form_has_a_cell_for_every_column(odd: Context):
    columns, rows, title = write.terminal(odd)
    assert all(len(row) == len(columns) for row in rows)
    assert title == "Transformer vs. traditional models (odd)"
    assert [heading for heading, _ in columns][3:6] == [
        "BLEU\nEN-DE",
        "Training cost\ncounted\nFLOP",
        "Latency\nms\np50",
    ]
    assert rows[2][3] == "failed"


def test_a_noisy_timing_adds_a_note_below_the_table(odd: Context, monkeypatch: pytest.MonkeyPatch):
    note = odd.catalogue("table.noisy")
    assert note not in write.table_notes(odd)
    numbers, key = odd.row("twin").cells[odd.tracks[0]].numbers, ("", "latency_p50_ms")
    monkeypatch.setitem(numbers, key, replace(numbers[key], noisy=True))
    assert note in write.table_notes(odd)


def test_page_is_well_formed_and_accessible(tree: Tree):
    assert len(tree.findall(".//h1")) == 1
    assert tree.get("lang") == "en"
    assert all(len(tree.findall(f".//{landmark}")) == 1 for landmark in ("main", "header", "footer", "nav"))
    assert all(head.get("scope") for head in tree.iter("th"))
    assert all(table.find("caption") is not None for table in tree.iter("table"))
    identifiers = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(identifiers) == len(set(identifiers))
    pictures = [element for element in tree.iter() if str(element.tag).endswith("svg")]
    assert pictures
    assert all(picture.get("aria-labelledby") in identifiers for picture in pictures)
    targets = [link.get("href", "") for link in tree.iter("a") if link.get("href", "").startswith("#")]
    assert targets
    assert all(target[1:] in identifiers for target in targets)


def test_rows_of_a_table_span_all_its_columns(tree: Tree):
    for table in tree.iter("table"):
        first, second = table.findall("thead/tr")
        columns = sum(int(head.get("colspan", "1")) for head in first)
        below = sum(head.get("rowspan") is None for head in first for _ in range(int(head.get("colspan", "1"))))
        assert len(second) == below
        assert all(len(row) == columns for row in table.findall("tbody/tr"))


def test_page_needs_no_other_file(odd_report: Path):
    page = (odd_report / "report.html").read_text()
    assert len(page) < 3_000_000
    assert not re.search(r"<link|@import|<iframe|<img|\bsrc=|url\((?!#)", page)


def test_page_shows_hostile_text_as_text(odd: Context, odd_report: Path):
    tree = html5lib.parse((odd_report / "report.html").read_text(), namespaceHTMLElements=False)
    assert len(tree.findall(".//script")) == 1
    assert not tree.findall(".//em")
    text = text_of(tree)
    for phrase in ("A sentence", "Ein Satz", "Eine Frau trinkt Wasser.", "Which is best?", "Plain"):
        assert f"{phrase} {HOSTILE}" in text


def test_page_links_runs_and_allows_right_to_left_text(odd: Context, odd_report: Path):
    page = (odd_report / "report.html").read_text()
    run = odd.row("best").cells[odd.tracks[0]].runs[1].id
    assert f'href="http://127.0.0.1:5000/#/experiments/{odd.experiment}/runs/{run}"' in page
    assert page.count('dir="auto"') > 10


def test_page_without_a_ui_has_ids_to_copy_but_no_links(level: Context, level_page: str):
    assert "#/experiments/" not in level_page
    run = level.row("two").cells[level.tracks[0]].runs[2].id
    assert f'data-run="{run}"' in level_page
    assert level_page == write.page(level)  # the same runs give the same bytes


def test_markdown_shows_hostile_text_as_text(odd_report: Path):
    text = (odd_report / "report.md").read_text()
    escaped = (
        "&lt;script&gt;alert('x')&lt;/script&gt; \\| a &amp; b \\\\ \\$x\\$ \\*c\\* \\_d\\_ {e} 50% \\#1 שלום עולם 😀"
    )
    assert escaping.markdown(HOSTILE) == escaped
    assert f"| Source | A sentence {escaped} |" in text
    assert "<script" not in text


def test_markdown_tables_have_the_same_number_of_cells_in_every_line(odd_report: Path):
    blocks = re.findall(r"(?:^\|.*\n)+", (odd_report / "report.md").read_text(), re.MULTILINE)
    assert len(blocks) >= 10
    for block in blocks:
        cells = {len(re.findall(r"(?<!\\)\|", line.replace(r"\\", ""))) for line in block.splitlines()}
        assert len(cells) == 1
    pictures = re.findall(r"\]\((plots/[^)]+)\)", (odd_report / "report.md").read_text())
    assert pictures
    assert all((odd_report / picture).is_file() for picture in pictures)


def test_latex_compiles(odd_report: Path, tmp_path: Path):
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("pdflatex is not installed")
    shutil.copytree(odd_report, tmp_path / "report")
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(
        command, cwd=tmp_path / "report", capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "shalom" not in done.stdout
    assert not re.search(r"Missing character", done.stdout)


def test_a_row_may_have_any_name(store: Store, tmp_path: Path):
    row = '../x"> <b>\\1'
    names = {row: "Row", "a_b": "One", "a-b": "Two", "other": "Other"}
    runs = [Synthetic(each, name, 2017, 4, 1e12, probed=True) for each, name in names.items()]
    synthetic_runs.suite(store, "named", runs, ",".join(names), "other")
    folder = tmp_path / "a" / "report"
    files = write.all_forms(gather(store, "named"), folder)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(files)
    assert len(set(files)) == len(files)
    page = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse((folder / "report.html").read_text())
    assert not page.findall(".//b")
    named = [element.get("aria-labelledby") for element in page.iter("svg")]
    identifiers = [element.get("id") for element in page.iter()]
    assert set(filter(None, named)) <= set(identifiers)
    assert "\nOther:\n\n![" in (folder / "report.md").read_text()  # the name of the row stands above its attention map


def test_a_suite_without_a_finished_run_has_a_report(store: Store, tmp_path: Path):
    failed = Synthetic("low", "Low", 2014, 2, 1e12, status="FAILED", reason="out of memory: all of it")
    synthetic_runs.suite(store, "failed", [failed], "low", "low")
    write.all_forms(gather(store, "failed"), tmp_path)
    for name in ("report.html", "report.md", "report.tex"):
        assert "Commands that repeat the runs" not in (tmp_path / name).read_text()


def test_unsafe_characters_are_visible_in_every_form(store: Store, tmp_path: Path):
    runs = [Synthetic("unsafe", "Unsafe", 2017, 4, 1e12), Synthetic("other", "Other", 2015, 4, 2e12)]
    synthetic_runs.suite(store, "unsafe", runs, "unsafe,other", "other")
    context = gather(store, "unsafe")
    unsafe, other = context.rows
    named = replace(unsafe, name=f"Row {UNSAFE}", note=f"note {UNSAFE}")
    context = replace(context, rows=(named, other))  # as from the store of somebody else
    (track,) = context.tracks
    texts = context.translations[track]
    texts.sources[0] = texts.references[0] = texts.hypotheses["unsafe"][1][0] = f"text {UNSAFE} {'x' * 5000}"
    files = write.all_forms(context, tmp_path)
    for path in (path for path in files if path.suffix != ".pdf"):
        assert not re.search("[\x00-\x08\x0e-\x1f\ufffe\u202e]", path.read_text()), path
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text().replace("\\[", "[")
        assert f"Row {UNSAFE_SHOWN}" in text
        assert f"note {UNSAFE_SHOWN}" in text
        assert f"text {UNSAFE_SHOWN}" in text
        assert "not drawn" not in text
    assert r"Row a\other{2400}{␀}b\other{2402}{␂}c" in (tmp_path / "report.tex").read_text()
    html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse((tmp_path / "report.html").read_text())
    drawings = [path for path in files if path.suffix == ".svg"]
    assert len(drawings) == 6
    assert all(xml.etree.ElementTree.parse(path) for path in drawings)
    assert any(f"Row {UNSAFE_SHOWN}" in path.read_text() for path in drawings)
    _, rows, _ = write.terminal(context)
    assert len(rows) == 2


def test_a_report_names_the_drawing_that_failed(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The library ends its process at one drawing: the others are complete, and the report says which one failed."""
    runs = [Synthetic("one", "One", 2014, 2, 1e12), Synthetic("two", "Two", 2017, 8, 2e12)]
    synthetic_runs.suite(store, "undrawn", runs, "one,two", "two")
    safe = drawing.specification_text
    latency = "Latency of one sentence, median"
    encoding = {"text": {"field": "text", "type": "nominal"}}
    deadly = json.dumps({"data": {"values": [{"text": "\x02"}]}, "mark": "text", "encoding": encoding})
    monkeypatch.setattr(drawing, "specification_text", lambda spec: deadly if latency in (text := safe(spec)) else text)
    files = write.all_forms(gather(store, "undrawn"), tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(files)
    names = [path.name for path in files if path.parent.name == "plots"]
    assert "bleu-flops-en-de.svg" in names
    assert not [name for name in names if name.startswith("bleu-latency")]
    reason = "not drawn: the drawing library ended its process"
    for name in ("report.html", "report.md", "report.tex"):
        text = (tmp_path / name).read_text()
        assert text.count(reason) == 2, name  # in place of the drawing, and among what is missing
        assert "plots/bleu-latency" not in text
    page = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse((tmp_path / "report.html").read_text())
    (missing,) = (element for element in page.iter("section") if element.get("id") == "missing")
    assert "BLEU against latency of one sentence" in text_of(missing)


def test_changes_are_in_every_form(compared_report: Path):
    assert 'id="changes"' in (compared_report / "report.html").read_text()
    assert "## What changed since earlier" in (compared_report / "report.md").read_text()
    assert "BLEU of later and of earlier" in (compared_report / "report.tex").read_text()


def test_the_planned_and_the_real_time_stand_below_the_title(store: Store):
    synthetic_runs.suite(store, "planned", [Synthetic("one", "One", 2014, 2, 1e12)], "one", "one")
    assert "planned" not in write.meta(gather(store, "planned")).removeprefix("Suite planned")
    parent = store.parent_run("planned")
    assert parent
    store.log_plan(parent.id, 6720.0, None)
    assert gather(store, "planned").planned is None, "it has not ended"
    store.log_plan(parent.id, 6720.0, 7380.0)
    meta = write.meta(gather(store, "planned")).replace("\u00a0", " ")
    assert meta.endswith("Last command: planned 1:52 h, took 2:03 h.")
    assert "예상 1:52 h, 실제 2:03 h" in write.meta(gather(store, "planned", language="ko")).replace("\u00a0", " ")
    store.log_plan(parent.id, None, None)
    assert gather(store, "planned").planned is None, "the last command was not planned"
