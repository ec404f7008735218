"""`profilemate perfetto` in a process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import RECORDING, ROOT


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


KERNEL = {"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "ts": 1.0, "dur": 1.0}
KERNEL["args"] = {"correlation": 1, "stream": 7, "device": 0}
CALL = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 9, "tid": 9}
CALL |= {"ts": 0.5, "dur": 0.1, "args": {"correlation": 1}}
MARKED = {
    "ph": "i",
    "cat": "x",
    "name": "pm1.preempt ago=1 dur=1 req=a",
    "pid": 9,
    "tid": 9,
    "ts": 2,
}


@pytest.mark.parametrize("options", [(), ("--kernels",), ("--window", "0:1")])
@pytest.mark.parametrize(
    "events", [[KERNEL], [CALL], [CALL, KERNEL], [MARKED]], ids=["kernel", "call", "both", "marked"]
)
def test_a_timeline_of_a_trace_without_steps(
    events: list[dict[str, object]], options: tuple[str, ...], tmp_path: Path
) -> None:
    trace, out = tmp_path / "t.json", tmp_path / "t.pftrace"
    trace.write_text(json.dumps({"schemaVersion": 1, "traceEvents": events}))
    done = perfetto(trace, "-o", out, *options)
    assert (done.returncode, done.stderr) == (0, "")
    shown = "--kernels" in options and KERNEL in events
    holds = re.search(r"wrote \S+ \(0\.0 MB, (\d+) events\)\n$", done.stdout)
    assert holds, done.stdout
    early = events == [MARKED] and "--window" in options  # by as much as it was told late
    assert (int(holds[1]) > 0) == ((shown or events == [MARKED]) and not early)
    said = " ".join(done.stdout.split())
    assert ("1 events lie outside the window" in said) == early
    assert ("holds nothing that a timeline could show" in said) == (not int(holds[1]) and not early)
    assert not done.stdout.startswith("\n")
