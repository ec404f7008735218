"""What the GPU did is unknown where it was not recorded, and why is said truly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from frames import at, trace_of

from profilemate.insight.figures.kv import PEAK
from profilemate.insight.figures.steps import GRAPH_GPU
from profilemate.insight.findings import find
from profilemate.parse.pipeline import parse_session, write_session
from profilemate.parse.recording.contract import SourceKind
from profilemate.parse.session.coverage import again
from profilemate.parse.session.saved import SavedSession


def session(tmp_path: Path, *names: str, step: bool = True) -> SavedSession:
    """Ten steps in which a process makes these calls; no record of the GPU."""
    events: list[dict[str, Any]] = []
    for n in range(10):
        at = {"ph": "X", "pid": 9, "tid": 1, "ts": 1000 + 100 * n, "dur": 50}
        if step:
            name = "execute_context_0(0)_generation_8(8)"
            events.append({**at, "cat": "user_annotation", "name": name})
        events += [
            {**at, "cat": "cuda_runtime", "name": name, "dur": 5, "args": {"correlation": 7 + n}}
            for name in names
        ]
    head = {"schemaVersion": 1, "baseTimeNanoseconds": 10**18}
    path = tmp_path / "t.json"
    path.write_text(json.dumps({**head, "traceEvents": events}))
    parse_session([path], tmp_path / "s", force=True)
    return SavedSession.open(tmp_path / "s")


def test_calls_without_one_gpu_record_are_mentioned(tmp_path: Path) -> None:
    said = session(tmp_path, "cudaLaunchKernel", "cudaGetDevice")
    (warning,) = (w for w in said.warnings if w.id == "gpu-not-recorded")
    assert warning.text.startswith("10 of 20 CUDA or HIP calls start work on the GPU")


def test_calls_that_start_nothing_are_no_loss(tmp_path: Path) -> None:
    said = session(tmp_path, "cudaGetDevice")
    assert not [w for w in said.warnings if w.id == "gpu-not-recorded"]


@pytest.mark.parametrize("name", ["cudaLaunchKernel", "cudaGraphLaunch"])
def test_a_share_of_gpu_time_that_nobody_recorded_is_unknown(tmp_path: Path, name: str) -> None:
    assert GRAPH_GPU.value(session(tmp_path, name)).value is None


def test_advice_is_of_the_recorder_that_was_used(tmp_path: Path) -> None:
    said = session(tmp_path, "hipGraphLaunch")
    texts = [f.detail for f in find(said).findings] + [w.text for w in said.warnings]
    assert not [text for text in texts if "nsys" in text or "--cuda-graph-trace" in text]
    assert "--cuda-graph-trace" in again([SourceKind.NSYS_REPORT])


def test_reasons_hold_for_a_program_that_is_no_vllm(tmp_path: Path) -> None:
    said = session(tmp_path, "cudaLaunchKernel", step=False)
    reasons = [*said.metadata.empty_files.values(), *(u.why for u in find(said).unjudged)]
    assert reasons
    assert not [reason for reason in reasons if "vLLM" in reason]


@pytest.mark.parametrize("blocks", [-5, 0])
def test_a_pool_of_no_blocks_is_one_of_unknown_size(tmp_path: Path, blocks: int) -> None:
    trace = trace_of(
        [
            at(1, "kv.pool", pid=7, pool=0, num_blocks=blocks, used=0),
            at(2, "kv.alloc", pid=7, pool=0, used=5, ids=(1, 2, 3, 4, 5)),
        ]
    )
    done = write_session(trace, tmp_path / "s")
    cache = done.summary["kv_cache"]
    assert (cache["total_blocks"], cache["peak_blocks"], cache["peak_usage_pct"]) == (None, 5, None)
    assert PEAK.value(SavedSession.open(tmp_path / "s")).value is None
