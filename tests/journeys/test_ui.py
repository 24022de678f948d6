"""A user who never touches the code: a suite on a real MLflow server, its UI in a browser, its report.

MLflow's page has no identifiers of ours, so each part of it is found by its text.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job
from tests.helpers.browser import launch, needs_a_browser
from tests.journeys.commands import BENCH, free_port, server, tracking_server

pytestmark = pytest.mark.journey

BIN = BENCH.parent
SUITE = """
question: Does attention help a tiny model?
rows: [lstm, transformer-base]
preset: demo
seeds: [1, 2]
settings:
  corpus: {name: files, train: TRAIN, val: VAL, test: TEST}
  text: {vocabulary_size: 90}
  training: {max_pairs: 2400, batch_tokens: 600, validations: 3}
  decoding: {beam: 2, extra_length: 5}
  machine: {threads: 1}
"""
NAMES = {"lstm": "LSTM seq2seq", "transformer-base": "Transformer (base)"}
SWEEP = """
trials: 2
goals: [validation_loss]
sampler: {name: RandomSampler}
"""
SENTENCES = ["The man sees a bird 7.", "The king wants a table 12.", ""]


@pytest.fixture(scope="module")
def store(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Return the address of an MLflow server with a finished suite and a finished sweep, and the folder of the runs."""
    folder = tmp_path_factory.mktemp("ui")
    suite = SUITE
    for split in ("train", "val", "test"):
        suite = suite.replace(split.upper(), f"[{corpus}/{split}.en, {corpus}/{split}.de]")
    (folder / "pair.yaml").write_text(suite)
    with tracking_server(folder) as address:
        (folder / "settings.yaml").write_text(SWEEP)
        bench("suite", str(folder / "pair.yaml"), "--tracking.folder", str(folder / "runs"), uri=address)
        flags = [*tiny_job.corpus_flags(corpus), "--text.vocabulary_size=90", "--training.max_pairs=600"]
        flags += ["--training.batch_tokens=600", "--training.validations=2", f"--tracking.folder={folder}/runs"]
        bench("sweep", str(folder / "settings.yaml"), "--row", "lstm", *flags, uri=address)
        yield address, folder


def bench(*arguments: str, uri: str) -> str:
    done = subprocess.run(
        [BIN / "bench", *arguments],
        env=os.environ | {"MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "View run" not in done.stdout  # MLflow's own messages
    assert "INFO mlflow" not in done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = launch(playwright)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1600, "height": 1000})
    yield opened
    opened.close()


def open_runs(page: Page, address: str) -> str:
    """Open the list of the suite's runs; return the address of the suite's own run."""
    page.goto(address)
    page.goto(f"{address}/#/experiments/1/runs")
    expect(page.get_by_text("5 matching runs")).to_be_visible(timeout=60_000)
    href = page.locator(".ag-row").get_by_role("link", name="pair", exact=True).get_attribute("href")
    return f"{address}/{href}"


def texts(cells: Locator, count: int) -> list[str]:
    """The texts of `count` cells, which the table draws some time after the number of its rows."""
    expect(cells).to_have_count(count, timeout=60_000)
    return [text.strip() for text in cells.all_inner_texts()]


def expect_charts(page: Page, *titles: str) -> None:
    for title in titles:
        expect(page.get_by_text(title).first).to_be_visible(timeout=60_000)


