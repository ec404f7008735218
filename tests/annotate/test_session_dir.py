"""Which processes share a session directory, and which do not; what starts at its end."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from places import DOOR, LAYOUTS

from profilemate.annotate import finish, session_dir
from profilemate.annotate.settings import Settings

MARK = """
import os, sys
from profilemate.annotate import session_dir
from profilemate.annotate.settings import Settings
session_dir.begin(os.environ)
settings = Settings.from_env(os.environ)
print(session_dir.make(settings, os.environ), flush=True)
"""


def settings(place: Path) -> Settings:
    return Settings(directory=str(place), live=True, wanted=True)


def test_the_first_who_writes_makes_it_and_the_others_find_it(tmp_path: Path) -> None:
    env: dict[str, str] = {"PROFILEMATE_RUN": "17a3c0ffee000000-1"}
    asked = settings(tmp_path / "deep" / "er")
    assert session_dir.find(asked, env) is None
    assert not (tmp_path / "deep").exists()
    made = session_dir.make(asked, env)
    assert made.parent == tmp_path / "deep" / "er"
    assert session_dir.make(asked, dict(env)) == session_dir.find(asked, env) == made
    facts = json.loads((made / "metadata.json").read_text())
    assert facts["session_id"] == made.name
    assert facts["output_dir"] == str(made)
    # The time that the run began, not the one at which somebody first wrote.
    began = datetime.fromtimestamp(0x17A3C0FFEE000000 / 1e9)
    assert made.name == f"session_{began:%Y%m%d_%H%M%S}"
    assert datetime.fromisoformat(facts["start_time"]).replace(tzinfo=None) == began
    assert facts["recording"] is True
    assert (made / "markers").is_dir()


def test_two_servers_in_one_second_get_different_ones(tmp_path: Path) -> None:
    env = {**os.environ, "PROFILEMATE_DIR": str(tmp_path)}
    env.pop("PROFILEMATE_RUN", None)
    command = [sys.executable, "-c", MARK]
    started = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    found = [process.communicate()[0].strip() for process in started]
    assert len(set(found)) == 6
    assert {Path(f).parent for f in found} == {tmp_path}
    made = sorted(p.name for p in tmp_path.iterdir() if not p.is_symlink())
    assert made == sorted(Path(f).name for f in found)


def test_processes_of_one_run_that_write_at_once_get_the_same(tmp_path: Path) -> None:
    # As children have it: the name is inherited, and they know that they are children.
    code = MARK.replace("session_dir.begin(os.environ)\n", "")
    env = {**os.environ, "PROFILEMATE_DIR": str(tmp_path), "PROFILEMATE_RUN": "b-2"}
    command = [sys.executable, "-c", code]
    started = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    found = {process.communicate()[0].strip() for process in started}
    assert len(found) == 1
    assert [p for p in tmp_path.iterdir() if not p.is_symlink()] == [Path(found.pop())]


def test_a_name_from_another_program_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_dir, "_named", None)
    env = {"PROFILEMATE_RUN": "of-somebody"}
    assert session_dir.begin(env)
    own = env["PROFILEMATE_RUN"]
    assert own != "of-somebody"
    assert not session_dir.begin(env)
    assert env["PROFILEMATE_RUN"] == own


def test_somebody_outside_may_choose_the_directory(tmp_path: Path) -> None:
    chosen = tmp_path / "mine"
    env = {"PROFILEMATE_SESSION": str(chosen), "PROFILEMATE_RUN": "c-3"}
    asked = settings(tmp_path / "not here")
    assert session_dir.find(asked, env) is None
    assert session_dir.make(asked, env) == session_dir.make(asked, env) == chosen
    assert session_dir.find(asked, env) == chosen
    assert not (tmp_path / "not here").exists()


def test_what_cannot_be_a_directory_is_said_once_and_vllm_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code = """
import vllm
from profilemate import annotate
from profilemate.annotate.plugin import register
register()  # the other door
print(annotate.status())
import vllm.v1.core.block_pool as m
print(hasattr(m.BlockPool.__dict__["get_new_blocks"], "__wrapped__"))
"""
    env = {
        **os.environ,
        "PYTHONPATH": f"{DOOR}{os.pathsep}{LAYOUTS}",
        "VLLM_PROFILING_DIR": str(tmp_path / "file" / "sessions"),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nFalse\n"
    (line,) = done.stderr.splitlines()
    assert f"{tmp_path / 'file'} is no directory" in line
    assert "set PROFILEMATE_DIR (or VLLM_PROFILING_DIR)" in line


@pytest.fixture(autouse=True)
def not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a process that ends, as far as `finish` knows."""
    monkeypatch.setattr(finish, "_started_by", 0)


def session_with_marker(place: Path) -> tuple[Path, dict[str, str], Settings]:
    env = {"PROFILEMATE_RUN": "d-4", "PATH": os.environ["PATH"]}
    asked = settings(place)
    session = session_dir.make(asked, env)
    name = "pm1.batch t=5 seq=1 | kv.pool pool=0 num_blocks=9 used=0"
    head = {"ph": "M", "name": "profilemate_sidecar", "pid": 7, "args": {"role": "engine"}}
    event = {"ph": "i", "name": name, "pid": 7, "tid": 7, "ts": 1_700_000_000_000_000}
    (session / "markers" / "engine_7.trace.json").write_text(json.dumps([head, event], indent=0))
    return session, env, asked


