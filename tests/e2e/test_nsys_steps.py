"""Only some steps, in every process: a real server under a real Nsight Systems."""

from __future__ import annotations

from pathlib import Path

import pytest
from served import record, tool

pytestmark = pytest.mark.real

# On a slow machine requests follow each other, and ten steps may pass without a new block.
FIRST, COUNT = 30, 60


def test_steps_on_request_are_the_same_in_every_process(
    tmp_path: Path, vllm_python: Path, model: Path, installed: Path
) -> None:
    nsys = tool("PROFILEMATE_TEST_NSYS_2023")
    wanted = {"PROFILEMATE_STEPS": f"{FIRST}:{COUNT}"}
    run = record(tmp_path, vllm_python, model, nsys, [installed], **wanted)
    assert "a fault of profilemate" not in run.log
    steps = run.table("cuda_graph_steps")
    assert [*steps["step"]] == list(range(FIRST, FIRST + COUNT))
    scheduled = [line["tokens"] for line in run.witness if line["op"] == "schedule"]
    assert [*steps["unpadded_tokens"]] == scheduled[FIRST - 1 : FIRST + COUNT - 1]
    assert len(scheduled) > 100
    counts = run.metadata["events"]
    assert counts["sched.step"] == counts["step"] == COUNT
    assert {p["role"] for p in run.metadata["processes"]} == {"engine", "worker"}
    assert run.metadata["dropped"]["lost_batches"] == {}
    # Blocks in use are right from the first operation on, though nobody saw how they came to be.
    began = [i for i, line in enumerate(run.witness) if line["op"] == "schedule"]
    window = run.witness[began[FIRST - 2] + 1 : began[FIRST + COUNT - 1] + 1]
    theirs = [
        line["total"] - line["free"] for line in window if line["op"] in ("alloc", "touch", "free")
    ]
    events = run.table("kv_block_events")
    ours = [*events[events["op"].isin(["alloc", "touch", "free"])]["used_blocks"]]
    # What is freed before its first step came before the window, what is allocated for the step
    # after its last one came after it.
    assert ours
    assert any(theirs[i : i + len(ours)] == ours for i in range(len(theirs)))
