"""`kv_cache_usage` and `kv_cache_summary`: how full the cache was."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd

from profilemate.parse.ids import ids_of
from profilemate.parse.tables.base import Column, Table, frame_of, nullable, numbers
from profilemate.parse.tables.kv_lifetimes import kv_cache_evictions
from profilemate.parse.tables.pools import UNKNOWN, pools, scheduler_steps, usage
from profilemate.parse.trace import Trace

USAGE_COLUMNS = (
    Column("timestamp_sec", "seconds", "begin of the last block operation of the scheduler step"),
    Column(
        "usage_pct",
        "percent",
        "share of the pool in use after that operation: vLLM's BlockPool.get_usage at that instant",
    ),
    Column("num_blocks", "value", "blocks in use (reference count above 0), as the event says"),
    Column("total_blocks", "value", "blocks of the pool without the null block (kv.pool)"),
)

SUMMARY_COLUMNS = (
    Column("Total blocks available", "value", "blocks of the pool without the null block"),
    Column("Total allocations", "value", "blocks that get_new_blocks handed out (kv.alloc)"),
    Column("Total deallocations", "value", "blocks that joined the free queue (kv.free)"),
    Column("Peak blocks used", "value", "most blocks in use after any operation"),
    Column("Peak usage", "percent", "the same as a share of the pool"),
    Column("Total evictions", "value", "rows of kv_cache_evictions"),
    Column("Avg block lifetime", "seconds", "mean of its lifetimes that are known"),
    Column("Avg idle before eviction", "seconds", "mean of its idle times that are known"),
)


def kv_cache_usage(trace: Trace) -> pd.DataFrame:
    """One row per scheduler step in which usage changed, with the usage after its last operation.

    An operation belongs to the `Scheduler.schedule` call that it lies in, or else to the next one;
    without any `sched.step` event each operation counts as a step (see `scheduler_steps`). The
    number of blocks in use travels with every operation, so that a recording which starts in the
    middle of a run is right from its first row.
    """
    kv, streams = trace.frames["kv"], pools(trace)
    group, _ = scheduler_steps(trace)
    used = numbers(kv["used"], UNKNOWN)
    rows = np.flatnonzero(streams.standard_rows() & (used != UNKNOWN))
    # Per stream, the last operation of each step; kv is ordered by process and order of operation.
    stream, step = streams.of_row[rows], group[rows]
    is_last = np.ones(len(rows), dtype=bool)
    is_last[:-1] = (stream[1:] != stream[:-1]) | (step[1:] != step[:-1])
    rows, stream = rows[is_last], stream[is_last]
    changed = np.ones(len(rows), dtype=bool)
    changed[1:] = (stream[1:] != stream[:-1]) | (used[rows[1:]] != used[rows[:-1]])
    rows = rows[changed]
    ts = kv["ts"].to_numpy(dtype=np.int64)
    rows = rows[np.argsort(ts[rows], kind="stable")]
    total = streams.total[streams.of_row[rows]]
    data = {
        "timestamp_sec": ts[rows],
        "usage_pct": usage(used[rows], total),
        "num_blocks": used[rows],
        "total_blocks": nullable(total, total != UNKNOWN),
    }
    return frame_of(USAGE_COLUMNS, data)


def _mean(times: pd.Series) -> int | None:
    known = times.dropna()
    return round(Fraction(int(known.sum()), len(known))) if len(known) else None


def kv_cache_summary(trace: Trace) -> pd.DataFrame:
    """The figures of a recording in one row; no row where neither pool nor operation was recorded.

    Blocks that a prefix hit takes from the free queue are no allocations: blocks in use at the end
    are those at the beginning, plus allocations and revivals (`kv_block_events`), less
    deallocations. The two averages are there only where there were evictions.
    """
    kv, streams = trace.frames["kv"], pools(trace)
    if not streams.standard.any():
        return pd.DataFrame(columns=[c.name for c in SUMMARY_COLUMNS])
    mine = kv[streams.standard_rows()]
    total = streams.total[streams.standard]
    known_total = int(total.sum()) if (total != UNKNOWN).all() else UNKNOWN
    allocations = ids_of(mine.loc[mine["op"] == "alloc", "ids"])
    frees = mine[mine["op"] == "free"]
    freed = ids_of(frees["subset"]).filled_from(ids_of(frees["ids"]))
    peak = int(numbers(mine["used"], 0).max(initial=0))
    share = usage(np.array([peak]), np.array([known_total]))
    evictions = kv_cache_evictions(trace)
    data: dict[str, object] = {
        "Total blocks available": nullable(np.array([known_total]), np.array([known_total >= 0])),
        "Total allocations": int(allocations.lengths.sum()),
        "Total deallocations": int(freed.lengths.sum()),
        "Peak blocks used": peak,
        "Peak usage": share,
        "Total evictions": len(evictions),
    }
    if len(evictions):
        for name, times in (
            ("Avg block lifetime", evictions["lifetime_sec"]),
            ("Avg idle before eviction", evictions["idle_sec"]),
        ):
            data[name] = pd.array([_mean(times)], dtype="Int64")
    return pd.DataFrame(data)


TABLES = (
    Table(
        "kv_cache_usage",
        "One row per scheduler step in which the number of blocks in use changed.",
        USAGE_COLUMNS,
        kv_cache_usage,
        standard=True,
    ),
    Table(
        "kv_cache_summary",
        "The figures of the whole recording.",
        SUMMARY_COLUMNS,
        kv_cache_summary,
        standard=True,
        heading="KV Cache Statistics",
    ),
)
