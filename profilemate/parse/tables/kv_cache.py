"""`kv_cache_usage` and `kv_cache_summary`: how full the cache was."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from profilemate.parse.tables.base import Bools, Column, Table, frame_of, nullable
from profilemate.parse.tables.kv_lifetimes import evictions
from profilemate.parse.tables.pools import UNKNOWN, SchedulerSteps, pools, usage
from profilemate.parse.trace.kv_log import KvSlice
from profilemate.parse.trace.trace import Trace

Matrix = np.ndarray[Any, np.dtype[np.int64]]

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
    without any `sched.step` event each operation counts as a step (see `SchedulerSteps`). The
    number of blocks in use travels with every operation, so that a recording which starts in the
    middle of a run is right from its first row.
    """
    streams, steps, usages = pools(trace), SchedulerSteps(trace), _Usage()
    for part in trace.kv.slices(("pool", "ts", "used")):
        group, _ = steps.of(part)
        stream, used, ts = streams.of(part), part.ints("used", UNKNOWN), part.ints("ts")
        rows = np.flatnonzero(streams.standard[stream] & (used != UNKNOWN))
        usages.feed(np.stack([stream[rows], group[rows], used[rows], ts[rows]]))
    stream, _, used, ts = usages.found()
    order = np.argsort(ts, kind="stable")
    stream, used = stream[order], used[order]
    total = streams.total[stream]
    data = {
        "timestamp_sec": ts[order],
        "usage_pct": usage(used, total),
        "num_blocks": used,
        "total_blocks": nullable(total, total != UNKNOWN),
    }
    return frame_of(USAGE_COLUMNS, data)


class _Usage:
    """Of operations, the last one of each step, where usage is not what it was before.

    Operations are the columns of a matrix with four lines: stream, step, blocks in use, time (ns).
    """

    def __init__(self) -> None:
        self._open = np.empty((4, 0), dtype=np.int64)  # the last one so far: its step may go on
        self._latest = np.full((4, 1), -1, dtype=np.int64)  # the last one that was found
        self._found: list[Matrix] = []

    def feed(self, operations: Matrix) -> None:
        """Take operations, which follow those that were fed before."""
        operations = np.concatenate([self._open, operations], axis=1)
        self._open = operations[:, -1:]
        if operations.shape[1]:
            ends_step = (np.diff(operations[:2], axis=1) != 0).any(axis=0)
            self._take(operations[:, :-1][:, ends_step])

    def _take(self, last: Matrix) -> None:
        """Note those of these last operations of steps where usage changed."""
        before = np.concatenate([self._latest, last], axis=1)
        self._latest = before[:, -1:]
        self._found.append(last[:, (np.diff(before[[0, 2]], axis=1) != 0).any(axis=0)])

    def found(self) -> Matrix:
        """All of them, at the end."""
        self._take(self._open)
        return np.concatenate(self._found, axis=1)


def _mean(total: tuple[int, int]) -> int | None:
    return round(Fraction(*total)) if total[1] else None


@dataclass(slots=True)
class _Totals:
    allocated: int = 0
    freed: int = 0
    peak: int = 0

    def add(self, part: KvSlice, counts: Bools) -> None:
        """Add those operations up that count."""
        ids, changed = part.ids(), part.ids("subset")
        freed = np.where(changed.missing, ids.lengths, changed.lengths)
        self.allocated += int(ids.lengths[part.is_op("alloc") & counts].sum())
        self.freed += int(freed[part.is_op("free") & counts].sum())
        self.peak = max(self.peak, int(part.ints("used", 0)[counts].max(initial=0)))


def kv_cache_summary(trace: Trace) -> pd.DataFrame:
    """The figures of a recording in one row; no row where neither pool nor operation was recorded.

    Blocks that a prefix hit takes from the free queue are no allocations: blocks in use at the end
    are those at the beginning, plus allocations and revivals (`kv_block_events`), less
    deallocations. The two averages are there only where there were evictions.
    """
    streams = pools(trace)
    if not streams.standard.any():
        return pd.DataFrame(columns=[c.name for c in SUMMARY_COLUMNS])
    sums = _Totals()
    for part in trace.kv.slices(("pool", "op", "ids", "subset", "used")):
        sums.add(part, streams.standard[streams.of(part)])
    total = streams.total[streams.standard]
    known_total = int(total.sum()) if (total != UNKNOWN).all() else UNKNOWN
    share = usage(np.array([sums.peak]), np.array([known_total]))
    evicted = evictions(trace)
    data: dict[str, object] = {
        "Total blocks available": nullable(np.array([known_total]), np.array([known_total >= 0])),
        "Total allocations": sums.allocated,
        "Total deallocations": sums.freed,
        "Peak blocks used": sums.peak,
        "Peak usage": share,
        "Total evictions": evicted.count,
    }
    if evicted.count:
        data["Avg block lifetime"] = pd.array([_mean(evicted.lifetime)], dtype="Int64")
        data["Avg idle before eviction"] = pd.array([_mean(evicted.idle)], dtype="Int64")
    return pd.DataFrame(data)


TABLES = (
    Table(
        "kv_cache_usage",
        "One row per scheduler step in which the number of blocks in use changed.",
        USAGE_COLUMNS,
        kv_cache_usage,
        standard=True,
        events=("kv.usage", "kv.alloc", "kv.free"),
    ),
    Table(
        "kv_cache_summary",
        "The figures of the whole recording.",
        SUMMARY_COLUMNS,
        kv_cache_summary,
        standard=True,
        heading="KV Cache Statistics",
        events=("kv.usage", "kv.alloc", "kv.evict", "kv.free"),
    ),
)
