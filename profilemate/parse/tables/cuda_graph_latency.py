"""`cuda_graph_replay_latency`: what each graph costs, on the host and on the GPU.

Times are per model step, over the launches of the graph in it. Percentiles are nearest-rank: values
that were measured. Nothing of it needs a synchronisation: it is all from the recorder's records.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.tables.base import Bools, Column, Table, frame_of, nullable
from profilemate.parse.tables.cuda_graphs import (
    KEY,
    KEY_COLUMNS,
    GraphSteps,
    between_events,
    graph_steps,
)
from profilemate.parse.trace.steps_on_gpu import gpu_time
from profilemate.parse.trace.trace import Trace

FURTHER_KEY_COLUMNS = (
    Column("num_active_loras", "value", "LoRA adapters of the graph, 0 without"),
    Column(
        "descriptor",
        "value",
        "further fields of the descriptor as k:v; in recordings without profilemate's messages "
        "what tells graphs apart: graph:<CUPTI's id>, kernels:<hash of the launch's kernel names "
        "in order>, launches:<hash of the graphs of a step's launches in order>",
    ),
)

_MEASURES: Mapping[str, str] = {
    "launch": "time in the launch calls on the host",
    "delay": "from the begin of the first launch call to the begin of its first GPU record",
    "gpu_span": "from the begin of the first GPU record to the end of the last, or from CUDA event "
    "to CUDA event (PROFILEMATE_GPU_TIMING)",
    "gpu_busy": "time in which any GPU record ran (overlapping ones count once)",
    "gpu_idle": "GPU span less GPU busy",
}
_STATISTICS: Mapping[str, str] = {
    "mean": "mean",
    "p50": "median",
    "p90": "90th percentile",
    "p99": "99th percentile",
    "max": "largest",
    "total": "sum",
}

COLUMNS = (
    *KEY_COLUMNS,
    *FURTHER_KEY_COLUMNS,
    Column("steps", "value", "model steps that ran on it"),
    Column(
        "launches",
        "value",
        "graph launches in them: those that the recorder saw or, without a trace of API calls, the "
        "hooks; None where neither says",
    ),
    Column("gpu_steps", "value", "those of the steps that have GPU records"),
    *(
        Column(f"{measure}_{statistic}_ms", "fine_milliseconds", f"{word}: {doc}")
        for measure, doc in _MEASURES.items()
        for statistic, word in _STATISTICS.items()
    ),
    Column(
        "gpu_time_share",
        "ratio",
        "GPU busy, of the time in which the GPUs ran anything at all",
    ),
)


def key_data(keys: pd.DataFrame) -> dict[str, object]:
    """The columns of a graph's whole key."""
    names = [c.name for c in (*KEY_COLUMNS, *FURTHER_KEY_COLUMNS)]
    # A version that knows no such field means 0; a recording that knows no tokens does not.
    loras = keys["num_active_loras"].mask(keys["num_tokens"].isna())
    keys = keys.assign(num_active_loras=loras)
    return {column: keys[name].array for column, name in zip(names, KEY, strict=True)}


def statistics(group: Ints, groups: int, values: Ints, known: Bools) -> dict[str, object]:
    """The statistics of the known values of each group, NA for a group without any."""
    order = np.lexsort((values[known], group[known]))
    group, values = group[known][order], values[known][order]
    count = np.bincount(group, minlength=groups).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int64)
    total = np.zeros(groups, dtype=np.int64)
    np.add.at(total, group, values)
    any_known, divisor = count > 0, np.maximum(count, 1)
    padded = np.append(values, 0)

    def ranked(percent: int) -> Ints:
        rank = -(-count * percent // 100)  # rounded up
        return padded[np.where(any_known, first + np.maximum(rank, 1) - 1, len(values))]

    columns = {
        "mean": (2 * total + divisor) // (2 * divisor),
        "p50": ranked(50),
        "p90": ranked(90),
        "p99": ranked(99),
        "max": ranked(100),
        "total": total,
    }
    return {name: nullable(column, any_known) for name, column in columns.items()}


def cuda_graph_replay_latency(trace: Trace) -> pd.DataFrame:
    """One row per graph that was replayed, the one with the most GPU time first."""
    on_graphs = graph_steps(trace, unknown=True)
    work, gpu = on_graphs.work, on_graphs.work.gpu
    graph = on_graphs.rows["graph"].to_numpy(dtype=np.int64)
    graphs = len(on_graphs.keys)
    on_gpu, launched = gpu.count > 0, work.launches > 0
    events = between_events(trace, on_graphs)
    values = {
        "launch": (work.host, launched),
        "delay": (gpu.first - work.called, on_gpu),
        "gpu_span": (np.where(on_gpu, gpu.span, events), on_gpu | (events >= 0)),
        "gpu_busy": (gpu.busy, on_gpu),
        "gpu_idle": (gpu.span - gpu.busy, on_gpu),
    }
    data: dict[str, object] = {
        "steps": np.bincount(graph, minlength=graphs),
        "launches": _launches(trace, on_graphs, graphs),
        "gpu_steps": np.bincount(graph[on_gpu], minlength=graphs),
    }
    for measure, (column, known) in values.items():
        for name, result in statistics(graph, graphs, column, known).items():
            data[f"{measure}_{name}_ms"] = result
    whole, busy = gpu_time(trace), _sums(graph, graphs, gpu.busy)
    share = np.where(busy > 0, busy / max(whole, 1), np.nan)
    data["gpu_time_share"] = pd.array(share, dtype="Float64")
    result = frame_of(COLUMNS, {**key_data(on_graphs.keys), **data})
    used = np.flatnonzero(np.bincount(graph, minlength=graphs) > 0)
    # Keys are in an order of their own already, which decides between equals.
    order = used[np.argsort(-busy[used], kind="stable")]
    return result.iloc[order].reset_index(drop=True)


def _sums(group: Ints, groups: int, values: Ints) -> Ints:
    total = np.zeros(groups, dtype=np.int64)
    np.add.at(total, group, values)
    return total


def _launches(trace: Trace, on_graphs: GraphSteps, graphs: int) -> pd.arrays.IntegerArray:
    """Launches of each graph: as the recorder saw them, or else as the hooks say."""
    graph, hooked = (on_graphs.rows[n].to_numpy(dtype=np.int64) for n in ("graph", "hooked"))
    known = np.ones(graphs, dtype=bool)
    if trace.api_calls is not None:
        return nullable(_sums(graph, graphs, on_graphs.work.launches), known)
    known[graph[hooked < 0]] = False
    return nullable(_sums(graph, graphs, hooked), known)


TABLES = (
    Table(
        "cuda_graph_replay_latency",
        "One row per replayed graph: launches, launch time, delay and GPU time per model step.",
        COLUMNS,
        cuda_graph_replay_latency,
        events=("graph.replay", "step"),
    ),
)