def wait_for(session: Path, text: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        log = (session / "parse.log").read_text() if (session / "parse.log").exists() else ""
        if text in log:
            return log
        time.sleep(0.05)
    raise AssertionError(f"no {text!r} in {log!r}")


def test_the_end_writes_the_tables_once_when_all_have_let_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, env, asked = session_with_marker(tmp_path)
    marker = session / "markers" / "engine_7.trace.json"
    with marker.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        finish.start(asked, env)  # and comes back, though the lock is held
        finish.start(asked, env)  # registered twice: by the hooks and by the sidecar
        monkeypatch.setattr(finish, "_started_by", 0)
        finish.start(asked, env)  # the next process that ends
        said = capsys.readouterr().err
        assert said.count(str(session)) == 1
        time.sleep(1)
        assert not (session / "kv_cache_usage.csv").exists()
    wait_for(session, "wrote the tables")
    assert (session / "kv_cache_usage.csv").is_file()
    facts = json.loads((session / "metadata.json").read_text())
    assert "recording" not in facts
    assert facts["session_id"] == session.name
    assert facts["output_dir"] == str(session)
    assert facts["sources"][0]["recorder"] == "profilemate sidecar"
    assert marker.exists()
    deadline = time.monotonic() + 60
    while list(tmp_path.glob(".run-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [p.name for p in tmp_path.iterdir()] == [session.name]
    assert not finish.needed(session)
    os.utime(marker)
    assert finish.needed(session)


def test_who_writes_the_tables_is_nobody_s_child_and_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where vLLM kills a worker it kills what descends from it, and another process starts anew."""
    session, env, asked = session_with_marker(tmp_path)
    head = finish._CODE.partition("sys.path")[0]
    code = "import time; time.sleep(0.3); print(os.getppid(), os.getsid(0), flush=True)"
    monkeypatch.setattr(finish, "_CODE", head + code)
    for count in (1, 2):
        monkeypatch.setattr(finish, "_started_by", 0)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            lines = (session / "parse.log").read_text() if count == 2 else ""
            if count == 1 or lines.count("\n") == 1:
                break
            time.sleep(0.05)
        finish.start(asked, env)
    deadline = time.monotonic() + 60
    while (session / "parse.log").read_text().count("\n") < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    for line in (session / "parse.log").read_text().splitlines():
        parent, group = map(int, line.split())
        assert parent != os.getpid()
        assert group != os.getsid(0)
    assert capsys.readouterr().err.count(str(session)) == 1


def test_without_pandas_it_says_how_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, env, asked = session_with_marker(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    finish.start(asked, env)
    finish.start(asked, env)
    monkeypatch.setattr(finish, "_started_by", 0)
    finish.start(asked, env)  # the next process of the session
    line, command = capsys.readouterr().err.splitlines()
    assert command == f"  profilemate parse {session}", "to be copied"
    assert str(session) in line
    assert "pandas" in line
    assert not (session / "parse.log").exists()


def test_as_process_one_nothing_outlives_us(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, env, asked = session_with_marker(tmp_path)
    monkeypatch.setattr("os.getpid", lambda: 1)
    finish.start(asked, env)
    line, command = capsys.readouterr().err.splitlines()
    assert command == f"  profilemate parse {session}", "to be copied"
    assert str(session) in line
    assert not (session / "parse.log").exists()


def test_a_run_that_wrote_nothing_ends_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish.start(settings(tmp_path), {"PROFILEMATE_RUN": "e-5"})
    assert capsys.readouterr().err == ""
    assert [*tmp_path.iterdir()] == []


def test_what_a_session_holds_is_nobody_else_s(tmp_path: Path) -> None:
    env: dict[str, str] = {"PROFILEMATE_RUN": "17a3c0ffee000000-7"}
    before = os.umask(0)
    try:
        made = session_dir.make(settings(tmp_path / "base"), env)
    finally:
        os.umask(before)
    modes = {str(p.relative_to(tmp_path)): p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    session = f"base/{made.name}"
    assert modes.pop(f"{session}/metadata.json") == 0o600
    assert {modes[name] for name in ("base", session, f"{session}/markers")} == {0o700}


@pytest.mark.parametrize(
    ("mode", "owner", "why"),
    [
        (0o755, 12345, "belongs to another user"),
        (0o1777, 12345, "belongs to another user"),
        (0o777, 0, "can be written by everybody and is not sticky"),
        (0o1777, 0, ""),
        (0o777, 1000, ""),
        (0o2775, 0, ""),  # what a container platform gives a user of a group
    ],
)
def test_whose_folder_a_session_may_lie_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, why: str
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    real = os.stat

    def owned(path: Path, **how: bool) -> os.stat_result:
        seen = real(path, **how)
        if path != base:
            return seen
        kind = seen.st_mode & ~0o7777
        return os.stat_result((kind | mode, *seen[1:4], owner, *seen[5:]))

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "stat", owned)
    monkeypatch.setattr(os, "lstat", lambda path: owned(path, follow_symlinks=False))
    env: dict[str, str] = {}
    told = session_dir.usable(settings(base), env)
    assert (why in told) if why else (told == "")
    assert (env.get("PROFILEMATE_RUN") == "none") == bool(why)


def test_a_run_is_not_led_into_somebody_s_directory(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "markers").mkdir(parents=True)
    base = tmp_path / "base"
    base.mkdir()
    env = {"PROFILEMATE_RUN": "d-4"}
    (base / "session_1").symlink_to(elsewhere)
    (base / ".run-d-4").symlink_to("session_1")
    assert session_dir.find(settings(base), env) is None
