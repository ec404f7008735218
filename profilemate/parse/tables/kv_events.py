"""`kv_block_events`: the ordered log of block operations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import NONE
from profilemate.parse.columns.pandas import column_of, integers
from profilemate.parse.tables.base import Column, Table, frame_of, nullable
from profilemate.parse.tables.pools import UNKNOWN, Pools, SchedulerSteps, pools, usage
from profilemate.parse.trace.event_columns import KV_COLUMNS
from profilemate.parse.trace.kv_log import KvSlice, empty_slice, together
from profilemate.parse.trace.trace import Trace

COLUMNS = (
    Column("timestamp_sec", "fine_seconds", "begin of the operation"),
    Column("duration_ms", "milliseconds", "how long vLLM's call took on the host"),
    Column(
        "step",
        "value",
        "number of the Scheduler.schedule call it lies in or precedes (sched.step), None after "
        "the last one",
    ),
    Column(
        "op",
        "value",
        "alloc: get_new_blocks; evict: cached content lost; cache: content enters the prefix "
        "cache; touch: a reference more; free: a reference less; move: a cache entry changes its "
        "block; reset: reset_prefix_cache; usage: usage changed in a way no hook saw",
    ),
    Column("pool", "value", "number of the BlockPool in its process (kv.pool)"),
    Column("blocks", "ids", "block ids, in the order of the call; of a move: the sources"),
    Column("num_blocks", "value", "how many these are"),
    Column(
        "changed_blocks",
        "ids",
        "those that left the free queue (alloc, touch) or joined it (free); None for other ops",
    ),
    Column("num_changed", "value", "how many these are"),
    Column("dst_blocks", "ids", "of a move: the blocks that hold the entries afterwards"),
    Column("used_blocks", "value", "blocks in use after the operation"),
    Column("usage_pct", "percent", "the same as a share of the pool, as BlockPool.get_usage"),
    Column("request_id", "value", "vLLM's id of the request it was done for, where known"),
    Column("group", "value", "of cache: the KV cache group"),
    Column("partial", "value", "of cache: the prefix ends inside the block"),
    Column("hit", "value", "of touch: a prefix hit, not a pin"),
    Column("cause", "value", "of evict: alloc (to make room) or connector (invalidated)"),
    Column("ok", "value", "of reset: False where blocks were in use and nothing was reset"),
)

_NEEDED = tuple(name for name in KV_COLUMNS if name not in ("pid", "tid", "seq"))


def kv_block_events(trace: Trace) -> pd.DataFrame:
    """One row per block operation, in the order in which each process did them."""
    return together([*event_slices(trace)])


def event_slices(trace: Trace) -> Iterator[pd.DataFrame]:
    """The table `kv_block_events`, slice by slice."""
    streams, steps = pools(trace), SchedulerSteps(trace)
    for part in trace.kv.slices(_NEEDED):
        yield _events(part, streams, steps)
    if not len(trace.kv):
        yield _events(empty_slice(_NEEDED), streams, steps)


def _events(part: KvSlice, streams: Pools, steps: SchedulerSteps) -> pd.DataFrame:
    """Some rows of the table."""
    _, step = steps.of(part)
    ids, group = part.ids(), part.ints("group")
    moves_queue = part.is_op("alloc", "touch", "free")
    changed = part.ids("subset").filled_from(ids).only(moves_queue)
    total, used = streams.total[streams.of(part)], part.ints("used", UNKNOWN)
    data = {
        "timestamp_sec": part.column("ts"),
        "duration_ms": part.column("dur"),
        "step": nullable(step, step != UNKNOWN),
        "op": part.column("op"),
        "pool": part.column("pool"),
        "blocks": part.column("ids"),
        "num_blocks": nullable(ids.lengths, ~ids.missing),
        "changed_blocks": column_of(changed),
        "num_changed": nullable(changed.lengths, moves_queue & ~ids.missing),
        "dst_blocks": part.column("dst"),
        "used_blocks": part.column("used"),
        "usage_pct": usage(used, total),
        "request_id": part.column("req"),
        # The hooks leave group 0 out, as it is the only one of most models.
        "group": integers(np.where(part.is_op("cache") & (group == NONE), 0, group)),
        "partial": part.column("partial"),
        "hit": part.column("hit"),
        "cause": part.column("cause"),
        "ok": part.column("ok"),
    }
    return frame_of(COLUMNS, data)


TABLES = (
    Table(
        "kv_block_events",
        "The ordered log of block operations.",
        COLUMNS,
        kv_block_events,
        slices=event_slices,
        events=("kv.alloc", "kv.evict", "kv.cache", "kv.touch", "kv.free", "kv.move", "kv.reset"),
    ),
)
