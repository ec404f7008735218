"""The lives of blocks: what `kv_block_lifetimes`, `kv_cache_evictions` and the summary stand on."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import pandas as pd

from profilemate.parse.tables.base import Bools, Ints, flags
from profilemate.parse.tables.block_log import (
    ALLOC,
    CACHE,
    EVICT,
    FREE,
    MOVE_IN,
    MOVE_OUT,
    RESTART,
    TOUCH,
    BlockLog,
    block_log,
)
from profilemate.parse.tables.pools import Pools, pools
from profilemate.parse.trace import Trace

ENDINGS = ("evicted", "connector", "reused", "reset", "open")
EVICTED, CONNECTOR, REUSED, RESET, OPEN = range(len(ENDINGS))

NEVER = -1
"""In an array of rows: it did not happen, or not while the recording ran."""


@dataclass(frozen=True, slots=True)
class Lives:
    """One element per life of a block, ordered by stream, block and time.

    A life begins with an allocation and ends when the block's content is evicted, when the block
    is allocated again without having had any (reused), or when the prefix cache is reset. An
    eviction by a connector takes the content of a block that may be in use: then a life goes on
    that has no allocation of its own. Rows are rows of the frame `kv`, or `NEVER`.

    Attributes:
        stream, block: Which block, see `Pools`.
        allocated, first_touch, last_touch, freed, cached: Rows of the allocation, of the first and
            last touch, of the last time it joined the free queue, and of the first time it got a
            hash.
        touches: Number of touches.
        had_content: It was seen to be in the prefix cache at some time.
        after_connector: The life goes on after an eviction by a connector.
        ending: Index in `ENDINGS`.
        ended: When it ended, ns; for an open life the end of the recording.
        end_row: Row of the operation that ended it; the last row of an open life.
        active: How long it was in use, ns, while it was seen.
    """

    stream: Ints
    block: Ints
    allocated: Ints
    first_touch: Ints
    last_touch: Ints
    freed: Ints
    cached: Ints
    touches: Ints
    had_content: Bools
    after_connector: Bools
    ending: Ints
    ended: Ints
    end_row: Ints
    active: Ints


@dataclass(frozen=True, slots=True)
class Resets:
    """Successful resets of the prefix cache: which ones came before a row, and when they were."""

    before_row: Ints  # per row of kv: number of resets of its stream so far
    offset: Ints  # per stream: where its resets start in the following arrays
    count: Ints  # per stream
    row: Ints
    ts: Ints


def _resets(kv: pd.DataFrame, streams: Pools, ts: Ints) -> Resets:
    is_reset = (kv["op"] == "reset").to_numpy(dtype=bool, na_value=False) & flags(kv["ok"])
    rows = np.flatnonzero(is_reset)
    rows = rows[np.argsort(streams.of_row[rows], kind="stable")]
    count = np.bincount(streams.of_row[rows], minlength=len(streams.pids))
    before = np.zeros(len(kv), dtype=np.int64)
    for stream in np.flatnonzero(count):
        mine = np.flatnonzero(streams.of_row == stream)
        before[mine] = np.cumsum(is_reset[mine])
    return Resets(before, np.cumsum(count) - count, count, rows, ts[rows])


def _in_use(log: BlockLog, fresh: Bools) -> Bools:
    """Whether the block is in use after each entry.

    An allocation or a touch leaves it in use, a free says it in `changed`, and content is cached
    or moved only for a request that holds the block. An eviction changes nothing and says nothing:
    a block whose first entry it is (`fresh`) counts as free until the next one.
    """
    says_nothing = (log.kind == EVICT) | (log.kind == RESTART)
    used = np.where(log.kind == FREE, ~log.changed, ~says_nothing)
    tells = fresh | ~says_nothing
    return used[np.maximum.accumulate(np.where(tells, np.arange(len(used)), 0))]


def _endings(
    log: BlockLog, kv: pd.DataFrame, resets: Resets, stream: Ints, last: Ints, end_of_trace: int
) -> tuple[Ints, Ints, Ints]:
    """How the lives with these last entries end, when, and in which row of `kv`."""
    ts = kv["ts"].to_numpy(dtype=np.int64)
    row = log.row[last]
    followed = np.append(~log.first[1:], False)[last]
    next_row = log.row[np.minimum(last + 1, len(log.row) - 1)]
    passed = resets.before_row[row]
    until = np.where(followed, resets.before_row[next_row], resets.count[stream])
    evicted = log.kind[last] == EVICT
    connector = (kv["cause"] == "connector").to_numpy(dtype=bool, na_value=False)[row]
    reset = ~evicted & (passed < until)
    reused = ~evicted & ~reset & followed
    ending = np.select(
        [evicted & connector, evicted, reset, reused], [CONNECTOR, EVICTED, RESET, REUSED], OPEN
    )
    ended, end_row = np.where(evicted, ts[row], end_of_trace), row.copy()
    index = (resets.offset[stream] + passed)[reset]
    ended[reset], end_row[reset] = resets.ts[index], resets.row[index]
    ended[reused], end_row[reused] = ts[next_row[reused]], next_row[reused]
    return ending, ended, end_row


_last: tuple[weakref.ref[pd.DataFrame], weakref.ref[pd.DataFrame], int, Lives] | None = None


def lives(trace: Trace) -> Lives:
    """Follow every block through the trace.

    Three tables ask for the same, which is the dearest computation of all: the last answer is kept
    for as long as its frames live. (Nobody changes the frames of a trace in place.)
    """
    global _last
    kv, said = trace.frames["kv"], trace.frames["kv.pool"]
    if _last is not None:
        its_kv, its_pools, end, found = _last
        if its_kv() is kv and its_pools() is said and end == trace.window[1]:
            return found
    found = _lives(trace)

    def forget(_: object) -> None:
        global _last
        _last = None

    _last = weakref.ref(kv, forget), weakref.ref(said), trace.window[1], found
    return found


def _lives(trace: Trace) -> Lives:
    kv = trace.frames["kv"]
    streams = pools(trace)
    log = block_log(kv, streams)
    count = len(log.row)
    ts = kv["ts"].to_numpy(dtype=np.int64)
    resets = _resets(kv, streams, ts)
    fresh = log.first.copy()
    after = np.zeros(count, dtype=bool)
    after[1:] = resets.before_row[log.row[1:]] != resets.before_row[log.row[:-1]]
    fresh |= after
    begins = fresh | (log.kind == ALLOC)
    begins[1:] |= log.kind[:-1] == EVICT
    in_use = _in_use(log, fresh)

    start = np.flatnonzero(begins)
    last = np.append(start[1:], count) - 1 if len(start) else start
    # What is left of a block that was free when a connector evicted it is no life.
    lasting = ~((start == last) & (log.kind[start] == RESTART) & ~in_use[start])
    stream = streams.of_row[log.row[start]]
    end_of_trace = max(trace.window[1], int(ts.max(initial=0)))
    ending, ended, end_row = _endings(log, kv, resets, stream, last, end_of_trace)

    at = ts[log.row]
    until = np.append(at[1:], 0)
    until[last] = ended

    def row_of(wanted: Bools, *, latest: bool = False) -> Ints:
        if not len(start):
            return start
        if latest:
            return np.maximum.reduceat(np.where(wanted, log.row, NEVER), start)
        found = np.minimum.reduceat(np.where(wanted, log.row, len(kv)), start)
        return np.where(found == len(kv), NEVER, found)

    def total(values: Ints | Bools) -> Ints:
        return np.add.reduceat(values, start, dtype=np.int64) if len(start) else start

    touch = log.kind == TOUCH
    content = np.isin(log.kind, (CACHE, MOVE_OUT, MOVE_IN, EVICT))
    # A prefix hit, and a touch that takes a block from the free queue, found it by its content.
    content |= touch & (log.changed | flags(kv["hit"])[log.row])
    columns = {
        "stream": stream,
        "block": log.block(start),
        "allocated": row_of(log.kind == ALLOC),
        "first_touch": row_of(touch),
        "last_touch": row_of(touch, latest=True),
        "freed": row_of((log.kind == FREE) & log.changed, latest=True),
        "cached": row_of(log.kind == CACHE),
        "touches": total(touch),
        "had_content": total(content) > 0,
        "after_connector": log.kind[start] == RESTART,
        "ending": ending,
        "ended": ended,
        "end_row": end_row,
        "active": total(np.where(in_use, until - at, 0)),
    }
    return Lives(**{name: values[lasting] for name, values in columns.items()})