@needs_a_browser
def test_the_printed_address_shows_the_comparison(store: tuple[str, Path], page: Page) -> None:
    """Every job in one line, the highest BLEU first, with the numbers of the CSV; and the charts of the view."""
    address, folder = store
    printed = bench("ui", uri=address)
    link = re.search(rf"suite pair .*({re.escape(address)}\S+)", printed)
    assert link, printed
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(link[1])
    expect(page.get_by_text("4 matching runs")).to_be_visible(timeout=60_000)
    report = pd.read_csv(folder / "runs" / "reports" / "pair" / "report.csv")
    found = report[(report.metric == "bleu") & (report.test_set == "test")]
    names = texts(page.locator(".ag-row").get_by_role("link"), 4)
    assert set(names) == {f"{name} en-de s{seed}" for name in NAMES.values() for seed in (1, 2)}
    cells = [float(text) for text in texts(page.locator('.ag-row [col-id="metrics.`test/bleu`"]'), 4)]
    assert cells == sorted(cells, reverse=True)
    by_row = {
        row: [score for name, score in zip(names, cells, strict=True) if name.startswith(NAMES[row])] for row in NAMES
    }
    for row, value in zip(found.row, found.value, strict=True):
        assert sum(by_row[row]) / 2 == pytest.approx(value, rel=1e-6)
    page.screenshot(path=folder / "view.png")

    page.goto(link[1].replace("&viewStateShareKey", "&compareRunsMode=CHART&viewStateShareKey"))
    expect_charts(page, "train_flops vs. test/bleu", "latency_p50_ms", "validation/bleu", "validation/loss")
    page.screenshot(path=folder / "charts.png")


@needs_a_browser
def test_the_printed_address_of_a_sweep_shows_its_trials(store: tuple[str, Path], page: Page) -> None:
    """Every trial with its settings, the best first; and its charts."""
    address, folder = store
    link = re.search(rf"sweep settings .*({re.escape(address)}\S+)", bench("ui", uri=address))
    assert link
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(link[1])
    expect(page.get_by_text("2 matching runs")).to_be_visible(timeout=60_000)
    tracked = Store(TrackingSettings(address, str(folder / "runs")))
    trials = tracked.trials("settings", tracked.studies("settings")[0].tags["study"])
    expected = sorted(trials, key=lambda run: run.metrics["validation_loss"])
    columns = {"metrics.`validation_loss`": [run.metrics["validation_loss"] for run in expected]}
    for key in ("training.optimizer.lr", "training.schedule.warmup"):  # the page holds only the columns on the screen
        columns[f"params.`{key}`"] = [float(run.params[key]) for run in expected]
    for column, values in columns.items():
        cells = [float(text) for text in texts(page.locator(f".ag-row [col-id='{column}']"), 2)]
        assert cells == pytest.approx(values, rel=1e-6), column
    states = texts(page.locator(".ag-row [col-id='tags.`state`']"), 2)
    assert states == [run.tags["state"] for run in expected]
    page.screenshot(path=folder / "sweep.png")
    page.goto(link[1].replace("&viewStateShareKey", "&compareRunsMode=CHART&viewStateShareKey"))
    expect_charts(page, "trial vs. validation_loss", "Parallel coordinates", "validation/loss")
    page.screenshot(path=folder / "sweep-charts.png")


@needs_a_browser
def test_the_bare_address_leads_to_the_newest_comparison(store: tuple[str, Path], page: Page) -> None:
    """Without a click. A link to another page of the UI still leads there."""
    _, folder = store
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [BENCH, "ui", "--port", str(port), "--tracking.uri", f"sqlite:///{folder}/server.db"]
    with server(command, f"{address}/health", folder / "bare.log"):
        page.goto(address)
        expect(page.get_by_text("2 matching runs")).to_be_visible(timeout=60_000)  # the sweep's
        expect(page.get_by_text("Ask questions about your")).to_have_count(0)  # the chat assistant
        page.goto(f"{address}/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=suite")
        expect(page.get_by_text("4 matching runs")).to_be_visible(timeout=60_000)
    assert "Warning" not in (folder / "bare.log").read_text()


@needs_a_browser
def test_two_runs_of_a_suite_are_compared(store: tuple[str, Path], page: Page) -> None:
    address, folder = store
    open_runs(page, address)
    page.locator(".ag-row", has_text="pair").get_by_role("button").first.click()  # unfold the jobs of the suite's run
    for row in ("lstm", "transformer-base"):
        link = page.get_by_role("link", name=f"{NAMES[row]} en-de s1", exact=True)
        page.locator(".ag-row", has=link).get_by_role("checkbox").first.click()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("Comparing 2 Runs").first).to_be_visible(timeout=60_000)
    # The page holds only the metrics on the screen, ordered by name: this is one of the first.
    expect(page.get_by_role("link", name="best_update", exact=True)).to_be_attached(timeout=60_000)
    expect(page.get_by_role("row", name="family recurrent attention")).to_be_attached()
    page.screenshot(path=folder / "compare.png")


