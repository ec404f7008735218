"""`cuda_graph_coverage`: how much of the work ran on graphs, and what padding costs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.tables.base import Bools, Column, Table, flags, frame_of, numbers
from profilemate.parse.tables.cuda_graphs import captures, graph_steps, key_codes
from profilemate.parse.tables.step_rows import real_steps
from profilemate.parse.trace.steps_on_gpu import gpu_time, step_gpu, step_work
from profilemate.parse.trace.trace import Trace
from profilemate.schema.modes import EAGER, MODES

COLUMNS = (
    Column("runtime_mode", "value", "CUDAGraphMode; NONE is eager, None where nobody says"),
    Column("steps", "value", "model steps with tokens, without dummy ones"),
    Column("step_share", "ratio", "of all such steps"),
    Column("empty_steps", "value", "further steps without any token, in which no model runs"),
    Column("unpadded_tokens", "value", "tokens to run, of the steps that say so"),
    Column("token_share", "ratio", "of the tokens of all modes"),
    Column("padded_tokens", "value", "tokens after padding, of the steps that say so"),
    Column("padding_tokens", "value", "tokens wasted on padding"),
    Column("padding_share", "ratio", "padding tokens, of the padded tokens"),
    Column("host_ms", "fine_milliseconds", "host duration of the steps"),
    Column("host_share", "ratio", "of the host duration of the steps of all modes"),
    Column("launches", "value", "graph launches seen in the steps"),
    Column(
        "gpu_ms",
        "fine_milliseconds",
        "GPU busy of all that calls in the steps started, on graphs or eagerly",
    ),
    Column("gpu_share", "ratio", "of the time in which the GPUs ran anything at all"),
    Column(
        "gpu_graph_ms",
        "fine_milliseconds",
        "GPU busy of the steps' graph launches; what runs eagerly in a step is not in it",
    ),
    Column(
        "gpu_graph_share", "ratio", "of the time in which the GPUs ran anything at all, graph or no"
    ),
    Column(
        "padding_gpu_ms",
        "fine_milliseconds",
        "GPU busy of the graph launches times the padding share of their step, summed up",
    ),
    Column("graphs_captured", "value", "graphs captured in the recording and kept"),
    Column("graphs_replayed", "value", "graphs replayed in the recording"),
    Column(
        "graphs_never_replayed",
        "value",
        "graphs captured in the recording and not replayed in it; None where replays cannot be "
        "told by their descriptor",
    ),
    Column(
        "never_replayed_capture_ms",
        "fine_milliseconds",
        "time that capturing those took on the host",
    ),
)


def cuda_graph_coverage(trace: Trace) -> pd.DataFrame:
    """One row per mode, NONE always among them; none where there are neither steps nor graphs."""
    steps, work = trace.frames["step"], step_work(trace)
    capture = trace.frames["graph.capture"]
    if steps.empty and capture.empty and trace.frames["graph.replay"].empty:
        return frame_of(COLUMNS, {c.name: pd.array([], dtype="Int64") for c in COLUMNS})
    mode = steps["mode"].astype(object).where(steps["mode"].notna(), None).to_numpy(copy=True)
    dummy, unpadded = flags(steps["dummy"]), numbers(steps["unpadded"], -1)
    real = real_steps(dummy, unpadded)
    empty = ~dummy & ~real
    mode[empty & steps["mode"].isna().to_numpy()] = EAGER
    names = [*MODES, *([None] if any(m is None for m in mode[real]) else [])]
    padded = numbers(steps["num_tokens"], -1)
    both = (unpadded >= 0) & (padded > 0)
    padding = np.where(both, padded - unpadded, 0)
    wasted = np.zeros(len(steps), dtype=np.int64)
    wasted[both] = np.rint(work.gpu.busy[both] * (padding[both] / padded[both])).astype(np.int64)
    rows = [(mode == name) & real for name in names]
    tokens = _sums(rows, unpadded, unpadded >= 0)
    seen = np.full(len(steps), trace.api_calls is not None, dtype=bool)
    # A step without a graph launch had no graph on the GPU, where both sides were recorded.
    on_gpu = (work.gpu.count > 0) | (seen & (work.launches == 0) & bool(len(trace.work.rows["id"])))
    busy = _sums(rows, work.gpu.busy, on_gpu)
    every = _sums(rows, step_gpu(trace).busy, seen & bool(len(trace.work.rows["id"])))
    host = numbers(steps["dur"], -1)
    count = pd.array([int(of_mode.sum()) for of_mode in rows], dtype="Int64")
    padded_tokens, padding_tokens = _sums(rows, padded, padded >= 0), _sums(rows, padding, both)
    host_ms = _sums(rows, host, host >= 0)
    data: dict[str, object] = {
        "runtime_mode": pd.array(names, dtype="string"),
        "steps": count,
        "step_share": _share(count, int(real.sum())),
        "empty_steps": np.array([int(((mode == name) & empty).sum()) for name in names]),
        "unpadded_tokens": tokens,
        "token_share": _share(tokens, int(unpadded[real & (unpadded >= 0)].sum())),
        "padded_tokens": padded_tokens,
        "padding_tokens": padding_tokens,
        "padding_share": _share(padding_tokens, _sums(rows, padded, both)),
        "host_ms": host_ms,
        "host_share": _share(host_ms, int(host[real & (host >= 0)].sum())),
        "launches": _sums(rows, work.launches, seen),
        "gpu_ms": every,
        "gpu_share": _share(every, gpu_time(trace)),
        "gpu_graph_ms": busy,
        "gpu_graph_share": _share(busy, gpu_time(trace)),
        "padding_gpu_ms": _sums(rows, wasted, both & on_gpu),
        **_graphs(trace, names),
    }
    return frame_of(COLUMNS, data)


def _sums(rows: list[Bools], values: Ints, known: Bools) -> pd.arrays.IntegerArray:
    """The sum over each group's known values, NA for a group of which none is known."""
    sums = [int(values[group & known].sum()) for group in rows]
    missing = [bool(group.any()) and not (group & known).any() for group in rows]
    return pd.arrays.IntegerArray(np.array(sums, dtype=np.int64), np.array(missing, dtype=bool))


