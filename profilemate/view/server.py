"""A server on the loopback that gives away one site and ends when its tab is closed."""

from __future__ import annotations

import errno
import shutil
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from profilemate.errors import ToolError, missing_extra
from profilemate.view.site import TRACE, Site

HOST = "127.0.0.1"
GRACE_S = 5.0
"""How long after its last sign of life a tab counts as closed: a reload takes less."""

_BEAT_S = 0.5
_TAKEN_ONLINE = (
    "ui.perfetto.dev can fetch from no other, and another program (a trace viewer that is still "
    "open?) listens there."
)


@dataclass(slots=True)
class Visitors:
    """Who is looking: connections that open tabs hold, and when the last one went."""

    open: int = 0
    came: bool = False
    last_seen: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self) -> None:
        """A tab is there."""
        with self._lock:
            self.open += 1
            self.came = True

    def leave(self) -> None:
        """A tab is gone, or has all that it came for."""
        with self._lock:
            self.open -= 1
            self.last_seen = time.monotonic()

    def gone(self) -> bool:
        """Whether somebody came, and everybody has been gone for a while."""
        with self._lock:
            return self.came and not self.open and time.monotonic() - self.last_seen > GRACE_S


class Server(ThreadingHTTPServer):
    """Serves a site to this machine alone.

    Raises:
        ToolError: The port it needs is taken.
    """

    daemon_threads = True

    def __init__(self, site: Site) -> None:
        self.site = site
        self.visitors = Visitors()
        self.stopping = threading.Event()
        # With SO_REUSEADDR the port of a session that has just ended can be had at once.
        try:
            super().__init__((HOST, site.port), _Handler)
        except OSError as e:
            if e.errno != errno.EADDRINUSE:
                raise
            raise ToolError(
                f"Port {site.port} of this machine is taken",
                why=_TAKEN_ONLINE if site.origin else "Another program listens there.",
                hint="Close it, or install what needs no such port:"
                if site.origin
                else "Name another with --port, or leave --port out.",
                command=missing_extra("view") if site.origin else (),
            ) from e

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that broke; a mistake of ours is shown as ever."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """What to open."""
        return self.site.start.replace("{port}", str(self.port))

    def run(self) -> None:
        """Serve until the tab is closed; whoever interrupts it gets the interrupt."""
        thread = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            while not self.visitors.gone():
                time.sleep(0.1)
        finally:
            self.stopping.set()
            self.shutdown()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Give what the site has at this path."""
        site = self.server.site
        path = site.below(self.path)
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND)
        elif not self._from_here():
            self._refuse(HTTPStatus.FORBIDDEN)
        elif site.alive and path == site.alive:
            self._stay()
        elif path in site.texts:
            self._head(len(site.texts[path]), site.type_of(path))
            self.wfile.write(site.texts[path])
        elif path in site.files:
            self._give(path, site.files[path])
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_OPTIONS(self) -> None:
        """Answer a browser that asks whether a public page may fetch from this machine."""
        site = self.server.site
        path = site.below(self.path)
        if not site.origin or path not in site.files or not self._from_here():
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.NO_CONTENT)
        self._allow()
        self.send_header("Access-Control-Allow-Methods", "GET")
        self.send_header("Access-Control-Allow-Private-Network", "true")
        self.end_headers()

    def _from_here(self) -> bool:
        """Whether the request was meant for this address: a foreign name may point here too."""
        port = self.server.port
        return self.headers.get("Host") in (f"{HOST}:{port}", f"localhost:{port}")

    def _give(self, path: str, file: Path) -> None:
        try:
            content = file.open("rb")
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        counted = path == TRACE and not self.server.site.alive
        if counted:
            self.server.visitors.enter()
        try:
            with content:
                self._head(file.stat().st_size, self.server.site.type_of(path))
                shutil.copyfileobj(content, self.wfile, 1 << 20)
        finally:
            if counted:
                self.server.visitors.leave()

    def _stay(self) -> None:
        """Hold the connection that tells of an open tab."""
        self.server.visitors.enter()
        try:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            while not self.server.stopping.wait(_BEAT_S):
                self.wfile.write(b":\n\n")
                self.wfile.flush()
        except OSError:
            pass  # the tab is closed
        finally:
            self.close_connection = True
            self.server.visitors.leave()

    def _head(self, length: int, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Referrer-Policy", "no-referrer")  # the address holds the token
        if self.server.site.policy:
            self.send_header("Content-Security-Policy", self.server.site.policy)
        self._allow()
        self.end_headers()

    def _allow(self) -> None:
        if self.server.site.origin:
            self.send_header("Access-Control-Allow-Origin", self.server.site.origin)

    def _refuse(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def handle(self) -> None:
        """Serve one connection; a browser may drop it at any time."""
        with suppress(ConnectionError, TimeoutError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
