"""How much of a recording could be attributed: the answer's own quality, in figures.

What the recording cannot tell is None, never 0: a recording without GPU records has no share of
GPU time on graphs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from profilemate.parse.recording.contract import SourceKind
from profilemate.parse.session.warnings import SessionWarning
from profilemate.parse.tables.base import flags, numbers
from profilemate.parse.tables.cuda_graphs import PLACES, durations_of, graph_steps
from profilemate.parse.tables.invariants import doubts_of
from profilemate.parse.tables.pools import pools
from profilemate.parse.trace.ranks import RankTrace
from profilemate.parse.trace.steps_on_gpu import (
    BEFORE,
    CAPTURES,
    ELSEWHERE,
    owners,
    starters,
    step_work,
)
from profilemate.parse.trace.trace import Trace

_STARTS = re.compile("Launch|Memcpy|Memset")

Coverage = dict[str, float | int | None]


def coverage(trace: Trace) -> Coverage:
    """The object `coverage` of `metadata.json`.

    `steps` are model steps without dummy ones; `launches` graph launches, also those outside of
    any step; `kernels_in_graphs` kernels that belong to a launch or say they are of a graph;
    `kernel_time_in_steps_us` and the three that follow it are the kernel time by what
    started it: steps, captures and what follows them, what comes before the first step, the rest;
    `graph_span_us` the sum over launches of last end less first start of their GPU records.
    """
    launches, work, steps = trace.launches, trace.work.rows, trace.frames["step"]
    dummy = flags(steps["dummy"])
    step = owners(trace).step
    real = np.append(~dummy, False)[step]
    launched = work["launch"] >= 0
    in_graph, in_graph_ns = (
        int(np.where(launched, work[whole], work[told]).sum())
        for whole, told in (("kernels", "graph_kernels"), ("kernel_ns", "graph_kernel_ns"))
    )
    api, any_gpu = trace.api_calls is not None, len(work["id"]) > 0
    attributed = int((launches["records"] > 0).sum())
    # Launches of which the GPU's side is missing: their kernels ran, but nobody counted them.
    spans = any_gpu and api and (attributed > 0 or not len(launches))
    nodes = spans and not work["whole"].any()
    found: Coverage = {
        "steps": int((~dummy).sum()),
        "launches": len(launches) if api else None,
        "launches_in_steps": int(real.sum()) if api else None,
        "launches_in_dummy_steps": int((np.append(dummy, False)[step]).sum()) if api else None,
        "launches_with_gpu_records": attributed if api and any_gpu else None,
        "kernels": int(work["kernels"].sum()) if any_gpu else None,
        "kernels_in_graphs": in_graph if nodes else None,
        "kernel_time_us": _us(int(work["kernel_ns"].sum())) if any_gpu else None,
        "kernel_time_in_graphs_us": _us(in_graph_ns) if nodes else None,
        "graph_span_us": _us(int((launches["last"] - launches["first"]).sum())) if spans else None,
        **_started(trace, known=api and any_gpu and len(steps) > 0),
    }
    return found


def again(kinds: Iterable[SourceKind | None]) -> str:
    """How to record again with the GPU's side of graph launches, by what recorded them."""
    if any(kind is not None and kind.by_torch for kind in kinds):
        return "record again with the GPU's activity (ProfilerActivity.CUDA of torch's profiler)"
    return "record again with nsys profile -t cuda,nvtx and --cuda-graph-trace=node (or graph)"


def _started(trace: Trace, *, known: bool) -> Coverage:
    """Kernel time by what started it; the parts add up to all of it.

    Captures, warm-up and profiling are outside of steps: see `starters`.
    """
    started, kernel_ns = starters(trace), trace.work.rows["kernel_ns"]
    parts = {
        "in_steps": started >= 0,
        "after_captures": started == CAPTURES,
        "before_steps": started == BEFORE,
        "elsewhere": started == ELSEWHERE,
    }
    return {
        f"kernel_time_{name}_us": _us(int(kernel_ns[rows].sum())) if known else None
        for name, rows in parts.items()
    }


def kernel_time_in_graphs(found: Mapping[str, Any]) -> float | None:
    """Share of the kernel time that ran as part of a graph, 0 to 1; None where it is not known.

    Args:
        found: The object `coverage` of `metadata.json`.
    """
    part, whole = found.get("kernel_time_in_graphs_us"), found.get("kernel_time_us")
    return part / whole if whole and part is not None else None


