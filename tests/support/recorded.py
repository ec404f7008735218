"""Real recordings for the tests: made here by a real nsys, or found in the shared folder."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

NSYS_VARIABLES = {
    "2022.4": "PROFILEMATE_TEST_NSYS_2022",
    "2023.4": "PROFILEMATE_TEST_NSYS_2023",
}


def leave_out(reason: str) -> None:
    """Skip a test with a reason, or fail where nothing may be left out."""
    if os.environ.get("CI"):
        pytest.fail(f"CI may leave nothing out: {reason}")
    pytest.skip(reason)


def nsys_of(release: str) -> Path:
    """A real nsys."""
    variable = NSYS_VARIABLES[release]
    named = os.environ.get(variable)
    if not named:
        leave_out(f"{variable} does not name an nsys {release}")
    return Path(str(named))


def real_traces() -> Path:
    """The folder of recordings that others made on real GPUs."""
    folder = Path(os.environ.get("PROFILEMATE_REAL_TRACES", ROOT.parent / "shared" / "traces"))
    if not folder.is_dir():
        leave_out(f"there is no folder of real recordings at {folder}")
    return folder


@dataclass(frozen=True, slots=True)
class Recorded:
    """A report and what its program says it emitted, and between which wall clocks (ns)."""

    nsys: Path
    report: Path
    pid: int
    unix_ns: tuple[int, int]
    emitted: Sequence[dict[str, Any]]

    def export(self, kind: str, name: str, *options: str) -> Path:
        """Export the report; `name` is the file or directory to make."""
        target = self.report.parent / name
        command: list[str | Path] = [
            self.nsys,
            "export",
            f"--type={kind}",
            "--quiet=true",
            f"--output={target}",
        ]
        subprocess.run([*command, *options, self.report], check=True, capture_output=True)
        return target


def record(nsys: Path, folder: Path, steps: int = 40) -> Recorded:
    """Record `emit_messages.py`."""
    version = importlib.metadata.version("nvtx")
    if tuple(map(int, version.split(".")[:3])) > (0, 2, 11):
        leave_out(f"nvtx {version} records nothing under these releases of nsys, 0.2.11 does")
    truth = folder / "truth.json"
    script = Path(__file__).with_name("emit_messages.py")
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "SECRET_TOKEN": "do-not-tell-4711",
    }
    program: list[str | Path] = [sys.executable, script, str(steps), truth]
    options = ["-t", "nvtx", "-s", "none", "--cpuctxsw=none", "-o", str(folder / "out")]
    # On a busy machine nsys 2022.4 now and then does not find its own agent (one run in thirty).
    for last in (False, False, True):
        done = subprocess.run(
            [nsys, "profile", "--force-overwrite=true", *options, *program],
            check=False,
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
        )
        if done.returncode == 0:
            break
        if last:
            pytest.fail(f"nsys profile failed: {done.stdout}{done.stderr}")
    said = json.loads(truth.read_text())
    began, ended = said["unix_ns"]
    report = folder / "out.nsys-rep"
    return Recorded(nsys, report, said["pid"], (began, ended), said["emitted"])
