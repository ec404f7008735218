"""Recordings of real GPUs that others made: every fact of their README, and a second opinion."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from kineto_witness import Witness, look, ns, stop, union
from recorded import real_traces

from profilemate.parse.pipeline import parse_session, read_trace
from profilemate.parse.tables import TABLES
from profilemate.parse.trace.steps_on_gpu import gpu_time
from profilemate.parse.trace.trace import Trace

RTX3090 = "vllm_rtx3090_gptoss20b_full_and_piecewise.pt.trace.json.gz"
MI300X = "vllm_mi300x_mixed_piecewise.json.gz"
B200 = "vllm_b200_eager_prefill.json.gz"
V100 = "training_v100_two_graphs_old_kineto.json.gz"
H100 = "nsys_h100_2gpu_no_graphs.sqlite"

pytestmark = pytest.mark.usefixtures("scanner")


@dataclass(frozen=True)
class Facts:
    """What the README of the recordings says of one; `kernels` are those of each launch."""

    name: str
    steps: int
    launches: int
    kernels: int
    in_graphs: int
    kernel_us: float | None
    modes: dict[str, int]
    per_launch: set[int]


FACTS = [
    Facts(
        RTX3090,
        18,
        65,
        7415,
        6809,
        191_965.853,
        {"FULL": 15, "PIECEWISE": 2, "NONE": 1},
        {3, 12, 14, 409},
    ),
    Facts(MI300X, 1, 25, 413, 361, 156_008.506, {"PIECEWISE": 1}, {4, 12, 15}),
    Facts(B200, 1, 0, 768, 0, 10_862.916, {"NONE": 1}, set()),
    Facts(V100, 0, 12, 9876, 4464, None, {}, {315, 429}),
    Facts(H100, 0, 0, 3442, 0, None, {}, set()),
]
KINETO = [f.name for f in FACTS if f.name != H100]
each = pytest.mark.parametrize("facts", FACTS, ids=lambda f: f.name.partition(".")[0])
each_kineto = pytest.mark.parametrize("name", KINETO)


@cache
def trace_of(name: str) -> Trace:
    return read_trace([real_traces() / name])


@cache
def witness_of(name: str) -> Witness:
    return look(real_traces() / name)


@cache
def table(recording: str, name: str) -> pd.DataFrame:
    return TABLES[name].build(trace_of(recording))


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


@each
def test_the_facts(facts: Facts, tmp_path: Path) -> None:
    session = parse_session([real_traces() / facts.name], tmp_path / "s")
    coverage = json.loads((session.path / "metadata.json").read_text())["coverage"]
    assert coverage["steps"] == facts.steps
    assert coverage["launches"] == coverage["launches_with_gpu_records"] == facts.launches
    assert coverage["kernels"] == facts.kernels
    assert coverage["kernels_in_graphs"] == facts.in_graphs
    if facts.kernel_us is not None:
        assert coverage["kernel_time_us"] == facts.kernel_us
    with (session.path / "cuda_graph_steps.csv").open() as file:
        modes = Counter(row["runtime_mode"] for row in csv.DictReader(file))
    assert modes == facts.modes
    assert set(trace_of(facts.name).launches["kernels"]) == facts.per_launch
    assert not session.metadata.doubts


@each_kineto
def test_attribution_equals_a_second_opinion(name: str, tmp_path: Path) -> None:
    witness, trace = witness_of(name), trace_of(name)
    zero = trace.sources[0].begin
    found = {
        r["correlation"]: (
            r["ts"] + zero,
            *(r[c] for c in ("dur", "records", "first", "last", "busy")),
        )
        for r in rows(trace.launches)
    }
    expected = {}
    for launch in witness.launches:
        records = witness.records(launch)
        first = min(ns(r["ts"]) for r in records)
        expected[launch["args"]["correlation"]] = (
            ns(launch["ts"]),
            ns(launch["dur"]),
            len(records),
            first - zero,
            first - zero + witness.span([launch]),
            witness.busy([launch]),
        )
    assert found == expected
    coverage = parse_session([real_traces() / name], tmp_path / "s").metadata.coverage
    spans = sum(witness.span([launch]) for launch in witness.launches)
    kernel_ns = sum(ns(k["dur"]) for k in witness.kernels)
    assert coverage["graph_span_us"] == spans / 1000
    assert coverage["kernel_time_us"] == kernel_ns / 1000


@each_kineto
def test_steps_equal_a_second_opinion(name: str) -> None:
    witness, trace = witness_of(name), trace_of(name)
    steps = table(name, "cuda_graph_steps")
    assert len(steps) == len(witness.steps)
    in_order = sorted(witness.steps, key=lambda e: ns(e["ts"]))
    for step, row in zip(in_order, rows(steps), strict=True):
        launches, started = witness.in_step(step), witness.started_in(step)
        if started:
            assert row["gpu_ms"] == max(e for _, e in started) - started[0][0]
            assert row["gpu_busy_ms"] == union(started)
        assert row["timestamp_sec"] == ns(step["ts"]) - trace.sources[0].begin
        assert row["host_ms"] == ns(step["dur"])
        assert row["launches"] == len(launches)
        if launches:
            assert row["launch_ms"] == sum(ns(x["dur"]) for x in launches)
            assert row["graph_gpu_ms"] == witness.span(launches)
            assert row["graph_gpu_busy_ms"] == witness.busy(launches)
            first = min(launches, key=lambda x: ns(x["ts"]))
            begin = min(ns(r["ts"]) for x in launches for r in witness.records(x))
            assert row["gpu_delay_ms"] == begin - ns(first["ts"])
        else:
            assert pd.isna(row["graph_gpu_ms"])


def test_the_span_over_launches_is_exact() -> None:
    # The README has 156,065.072 us, which is this sum in doubles: they hold these times to 1 ns.
    witness = witness_of(RTX3090)
    exact = sum(witness.span([launch]) for launch in witness.launches)
    doubles = 0.0
    for launch in witness.launches:
        records = witness.records(launch)
        ends = (float(r["ts"]) + float(r["dur"]) for r in records)
        doubles += max(ends) - min(float(r["ts"]) for r in records)
    assert exact == 156_065_078
    assert round(doubles, 3) == 156_065.072


def test_rtx3090_graphs_and_layers() -> None:
    trace = trace_of(RTX3090)
    usage = table(RTX3090, "cuda_graph_usage")
    assert usage[["runtime_mode", "replay_count"]].to_numpy().tolist() == [
        ["FULL", 15],
        ["PIECEWISE", 2],
    ]
    latency = table(RTX3090, "cuda_graph_replay_latency")
    assert latency[["runtime_mode", "steps", "launches"]].to_numpy().tolist() == [
        ["FULL", 15, 15],
        ["PIECEWISE", 2, 50],
    ]
    named = [number for number, text in enumerate(trace.names) if "reshape_and_cache" in text]
    assert trace.gpu["name"].isin(named).sum() == 24 * 17 == 408
    timeline = table(RTX3090, "cuda_graph_timeline")
    assert len(timeline) == 17
    steps = table(RTX3090, "cuda_graph_steps")
    on_graphs = steps[steps["runtime_mode"] != "NONE"]
    assert timeline["duration_ms"].tolist() == on_graphs["graph_gpu_ms"].tolist()


def test_mi300x_gpu_work_starts_long_after_the_step_has_ended() -> None:
    trace = trace_of(MI300X)
    (step,) = rows(trace.frames["step"])
    late = trace.launches["first"].min() - (step["ts"] + step["dur"])
    assert late > 120_000_000
    assert trace.launches["kernels"].sum() == 361
    facts = [step[n] for n in ("unpadded", "reqs", "prefill_tokens", "decode_tokens")]
    assert facts == [8192, 46, 8155, 37]
    with (real_traces() / "vllm_mi300x_mixed_piecewise.gpu_timeline.csv").open() as file:
        told = {row["type"]: float(row["time ms"]) for row in csv.DictReader(file)}
    kernels = trace.gpu[trace.gpu["kind"] == 0]
    # Its kernels do not overlap; the other tool adds up doubles.
    assert (kernels["end"] - kernels["start"]).sum() / 1e6 == pytest.approx(
        told["computation_time"], abs=2e-4
    )
    assert gpu_time(trace) / 1e6 == pytest.approx(told["busy_time"], abs=2e-4)


def test_b200_says_zero_and_does_not_fail() -> None:
    coverage = table(B200, "cuda_graph_coverage")
    (eager,) = rows(coverage[coverage["runtime_mode"] == "NONE"])
    told = [eager[n] for n in ("steps", "unpadded_tokens", "launches", "gpu_graph_ms")]
    assert told == [1, 888, 0, 0]
    assert eager["gpu_ms"] == union(witness_of(B200).started_in(witness_of(B200).steps[0]))
    assert coverage["gpu_graph_share"].tolist() == [0.0, 0.0, 0.0]
    assert len(table(B200, "cuda_graph_replay_latency")) == 0


def test_v100_has_two_graphs_of_six_launches_each() -> None:
    trace = trace_of(V100)
    assert Counter(trace.launches["kernels"].tolist()) == {315: 6, 429: 6}
    by_graph = trace.launches.groupby("graph")["kernels"].agg(["nunique", "size"])
    assert by_graph.to_numpy().tolist() == [[1, 6], [1, 6]]
    latency = table(V100, "cuda_graph_replay_latency")
    assert latency["steps"].tolist() == [6, 6]
    assert latency["runtime_mode"].isna().all()
    witness = witness_of(V100)  # operators on the CPU begin 25 ms before the first call
    used = [ns(e["ts"]) for e in (*witness.calls.values(), *witness.gpu)]
    assert trace.start_unix_ns == min(used) == 1_661_938_466_265_125_000


def test_h100_says_what_it_has() -> None:
    path = real_traces() / H100
    trace = trace_of(H100)
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        calls = dict(
            db.execute(
                "SELECT value, count(*) FROM CUPTI_ACTIVITY_KIND_RUNTIME r, StringIds s "
                "WHERE s.id = r.nameId GROUP BY 1"
            )
        )
        kernels: list[Any] = db.execute(
            "SELECT start, end, globalPid % (1 << 48) >> 24, deviceId, streamId, correlationId, "
            "value FROM CUPTI_ACTIVITY_KIND_KERNEL k, StringIds s WHERE s.id = k.demangledName"
        ).fetchall()
    assert trace.api_calls == calls
    assert sum(calls.values()) == 5796
    columns = ["start", "end", "pid", "device", "stream", "correlation"]
    found = [
        (*(row[c] for c in columns), trace.names[row["name"]])
        for row in rows(trace.gpu)
        if row["kind"] == 0
    ]
    assert sorted(found) == sorted(kernels)


@each_kineto
def test_times_are_exact(name: str) -> None:
    witness, trace = witness_of(name), trace_of(name)
    zero = trace.sources[0].begin
    found = sorted(zip(trace.gpu["start"] + zero, trace.gpu["end"] + zero, strict=True))
    assert found == sorted((ns(e["ts"]), stop(e)) for e in witness.gpu)
