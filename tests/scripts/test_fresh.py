"""The script that shows what a newcomer sees, as far as it needs no network."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from places import ROOT

FRESH = ROOT / "scripts" / "fresh"


def fresh(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    return subprocess.run([FRESH, *arguments], env=env, capture_output=True, text=True, check=False)


def test_what_is_green_is_timed_and_removed(tmp_path: Path) -> None:
    done = fresh(tmp_path, "setup", "--help")
    assert done.returncode == 0, done.stderr
    assert "usage: environments.py" in done.stdout
    assert "scripts/setup --help, from an empty HOME with PyPI alone: green in" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_fails_is_kept_for_a_look(tmp_path: Path) -> None:
    done = fresh(tmp_path, "setup", "nonsense")
    assert done.returncode == 2
    (kept,) = tmp_path.iterdir()
    assert f"it is kept in {kept}" in done.stderr
    assert list((kept / "home").iterdir()) == []
    assert (kept / "profilemate" / "scripts" / "setup").is_file()


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    for arguments in (("nonsense",), ("demo", "more")):
        assert fresh(tmp_path, *arguments).returncode == 2
    assert list(tmp_path.iterdir()) == []
