"""The engine in the user's own process: scheduler, pool and worker on one thread."""

from __future__ import annotations

import json
from pathlib import Path

import engine
import pandas as pd
import pytest
from places import DOOR
from served import equal_but_for_times, live_folder, profilemate, tool

pytestmark = pytest.mark.real


def test_the_offline_engine_in_one_process(tmp_path: Path, vllm_python: Path, model: Path) -> None:
    nsys = tool("PROFILEMATE_TEST_NSYS_2023")
    counters = tmp_path / "counters.json"
    result = engine.run_offline(
        vllm_python,
        engine.offline_args(model, counters),
        workdir=tmp_path,
        nsys=nsys,
        pythonpath=[DOOR],
        env=live_folder([DOOR], tmp_path),
    )
    assert result.report is not None
    assert "a fault of profilemate" not in result.log.read_text()
    session = tmp_path / "session"
    profilemate("parse", result.report, "-o", session, "--nsys", nsys, "--cache", tmp_path / "c")
    metadata = json.loads((session / "metadata.json").read_text())
    assert [p["role"] for p in metadata["processes"]] == ["engine+worker"]
    assert not (session / "ranks").exists()
    counts = metadata["events"]
    assert counts["sched.step"] == counts["step"] > 100

    counted = json.loads(counters.read_text())["metrics"]
    lives = pd.read_csv(session / "kv_block_lifetimes.csv")
    lookups = pd.read_csv(session / "kv_prefix_cache.csv")
    preemptions = pd.read_csv(session / "kv_preemptions.csv")
    assert lives["counted_by_vllm"].sum() == counted["vllm:kv_block_lifetime_seconds_count"] > 0
    assert len(preemptions) == counted["vllm:num_preemptions_total"] > 0
    fresh = lookups[~lookups["preempted"]]
    assert fresh["tokens"].sum() == counted["vllm:prefix_cache_queries_total"]
    assert fresh["hit_tokens"].sum() == counted["vllm:prefix_cache_hits_total"]

    # The live session of the same run, whose process ended in order, all of it.
    (live,) = (tmp_path / "live").glob("session_*")
    profilemate("parse", live)
    equal_but_for_times(live, session)
    facts = json.loads((live / "metadata.json").read_text())
    (marker,) = (live / "markers").iterdir()
    assert marker.name == f"engine+worker_dp0_pp0_tp0_{facts['processes'][0]['pid']}.trace.json"
    assert len(json.loads(marker.read_text())) > 100
    assert not [note for note in facts["notes"] if "no end" in note]
