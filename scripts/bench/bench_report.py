"""What a report page costs: to make, and to open in a headless Chromium.

    python scripts/bench/bench_report.py [SESSION]  # without one, of an hour of made_session

Prints seconds and peak memory of making it, its size, and of five openings the median of first
contentful paint and of the time until all charts are drawn. Names of the browser:
PROFILEMATE_TEST_CHROMIUM, or `chromium` on PATH.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "data"))

import made_session  # noqa: E402

OPENINGS = 5


def make(session: Path, page: Path) -> tuple[float, float]:
    """Seconds and MB of a process that makes the page."""
    command = [sys.executable, "-m", "profilemate", "report", str(session), "-o", str(page)]
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    taken = time.monotonic() - start
    return taken, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def opened(page: Path, chromium: str) -> list[tuple[float, float]]:
    """First contentful paint and all charts drawn, in ms since navigation began, per opening."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as play:
        for _ in range(OPENINGS):
            browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(page.resolve().as_uri())
            tab.wait_for_selector("html[data-ready=yes]", timeout=120_000)
            ready = float(tab.evaluate("performance.now()"))
            paint = tab.evaluate(
                "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            )
            found.append((float(paint), ready))
            browser.close()
    return found


def main() -> None:
    """Measure."""
    chromium = os.environ.get("PROFILEMATE_TEST_CHROMIUM") or shutil.which("chromium")
    if not chromium:
        sys.exit("PROFILEMATE_TEST_CHROMIUM does not name a Chromium")
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            session = Path(sys.argv[1])
        else:
            session = made_session.make(Path(folder) / "session", made_session.HOUR)
        page = Path(folder) / "report.html"
        seconds, memory = make(session, page)
        print(
            f"made in {seconds:.1f} s, {memory:.0f} MB at most; {page.stat().st_size / 1e6:.2f} MB"
        )
        times = opened(page, chromium)
        paint, ready = (statistics.median(t[i] for t in times) for i in (0, 1))
        print(f"first contentful paint {paint:.0f} ms, all charts drawn after {ready:.0f} ms")


if __name__ == "__main__":
    main()
