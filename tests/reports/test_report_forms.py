"""The forms of a report: the page, Markdown, LaTeX, plots. Nobody's text acts as markup in any of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree
from pathlib import Path

import html5lib
import pytest

from bench.tracking.store import Store
from reports import write
from reports.gathering import comparison
from reports.gathering.context import Context
from reports.gathering.gather_runs import gather
from reports.plots import detail_plots, drawing, main_plots
from reports.text import escaping, findings
from tests.helpers import synthetic_runs
from tests.helpers.synthetic_runs import HOSTILE, Synthetic

Tree = xml.etree.ElementTree.Element


pytestmark = synthetic_runs.quiet_mlflow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic_runs.new_store(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def odd(store: Store) -> Context:
    return synthetic_runs.odd(store)


@pytest.fixture(scope="module")
def level(store: Store) -> Context:
    return synthetic_runs.level(store)


@pytest.fixture(scope="module")
def written(odd: Context, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    files = write.all_forms(odd, folder)
    assert [path.name for path in files[:4]] == ["report.html", "report.md", "report.tex", "report.csv"]
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(files)
    return folder


@pytest.fixture(scope="module", params=["odd", "level"])
def tree(request: pytest.FixtureRequest) -> Tree:
    """The page, parsed without forgiveness."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(write.page(request.getfixturevalue(request.param)))


def text_of(element: Tree) -> str:
    return " ".join("".join(element.itertext()).split())


# --- the page ---------------------------------------------------------------------------------------------------------


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


def test_page_needs_no_other_file(written: Path):
    page = (written / "report.html").read_text()
    assert len(page) < 3_000_000
    assert not re.search(r"<link|@import|<iframe|<img|\bsrc=|url\((?!#)|localStorage", page)


def test_page_shows_hostile_text_as_text(odd: Context, written: Path):
    tree = html5lib.parse((written / "report.html").read_text(), namespaceHTMLElements=False)
    assert len(tree.findall(".//script")) == 1
    assert not tree.findall(".//em")
    text = text_of(tree)
    for phrase in ("A sentence", "Ein Satz", "Eine Frau trinkt Wasser.", "Which is best?", "Plain"):
        assert f"{phrase} {HOSTILE}" in text


def test_page_links_runs_and_reads_from_right_to_left(odd: Context, written: Path):
    page = (written / "report.html").read_text()
    run = odd.row("best").cells[odd.tracks[0]].runs[1].id
    assert f'href="http://127.0.0.1:5000/#/experiments/{odd.experiment}/runs/{run}"' in page
    assert page.count('dir="auto"') > 10


def test_page_without_a_ui_has_ids_to_copy_but_no_links(level: Context):
    page = write.page(level)
    assert "#/experiments/" not in page
    run = level.row("two").cells[level.tracks[0]].runs[2].id
    assert f'data-run="{run}"' in page
    assert page == write.page(level)


# --- Markdown and LaTeX -----------------------------------------------------------------------------------------------


def test_markdown_shows_hostile_text_as_text(written: Path):
    text = (written / "report.md").read_text()
    escaped = (
        "&lt;script&gt;alert('x')&lt;/script&gt; \\| a &amp; b \\\\ \\$x\\$ \\*c\\* \\_d\\_ {e} 50% \\#1 שלום עולם 😀"
    )
    assert escaping.markdown(HOSTILE) == escaped
    assert f"| Source | A sentence {escaped} |" in text
    assert "<script" not in text


def test_markdown_tables_have_as_many_cells_in_every_line(written: Path):
    blocks = re.findall(r"(?:^\|.*\n)+", (written / "report.md").read_text(), re.MULTILINE)
    assert len(blocks) >= 10
    for block in blocks:
        cells = {len(re.findall(r"(?<!\\)\|", line.replace(r"\\", ""))) for line in block.splitlines()}
        assert len(cells) == 1
    pictures = re.findall(r"\]\((plots/[^)]+)\)", (written / "report.md").read_text())
    assert pictures
    assert all((written / picture).is_file() for picture in pictures)


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("a & b_c 5% #1 {x} $", r"a \& b\_c 5\% \#1 \{x\} \$"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("1.2\u00a0×\u00a010¹²", r"1.2~$\times$~10$^{12}$"),
        ("1.0–2.0 −3 —", "1.0--2.0 $-$3 ---"),
        ("a--b ''c''", r"a-{}-b '{}'c'{}'"),
        ("Tür", "Tür"),
        ("p ≤ 1", r"p $\leq$ 1"),
        ("א😀", r"\other{05D0}{א}\other{1F600}{😀}"),
        ("one\n\x00two", "one two"),
    ],
)
def test_latex_escaping(text: str, latex: str):
    assert escaping.latex(text) == latex


