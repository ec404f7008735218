"""`cuda_graph_steps` and `cuda_graph_padding`: every model execution, eager ones too.

A row of the first is a step as scheduler, worker and GPU saw it: they count the same steps.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from profilemate.parse.tables import engine_steps
from profilemate.parse.tables.base import Column, Table, flags, frame_of, nullable, numbers
from profilemate.parse.tables.cuda_graph_latency import FURTHER_KEY_COLUMNS
from profilemate.parse.tables.cuda_graphs import KEY, KEY_COLUMNS
from profilemate.parse.tables.step_rows import real_steps
from profilemate.parse.trace.cuda_event_times import timed
from profilemate.parse.trace.steps_on_gpu import step_gpu, step_work
from profilemate.parse.trace.trace import Trace

STEP_COLUMNS = (
    Column("timestamp_sec", "fine_seconds", "begin of the model execution (execute_model)"),
    Column("step", "value", "its number in its worker, None where the recording does not say"),
    Column("runtime_mode", "value", "CUDAGraphMode: FULL, PIECEWISE, or NONE for an eager step"),
    Column("num_tokens", "value", "tokens after padding"),
    Column("unpadded_tokens", "value", "tokens to run"),
    Column("padding_tokens", "value", "the difference"),
    Column("requests", "value", "requests scheduled"),
    Column("prefill_tokens", "value", "tokens of requests in their prompt"),
    Column("decode_tokens", "value", "the other tokens"),
    *(c for c in KEY_COLUMNS if c.name not in ("runtime_mode", "num_tokens")),
    *FURTHER_KEY_COLUMNS,
    Column("dummy", "value", "True for a step without requests, to keep ranks in lock-step"),
    Column("host_ms", "fine_milliseconds", "host duration of the model execution"),
    Column("launches", "value", "graph launches seen in it, None without a trace of API calls"),
    Column("expected_launches", "value", "graph launches that the captures let expect"),
    Column("launch_ms", "fine_milliseconds", "time in the graph launch calls on the host"),
    Column(
        "gpu_delay_ms",
        "fine_milliseconds",
        "from the begin of the first graph launch to the begin of its first GPU record",
    ),
    Column(
        "graph_gpu_ms",
        "fine_milliseconds",
        "GPU span of its graph launches: begin of the first GPU record to the end of the last, or "
        "from CUDA event to CUDA event (PROFILEMATE_GPU_TIMING)",
    ),
    Column(
        "graph_gpu_busy_ms",
        "fine_milliseconds",
        "time in which any of these records ran, overlapping ones counted once",
    ),
    Column("gpu_records", "value", "GPU records (kernels, copies, sets) of its graph launches"),
    Column(
        "gpu_ms",
        "fine_milliseconds",
        "GPU span of all that its thread started until the next step, on graphs or eagerly, None "
        "where it is nothing",
    ),
    Column(
        "gpu_busy_ms",
        "fine_milliseconds",
        "time in which any of that ran, overlapping records counted once",
    ),
    Column("pid", "value", "process id of the worker"),
    *engine_steps.COLUMNS,
)

PADDING_COLUMNS = (
    Column("unpadded_tokens", "value", "tokens to run"),
    Column("padded_tokens", "value", "tokens after padding"),
    Column("num_paddings", "value", "the difference"),
    Column("runtime_mode", "value", "CUDAGraphMode, NONE for eager steps"),
    Column("count", "value", "model steps"),
)


def cuda_graph_steps(trace: Trace) -> pd.DataFrame:
    """One row per model step, in order of time."""
    steps, work, every = trace.frames["step"], step_work(trace), step_gpu(trace)
    gpu, launched, on_gpu = work.gpu, work.launches > 0, work.gpu.count > 0
    events = timed(trace, steps["pid"], steps["step"])
    calls = np.full(len(steps), trace.api_calls is not None, dtype=bool)
    names = [c.name for c in (*KEY_COLUMNS, *FURTHER_KEY_COLUMNS)]
    data = {
        **{column: steps[name].array for column, name in zip(names, KEY, strict=True)},
        "timestamp_sec": steps["ts"],
        "step": steps["step"],
        "unpadded_tokens": steps["unpadded"],
        "padding_tokens": (steps["num_tokens"] - steps["unpadded"]).array,
        "requests": steps["reqs"],
        "prefill_tokens": steps["prefill_tokens"],
        "decode_tokens": steps["decode_tokens"],
        "dummy": pd.array(flags(steps["dummy"]), dtype="boolean"),
        "host_ms": steps["dur"],
        "launches": nullable(work.launches, calls),
        "expected_launches": steps["launches"],
        "launch_ms": nullable(work.host, launched),
        "gpu_delay_ms": nullable(gpu.first - work.called, on_gpu),
        "graph_gpu_ms": nullable(np.where(on_gpu, gpu.span, events), on_gpu | (events >= 0)),
        "graph_gpu_busy_ms": nullable(gpu.busy, on_gpu),
        "gpu_records": nullable(gpu.count, on_gpu),
        "gpu_ms": nullable(every.span, every.count > 0),
        "gpu_busy_ms": nullable(every.busy, every.count > 0),
        "pid": steps["pid"].replace(trace.aliases),
        **engine_steps.engine_side(trace),
    }
    return frame_of(STEP_COLUMNS, data)


def cuda_graph_padding(trace: Trace) -> pd.DataFrame:
    """What vLLM's `--cudagraph-metrics` counts: the most frequent first, equals by first seen."""
    steps = trace.frames["step"]
    real = real_steps(flags(steps["dummy"]), numbers(steps["unpadded"], -1))
    steps = steps[real & ~flags(steps["mode"].isna() & steps["unpadded"].isna())]
    named = steps[["unpadded", "num_tokens", "mode"]]
    grouped = named.groupby(list(named.columns), dropna=False, sort=False).size()
    rows = grouped.reset_index(name="count")
    rows = rows.sort_values("count", ascending=False, kind="stable", ignore_index=True)
    data = {
        "unpadded_tokens": rows["unpadded"].astype("Int64"),
        "padded_tokens": rows["num_tokens"].astype("Int64"),
        "num_paddings": (rows["num_tokens"] - rows["unpadded"]).astype("Int64"),
        "runtime_mode": rows["mode"].astype("string"),
        "count": rows["count"],
    }
    return frame_of(PADDING_COLUMNS, data)


TABLES = (
    Table(
        "cuda_graph_steps",
        "One row per model step, eager and dummy ones too, in order of time.",
        STEP_COLUMNS,
        cuda_graph_steps,
        events=("step",),
    ),
    Table(
        "cuda_graph_padding",
        "vLLM's own --cudagraph-metrics table: one row per (unpadded, padded, mode); dummy steps "
        "and steps without tokens are left out, as there.",
        PADDING_COLUMNS,
        cuda_graph_padding,
        events=("step",),
    ),
)
