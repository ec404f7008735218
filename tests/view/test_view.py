"""`profilemate view` in a process, and what it is made to show."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import RECORDING, ROOT

from profilemate.errors import InputError
from profilemate.parse.pipeline import parse_session
from profilemate.parse.recording.progress import no_progress
from profilemate.view.find import report_of, timeline_of
from profilemate.view.site import ALIVE, TRACE, shipped_ui


def start(*arguments: str | Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "profilemate", "view", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env},
    )


def address_of(process: subprocess.Popen[str]) -> tuple[str, int, str]:
    """The line, the port, and the token."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    found = re.match(r"http://127\.0\.0\.1:(\d+)/([\w-]{20,})/#", line)
    assert found, line
    return line, int(found[1]), found[2]


def test_ctrl_c_ends_it_with_0(trace: Path) -> None:
    assert shipped_ui() is not None, "the extra `view` is part of `dev`"
    process = start(trace, "--no-browser")
    try:
        _, port, token = address_of(process)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("GET", f"/{token}{TRACE}")
        assert connection.getresponse().read() == trace.read_bytes()
        connection.close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_asked_to_end_it_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    process = start(RECORDING, "--no-browser", TMPDIR=str(tmp_path))
    try:
        address_of(process)
        assert [*tmp_path.glob("profilemate-*/timeline.pftrace")]
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert err == ""
    assert [*tmp_path.iterdir()] == []


def test_a_hangup_that_is_ignored_stays_so(trace: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does for its child
    try:
        process = start(trace, "--no-browser")
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        _, port, token = address_of(process)
        process.send_signal(signal.SIGHUP)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", f"/{token}{TRACE}")
        assert connection.getresponse().read() == trace.read_bytes()
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def test_it_opens_the_browser_and_ends_with_the_tab(trace: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {said}.part && mv {said}.part {said}\n')
    browser.chmod(0o755)
    process = start(trace, BROWSER=str(browser))
    try:
        line, port, token = address_of(process)
        for _ in range(600):
            if said.exists():
                break
            time.sleep(0.1)
        assert said.read_text().strip() == line
        connection = socket.create_connection(("127.0.0.1", port), timeout=120)
        connection.sendall(
            f"GET /{token}{ALIVE} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        )
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


def test_a_port_for_a_tunnel(trace: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = start(trace, "--no-browser", "--port", str(port), SSH_CONNECTION="a 1 b 2")
    try:
        assert address_of(process)[1] == port
        assert process.stdout is not None
        assert process.stdout.readline().startswith("from another machine")
        assert process.stdout.readline().startswith(f"  ssh -L {port}:127.0.0.1:{port} ")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


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
