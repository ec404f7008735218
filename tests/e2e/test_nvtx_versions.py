"""The nvtx package, old and new, under real Nsight Systems: it records, or it says why not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from served import profilemate, tool

from profilemate.parse.pipeline import read_trace

pytestmark = pytest.mark.real

# Emits through the sink that annotation would use, as the hooks do.
EMIT = """
import os
from profilemate.annotate.emit import Emitter
from profilemate.annotate.settings import Settings
from profilemate.annotate.sinks import open_sinks
from profilemate.schema import KINDS

emitter = Emitter(lambda: open_sinks(Settings.from_env(os.environ), os.environ))
for i in range(300):
    emitter.add(KINDS["kv.alloc"].encode, i, i + 1, (0, i, list(range(i, 2 * i + 1)), f"r{i}"))
    emitter.flush()
    emitter.pop(emitter.push(f"pm1.step step={i} unpadded=1 reqs=1"))
print("active" if emitter.active else "silent")
"""


def emit(nsys: Path, nvtx: Path, folder: Path) -> tuple[Path, str, str]:
    """Run EMIT under nsys with this nvtx; the report, and what was said."""
    report = folder / "out.nsys-rep"
    options = ["-t", "nvtx", "-s", "none", "--cpuctxsw=none", "-o", report.with_suffix("")]
    env = {**os.environ, "PYTHONPATH": str(nvtx)}
    command = [nsys, "profile", "--force-overwrite=true", *options, sys.executable, "-c", EMIT]
    for _ in range(3):  # nsys 2022.4 fails about once in thirty starts on a busy machine
        done = subprocess.run(
            [str(c) for c in command], env=env, capture_output=True, text=True, check=False
        )
        if report.exists():
            break
    assert done.returncode == 0, done.stderr
    return report, done.stdout, done.stderr


@pytest.mark.parametrize("nsys", ["PROFILEMATE_TEST_NSYS_2022", "PROFILEMATE_TEST_NSYS_2023"])
def test_the_oldest_nvtx_records(nsys: str, tmp_path: Path) -> None:
    report, said, _ = emit(tool(nsys), tool("PROFILEMATE_TEST_NVTX_OLD"), tmp_path)
    assert "active" in said
    trace = read_trace([report], nsys=tool(nsys), cache_dir=tmp_path / "cache")
    assert trace.counts == {"kv.alloc": 300, "step": 300}
    assert [ids for part in trace.kv.slices(("ids",)) for ids in part.ids()] == [
        tuple(range(i, 2 * i + 1)) for i in range(300)
    ]
    assert trace.broken == 0
    assert trace.lost_batches == {}


@pytest.mark.parametrize("nsys", ["PROFILEMATE_TEST_NSYS_2022", "PROFILEMATE_TEST_NSYS_2023"])
def test_a_new_nvtx_with_an_old_nsys_is_said_once_and_nothing_breaks(
    nsys: str, tmp_path: Path
) -> None:
    report, said, complained = emit(tool(nsys), tool("PROFILEMATE_TEST_NVTX_NEW"), tmp_path)
    assert "silent" in said
    assert complained.count("nvtx 0.2.15 hands out a dummy domain") == 1
    assert "nvtx==0.2.11" in complained
    # A report without our messages parses, and says how to get them.
    out = tmp_path / "session"
    cache = tmp_path / "cache"
    text = profilemate("parse", report, "-o", out, "--nsys", tool(nsys), "--cache", cache)
    assert "No messages of profilemate" in " ".join(text.split())
    assert (out / "kv_cache_usage.csv").read_text().count("\n") == 1


def test_status_under_nsys_tells_which_way_would_record(tmp_path: Path) -> None:
    nsys = str(tool("PROFILEMATE_TEST_NSYS_2023"))
    options = ["-t", "nvtx", "-s", "none", "--cpuctxsw=none", "-o", str(tmp_path / "out")]
    status = [sys.executable, "-m", "profilemate", "annotate", "status"]
    env = {**os.environ, "PYTHONPATH": str(tool("PROFILEMATE_TEST_NVTX_NEW"))}
    done = subprocess.run(
        [nsys, "profile", *options, *status], env=env, capture_output=True, text=True, check=True
    )
    said = " ".join(done.stdout.split())
    assert "annotate yes: Nsight Systems is attached" in said
    assert "sink none:" in said
    assert "dummy domain" in said
