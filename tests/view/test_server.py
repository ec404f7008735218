"""The server of `profilemate view`, met with plain sockets."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from profilemate.errors import ToolError
from profilemate.view import server as server_
from profilemate.view.server import Server
from profilemate.view.site import ALIVE, ONLINE, TRACE, Site, site_of


@contextmanager
def serving(site: Site) -> Iterator[Server]:
    server = Server(site)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def ask(
    server: Server, path: str, method: str = "GET", token: str | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    root = f"/{server.site.token if token is None else token}"
    connection.request(method, root + path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
    connection.close()
    return found


def test_the_ui_and_the_trace_and_nothing_else(trace: Path, ui: Path) -> None:
    with serving(site_of(trace, ui)) as server:
        root = f"http://127.0.0.1:{server.port}/{server.site.token}"
        assert server.url.startswith(f"{root}/#!/?url={root}{TRACE}&")
        status, page, headers = ask(server, "/")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b"<title>UI</title><script src=" in page
        assert "connect-src 'self'" in headers["content-security-policy"]
        assert ask(server, TRACE)[1] == trace.read_bytes()
        assert ask(server, TRACE + "?again=1")[0] == 200
        status, wasm, headers = ask(server, "/v1/app.wasm")
        assert (wasm, headers["content-type"]) == (b"\0asm", "application/wasm")
        assert "access-control-allow-origin" not in headers
        for path in (
            "/v1",
            "/v1/",
            "/service_worker.js",
            "/secret.txt",
            "/../secret.txt",
            "/v1/../../secret.txt",
            "/%2e%2e/secret.txt",
            "//etc/passwd",
            str(trace),
            f"/{trace.name}",
            "",
        ):
            assert ask(server, path)[:2] == (404, b""), path
        assert ask(server, TRACE, "POST")[0] == 501
        assert ask(server, TRACE, "OPTIONS")[0] == 404


def test_without_the_token_there_is_nothing(trace: Path, ui: Path) -> None:
    with serving(site_of(trace, ui)) as server, serving(site_of(trace, ui)) as other:
        own = server.site.token
        assert len(own) >= 20
        assert own != other.site.token, "drawn anew each time"
        for path in ("/", "/index.html", TRACE, ALIVE, "/v1/app.wasm", "/profilemate/alive.js"):
            for token in ("x", other.site.token, own[:-1], own + "x", own.swapcase(), ""):
                assert ask(server, path, token=token)[:2] == (404, b""), (path, token)
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            connection.request("GET", path)
            assert connection.getresponse().status == 404
            connection.close()
        assert ask(server, TRACE)[1] == trace.read_bytes()
        assert ask(server, TRACE)[2]["referrer-policy"] == "no-referrer"
    with serving(replace(site_of(trace, None), port=0)) as server:
        assert ask(server, TRACE, "OPTIONS", token="x", Origin=ONLINE)[0] == 404
        assert ask(server, TRACE, token="x", Origin=ONLINE)[0] == 404


MALFORMED = {
    "no request": b"\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "bytes": bytes(range(256)) + b"\r\n\r\n",
    "a version of letters": b"GET / HTTP/a.b\r\n\r\n",
    "an address that is none": b"GET http://[ HTTP/1.1\r\n\r\n",
    "the token in no path": b"GET TOKEN/timeline.pftrace HTTP/1.1\r\n\r\n",
    "non-ASCII": "GET /é/ü HTTP/1.1\r\nHost: \u2028\r\nX-é: ü\r\n\r\n".encode(),
    "a long line": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "a long header": b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    "half a request": b"GET /TOKEN/timeline.pftrace HTTP/1.1\r\nHost: 127",
    "nothing": b"",
    "gone before the answer": b"GET /TOKEN/timeline.pftrace HTTP/1.1\r\nHost: HERE\r\n\r\n" * 50,
}


@pytest.mark.parametrize("what", MALFORMED)
def test_it_is_quiet_on_what_is_no_request(
    what: str, trace: Path, ui: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace.write_bytes(bytes(3_000_000))  # more than fits into buffers
    with serving(site_of(trace, ui)) as server:
        text = MALFORMED[what].replace(b"TOKEN", server.site.token.encode())
        text = text.replace(b"HERE", f"127.0.0.1:{server.port}".encode())
        # A connection that is reset, and one that is read to its end.
        for linger in (struct.pack("ii", 1, 0), None):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                if linger is not None:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                with suppress(OSError):
                    connection.sendall(text)
                    if linger is None:
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(1 << 20):
                            pass
        assert ask(server, TRACE)[0] == 200, "it goes on"
    assert capsys.readouterr().err == ""


def test_it_listens_on_the_loopback_alone(trace: Path, ui: Path) -> None:
    with serving(site_of(trace, ui)) as server:
        assert server.server_address[0] == "127.0.0.1"
        if (elsewhere := own_address()) is not None:
            with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
                socket.create_connection((elsewhere, server.port), timeout=2)


def own_address() -> str | None:
    """An address of this machine that is not the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


