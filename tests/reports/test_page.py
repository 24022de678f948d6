"""The page in a browser: which columns of the comparison it shows, and at which widths they fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Frame, Page, expect

from reports import write
from reports.gathering.context import Context
from reports.plots import main_plots
from reports.tables.comparison_table import comparison_table
from reports.text import catalogue
from tests.helpers import synthetic_runs
from tests.helpers.browser import needs_a_browser

pytestmark = [*synthetic_runs.quiet_mlflow, needs_a_browser]

ALWAYS = ["Model", "Year", "Parameters, M", "EN-DE", "EN-FR", "counted EN-DE, FLOP", "counted EN-FR, FLOP", "p50"]
ALWAYS += ["EN-DE", "EN-FR"]  # published BLEU
GROUPS = {
    "Training cost": ["clock estimate, FLOP", "energy, J", "Wall time"],
    "Speed": ["p95", "Throughput, sentences/s"],
    "Memory": ["Peak memory, MiB"],
    "Published cost": ["EN-DE", "EN-FR"],
}
TEXT = "(cell) => cell.textContent.replaceAll(/\\s+/g, ' ').trim()"
HEADINGS = f"""() => [...document.querySelectorAll("#comparison th[data-column]")]
  .sort((a, b) => a.dataset.column - b.dataset.column).filter((head) => head.getClientRects().length).map({TEXT})"""
# For each row the texts of the cells that lie completely between the edges of the table's scroller.
VISIBLE = f"""() => {{
  const table = document.querySelector("#comparison"), frame = table.parentElement.getBoundingClientRect();
  const inside = (cell) => {{
    const box = cell.getBoundingClientRect();
    return box.width && box.left >= frame.left - 0.5 && box.right <= Math.min(frame.right, innerWidth) + 0.5;
  }};
  return [...table.tBodies[0].rows].map((row) => [...row.cells].filter(inside).map({TEXT}));
}}"""


def translated(context: Context, language: str) -> Context:
    return replace(context, catalogue=catalogue.load_catalogue(language))


@pytest.fixture(scope="module")
def pages(wide: Context, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page in every language. It has no plots, because they take seconds."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main_plots, "all_plots", lambda _: [])
        for language in ("en", "ko"):
            (folder / f"{language}.html").write_text(write.page(translated(wide, language)), encoding="utf-8")
    return folder


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        yield context.new_page()


def headings(page: Page | Frame) -> list[str]:
    return page.evaluate(HEADINGS)


def buttons(page: Page | Frame) -> dict[str, bool]:
    """The buttons of groups, and whether each says that its group is open."""
    found = page.locator(".groups button").all()
    return {button.inner_text(): button.get_attribute("aria-expanded") == "true" for button in found}


def open_all(page: Page) -> None:
    for button in page.locator(".groups button").all():
        button.click()


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_main_columns_need_no_scrolling_on_a_laptop(wide: Context, pages: Path, page: Page, language: str):
    """1280 pixels; every value of the columns lies inside the table's visible part."""
    page.goto((pages / f"{language}.html").as_uri())
    table = comparison_table(translated(wide, language))
    always = [n for n, column in enumerate(table.columns) if not column.opened_by]
    assert len(always) == len(headings(page)) == len(ALWAYS)
    if language == "en":
        assert headings(page) == ALWAYS
    rows = page.evaluate(VISIBLE)
    assert len(rows) == len(table.rows) == 2
    for visible, row in zip(rows, table.rows, strict=True):
        assert len(visible) == len(always)
        for text, entry in zip(visible, (row[n] for n in always), strict=True):
            assert text.startswith(" ".join(entry.text.split()))
            assert all(line in text for line in entry.details)
    scroller = page.locator(".scroller").first
    assert scroller.evaluate("(part) => part.scrollWidth - part.clientWidth") == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_each_button_opens_and_closes_its_columns(pages: Path, page: Page):
    page.goto((pages / "en.html").as_uri())
    assert buttons(page) == dict.fromkeys(GROUPS, False)
    closed = headings(page)
    for name, columns in GROUPS.items():
        button = page.get_by_role("button", name=name, exact=True)
        assert button.get_attribute("aria-controls") == "comparison"
        button.focus()
        page.keyboard.press("Enter")
        assert buttons(page)[name]
        found = headings(page)
        assert len(found) == len(closed) + len(columns)
        assert set(columns) <= set(found)
        page.keyboard.press("Space")
        assert headings(page) == closed
        assert not any(buttons(page).values())


