"""`profilemate run` with a real vLLM server under a real Nsight Systems."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import engine
import pandas as pd
import pytest
from served import tool

pytestmark = pytest.mark.real


@pytest.mark.parametrize("recorder", ["nsys", "live"])
def test_run_records_a_server_and_parses_it(tmp_path: Path, recorder: str) -> None:
    python, nsys = tool("PROFILEMATE_TEST_VLLM_PYTHON"), tool("PROFILEMATE_TEST_NSYS_2023")
    model = engine.make_tiny_model(tmp_path / "model", python)
    out = tmp_path / "out"
    wrapper = ["-m", "profilemate", "run", f"--{recorder}", "--nsys-path", str(nsys)]
    wrapper = [sys.executable, *wrapper, "-o", str(out), "--"]
    server = engine.Server(python, model, tmp_path / "work", wrapper=wrapper, stop_timeout=180)
    with server:
        engine.workload(server)
        metrics = engine.metrics(server)
    assert server.run.process.returncode == 0, server.run.tail()
    assert (out / "recording.nsys-rep").is_file() == (recorder == "nsys")
    assert (out / "session" / "markers").is_dir() == (recorder == "live")
    lookups = pd.read_csv(out / "session" / "kv_prefix_cache.csv")
    counted = lookups[~lookups["preempted"]]  # vLLM's counters leave the others out
    assert len(counted)
    assert counted["tokens"].sum() == metrics["vllm:prefix_cache_queries_total"]
    assert counted["hit_tokens"].sum() == metrics["vllm:prefix_cache_hits_total"]
    metadata = json.loads((out / "session" / "metadata.json").read_text())
    assert metadata["dropped"]["lost_batches"] == {}
    log = server.run.log.read_text()
    assert "$ PYTHONPATH=" in log, "the full command is printed, to be taken from there"
    assert "--shutdown-timeout 20" in log