def test_latex_compiles(written: Path, tmp_path: Path):
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("pdflatex is not installed")
    shutil.copytree(written, tmp_path / "report")
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(
        command, cwd=tmp_path / "report", capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "shalom" not in done.stdout
    assert not re.search(r"Missing character", done.stdout)


# --- plots ------------------------------------------------------------------------------------------------------------


def test_what_is_drawn_ahead_is_the_same(level: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    found = main_plots.all_plots(level)
    alone = [drawing._svg.__wrapped__(plot, form) for plot in found for form in drawing.FORMS]
    monkeypatch.setattr(drawing, "PARALLEL_FROM", 1)
    drawing.draw_ahead(found)
    monkeypatch.setattr(drawing.svg_rendering, "render_svg", None)  # nothing is left to be drawn
    assert [plot.svg(form) for plot in found for form in drawing.FORMS] == alone
    assert not drawing._drawn_ahead


def test_every_plot_is_valid_and_drawn_as_svg_and_pdf(odd: Context, written: Path):
    found = main_plots.all_plots(odd)
    assert [plot.id for plot in found] == [
        "bleu-flops-en-de",
        "bleu-latency-en-de",
        "curves-updates-en-de",
        "curves-flops-en-de",
        "curves-seconds-en-de",
        "tuning-en-de",
        "length-en-de",
        "depth-en-de",
        "probes-en-de",
        "probes-1-en-de",
        "sources-en-de",
        "attention-best-en-de",
    ]
    for plot in found:
        plot.draw(drawing.Datasets(), 600).to_dict()  # Altair's own checks
        xml.etree.ElementTree.parse(written / "plots" / f"{plot.id}.svg")
        assert (written / "plots" / f"{plot.id}.pdf").read_bytes().startswith(b"%PDF")
        assert plot.text
        assert plot.caption


def test_points_say_what_they_are_and_lead_to_their_run(odd: Context):
    drawn = xml.etree.ElementTree.fromstring(main_plots.all_plots(odd)[0].inline("wide"))
    links = [element for element in drawn.iter() if element.tag.endswith("}a")]
    assert len(links) == 3
    said = {mark.get("aria-label") for link in links for mark in link}
    run = odd.row("twin").cells[odd.tracks[0]].runs[1].id
    assert any(str(line).startswith("Twin: BLEU ") and str(line).endswith(f"run {run[:8]}") for line in said)
    assert any(HOSTILE in str(line) for line in said)
    assert "var(--attention)" in main_plots.all_plots(odd)[0].inline("narrow")


def test_a_row_without_latency_is_left_out_of_its_plot(odd: Context):
    assert "Plain" in main_plots.all_plots(odd)[0].text
    assert "Plain" not in main_plots.all_plots(odd)[1].text


def test_pareto_front():
    assert findings.pareto_front(["a", "b", "c", "d"], [9, 8, 7, 6], [5, 7, 2, 2]) == ["c", "a"]
    assert findings.pareto_front(["dear", "cheap"], [5, 5], [2, 1]) == ["cheap"]  # the same score for less
    assert findings.pareto_front([], [], []) == []


def test_labels_keep_clear_of_each_other_and_of_the_edge():
    points = [(100.0, 50.0), (104.0, 52.0), (298.0, 50.0)]
    labels = drawing.place_labels(["first", "second", "third"], points, [(45.0, 55.0)] * 3, [], (300, 100))
    boxes = []
    for label in labels:
        width = len(label.text) * drawing.LETTER
        left = label.x - {"left": 0, "right": width, "center": width / 2}[label.align]
        boxes.append((left, label.y - 7, left + width, label.y + 7))
    assert all(left >= 0 and right <= 300 for left, _, right, _ in boxes)
    assert all(
        one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        for number, one in enumerate(boxes)
        for other in boxes[:number]
    )


def test_labels_in_a_column_keep_their_order_and_clear_of_each_other():
    points = [(10.0, 90.0), (20.0, 92.0), (15.0, 91.0), (30.0, 10.0)]
    labels = drawing.labels_beside(["first", "second", "", "fourth"], points, (60, 100))
    assert [(label.text, label.point, label.x, label.align) for label in labels] == [
        ("first", points[0], 70, "left"),
        ("second", points[1], 70, "left"),
        ("fourth", points[3], 70, "left"),
    ]
    first, second, fourth = (label.y for label in labels)
    assert second - first >= drawing.FONT
    assert (fourth, second <= 100) == (10.0, True)


def test_spread_keeps_order_and_distance():
    assert drawing.spread([10, 11, 50, 99], 10, 100) == [10, 20, 50, 99]
    assert drawing.spread([95, 96, 97], 10, 100) == [80, 90, 100]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(1e11, 1e14, [1e11, 1e12, 1e13, 1e14]), (6.0, 14.0, [6, 8, 10, 12, 14]), (3e12, 9e12, [4e12, 6e12, 8e12])],
)
def test_ticks_of_a_logarithmic_axis_are_round(low: float, high: float, ticks: list[float]):
    assert drawing.Axis("x", low, high, log=True).ticks(400) == pytest.approx(ticks)


def test_words_that_differ():
    assert comparison.mark_differences("der Koch trinkt", "der Mann trinkt Wasser") == [
        ("der", False),
        ("Koch", True),
        ("trinkt", False),
    ]
    assert comparison.mark_differences("", "der Mann") == []


def test_a_row_may_be_called_anything(store: Store, tmp_path: Path):
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
    assert "\nOther:\n\n![" in (folder / "report.md").read_text()  # a map of attention is told by its row


def test_a_suite_without_a_finished_run_has_a_report(store: Store, tmp_path: Path):
    failed = Synthetic("low", "Low", 2014, 2, 1e12, status="FAILED", reason="out of memory: all of it")
    synthetic_runs.suite(store, "failed", [failed], "low", "low")
    write.all_forms(gather(store, "failed"), tmp_path)
    for name in ("report.html", "report.md", "report.tex"):
        assert "Commands that repeat the runs" not in (tmp_path / name).read_text()


@pytest.mark.parametrize("parts", [3, 7])
def test_numbers_on_a_small_screen_have_room(parts: int):
    """Seven groups of sentence lengths beside the longest name: each of 88.6 within its cell."""
    cells = {
        (row, f"{n}1-{n + 1}0"): (88.6, "said")
        for row in ("Deep-Att + PosUnk Ensemble", "LSTM")
        for n in range(1, parts + 1)
    }
    chart = detail_plots._heat_chart(drawing.Datasets(), cells, "words", "bleu", drawing.NARROW).to_dict()
    assert chart["width"]["step"] >= 4 * drawing.LETTER
    assert chart["layer"][0]["encoding"]["x"]["axis"]["labelAngle"] == (0 if parts == 3 else -60)
