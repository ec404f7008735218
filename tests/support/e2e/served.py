"""A recorded run of a real server: how it is made, and what is known of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine
import pandas as pd
import pytest
from places import DOOR, WITNESS

# vLLM 0.32 kills its engine at once on SIGINT unless told to wait; a killed process takes what
# Nsight Systems has not yet collected from it along.
ORDERLY = ("--shutdown-timeout", "20")


def tool(variable: str) -> Path:
    """A program that scripts/setup made and scripts/test names."""
    path = os.environ.get(variable)
    if not path:
        pytest.fail(f"{variable} is not set: run scripts/test, which sets it, or scripts/setup")
    return Path(path)


@dataclass(frozen=True)
class Recorded:
    """A run: its report, what vLLM counted, what the witness saw, and the parsed session."""

    nsys: Path
    report: Path
    log: str
    metrics: dict[str, float]
    witness: list[dict[str, Any]]
    session: Path
    stdout: str
    live: Path
    """Folder of live sessions: one with the sitecustomize door, none with the plugin."""

    def table(self, name: str) -> pd.DataFrame:
        """A table of the session, as a user reads it."""
        return pd.read_csv(self.session / f"{name}.csv")

    @property
    def metadata(self) -> dict[str, Any]:
        """The session's metadata.json."""
        loaded: dict[str, Any] = json.loads((self.session / "metadata.json").read_text())
        return loaded


def profilemate(*arguments: str | Path, env: dict[str, str] | None = None) -> str:
    """Run the command line; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "profilemate", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def live_folder(pythonpath: list[Path], folder: Path) -> dict[str, str]:
    """With the sitecustomize door a live session is made as well: here, not in /tmp."""
    return {"PROFILEMATE_DIR": str(folder / "live")} if DOOR in pythonpath else {}


def equal_but_for_times(session: Path, other: Path) -> None:
    """Every table of two sessions of one run, column by column."""
    names = sorted(p.name for p in other.glob("*.csv"))
    assert sorted(p.name for p in session.glob("*.csv")) == names
    for name in names:
        ours, theirs = pd.read_csv(session / name), pd.read_csv(other / name)
        assert [*ours.columns] == [*theirs.columns], name
        for column in ours.columns:
            # Of ranks.csv: another recorder, and a session repeats itself every two seconds.
            if column in ("recording", "files", "events"):
                continue
            if not column.endswith(("_sec", "_ms", "_us", "host_share", "gpu_share", "time_share")):
                assert ours[column].equals(theirs[column]), (name, column)
    texts = [(p / "kv_cache_summary.txt").read_text().splitlines() for p in (session, other)]
    assert [t for t in texts[0] if "Avg" not in t] == [t for t in texts[1] if "Avg" not in t]


STARTS = 3
"""nsys 2022.4 does not find its own agent about once in thirty starts on a busy machine."""


def serve(
    folder: Path, python: Path, model: Path, nsys: Path, pythonpath: list[Path], **env: str
) -> tuple[engine.Server, dict[str, float]]:
    """Serve the workload under nsys; the server, ended by now, and what it counted."""
    server = engine.Server(
        python,
        model,
        folder,
        nsys=nsys,
        env={"WITNESS_FILE": str(folder / "witness"), **live_folder(pythonpath, folder), **env},
        pythonpath=[*pythonpath, WITNESS],
        extra_args=ORDERLY,
    )
    with server:
        engine.workload(server)
        return server, engine.metrics(server)


def record(
    place: Path, python: Path, model: Path, nsys: Path, pythonpath: list[Path], **env: str
) -> Recorded:
    """Record a server, and parse the report."""
    for attempt in range(1, STARTS + 1):
        folder = place / str(attempt)
        folder.mkdir()
        try:
            server, metrics = serve(folder, python, model, nsys, pythonpath, **env)
            break
        except engine.EngineError:
            if attempt == STARTS:
                raise
    session = folder / "session"
    options = ("--nsys", nsys, "--cache", folder / "cache")
    stdout = profilemate("parse", server.report, "-o", session, *options)
    (seen,) = folder.glob("witness.*")
    lines = [json.loads(line) for line in seen.read_text().splitlines()]
    log = (folder / "server.log").read_text()
    return Recorded(nsys, server.report, log, metrics, lines, session, stdout, folder / "live")