@needs_a_browser
def test_the_report_works_inside_mlflow(store: tuple[str, Path], page: Page) -> None:
    address, folder = store
    page.goto(f"{open_runs(page, address)}/artifacts/report/report.html")
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name="Transformer vs. traditional models").first).to_be_visible(timeout=60_000)

    table = frame.locator("table.sortable").first
    head = table.locator("th[data-column]", has_text="Year")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    expect(table.locator("tbody tr").first).to_contain_text("Transformer (base)")
    head.get_by_role("button").click()
    expect(table.locator("tbody tr").first).to_contain_text("LSTM seq2seq")

    points = frame.locator("figure svg [aria-label*='Transformer (base)']")
    point = points.locator("visible=true").first  # each plot is there twice, for light and dark mode
    point.scroll_into_view_if_needed()
    point.hover()
    expect(frame.locator("#tip")).to_contain_text("BLEU")
    expect(frame.locator("#tip")).to_contain_text("Transformer (base)")
    page.screenshot(path=folder / "frame.png")


@needs_a_browser
def test_the_page_links_to_its_runs(store: tuple[str, Path], page: Page) -> None:
    _, folder = store
    page.goto((folder / "runs" / "reports" / "pair" / "report.html").as_uri())
    link = page.locator("table.sortable").first.locator(".run a").first
    run = str(link.get_attribute("href")).rpartition("/")[2]
    page.goto(str(link.get_attribute("href")))
    expect(page.get_by_text(run).first).to_be_visible(timeout=60_000)
    expect(page.get_by_text(re.compile(f"({'|'.join(map(re.escape, NAMES.values()))}) en-de s1")).first).to_be_visible()
    page.screenshot(path=folder / "run.png")


def test_runs_move_from_the_server_to_a_file_and_back(store: tuple[str, Path], tmp_path: Path) -> None:
    """Numbers, links, sentences and models survive both ways; the server takes its own runs for known."""
    address, folder = store
    printed = bench("store", "export", str(tmp_path / "out"), "--suite", "pair", "--artifacts", uri=address)
    assert printed == f"{tmp_path}/out/export.yaml\n"
    local = f"sqlite:///{tmp_path}/local/mlflow.db"
    flags = ["--tracking.folder", str(tmp_path / "local")]
    printed = bench("store", "import", str(tmp_path / "out"), *flags, uri=local)
    assert re.search(r"[56] runs added to sqlite:.*, 0 were there before", printed), printed
    report = (folder / "runs" / "reports" / "pair" / "report.csv").read_text()
    ids = re.compile("[0-9a-f]{32}")
    here = (tmp_path / "local" / "reports" / "pair" / "report.csv").read_text()
    assert ids.sub("ID", here) == ids.sub("ID", report)
    assert here != report
    sentences = ["best:pair/transformer-base", *SENTENCES]
    assert bench("translate", *sentences, *flags, uri=local) == bench("translate", *sentences, uri=address)
    bench("store", "export", str(tmp_path / "back"), "--artifacts", *flags, uri=local)
    printed = bench(
        "store", "import", str(tmp_path / "back"), "--tracking.folder", str(tmp_path / "again"), uri=address
    )
    assert re.search(r"^0 runs added to http.*, [56] were there before", printed), printed


def test_a_promoted_model_is_served(store: tuple[str, Path]) -> None:
    address, folder = store
    printed = bench("promote", "best:pair/transformer-base", "--name", "nmt-en-de", uri=address)
    assert printed == "models:/nmt-en-de/1\n"
    expected = bench("translate", "models:/nmt-en-de/1", *SENTENCES, uri=address).splitlines()
    port = free_port()
    command: list[str | Path] = [BIN / "mlflow", "models", "serve", "--model-uri", "models:/nmt-en-de/1"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    log = folder / "serve.log"
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    with server(command, f"http://127.0.0.1:{port}/ping", log, MLFLOW_TRACKING_URI=address, PATH=path):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"inputs": SENTENCES}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer) == {"predictions": expected}