def test_upper_headings_stand_above_their_columns(pages: Path, page: Page):
    page.goto((pages / "en.html").as_uri())
    spans = """() => [...document.querySelectorAll("#comparison thead tr:first-child th")]
      .filter((head) => head.getClientRects().length).map((head) => [head.textContent.trim(), head.colSpan])"""
    names = ("BLEU", "Training cost", "Latency, ms", "Published BLEU", "Published cost, clock estimate, FLOP")

    def found() -> list[int]:
        widths = dict(page.evaluate(spans))
        return [widths.get(name, 0) for name in names]

    assert found() == [2, 2, 1, 2, 0]
    open_all(page)
    assert found() == [2, 4, 2, 2, 2]


def test_open_columns_are_remembered(pages: Path, page: Page):
    """In the page, and in other reports from the same place."""
    page.goto((pages / "en.html").as_uri())
    for name in ("Speed", "Published cost"):
        page.get_by_role("button", name=name, exact=True).click()
    chosen, shown = buttons(page), headings(page)
    assert [name for name, is_open in chosen.items() if is_open] == ["Speed", "Published cost"]
    page.reload()
    assert (buttons(page), headings(page)) == (chosen, shown)
    page.goto((pages / "ko.html").as_uri())
    assert list(buttons(page).values()) == list(chosen.values())
    page.evaluate("localStorage.setItem('attention-ladder.columns', '{broken')")
    page.goto((pages / "en.html").as_uri())
    assert headings(page) == ALWAYS


def test_columns_open_in_a_frame_without_storage(pages: Path, page: Page):
    """MLflow shows the report in a sandboxed frame."""
    (pages / "frame.html").write_text('<iframe sandbox="allow-scripts" src="en.html" width="1280" height="900">')
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((pages / "frame.html").as_uri())
    frame = page.frames[1]
    assert headings(frame) == ALWAYS
    frame.get_by_role("button", name="Memory", exact=True).click()
    assert "Peak memory, MiB" in headings(frame)
    assert errors == []


@pytest.mark.parametrize("language", ["en", "ko"])
def test_no_column_is_clipped_at_1440_pixels(wide: Context, pages: Path, page: Page, language: str):
    """With two directions, three seeds and every group of columns open."""
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto((pages / f"{language}.html").as_uri())
    open_all(page)
    assert [len(row) for row in page.evaluate(VISIBLE)] == [len(comparison_table(wide).columns)] * 2 == [18] * 2
    scroller = page.locator(".scroller").first
    assert scroller.evaluate("(part) => part.scrollWidth - part.clientWidth") == 0


def test_print_shows_all_columns(pages: Path, page: Page):
    page.goto((pages / "en.html").as_uri())
    page.evaluate(f"addEventListener('beforeprint', () => (window.printed = ({HEADINGS})()))")
    page.pdf()
    every = [len(ALWAYS) + sum(map(len, GROUPS.values()))]
    assert [len(page.evaluate("window.printed"))] == every
    assert headings(page) == ALWAYS  # afterwards the screen is as before


def test_a_page_without_scripts_shows_all_columns(browser: Browser, pages: Path):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto((pages / "en.html").as_uri())
        expect(page.locator(".groups")).to_be_hidden()
        assert len([head for head in page.locator("#comparison th[data-column]").all() if head.is_visible()]) == 18


def test_sorting_works_with_closed_and_open_columns(pages: Path, page: Page):
    page.goto((pages / "en.html").as_uri())
    years = "() => [...document.querySelector('#comparison').tBodies[0].rows].map((row) => row.cells[1].textContent)"
    assert page.evaluate(years) == ["2016", "2017"]
    page.locator("#comparison").get_by_role("button", name="Year").click()
    assert page.evaluate(years) == ["2017", "2016"]
    open_all(page)
    assert page.evaluate(years) == ["2017", "2016"]


def test_a_narrow_window_keeps_the_names_in_sight(pages: Path, page: Page):
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto((pages / "en.html").as_uri())
    name = page.locator("#comparison tbody th").first
    before = name.bounding_box()
    page.locator(".scroller").first.evaluate("(part) => (part.scrollLeft = 300)")
    assert name.bounding_box() == before
    assert page.evaluate("document.documentElement.scrollWidth") == 400
