"""A user without HOME and without an entry in passwd, as containers of OpenShift have them.

Such a user cannot be had in a test that has to read this clone; what Python finds of one can.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from places import RECORDING, ROOT

from profilemate.parse.cache.files import NO_HOME

CODE = """
import os, pwd, sys
def nobody(*_):
    raise KeyError("uid not found")
pwd.getpwuid = pwd.getpwnam = nobody
import getpass, pathlib
for find in (pathlib.Path.home, pathlib.Path("~/x").expanduser, getpass.getuser):
    try: find()
    except (RuntimeError, KeyError, OSError): pass
    else: raise AssertionError(find)
import profilemate.parse.cache as cache
cache.TraceCache.is_worth = lambda self, seconds: True
from profilemate.cli import main
main()
"""
NOTE = f"note: {NO_HOME}"


def run(
    *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COLUMNS": "200", **(env or {})},
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = Path(shutil.copy(RECORDING, tmp_path_factory.mktemp("run") / "run.sqlite"))
    os.utime(file, (1, 1))  # old enough to be cached
    return file


@pytest.fixture(scope="module")
def session(recording: Path) -> Path:
    done = run("parse", recording, "-o", "s", cwd=recording.parent)
    assert (done.returncode, done.stderr) == (0, f"{NOTE}\n"), "one note"
    return recording.parent / "s"


def test_what_reads_says_once_that_nothing_is_kept(recording: Path, session: Path) -> None:
    assert (session / "metadata.json").exists()
    done = run("perfetto", recording, "-o", "t.pftrace", cwd=recording.parent)
    assert (done.returncode, done.stderr) == (0, f"{NOTE}\n")
    for option in ("--no-cache", "--max-memory=1G", "--cache=c", "--quiet"):
        done = run("parse", recording, "-o", "s2", "--force", option, cwd=recording.parent)
        assert (done.returncode, done.stderr) == (0, ""), option
    for name in ("PROFILEMATE_CACHE", "XDG_CACHE_HOME"):
        env = {name: str(recording.parent / name)}
        done = run("parse", recording, "-o", "s2", "--force", cwd=recording.parent, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert [*Path(env[name]).rglob("*.columns")], name


def test_what_reads_sessions_needs_no_home(session: Path) -> None:
    for command in (
        ("report", session),
        ("report", session, "-o", session / "report.html"),
        ("compare", session, session),
        ("export", session),
        ("view", session, "--report", "--no-browser"),
    ):
        done = run(*command, cwd=session.parent)
        assert (done.returncode, done.stderr) == (0, ""), command


def test_the_other_commands(recording: Path, session: Path) -> None:
    for command in (("cache",), ("cache", "clear")):
        done = run(*command, cwd=recording.parent)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", f"{NOTE}\n")
    assert run("annotate", "path", cwd=recording.parent).returncode == 0
    done = run("annotate", "status", cwd=recording.parent, env={"PROFILEMATE_DIR": "~/p"})
    assert done.returncode == 0
    done = run(
        *("annotate", "status"),
        cwd=recording.parent,
        env={"PROFILEMATE": "on", "PROFILEMATE_DIR": "~/p"},
    )
    assert "because ~/p begins with the home folder of nobody here" in done.stdout
    assert run("run", "--live", "--dry-run", "--", "true", cwd=recording.parent).returncode == 0
    done = run("scrub", recording, "z.sqlite", cwd=recording.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert run("hta", session, cwd=recording.parent).returncode == 2
    assert not (recording.parent / "~").exists()


def test_an_export_of_a_report_passes(tmp_path: Path) -> None:
    """Without a folder to keep it in it is made where temporary files are, and removed."""
    report = tmp_path / "run.nsys-rep"
    report.write_bytes(b"NVIDIA Tegra Profiler Report 2024.1.1.0\n[END]")
    nsys = tmp_path / "nsys"
    nsys.write_text(
        "#!/bin/sh\n"
        'for word; do case "$word" in --output=*) out="${word#--output=}";; esac; done\n'
        'case "$*" in *--version*) echo "NVIDIA Nsight Systems version 2024.1.1.0";;\n'
        f'*help*) ;; *) cp "{RECORDING}" "$out"; echo "$out" >> "{tmp_path}/said";; esac\n'
    )
    nsys.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    env = {"TMPDIR": str(tmp_path / "tmp")}
    done = run("parse", report, "-o", "s", "--nsys", nsys, cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, f"{NOTE}\n")
    assert (tmp_path / "said").read_text().startswith(str(tmp_path / "tmp" / "profilemate-"))
    assert [*(tmp_path / "tmp").iterdir()] == []
