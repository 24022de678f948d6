"""The page has no serious accessibility violation according to axe-core in a headless browser.

cd SOMEWHERE && npm install axe-core
AXE_CORE=SOMEWHERE/node_modules/axe-core/axe.min.js python -m pytest tests/reports/test_accessibility.py
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bench.tracking.store import Store
from reports import write
from reports.gathering import gather_runs
from tests.helpers import synthetic_runs

pytestmark = synthetic_runs.quiet_mlflow

AXE = Path(os.environ.get("AXE_CORE", ""))
CHROMIUM = shutil.which("chromium") or ""


@pytest.mark.usefixtures("odd")
@pytest.mark.skipif(not AXE.is_file(), reason="AXE_CORE does not name axe-core's axe.min.js")
@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")
def test_page_has_no_serious_violation(store: Store, tmp_path: Path):
    from playwright.sync_api import sync_playwright

    for language in ("en", "ko"):
        write.all_forms(gather_runs.gather(store, "odd", "http://127.0.0.1:5000", language), tmp_path / language)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for language, dark, width in (("en", False, 1280), ("en", True, 1280), ("ko", True, 400)):
            page = browser.new_page(color_scheme="dark" if dark else "light", viewport={"width": width, "height": 900})
            page.goto((tmp_path / language / "report.html").as_uri())
            page.add_script_tag(path=str(AXE))
            page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
            found = page.evaluate("axe.run(document).then((result) => result.violations)")
            serious = [
                (each["id"], each["nodes"][0]["html"][:200])
                for each in found
                if each["impact"] in ("serious", "critical")
            ]
            assert serious == [], f"{language}, dark: {dark}"
            assert page.evaluate("document.documentElement.scrollWidth") <= width  # only tables may scroll horizontally
            page.close()
        browser.close()
