"""Makes the picture of the report page in docs/pictures, from the bundled recording.

    python scripts/docs/pictures_report.py

Needs a Chromium: PROFILEMATE_TEST_CHROMIUM, or `chromium` on PATH.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from profilemate.insight.findings import find
from profilemate.insight.report import draw_all, write_page
from profilemate.parse.pipeline import parse_session
from profilemate.parse.session.saved import SavedSession

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "tests" / "data" / "vllm_cpu_server" / "recording.sqlite"
TARGET = ROOT / "docs" / "pictures" / "report.png"
WIDTH, SCALE = 1180, 1
LAST = "#kv_cache_usage"
"""The picture ends with this chart."""


def picture(page: Path, target: Path, chromium: str) -> None:
    """The upper part of the page, in light."""
    from playwright.sync_api import ViewportSize, sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        size = ViewportSize(width=WIDTH, height=900)
        tab = browser.new_page(viewport=size, color_scheme="light", device_scale_factor=SCALE)
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready=yes]", timeout=60_000)
        box = tab.locator(LAST).bounding_box()
        assert box
        height = box["y"] + box["height"] + 16
        tab.screenshot(
            path=target, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height}
        )
        browser.close()


def main() -> None:
    """Make it anew."""
    chromium = os.environ.get("PROFILEMATE_TEST_CHROMIUM") or shutil.which("chromium")
    if not chromium:
        sys.exit("PROFILEMATE_TEST_CHROMIUM does not name a Chromium")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        saved = SavedSession.open(parse_session([BUNDLED], Path(folder) / "session").path)
        page = write_page(saved, Path(folder) / "report.html", draw_all(saved), find(saved))
        picture(page, TARGET, chromium)
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
