"""`kv_block_lifetimes` and `kv_cache_evictions`: how long blocks live, and how they end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.columns.partition import Divided
from profilemate.parse.tables.base import Bools, Column, Table, frame_of, nullable
from profilemate.parse.tables.lives import (
    CONNECTOR,
    ENDINGS,
    EVICTED,
    NEVER,
    OPEN,
    REUSED,
    Lives,
    lives,
    no_lives,
)
from profilemate.parse.tables.operations import Operations
from profilemate.parse.tables.pools import Pools, pools
from profilemate.parse.trace.kv_log import together
from profilemate.parse.trace.trace import Trace

LIFETIME_COLUMNS = (
    Column("pool", "value", "number of the BlockPool in its process (kv.pool)"),
    Column("block_id", "value", "vLLM's block id in that pool"),
    Column("group", "value", "KV cache group that cached it first (kv.cache), None if none did"),
    Column("request_id", "value", "request it was allocated for (kv.alloc), where known"),
    Column("allocated_sec", "fine_seconds", "begin of the get_new_blocks call (kv.alloc)"),
    Column("first_access_sec", "fine_seconds", "first touch after that (kv.touch)"),
    Column(
        "last_access_sec",
        "fine_seconds",
        "last touch, or the allocation if there was none: vLLM's definition; a free is no access",
    ),
    Column("freed_sec", "fine_seconds", "last time it joined the free queue (kv.free)"),
    Column(
        "ended_sec",
        "fine_seconds",
        "eviction (kv.evict), next allocation (kv.alloc) or reset (kv.reset)",
    ),
    Column("lifetime_sec", "fine_seconds", "from allocated to ended"),
    Column(
        "active_sec",
        "fine_seconds",
        "time in use (reference count above 0) while the recording saw the life: all of it if "
        "neither end is censored, else from the block's first event and to the recording's end",
    ),
    Column("idle_sec", "fine_seconds", "from last_access to ended"),
    Column("accesses", "value", "number of touches; the allocation is not one"),
    Column(
        "ended_by",
        "value",
        "evicted: its content made room for other; connector: a KV connector declared its content "
        "invalid; reused: allocated again, having nothing cached; reset: reset_prefix_cache; "
        "open: the recording ended first",
    ),
    Column(
        "cached",
        "value",
        "it was in the prefix cache at some time, None where that may have been earlier",
    ),
    Column("censored_start", "value", "it began before the recording or in a gap of it"),
    Column("censored_end", "value", "it had not ended when the recording did"),
    Column(
        "counted_by_vllm",
        "value",
        "vLLM's KVCacheMetricsCollector counts this life",
    ),
)

EVICTION_COLUMNS = (
    Column("timestamp_sec", "seconds", "begin of the call that evicted it (kv.evict)"),
    Column(
        "lifetime_sec",
        "seconds",
        "from the block's allocation (kv.alloc); None if that was not recorded",
    ),
    Column(
        "idle_sec",
        "seconds",
        "from its last touch (kv.touch), or from its allocation if it never was touched; None if "
        "neither was recorded",
    ),
)


_SORTED = 8  # slices that are sorted at a time


class _Times:
    """Time stamps of operations, of which some are `NEVER`."""

    def __init__(self, operations: Operations) -> None:
        self._ts = operations.ts

    def __call__(self, rows: Ints) -> pd.arrays.IntegerArray:
        known = rows != NEVER
        return nullable(self._ts[np.where(known, rows, 0)], known)

    def between(self, rows: Ints, ended: Ints, known: Bools) -> pd.arrays.IntegerArray:
        """How long before `ended` the rows were."""
        known = known & (rows != NEVER)
        return nullable(ended - self._ts[np.where(known, rows, 0)], known)


def _last_access(chunk: Lives) -> Ints:
    """Row of the last touch of each life, or of its allocation; `NEVER` where it has neither."""
    # A touch comes after the allocation, and NEVER is less than any row.
    return np.maximum(chunk.last_touch, chunk.allocated)


def kv_block_lifetimes(trace: Trace) -> pd.DataFrame:
    """One row per life of a block, in order of (process, pool, block, time).

    A life begins with `get_new_blocks` and ends when the content is evicted, when the block is
    handed out again without having had any (`reused`), when the prefix cache is reset, or with the
    recording. A touch of a cached block that nobody uses revives it: the life goes on. An eviction
    by a connector ends the life of the content although the block may stay in use: what it does
    from then on is a life of its own that has no allocation. A content that moves to another block
    changes no life: like vLLM's collector this table follows blocks.

    Of a life that began before the recording only what was seen is told: allocation, lifetime and
    what else depends on it are None, `censored_start` is True. A block without any event in the
    recording has no row.
    """
    return together([*lifetime_slices(trace)])


def lifetime_slices(trace: Trace) -> Iterator[pd.DataFrame]:
    """The table `kv_block_lifetimes`, slice by slice."""
    every, streams = lives(trace), pools(trace)
    none = True
    for chunk in every:
        yield _lifetimes(chunk, streams, every.operations)
        none = False
    if none:
        yield _lifetimes(no_lives(), streams, every.operations)


def _lifetimes(chunk: Lives, streams: Pools, kv: Operations) -> pd.DataFrame:
    """Some rows of the table `kv_block_lifetimes`."""
    at = _Times(kv)
    has_ended = chunk.ending != OPEN
    allocated, last_access = chunk.allocated != NEVER, _last_access(chunk)
    censored_start = ~allocated & ~chunk.after_connector
    has_group = chunk.cached != NEVER
    # The hooks leave group 0 out, as it is the only one of most models.
    group = kv.group(np.where(has_group, chunk.cached, 0))
    unsure = ~chunk.had_content & censored_start & (chunk.ending != REUSED)
    caching = streams.caching[chunk.stream]
    counted = (chunk.ending == EVICTED) | (chunk.ending == CONNECTOR)
    counted |= (chunk.ending == REUSED) & caching
    request = np.where(allocated, kv.request(np.where(allocated, chunk.allocated, 0)), -1)
    data = {
        "pool": streams.numbers[chunk.stream],
        "block_id": chunk.block,
        "group": nullable(group, has_group),
        "request_id": kv.texts.column(request),
        "allocated_sec": at(chunk.allocated),
        "first_access_sec": at(chunk.first_touch),
        "last_access_sec": at(last_access),
        "freed_sec": at(chunk.freed),
        "ended_sec": nullable(chunk.ended, has_ended),
        "lifetime_sec": at.between(chunk.allocated, chunk.ended, has_ended),
        "active_sec": chunk.active,
        "idle_sec": at.between(last_access, chunk.ended, has_ended),
        "accesses": chunk.touches,
        "ended_by": pd.Categorical.from_codes(chunk.ending, categories=pd.Index(ENDINGS)),
        "cached": pd.arrays.BooleanArray(chunk.had_content, unsure),
        "censored_start": censored_start,
        "censored_end": ~has_ended,
        "counted_by_vllm": counted & allocated,
    }
    return frame_of(LIFETIME_COLUMNS, data)


def kv_cache_evictions(trace: Trace) -> pd.DataFrame:
    """One row per eviction of cached content, in order of time.

    These are the calls of `_maybe_evict_cached_block` that said True: to make room for an
    allocation, or because a KV connector invalidated the content (`evict_blocks`). Blocks that are
    handed out again without cached content are no evictions; see `kv_block_lifetimes`.
    """
    return together([*eviction_slices(trace)])


def eviction_slices(trace: Trace) -> Iterator[pd.DataFrame]:
    """The table `kv_cache_evictions`, slice by slice."""
    every, streams = lives(trace), pools(trace)
    at = _Times(every.operations)
    most = trace.kv.budget.rows
    evicted = Divided(trace.kv.budget, _SORTED * most)
    for chunk in every:
        rows = _evicted(chunk, streams)
        evicted.add(
            {
                "ended": chunk.ended[rows],
                "end_row": chunk.end_row[rows],
                "allocated": chunk.allocated[rows],
                "access": _last_access(chunk)[rows],
            }
        )
    if not len(evicted):
        yield _evictions(at, *(np.empty(0, dtype=np.int64) for _ in range(3)))
    for part in evicted.parts(lambda rows: rows["ended"]):
        order = np.lexsort((part["end_row"], part["ended"]))
        for first in range(0, len(order), most):
            rows = order[first : first + most]
            yield _evictions(at, *(part[n][rows] for n in ("ended", "allocated", "access")))


def _evictions(at: _Times, ended: Ints, allocated: Ints, access: Ints) -> pd.DataFrame:
    known = np.ones(len(ended), dtype=bool)
    data = {
        "timestamp_sec": nullable(ended, known),
        "lifetime_sec": at.between(allocated, ended, known),
        "idle_sec": at.between(access, ended, known),
    }
    return frame_of(EVICTION_COLUMNS, data)


@dataclass(frozen=True, slots=True)
class Evictions:
    """What the rows of `kv_cache_evictions` add up to.

    Attributes:
        count: How many there are.
        lifetime, idle: Sum, ns, and number of those that are known.
    """

    count: int
    lifetime: tuple[int, int]
    idle: tuple[int, int]


def evictions(trace: Trace) -> Evictions:
    """Add the evictions up."""
    every, streams = lives(trace), pools(trace)
    count, sums = 0, [[0, 0], [0, 0]]
    for chunk in every:
        rows = _evicted(chunk, streams)
        count += len(rows)
        for total, since in zip(sums, (chunk.allocated, _last_access(chunk)), strict=True):
            known = rows[since[rows] != NEVER]
            total[0] += int((chunk.ended[known] - every.operations.ts[since[known]]).sum())
            total[1] += len(known)
    (lifetime, lifetimes), (idle, idles) = sums
    return Evictions(count, (lifetime, lifetimes), (idle, idles))


def _evicted(chunk: Lives, streams: Pools) -> Ints:
    """Which lives (indices) end with an eviction that the standard files are about."""
    evicted = (chunk.ending == EVICTED) | (chunk.ending == CONNECTOR)
    return np.flatnonzero(evicted & streams.standard[chunk.stream])


TABLES = (
    Table(
        "kv_cache_evictions",
        "One row per eviction of cached content, in order of time.",
        EVICTION_COLUMNS,
        kv_cache_evictions,
        standard=True,
        slices=eviction_slices,
        events=("kv.alloc", "kv.evict", "kv.touch", "kv.free", "kv.reset"),
    ),
    Table(
        "kv_block_lifetimes",
        "One row per life of a block: from its allocation to the end of its content.",
        LIFETIME_COLUMNS,
        kv_block_lifetimes,
        slices=lifetime_slices,
        events=("kv.alloc", "kv.evict", "kv.touch", "kv.free", "kv.reset"),
    ),
)
