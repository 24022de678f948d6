"""The static site: an index, the report of each suite, and a page for each row."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import html5lib
import pytest
from playwright.sync_api import Browser

from bench.tracking.store import Store
from reports import site
from reports.plots import main_plots
from reports.site import write_site
from tests.helpers import synthetic_runs
from tests.helpers.browser import needs_a_browser, serious_violations
from tests.helpers.synthetic_runs import HOSTILE, Synthetic
from tests.helpers.tracking_folder import new_store
from tests.reports.conftest import FLAT

pytestmark = synthetic_runs.quiet_mlflow

HOSTILE_NAME = "..\\..\\<b>up & 'away'"


@pytest.fixture(scope="module")
def site_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two suites: `odd`; and one with a hostile name, with a row of a hostile id and one that `odd` has too."""
    store = new_store(tmp_path_factory.mktemp("site-runs"))
    synthetic_runs.odd(store)
    runs = [
        Synthetic("../<i>", f"Row {HOSTILE}", 2014, 2, 1e12, tags=FLAT),
        Synthetic("best", "Transformer (base)", 2017, 20, 4e12),
    ]
    synthetic_runs.suite(store, HOSTILE_NAME, runs, "../<i>,best", "best")
    return store


@pytest.fixture(scope="module")
def folder(site_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site").resolve()
    pages = write_site([site_store], out)
    assert pages[0] == out / "index.html"
    assert sorted(pages) == sorted(out.rglob("*.html"))
    return out


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take most of the time of a page."""
    monkeypatch.setattr(main_plots, "all_plots", lambda _: [])


def parse(path: Path):
    return html5lib.parse(path.read_text(encoding="utf-8"), namespaceHTMLElements=False)


def text(element) -> str:
    return " ".join("".join(element.itertext()).split())


def test_index_has_question_finding_date_and_size_of_each_suite(folder: Path):
    entries = list(parse(folder / "index.html").iter("article"))
    assert len(entries) == 2
    odd = next(entry for entry in entries if text(entry.find("h3")) == "odd")
    assert entry_link(odd) == "suites/odd/report.html"
    assert f"Which is best? {HOSTILE}" in text(odd)
    assert "Transformer (base) has the highest BLEU" in text(odd)
    assert "5 rows, 3 runs, 1 seed" in text(odd)
    assert [text(link) for link in odd.findall("ul/li/a")][1:] == ["Twin", "Broken", "absent", "Transformer (base)"]


def entry_link(entry) -> str:
    return entry.find("h3/a").get("href")


def test_every_link_leads_to_a_file_and_an_anchor(folder: Path):
    checked = 0
    anchors = functools.cache(lambda page: [each.get("id") for each in parse(page).iter() if each.get("id")])
    for page in folder.rglob("*.html"):
        tree = parse(page)
        assert len(anchors(page)) == len(set(anchors(page))), page
        for element in tree.iter():
            assert not element.get("src"), page
            address = urlsplit(element.get("href") or "") if element.tag in ("a", "link") else None
            if address is None:
                continue
            assert not address.scheme, element.get("href")
            target = (page.parent / unquote(address.path)).resolve() if address.path else page
            assert target.is_file(), element.get("href")
            assert target.is_relative_to(folder), element.get("href")
            if address.fragment:
                assert address.fragment in anchors(target)
            checked += 1
    assert checked > 40


def test_row_page_says_what_the_row_is_and_shows_its_results_in_order(site_store: Store, folder: Path):
    page = parse(folder / "rows" / "best.html")
    assert text(next(page.iter("h1"))).startswith("Transformer (base): ")
    headings = ["What it is", "Size", "Numbers", "Learning curves", "What it attends to", "Probes"]
    assert [text(heading) for heading in page.iter("h2")] == [*headings, "Best and worst translations"]
    table = next(each for each in page.iter("table") if each.get("id") == "numbers")
    assert sorted(text(name) for name in table.findall("tbody/tr/th")) == [HOSTILE_NAME, "odd"]
    shown = (folder / "rows" / "best.html").read_text()
    assert {'id="s1-curves' in shown, 'id="s2-curves' in shown} == {True}
    assert "This version of the program has no architecture of this name" in shown
    assert shown.count('class="sentence"') == 10  # in each suite the 3 best and the 2 that differ from the reference


def test_row_without_runs_says_so(folder: Path):
    assert (folder / "rows" / "absent.html").read_text().count("This suite has no finished run of this row.") == 4


@pytest.mark.usefixtures("no_plots")
def test_known_architectures_have_equations_paper_and_sizes(tmp_path: Path):
    store = new_store(tmp_path / "runs")
    runs = [
        Synthetic("bahdanau", "Bahdanau attention", 2015, 2, 1e12),
        Synthetic("gnmt-ensemble", "GNMT", 2016, 2, 1e12),
    ]
    synthetic_runs.suite(store, "known", runs, "bahdanau,gnmt-ensemble", "bahdanau")
    write_site([store], tmp_path / "site")
    page = parse(tmp_path / "site" / "rows" / "bahdanau.html")
    assert "weighs all source words anew" in text(next(page.iter("h1")))
    equations = [text(each) for each in page.iter("p") if each.get("class") == "equation"]
    assert "eij = vaT tanh(Wa si-1 + Ua hj)" in equations
    assert "Jointly Learning to Align and Translate" in text(page)
    sizes = next(each for each in page.iter("table") if each.get("id") == "sizes")
    assert [text(name) for name in sizes.findall("tbody/tr/th")] == ["demo", "multi30k-cpu", "multi30k", "paper"]
    assert "Several models" in (tmp_path / "site" / "rows" / "gnmt-ensemble.html").read_text()


def test_hostile_names_are_escaped_and_stay_inside_the_folder(folder: Path):
    for page in folder.rglob("*.html"):
        shown = page.read_text()
        assert [markup for markup in ("<script>alert", "<b>up", "<i>") if markup in shown] == []
        assert len(list(parse(page).iter("script"))) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "rows", "suites"]


@pytest.mark.usefixtures("no_plots")
def test_same_input_gives_the_same_bytes(site_store: Store, tmp_path: Path):
    contents = []
    for name in ("one", "two"):
        write_site([site_store], tmp_path / name)
        contents.append(
            {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        )
    assert contents[0] == contents[1]
    assert len(contents[0]) == 11


@pytest.mark.usefixtures("no_plots")
def test_interrupted_site_has_no_index(site_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "index.html").write_text("an earlier site")

    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(site, "_row_page", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_site([site_store], tmp_path)
    assert not (tmp_path / "index.html").exists()


@pytest.mark.usefixtures("no_plots")
def test_suite_without_sentences_says_so(site_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def without_text(self: Store, run: object, test_set: str):
        import pandas as pd

        return pd.DataFrame(columns=["source", "reference", "hypothesis"])

    monkeypatch.setattr(Store, "hypotheses", without_text)
    monkeypatch.setattr(Store, "list_files", lambda *_: [])
    write_site([site_store], tmp_path)
    assert "stored here without sentences" in (tmp_path / "index.html").read_text()
    page = (tmp_path / "rows" / "twin.html").read_text()
    assert page.count("stored here without sentences and attention maps, so they cannot be shown") == 2


@pytest.mark.usefixtures("no_plots")
def test_two_suites_of_the_same_name_have_their_own_pages(site_store: Store, tmp_path: Path):
    write_site([site_store, site_store], tmp_path)
    assert (tmp_path / "suites" / "odd" / "report.html").is_file()
    assert (tmp_path / "suites" / "odd-2" / "report.html").is_file()


def test_empty_store_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="there are no runs in"):
        write_site([new_store(tmp_path)], tmp_path / "site")


@needs_a_browser
def test_site_opens_without_errors_from_files_and_from_a_server(folder: Path, browser: Browser):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    problems: list[str] = []
    with browser.new_context(viewport={"width": 400, "height": 900}) as context:
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        for start in ((folder / "index.html").as_uri(), f"http://127.0.0.1:{server.server_port}/"):
            page.goto(start)
            page.click("article h3 a >> text=odd")
            page.click("#comparison tbody th a >> text=Transformer")
            assert (page.text_content("h1") or "").startswith("Transformer (base)")
            assert page.evaluate("document.documentElement.scrollWidth") <= 400
            assert serious_violations(page) == []
            page.click("text=All suites")
            assert page.text_content("h2") == "Suites"
    server.shutdown()
    server.server_close()
    # A plain server is asked for an icon, which the site does not have.
    assert [problem for problem in problems if "favicon" not in problem and "404" not in problem] == []
