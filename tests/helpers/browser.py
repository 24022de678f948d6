"""A headless Chromium for tests of pages, and axe-core's check of their accessibility."""

from __future__ import annotations

import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Playwright

CHROMIUM = shutil.which("chromium") or ""
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--no-first-run"]

needs_a_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")


def launch(playwright: Playwright) -> Browser:
    """The browser of the system, without its background services."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


def serious_violations(page: Page) -> list[tuple[str, str]]:
    """The accessibility rules that a page violates seriously or critically, each with the first place in its HTML."""
    return [
        (each["id"], each["nodes"][0]["html"][:200])
        for each in Axe().run(page).response["violations"]
        if each["impact"] in ("serious", "critical")
    ]
