"""A headless Chromium for tests of pages."""

from __future__ import annotations

import shutil

import pytest
from playwright.sync_api import Browser, Playwright

CHROMIUM = shutil.which("chromium") or ""
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--no-first-run"]

needs_a_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")


def launch(playwright: Playwright) -> Browser:
    """The browser of the system, without its background services."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
