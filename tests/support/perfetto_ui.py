"""The real Perfetto UI in a real browser, served by the server of `profilemate view`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from profilemate.view.server import Server
from profilemate.view.site import shipped_ui, site_of

# The UI's own engine answers its SQL; 64-bit integers travel as text.
_QUERY = """async sql => {
    const found = await app.trace.engine.query(sql);
    const columns = found.columns();
    const rows = [];
    for (const it = found.iter({}); it.valid(); it.next()) {
        rows.push(columns.map(c => {
            const v = it.get(c);
            return typeof v === 'bigint' ? {int: String(v)} : v;
        }));
    }
    return rows;
}"""

# What the UI tries on a loopback address and lives without: a live reload of its developers, a
# native trace processor, and Google's list of its own people.
EXPECTED = (
    "LiveReload SSE error",
    "is_internal_user.js",
    "navigate-to",
    "net::ERR_CONNECTION_REFUSED",
    "404 (Not Found)",
)


@dataclass
class Ui:
    """A page that has loaded a trace.

    Attributes:
        errors: What went wrong on the page.
        foreign: Addresses outside of this machine that answered.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the UI's own SQL."""
        return [
            tuple(int(v["int"]) if isinstance(v, dict) else v for v in row)
            for row in self.page.evaluate(_QUERY, sql)
        ]

    def command(self, name: str, *args: str) -> None:
        """Run one of the UI's commands."""
        self.page.evaluate("([n, a]) => { app.commands.runCommand(n, ...a); }", [name, [*args]])
        self.settle()

    def settle(self) -> None:
        """Wait until everything is drawn."""
        self.page.wait_for_timeout(300)
        self.page.wait_for_function("app.trace.engine.numRequestsPending === 0", timeout=60_000)
        self.page.wait_for_timeout(700)


@contextmanager
def opened(browser: Browser, trace: Path, size: tuple[int, int] = (1400, 900)) -> Iterator[Ui]:
    """Serve a trace, open it, and wait until it is loaded. Ends with the server's own end."""
    server = Server(site_of(trace, shipped_ui()))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    ui = Ui(page)
    page.on("pageerror", lambda error: ui.errors.append(str(error)))
    page.on(
        "console",
        lambda m: (
            ui.errors.append(m.text)
            if m.type == "error" and not any(e in m.text + str(m.location) for e in EXPECTED)
            else None
        ),
    )
    page.on(
        "response",
        lambda r: (
            ui.foreign.append(r.url)
            if not r.url.startswith((f"http://127.0.0.1:{server.port}/", "blob:", "data:"))
            else None
        ),
    )
    page.goto(server.url)
    page.wait_for_function("globalThis.app && app.trace && app.trace.traceInfo", timeout=120_000)
    page.wait_for_selector(".pf-track", timeout=60_000)
    ui.settle()
    yield ui
    page.close()
    thread.join(30)
    assert not thread.is_alive(), "the server ends when its tab is closed"
