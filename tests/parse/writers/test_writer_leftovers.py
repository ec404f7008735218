"""What a killed process left behind: removed by the next, and never anything else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from profilemate.parse.writers.in_place import updated
from profilemate.parse.writers.one_file import replaced_file
from profilemate.parse.writers.replace import replaced_directory

HALF = """
import os, sys, time
from pathlib import Path
from profilemate.parse.writers.one_file import replaced_file
from profilemate.parse.writers.replace import replaced_directory

out = Path(sys.argv[2])
if sys.argv[1] == "file":
    made = replaced_file(out, force=True)
else:
    made = replaced_directory(out, force=True, ours=lambda name: name == "metadata.json")
with made as new:
    if sys.argv[1] == "file":
        new.write(b"half"); new.flush()
    else:
        (new / "half.csv").write_text("half")
    if sys.argv[1] == "renaming":
        Path.rename = lambda self, other: (print("ready", flush=True), time.sleep(60))
    else:
        print("ready", flush=True)
        time.sleep(60)
"""
Start = Callable[[str, Path], subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that has written half of something when it is given back."""
    started: list[subprocess.Popen[str]] = []

    def one(what: str, out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HALF, what, str(out)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    yield one
    for process in started:
        process.kill()
        process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def make_file(out: Path) -> None:
    with replaced_file(out, force=True) as file:
        file.write(b"whole")


def make_directory(out: Path) -> None:
    with replaced_directory(out, force=True, ours=lambda name: name == "metadata.json") as new:
        (new / "metadata.json").write_text('{"session_id": "x"}')


MAKERS = {"file": make_file, "directory": make_directory}
each = pytest.mark.parametrize("what", MAKERS)


@each
def test_leftovers_of_killed_processes_go(tmp_path: Path, start: Start, what: str) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        process = start(what, out)
        kill(process)
        assert len(os.listdir(tmp_path)) == 1, "the second removes what the first one left"
    MAKERS[what](out)
    assert os.listdir(tmp_path) == ["out"]


@each
def test_what_is_being_written_stays(tmp_path: Path, start: Start, what: str) -> None:
    out = tmp_path / "out"
    start(what, out)
    (unfinished,) = tmp_path.iterdir()
    MAKERS[what](out)
    assert unfinished.exists()
    assert sorted(os.listdir(tmp_path)) == sorted([unfinished.name, "out"])


@each
def test_only_leftovers_of_the_same_name_go(tmp_path: Path, start: Start, what: str) -> None:
    kill(start(what, tmp_path / "other"))
    (other,) = tmp_path.iterdir()
    mine = [".out.mine.part", ".out.12345678.part.txt", "out.12345678.part"]
    for name in mine:
        (tmp_path / name).write_text("notes")
    (tmp_path / ".out.87654321.part").mkdir()  # a directory without a lock is not ours
    (tmp_path / ".out.abcdefgh.part").symlink_to(mine[0])
    before = {*os.listdir(tmp_path)}
    MAKERS[what](tmp_path / "out")
    assert {*os.listdir(tmp_path)} == before | {"out"}
    assert other.exists()


def test_files_of_the_user_are_never_swept(tmp_path: Path, start: Start) -> None:
    out = tmp_path / "out"
    make_directory(out)
    (out / "notes.txt").write_text("years of work")
    kill(start("renaming", out))
    (scratch,) = (p for p in tmp_path.iterdir() if p != out)
    (out / "notes.txt").rename(scratch / "new" / "notes.txt")  # as it was about to
    make_directory(out)
    assert (scratch / "new" / "notes.txt").read_text() == "years of work"


def test_a_session_that_was_replaced_is_no_file_of_the_user(tmp_path: Path, start: Start) -> None:
    out = tmp_path / "out"
    make_directory(out)
    kill(start("renaming", out))
    (scratch,) = (p for p in tmp_path.iterdir() if p != out)
    out.rename(scratch / "old")
    (scratch / "new").rename(out)  # killed while it tidied up
    (out / "metadata.json").write_text('{"session_id": "y"}')
    make_directory(out)
    assert os.listdir(tmp_path) == ["out"]


def test_a_live_session_is_tidied_too(tmp_path: Path, start: Start) -> None:
    kill(start("directory", tmp_path / "parse"))

    def write(new: Path) -> Path:
        new.mkdir()
        (new / "metadata.json").write_text('{"files": ["metadata.json"]}')
        return new

    updated(tmp_path, write)
    assert os.listdir(tmp_path) == ["metadata.json"]
