"""Recordings without messages of ours: what the engine's own ranges and launches still give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

from profilemate.parse.pipeline import parse_session, read_trace
from profilemate.parse.tables import TABLES


def write(path: Path, *events: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"baseTimeNanoseconds": 10**18, "traceEvents": [*events]}))
    return path


def scope(text: str, ts: int, dur: int, pid: int = 7) -> dict[str, Any]:
    place = {"pid": pid, "tid": 8, "ts": ts, "dur": dur}
    return {"ph": "X", "cat": "user_annotation", "name": text, **place}


def call(ts: int, correlation: int, pid: int = 7, name: str = "cudaGraphLaunch") -> dict[str, Any]:
    place = {"pid": pid, "tid": 8, "ts": ts, "dur": 1}
    args = {"correlation": correlation}
    return {"ph": "X", "cat": "cuda_runtime", "name": name, **place, "args": args}


def kernel(ts: int, correlation: int, name: str, graph: int | None = None) -> dict[str, Any]:
    args = {"device": 0, "stream": 7, "correlation": correlation}
    if graph is not None:  # newer CUPTI: 0 means none
        args |= {"graph id": graph, "graph node id": graph * 100 + 1 if graph else 0}
    place = {"pid": 0, "tid": 7, "ts": ts, "dur": 4}
    return {"ph": "X", "cat": "kernel", "name": name, **place, "args": args}


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    frame = frame.astype(object).where(frame.notna(), None)
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def build(name: str, path: Path) -> list[dict[str, Any]]:
    return rows(TABLES[name].build(read_trace([path])))


def test_scopes_of_the_forward_pass_are_steps(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.json",
        scope("gpu_model_runner: preprocess", 0, 10),
        scope("gpu_model_runner: forward", 10, 30),
        scope("gpu_model_runner: sample", 40, 10),
        call(15, 1),
        kernel(100, 1, "a"),
        call(45, 2, name="cudaLaunchKernel"),
        kernel(110, 2, "b"),
    )
    (step,) = build("cuda_graph_steps", path)
    assert (step["runtime_mode"], step["launches"], step["unpadded_tokens"]) == ("FULL", 1, None)
    assert step["graph_gpu_ms"] == 4000


def test_an_annotation_of_the_step_goes_before_its_scopes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.json",
        scope("execute_context_0(0)_generation_4(4)", 0, 50),
        scope("gpu_model_runner: forward", 10, 30),
        call(15, 1),
        kernel(100, 1, "a"),
    )
    (step,) = build("cuda_graph_steps", path)
    assert (step["launches"], step["decode_tokens"], step["requests"]) == (1, 4, 4)


def test_graph_ids_tell_graphs_of_the_same_kernels_apart(tmp_path: Path) -> None:
    events = []
    for number, graph in enumerate((31, 32, 31)):
        ts = 100 * number
        events += [
            scope("execute_context_0(0)_generation_4(4)", ts, 50),
            call(ts + 10, number + 1),
            kernel(ts + 60, number + 1, "same", graph),
            call(ts + 20, 50 + number, name="cudaLaunchKernel"),
            kernel(ts + 70, 50 + number, "eager", 0),
        ]
    path = write(tmp_path / "x.json", *events)
    found = build("cuda_graph_replay_latency", path)
    assert {r["descriptor"]: r["steps"] for r in found} == {"graph:31": 2, "graph:32": 1}
    # Whether they take LoRA adapters is not known.
    assert {(r["num_tokens"], r["num_active_loras"]) for r in found} == {(None, None)}
    coverage = parse_session([path], tmp_path / "s").metadata.coverage
    assert (coverage["kernels"], coverage["kernels_in_graphs"]) == (6, 3)


def test_launches_outside_of_steps_are_counted_as_such(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.json",
        scope("step[DECODE bs=4]", 0, 50),
        call(10, 1),
        kernel(100, 1, "a"),
        call(60, 2),
        kernel(110, 2, "drafter"),
    )
    coverage = parse_session([path], tmp_path / "s").metadata.coverage
    assert (coverage["launches"], coverage["launches_in_steps"]) == (2, 1)
    found = build("cuda_graph_replay_latency", path)
    assert sorted(str(r["runtime_mode"]) for r in found) == ["FULL", "None"]
    (usage,) = build("cuda_graph_usage", path)
    assert usage["replay_count"] == 1


def test_captures_by_annotation(tmp_path: Path) -> None:
    captures = scope("capture_32_FULL", 5, 9), scope("capture_8_FULL", 1, 2)
    path = write(tmp_path / "x.json", *captures)
    found = build("cuda_graph_captures", path)
    assert [(r["runtime_mode"], r["num_tokens"]) for r in found] == [("FULL", 8), ("FULL", 32)]
    full, *_ = build("cuda_graph_coverage", path)
    assert (full["graphs_captured"], full["graphs_never_replayed"]) == (2, 2)
    # What was replayed has no descriptor: it may be any of them.
    step = scope("execute_context_0(0)_generation_4(4)", 20, 9), call(25, 1), kernel(30, 1, "a")
    full, *_ = build("cuda_graph_coverage", write(tmp_path / "y.json", *captures, *step))
    assert (full["graphs_captured"], full["graphs_replayed"]) == (2, 1)
    assert (full["graphs_never_replayed"], full["never_replayed_capture_ms"]) == (None, None)


def test_without_a_trace_of_api_calls_the_mode_is_not_known(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", scope("execute_new_1_cached_2", 5, 9))
    (step,) = build("cuda_graph_steps", path)
    assert (step["runtime_mode"], step["launches"], step["requests"]) == (None, None, 3)


@pytest.mark.parametrize("text", ["execute_of_the_future", "step[NEW x=1]"])
def test_an_unknown_grammar_is_a_step_still(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "x.json", scope(text, 0, 50), call(10, 1), call(20, 2))
    (step,) = build("cuda_graph_steps", path)
    assert (step["runtime_mode"], step["requests"], step["host_ms"]) == ("PIECEWISE", None, 50_000)


DETAILED = "execute_8_context_0(sq0sk0sqsq0sqsk0)_generation_8(sq8sk4096sqsq8sqsk4096)"


def test_ranges_in_each_other_are_one_step(tmp_path: Path) -> None:
    events = []
    for number in range(3):
        ts = 100 * number
        events += [
            scope(DETAILED, ts, 90),
            scope("step[DECODE bs=8]", ts + 1, 88),
            call(ts + 2, number + 1),
            kernel(ts + 10, number + 1, "a"),
        ]
    events.append(scope("step[DECODE bs=8]", 150, 88) | {"tid": 9})  # another thread's
    found = build("cuda_graph_steps", write(tmp_path / "x.json", *events))
    told = [(r["runtime_mode"], r["host_ms"], r["decode_tokens"]) for r in found]
    assert told == [*[("FULL", 90_000, 8)] * 2, ("NONE", 88_000, 8), ("FULL", 90_000, 8)]


def test_what_a_range_does_not_say_the_one_inside_says(tmp_path: Path) -> None:
    outer = scope("execute_of_the_future", 0, 50)
    path = write(tmp_path / "x.json", outer, scope("step[DECODE bs=3]", 1, 40), call(5, 1))
    (step,) = build("cuda_graph_steps", path)
    assert (step["host_ms"], step["decode_tokens"]) == (50_000, 3)


def test_drafting_and_verifying_are_parts_of_a_step(tmp_path: Path) -> None:
    parts = scope("step[DRAFT bs=2]", 5, 10), scope("step[VERIFY bs=2 toks=8]", 20, 20)
    path = write(tmp_path / "x.json", scope("step[DECODE bs=2]", 0, 50), *parts, call(25, 1))
    (step,) = build("cuda_graph_steps", path)
    assert (step["host_ms"], step["launches"]) == (50_000, 1)
    # Without a range of the whole step each verification stands for one.
    (step,) = build("cuda_graph_steps", write(tmp_path / "y.json", *parts, call(25, 1)))
    assert (step["host_ms"], step["launches"], step["requests"]) == (20_000, 1, None)


def test_drawing_pictures_is_no_step(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", scope("execute_diffusion_4", 0, 50), call(5, 1))
    assert build("cuda_graph_steps", path) == []