def _us(ns: int) -> float:
    return ns / 1000  # exact to the ns up to 2**53 ns, 104 days of GPU time


def durations(trace: Trace) -> str:
    """What `duration_ms` of the timeline is: `gpu`, `CUDA events`, `host`, or several, by row."""
    on = durations_of(trace, graph_steps(trace)).on
    return " and ".join(PLACES[place] for place in np.unique(on[on >= 0]).tolist()) or "host"


def doubts(trace: Trace, found: Coverage) -> list[SessionWarning]:
    """What could not be attributed, and why."""
    told = [*_calls_alone(trace), *_launches_alone(trace), *_records_alone(trace)]
    expected = numbers(trace.frames["step"]["launches"], 0)
    missing = np.maximum(expected - step_work(trace).launches, 0)
    if found["launches"] and missing.any():
        text = (
            f"{int(missing.sum())} graph launches that {int((missing > 0).sum())} steps should "
            "have made were not recorded"
        )
        told.append(SessionWarning("launches-missing", text))
    streams = pools(trace)
    for pid in np.unique(streams.pids[streams.further]).tolist():
        text = (
            f"process {trace.aliases.get(pid, pid)} has several block pools on the GPU: usage, "
            "evictions and summary are of the first one, kv_block_events.csv and "
            "kv_block_lifetimes.csv of all (column pool)"
        )
        told.append(SessionWarning("several-pools", text))
    return told


def _calls_alone(trace: Trace) -> list[SessionWarning]:
    """Calls that start work on the GPU, and nothing of what they started."""
    calls = trace.api_calls or {}
    starts = sum(count for name, count in calls.items() if _STARTS.search(name))
    if not starts or len(trace.launches) or len(trace.work.rows["id"]):
        return []
    text = (
        f"{starts:,} of {sum(calls.values()):,} CUDA or HIP calls start work on the GPU, and there "
        "is not one GPU record: GPU activity was not recorded, so nothing is known of its times"
    )
    return [SessionWarning("gpu-not-recorded", text)]


def impossible(trace: Trace, ranks: Iterable[RankTrace]) -> list[SessionWarning]:
    """What cannot be in a trace and those of its ranks: see `INVARIANTS`."""
    found = doubts_of(trace, (rank.trace for rank in ranks))
    return [SessionWarning(doubt.invariant.name, doubt.text) for doubt in found]


def _launches_alone(trace: Trace) -> list[SessionWarning]:
    """Graph launches without the GPU's side."""
    launches = trace.launches
    count, with_records = len(launches), int((launches["records"] > 0).sum())
    if count and not len(trace.work.rows["id"]):
        text = (
            f"{count} graph launches and not one GPU record: GPU activity was not recorded, so all "
            "durations are the host's"
        )
        return [SessionWarning("gpu-not-recorded", text)]
    if count and not with_records:
        text = (
            f"{count} graph launches, and neither kernels nor GRAPH_TRACE rows belong to any of "
            f"them: {again(s.kind for s in trace.sources)}"
        )
        return [SessionWarning("gpu-not-attributed", text)]
    if with_records < count:
        text = (
            f"{count - with_records} of {count} graph launches have no GPU records: they were "
            "dropped, or the recording ended before the GPU did"
        )
        return [SessionWarning("gpu-records-missing", text)]
    return []


def _records_alone(trace: Trace) -> list[SessionWarning]:
    """GPU records without the host's side, or without the kernels in them."""
    told, work = [], trace.work.rows
    alone = int(work["graph_records"][work["launch"] < 0].sum())
    if alone:
        text = (
            f"{alone} GPU records of graphs belong to no launch that was recorded: the "
            "recording began after it, or API calls were not traced"
        )
        told.append(SessionWarning("gpu-records-alone", text))
    elif len(work["id"]) and trace.api_calls is None:
        text = "GPU records and no API calls: no GPU work can be attributed to a step"
        told.append(SessionWarning("calls-not-traced", text))
    if work["whole"].any():
        text = (
            "graphs were recorded as a whole (--cuda-graph-trace=graph): the kernels in them are "
            "not in any count"
        )
        told.append(SessionWarning("graphs-whole", text))
    return told
