"""The scheduler's side of each model step: joined by engine and step number, never by time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints, groups
from profilemate.parse.tables.base import Bools, Column, nullable, numbers
from profilemate.parse.tables.pools import UNKNOWN, Pools, SchedulerSteps, pools, usage
from profilemate.parse.trace.trace import Trace

COLUMNS = (
    Column(
        "scheduled_sec",
        "fine_seconds",
        "begin of the Scheduler.schedule call of this number in its engine (sched.step); this and "
        "what follows is None where the engine was not recorded",
    ),
    Column("schedule_ms", "fine_milliseconds", "how long that call took"),
    Column("scheduled_tokens", "value", "tokens that it scheduled"),
    Column("scheduled_requests", "value", "requests that it scheduled"),
    Column("new_requests", "value", "those that were scheduled for the first time"),
    Column("preempted_requests", "value", "requests that it preempted"),
    Column("running_requests", "value", "requests running after it"),
    Column("waiting_requests", "value", "requests waiting after it"),
    Column("kv_blocks_used", "value", "blocks of the GPU's pool in use after it"),
    Column("kv_usage_pct", "percent", "the same as a share of the pool"),
    Column(
        "kv_blocks_allocated",
        "value",
        "blocks handed out in it, and since the call before it (kv.alloc)",
    ),
    Column("kv_blocks_evicted", "value", "blocks that lost cached content in the same time"),
)

_FIELDS = {
    "scheduled_tokens": "num_tokens",
    "scheduled_requests": "num_reqs",
    "new_requests": "new",
    "preempted_requests": "preempted",
    "running_requests": "running",
    "waiting_requests": "waiting",
}


def scheduled_rows(trace: Trace) -> Ints:
    """For every row of the frame `step`, the row of `sched.step` in the engine's, -1 for none.

    The engine of a step is its own process, or else the only one there is; see `Trace.engine`.
    """
    engine = trace.engine or trace
    steps, calls = trace.frames["step"], engine.frames["sched.step"]
    pid = steps["pid"].to_numpy(dtype=np.int64)
    engines = np.unique(calls["pid"].to_numpy(dtype=np.int64))
    owner = np.where(np.isin(pid, engines), pid, engines[0] if len(engines) == 1 else -1)
    left = pd.MultiIndex.from_arrays([owner, numbers(steps["step"], UNKNOWN)])
    known = calls[calls["step"].notna()].drop_duplicates(["pid", "step"])
    right = pd.MultiIndex.from_arrays([known["pid"], numbers(known["step"], UNKNOWN)])
    at = right.get_indexer(left) if len(known) else np.full(len(steps), -1)
    rows: Ints = np.append(known.index.to_numpy(dtype=np.int64), -1)[at]
    return rows


def engine_side(trace: Trace) -> Mapping[str, object]:
    """The columns `COLUMNS` for the rows of the frame `step`."""
    engine = trace.engine or trace
    calls, rows = engine.frames["sched.step"], scheduled_rows(trace)
    there = rows >= 0

    def taken(values: Ints, known: Bools | None = None) -> object:
        of_steps = np.append(values, 0)[rows]
        return nullable(of_steps, there if known is None else there & np.append(known, False)[rows])

    data: dict[str, object] = {
        "scheduled_sec": taken(calls["ts"].to_numpy(dtype=np.int64)),
        "schedule_ms": taken(numbers(calls["dur"], 0), calls["dur"].notna().to_numpy()),
    }
    for column, field in _FIELDS.items():
        data[column] = taken(numbers(calls[field], 0), calls[field].notna().to_numpy())
    used, total, allocated, evicted = _kv(engine)
    any_kv = np.full(len(calls), len(engine.kv) > 0)
    data["kv_blocks_used"] = taken(used, used != UNKNOWN)
    share = usage(np.append(used, UNKNOWN), np.append(total, UNKNOWN))
    data["kv_usage_pct"] = share.take(np.where(there, rows, len(used))).array
    data["kv_blocks_allocated"] = taken(allocated, any_kv)
    data["kv_blocks_evicted"] = taken(evicted, any_kv)
    return data


def _kv(engine: Trace) -> tuple[Ints, Ints, Ints, Ints]:
    """For each row of `sched.step`: blocks used after it, in the pool, allocated, evicted."""
    calls, streams, steps = engine.frames["sched.step"], pools(engine), SchedulerSteps(engine)
    used, total = (np.full(len(calls), UNKNOWN, dtype=np.int64) for _ in range(2))
    counts = {op: np.zeros(len(calls), dtype=np.int64) for op in ("alloc", "evict")}
    call_pid = calls["pid"].to_numpy(dtype=np.int64)
    ends = calls["ts"].to_numpy(dtype=np.int64) + numbers(calls["dur"], 0)
    # The calls of a process, as `SchedulerSteps` numbers them; after the last one: none of them.
    calls_of = {pid: rows[np.argsort(ends[rows], kind="stable")] for pid, rows in groups(call_pid)}
    for part in engine.kv.slices(("pool", "ts", "op", "ids", "used")):
        if part.pid not in calls_of:
            continue
        at, (group, _) = calls_of[part.pid], steps.of(part)
        within = streams.standard[streams.of(part)] & (group < len(at))
        for op, sums in counts.items():
            rows = np.flatnonzero(within & part.is_op(op))
            np.add.at(sums, at[group[rows]], part.ids().lengths[rows])
        after = part.ints("used", UNKNOWN)
        rows = np.flatnonzero(within & (after != UNKNOWN))
        used[at[group[rows]]] = after[rows]  # the last one of a call is what stays
    for process, at in calls_of.items():
        latest = np.maximum.accumulate(np.where(used[at] != UNKNOWN, np.arange(len(at)), -1))
        used[at] = np.where(latest < 0, UNKNOWN, used[at][latest])
        total[at] = _size(streams, process)
    return used, total, counts["alloc"], counts["evict"]


def _size(streams: Pools, process: int) -> int:
    """Blocks of the standard pool of a process, `UNKNOWN` where nothing says."""
    total = streams.total[(streams.pids == process) & streams.standard]
    return int(total[0]) if len(total) else UNKNOWN
