"""The lives of blocks: what `kv_block_lifetimes`, `kv_cache_evictions` and the summary stand on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.columns.packed import pack, unpack
from profilemate.parse.columns.spool import Blocks
from profilemate.parse.tables.base import Bools, kept
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
    entries_of,
)
from profilemate.parse.tables.block_parts import BlockParts, Part
from profilemate.parse.tables.operations import NEEDED, Operations, Resets
from profilemate.parse.tables.pools import pools
from profilemate.parse.trace.trace import Trace

ENDINGS = ("evicted", "connector", "reused", "reset", "open")
EVICTED, CONNECTOR, REUSED, RESET, OPEN = range(len(ENDINGS))

NEVER = -1
"""In an array of rows of the log: it did not happen, or not while the recording ran."""


@dataclass(frozen=True, slots=True)
class Lives:
    """One element per life of a block, ordered by stream, block and time.

    A life begins with an allocation and ends when the block's content is evicted, when the block
    is allocated again without having had any (reused), or when the prefix cache is reset. An
    eviction by a connector takes the content of a block that may be in use: then a life goes on
    that has no allocation of its own. Rows are rows of the log, or `NEVER`.

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


class AllLives:
    """The lives of all blocks: found once, put aside, and given back chunk by chunk.

    Attributes:
        operations: The operations that lives name by their row.
    """

    def __init__(self, trace: Trace) -> None:
        log, streams = trace.kv, pools(trace)
        self.operations, resets = Operations(log), Resets({})
        self._blocks, self._end = Blocks(log.budget), trace.window[1]
        blocks = BlockParts(log.budget)
        for part in log.slices(NEEDED):
            self.operations.take(part)
            resets.take(part, streams)
            blocks.add(entries_of(part, streams))
            self._end = max(self._end, int(part.frame["ts"].max()))
        for some in blocks.parts():
            self._keep(_lives(some, self.operations, resets, self._end), log.budget.rows)

    def _keep(self, found: Lives, most: int) -> None:
        for first in range(0, len(found.stream), most):
            chunk = slice(first, first + most)
            self._blocks.add(pack({name: getattr(found, name)[chunk] for name in _KEPT}))

    def __iter__(self) -> Iterator[Lives]:
        """All lives, in order."""
        for number in range(len(self._blocks)):
            kept = unpack(self._blocks[number])
            for name in _FLAGS:
                kept[name] = kept[name].astype(bool)
            at = self.operations.ts[kept["end_row"]]
            yield Lives(**kept, ended=np.where(kept["ending"] == OPEN, self._end, at))


_FLAGS = ("had_content", "after_connector")
_KEPT = tuple(f.name for f in fields(Lives) if f.name != "ended")  # which its row tells


def no_lives() -> Lives:
    """None at all."""
    none: dict[str, Any] = {f.name: np.empty(0, dtype=np.int64) for f in fields(Lives)}
    return Lives(**none | {name: np.empty(0, dtype=bool) for name in _FLAGS})


def lives(trace: Trace) -> AllLives:
    """Follow every block through the trace.

    Three tables ask for the same, which is the dearest computation of all: it is done once.
    """
    return kept(trace, "lives", (trace.kv, trace.frames["kv.pool"], trace.window[1]), AllLives)


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


def _endings(part: Part, kv: Operations, resets: Resets, last: Ints) -> tuple[Ints, Ints]:
    """How the lives with these last entries end, and in which row of the log."""
    log, stream, row = part.log, part.stream[last], part.log.row[last]
    followed = np.append(~log.first[1:], False)[last]
    next_row = log.row[np.minimum(last + 1, len(log.row) - 1)]
    passed = resets.before(stream, row)
    until = np.where(followed, resets.before(stream, next_row), resets.count(stream))
    evicted = log.kind[last] == EVICT
    connector = kv.by_connector(row)
    reset = ~evicted & (passed < until)
    reused = ~evicted & ~reset & followed
    ending = np.select(
        [evicted & connector, evicted, reset, reused], [CONNECTOR, EVICTED, RESET, REUSED], OPEN
    )
    end_row = np.where(reused, next_row, row)
    end_row[reset] = resets.row_of(stream[reset], passed[reset])
    return ending, end_row


def _lives(part: Part, kv: Operations, resets: Resets, end_of_trace: int) -> Lives:
    log = part.log
    count = len(log.row)
    fresh = log.first.copy()
    passed = resets.before(part.stream, log.row)
    fresh[1:] |= passed[1:] != passed[:-1]
    begins = fresh | (log.kind == ALLOC)
    begins[1:] |= log.kind[:-1] == EVICT
    in_use = _in_use(log, fresh)

    start = np.flatnonzero(begins)
    last = np.append(start[1:], count) - 1 if len(start) else start
    # What is left of a block that was free when a connector evicted it is no life.
    lasting = ~((start == last) & (log.kind[start] == RESTART) & ~in_use[start])
    ending, end_row = _endings(part, kv, resets, last)
    ended = np.where(ending == OPEN, end_of_trace, kv.ts[end_row])

    at = kv.ts[log.row]
    until = np.append(at[1:], 0)
    until[last] = ended

    def row_of(wanted: Bools, *, latest: bool = False) -> Ints:
        if not len(start):
            return start
        if latest:
            return np.maximum.reduceat(np.where(wanted, log.row, NEVER), start)
        never = 1 << 62
        found = np.minimum.reduceat(np.where(wanted, log.row, never), start)
        return np.where(found == never, NEVER, found)

    def total(values: Ints | Bools) -> Ints:
        return np.add.reduceat(values, start, dtype=np.int64) if len(start) else start

    touch = log.kind == TOUCH
    content = np.isin(log.kind, (CACHE, MOVE_OUT, MOVE_IN, EVICT))
    # A prefix hit, and a touch that takes a block from the free queue, found it by its content.
    content |= touch & (log.changed | kv.hit(log.row))
    columns = {
        "stream": part.stream[start],
        "block": part.block[start],
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
