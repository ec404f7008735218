"""A real browser for tests and pictures: Chromium, driven by Playwright."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from recorded import leave_out

VARIABLE = "PROFILEMATE_TEST_CHROMIUM"


def chromium() -> Path:
    """The Chromium that scripts/setup found or made."""
    named = os.environ.get(VARIABLE)
    if not named:
        leave_out(f"{VARIABLE} does not name a Chromium")
    return Path(str(named))


@contextmanager
def launched(path: Path) -> Iterator[Browser]:
    """Start it, without a window."""
    # Chromium's sandbox does not work for root, in containers for instance.
    args = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=args)
        try:
            yield browser
        finally:
            browser.close()