def test_a_foreign_name_for_this_machine_is_refused(trace: Path, ui: Path) -> None:
    with serving(site_of(trace, ui)) as server:
        assert ask(server, TRACE, Host="evil.example")[0] == 403
        assert ask(server, TRACE, Host=f"localhost:{server.port}")[0] == 200


def test_a_trace_that_was_removed_is_not_found(trace: Path, ui: Path) -> None:
    with serving(site_of(trace, ui)) as server:
        trace.unlink()
        assert ask(server, TRACE)[0] == 404


def test_without_the_extra_it_is_perfettos_own_page(trace: Path) -> None:
    site = site_of(trace, None)
    assert site.start.startswith(f"{ONLINE}/#!/?url=http://127.0.0.1:9001/{site.token}{TRACE}")
    assert site.port == 9001
    with serving(replace(site, port=0)) as server:
        status, body, headers = ask(server, TRACE, Origin=ONLINE)
        assert (status, body) == (200, trace.read_bytes())
        assert headers["access-control-allow-origin"] == ONLINE
        status, _, headers = ask(server, TRACE, "OPTIONS", Origin=ONLINE)
        assert status == 204
        assert headers["access-control-allow-private-network"] == "true"
        assert headers["access-control-allow-origin"] == ONLINE
        for path in ("/", "/index.html", ALIVE, "/secret.txt"):
            assert ask(server, path)[0] == 404


def test_a_port_that_is_taken_is_said(trace: Path, ui: Path) -> None:
    with serving(site_of(trace, ui)) as first:
        site = site_of(trace, None)
        with pytest.raises(ToolError, match=r"\n  pip install '[^']+'$"):
            Server(replace(site, port=first.port))
        with pytest.raises(ToolError, match="--port"):
            Server(site_of(trace, ui, first.port))


# ------------------------------------------------------------------ when it ends


def started(server: Server) -> threading.Thread:
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    return thread


def hold(server: Server) -> socket.socket:
    """What an open tab does."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=120)
    line = f"GET /{server.site.token}{ALIVE} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
    connection.sendall(line.encode())
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


class Clock:
    """Stands in for `time` in the server: it goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleep = time.sleep

    def monotonic(self) -> float:
        return self.now


def until_open(server: Server, tabs: int) -> None:
    """Wait until the server knows how many tabs are open."""
    deadline = time.monotonic() + 60
    while server.visitors.open != tabs:
        assert time.monotonic() < deadline, server.visitors
        time.sleep(0.01)


def test_it_ends_when_the_last_tab_is_closed(
    trace: Path, ui: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(server_, "time", clock)
    monkeypatch.setattr(server_, "_BEAT_S", 0.05)
    server = Server(site_of(trace, ui))
    thread = started(server)

    def stays() -> bool:
        clock.now += 100 * server_.GRACE_S
        thread.join(0.5)  # it would have ended in a fifth of that
        return thread.is_alive()

    assert stays(), "nobody came yet"
    first, second = hold(server), hold(server)
    first.close()
    until_open(server, 1)
    assert stays(), "a tab is still open"
    second.close()
    until_open(server, 0)
    clock.now += server_.GRACE_S / 2
    third = hold(server)  # a reload
    until_open(server, 1)
    assert stays()
    third.close()
    until_open(server, 0)
    thread.join(0.5)
    assert thread.is_alive(), "it may be another reload"
    clock.now += 2 * server_.GRACE_S
    thread.join(60)
    assert not thread.is_alive()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), timeout=60)


def test_perfettos_own_page_is_done_when_it_has_the_trace(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_, "GRACE_S", 0.5)
    server = Server(replace(site_of(trace, None), port=0))
    thread = started(server)
    time.sleep(1)
    assert thread.is_alive()
    assert ask(server, TRACE)[0] == 200
    thread.join(60)
    assert not thread.is_alive()