def _share(part: pd.arrays.IntegerArray, whole: pd.arrays.IntegerArray | int) -> pd.Series:
    parts = pd.Series(part, dtype="Float64")
    wholes = pd.Series([whole] * len(part) if isinstance(whole, int) else whole, dtype="Float64")
    return parts / wholes.where(wholes > 0)


def _graphs(trace: Trace, names: list[str | None]) -> dict[str, object]:
    """Graphs captured and replayed, by mode."""
    capture = captures(trace)
    replayed = graph_steps(trace)
    used = replayed.keys.iloc[np.unique(replayed.rows["graph"].to_numpy(dtype=np.int64))]
    (captured_code, used_code), keys = key_codes(capture, used)
    in_use = np.zeros(len(keys), dtype=bool)
    in_use[used_code] = True
    captured = np.unique(captured_code)
    cost = np.zeros(len(keys), dtype=np.int64)
    np.add.at(cost, captured_code, numbers(capture["dur"], 0))
    mode = keys["mode"].astype(object).where(keys["mode"].notna(), None).to_numpy()
    unused = captured[~in_use[captured]]
    sizes_known = ~used["num_tokens"].isna().any()
    counts = {
        "graphs_captured": (captured, True),
        "graphs_replayed": (np.unique(used_code), True),
        "graphs_never_replayed": (unused, sizes_known),
    }
    data: dict[str, object] = {
        name: pd.array(
            [int((mode[codes] == m).sum()) if known else None for m in names], dtype="Int64"
        )
        for name, (codes, known) in counts.items()
    }
    data["never_replayed_capture_ms"] = pd.array(
        [int(cost[unused][mode[unused] == m].sum()) if sizes_known else None for m in names],
        dtype="Int64",
    )
    return data


TABLES = (
    Table(
        "cuda_graph_coverage",
        "One row per runtime mode: the share of steps, tokens and time, and the waste of padding.",
        COLUMNS,
        cuda_graph_coverage,
        events=("step",),
    ),
)
