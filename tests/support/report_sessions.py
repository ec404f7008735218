"""Sessions for the tests of the report page, and a page in a real Chromium.

`made` sessions come from scripts/data/made_session.py: GPU times on several ranks, which no machine
of the tests can record.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import made_session
from recorded import leave_out, real_traces

from profilemate.insight.findings import find
from profilemate.insight.report import draw_all, write_page
from profilemate.insight.report.base import Drawing
from profilemate.parse.session.saved import SavedSession

if TYPE_CHECKING:
    from playwright.sync_api import Page


__all__ = ["real_traces"]

SMALL = made_session.Made(steps=600, seconds=12, ranks=3, lives=900, operations=100)
CHROMIUM = "PROFILEMATE_TEST_CHROMIUM"


def make(folder: Path, what: made_session.Made = SMALL) -> Path:
    return made_session.make(folder, what)


def page_of(session: Path, out: Path) -> Path:
    saved = SavedSession.open(session)
    return write_page(saved, out, draw_all(saved), find(saved))


def rows(session: Path, name: str) -> list[dict[str, str]]:
    """A table by the csv module, all cells text."""
    with (session / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def drawn(session: Path) -> dict[str, Drawing | str]:
    """Each chart's drawing, or why there is none."""
    found = draw_all(SavedSession.open(session))
    return {d.chart.name: d.drawing or d.why for part in found.values() for d in part}


def drawing(session: Path, name: str) -> Drawing:
    found = drawn(session)[name]
    assert isinstance(found, Drawing), found
    return found


def hostile(session: Path, folder: Path) -> Path:
    """The session with foreign texts that would break a careless page, in every place."""
    shutil.copytree(session, folder)
    file = folder / "metadata.json"
    metadata = json.loads(file.read_text())
    evil = made_session.FOREIGN
    metadata["session_id"] = evil
    metadata["notes"] = [evil]
    metadata["versions"] = {"vllm": evil}
    metadata["sources"] = [{"path": f"/tmp/{evil}", "kind": evil, "size": 1, "recorder": evil}]
    metadata["processes"] = [{"role": evil, "pid": 1, "host": evil, "rank": evil, "events": 1}]
    metadata["hooks"] = {"installed": {}, "skipped": {evil: evil}}
    file.write_text(json.dumps(metadata))
    text = (folder / "cuda_graph_replay_latency.csv").read_text().splitlines()
    text[1] = text[1].replace(",0,None,", ',0,"' + evil.replace('"', '""') + '",', 1)
    (folder / "cuda_graph_replay_latency.csv").write_text("\n".join(text) + "\n")
    return folder


@dataclass
class Opened:
    """A page in the browser, and what the browser said."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def data(self, chart: str) -> dict[str, Any]:
        """What the page holds for a chart, by the DOM."""
        found: dict[str, Any] = self.page.evaluate(
            "name => JSON.parse(document.getElementById(`data-${name}`).textContent)", chart
        )
        return found

    def marks(self, chart: str, role: str) -> int:
        """Marks of a kind that a reader can see in a chart."""
        return self.page.locator(f'#{chart} .picture svg [aria-roledescription="{role}"]').count()


@contextmanager
def browser(**context: Any) -> Iterator[Any]:
    """A browser context; requests other than for the page itself are refused and noted."""
    path = os.environ.get(CHROMIUM)
    if not path:
        leave_out(f"{CHROMIUM} does not name a Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield chromium.new_context(**context)
        finally:
            chromium.close()


def open_page(context: Any, path: Path) -> Opened:
    """Open a page and wait until all charts are drawn."""
    opened = Opened(context.new_page())
    address = path.resolve().as_uri()

    def route(request: Any) -> None:
        if request.request.url == address:
            request.continue_()
        else:
            opened.asked.append(request.request.url)
            request.abort()

    opened.page.route("**/*", route)
    opened.page.on("console", lambda message: opened.said.append(message.text))
    opened.page.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.page.goto(address)
    opened.page.wait_for_selector("html[data-ready=yes]", timeout=60_000)
    return opened
