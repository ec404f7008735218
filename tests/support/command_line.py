"""The command line, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from places import ROOT


def run(
    *arguments: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "profilemate", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        # Not the clone's root: that is a door.
        env={**os.environ, "PYTHONPATH": "", "COLUMNS": "80", **(env or {})},
        check=False,
    )
