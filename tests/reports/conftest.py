"""Shared suites of synthetic runs. All tests use one store, because creating a store takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from bench.tracking.store import Store
from reports import write
from reports.gathering.context import Context
from reports.gathering.gather_runs import gather
from tests.helpers import synthetic_runs
from tests.helpers.browser import launch
from tests.helpers.synthetic_runs import Synthetic
from tests.helpers.tracking_folder import new_store

FLAT = {"validation_score.constant": "0"}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return new_store(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def odd(store: Store) -> Context:
    return synthetic_runs.odd(store)


@pytest.fixture(scope="session")
def level(store: Store) -> Context:
    return synthetic_runs.level(store)


@pytest.fixture(scope="session")
def mixed(store: Store) -> Context:
    """Three rows. The baseline has one seed, the other two have three; another row than the baseline is the highest."""
    runs = [
        *(Synthetic("low", "Low", 2014, 2, 1e12, seed) for seed in (1, 2, 3)),
        Synthetic("base", "Base", 2015, 5, 2e12),
        *(Synthetic("high", "High", 2017, 20, 3e12, seed) for seed in (1, 2, 3)),
    ]
    synthetic_runs.suite(store, "mixed", runs, "low,base,high", "base")
    return gather(store, "mixed")


@pytest.fixture(scope="session")
def chinese(store: Store) -> Context:
    """BLEU with the tokenizer zh; a row whose validation score was constant, and a row of an earlier version."""
    tags = {"bleu_tokenizer": "zh", "validation_score": "validation_chrf"}
    runs = [
        Synthetic("old", "Old", 2013, 3, 1e12, corpus="toy-en-zh"),
        *(Synthetic("flat", "Flat", 2014, 2, 1e12, seed, "toy-en-zh", tags=FLAT | tags) for seed in (1, 2)),
        Synthetic("high", "High", 2017, 20, 3e12, corpus="toy-en-zh", tags=tags),
    ]
    synthetic_runs.suite(store, "chinese", runs, "old,flat,high", "high")
    return gather(store, "chinese")


@pytest.fixture(scope="session")
def compared(store: Store) -> Context:
    """Two suites. In the later one Tested is better, Same is the same, and each suite has a row of its own.

    Tested has three seeds, the other rows have one.
    """
    same, seeds = Synthetic("same", "Same", 2015, 4, 2e12), (1, 2, 3)
    earlier = [*(Synthetic("tested", "Tested", 2014, 2, 1e12, seed) for seed in seeds), same]
    later = [*(Synthetic("tested", "Tested", 2014, 20, 3e12, seed) for seed in seeds), same]
    earlier.append(Synthetic("gone", "Gone", 2013, 3, 1e12))
    later.append(Synthetic("new", "New", 2017, 3, 1e12))
    synthetic_runs.suite(store, "earlier", earlier, "tested,same,gone", "same")
    synthetic_runs.suite(store, "later", later, "tested,same,new", "same")
    return gather(store, "later", compare_with="earlier")


@pytest.fixture(scope="session")
def wide(store: Store) -> Context:
    """Two directions with three seeds, every column of costs, a long name, a note and marks."""
    costs = {"clock_flops": 1.05e13, "latency_p95_ms": 441.5, "sentences_per_s": 1490.0, "peak_memory_bytes": 2**27}
    runs = [
        Synthetic("base", "Transformer (base)", 2017, 4, 4e12, seed, corpus, best_at=-1, costs=costs)
        for corpus in ("toy-en-de", "toy-en-fr")
        for seed in (1, 2, 3)
    ]
    long = f"Deep-Att + PosUnk Ensemble of {'Gated' * 7} layers"
    runs.append(Synthetic("long", long, 2016, 6, 4e12, tags={"note": "Probabilities are averaged"}))
    synthetic_runs.suite(store, "wide", runs, "long,base", "base")
    return gather(store, "wide")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = launch(playwright)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def odd_report(odd: Context, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every form of the report of `odd`."""
    folder = tmp_path_factory.mktemp("odd")
    files = write.all_forms(odd, folder)
    assert [path.name for path in files[:4]] == ["report.html", "report.md", "report.tex", "report.csv"]
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(files)
    return folder


@pytest.fixture(scope="session")
def compared_report(compared: Context, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every form of the report of `compared`."""
    folder = tmp_path_factory.mktemp("compared")
    write.all_forms(compared, folder)
    return folder


@pytest.fixture(scope="session")
def level_page(level: Context) -> str:
    return write.page(level)
