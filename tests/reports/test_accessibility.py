"""The page has no serious accessibility violation according to axe-core in a headless browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from bench.tracking.store import Store
from reports import write
from reports.gathering import gather_runs
from tests.helpers import synthetic_runs
from tests.helpers.browser import needs_a_browser, serious_violations

pytestmark = synthetic_runs.quiet_mlflow


@pytest.mark.usefixtures("odd", "wide")
@needs_a_browser
@pytest.mark.parametrize("suite", ["odd", "wide"])
def test_page_has_no_serious_violation(store: Store, browser: Browser, suite: str, tmp_path: Path):
    for language in ("en", "ko"):
        write.all_forms(gather_runs.gather(store, suite, "http://127.0.0.1:5000", language), tmp_path / language)
    for language, dark, width in (("en", False, 1280), ("en", True, 1280), ("ko", True, 400)):
        page = browser.new_page(color_scheme="dark" if dark else "light", viewport={"width": width, "height": 900})
        page.goto((tmp_path / language / "report.html").as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        for groups in ("closed", "open"):
            if groups == "open":
                page.evaluate("document.querySelectorAll('.groups button').forEach((button) => button.click())")
            assert serious_violations(page) == [], f"{language}, dark: {dark}, groups of columns: {groups}"
            assert page.evaluate("document.documentElement.scrollWidth") <= width  # only tables may scroll horizontally
        page.close()
