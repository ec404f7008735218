"""The lives of blocks: what `kv_block_lifetimes`, `kv_cache_evictions` and the summary stand on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from profilemate.parse.columns.arrays import FOREVER, Ints
from profilemate.parse.columns.partition import Batches
from profilemate.parse.tables.base import Bools
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
from profilemate.parse.tables.block_order import BlockOrder
from profilemate.parse.tables.block_parts import BlockParts, Part
from profilemate.parse.tables.operations import NEEDED, Operations, Resets
from profilemate.parse.tables.pools import pools
from profilemate.parse.trace.trace import Trace, once_per_trace

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
        order: What cannot follow each other in them.
    """

    def __init__(self, trace: Trace) -> None:
        log, streams = trace.kv, pools(trace)
        self.operations, resets = Operations(log), Resets()
        self._chunks, self._end = Batches(log.budget, log.budget.entries), trace.window[1]
        blocks, self.order = BlockParts(log.budget), BlockOrder()
        for part in log.slices(NEEDED):
            self.operations.take(part)
            resets.take(part, streams)
            blocks.add(entries_of(part, streams))
            self._end = max(self._end, int(part.ints("ts").max()))
        for some_blocks in blocks.parts():
            self.order.take(some_blocks)
            every = _lives(some_blocks, self.operations, resets, self._end)
            self._put_aside(every, log.budget.rows)

    def _put_aside(self, every: Lives, rows: int) -> None:
        """Put lives aside, so many at a time."""
        for first in range(0, len(every.stream), rows):
            chunk = slice(first, first + rows)
            self._chunks.add({name: getattr(every, name)[chunk] for name in _STORED})

    def __iter__(self) -> Iterator[Lives]:
        """All lives, in order."""
        for number in range(len(self._chunks)):
            columns = self._chunks.get(number)
            for name in _FLAGS:
                columns[name] = columns[name].astype(bool)
            end_ns = self.operations.ts[columns["end_row"]]
            yield Lives(**columns, ended=np.where(columns["ending"] == OPEN, self._end, end_ns))


_FLAGS = ("had_content", "after_connector")
_STORED = tuple(f.name for f in fields(Lives) if f.name != "ended")  # which its row says


def no_lives() -> Lives:
    """None at all."""
    none: dict[str, Any] = {f.name: np.empty(0, dtype=np.int64) for f in fields(Lives)}
    return Lives(**none | {name: np.empty(0, dtype=bool) for name in _FLAGS})


@once_per_trace
def lives(trace: Trace) -> AllLives:
    """Follow every block through the trace.

    Three tables ask for the same, which is the dearest computation of all: it is done once.
    """
    return AllLives(trace)


def _in_use(log: BlockLog, fresh: Bools) -> Bools:
    """Whether the block is in use after each of the n entries: a mask of length n.

    An allocation or a touch leaves it in use, a free says it in `changed`, and content is cached
    or moved only for a request that holds the block. An eviction changes nothing and says nothing:
    a block whose first entry it is (`fresh`) counts as free until the next one.
    """
    says_nothing = (log.kind == EVICT) | (log.kind == RESTART)
    used = np.where(log.kind == FREE, ~log.changed, ~says_nothing)
    # What says nothing leaves the block as the latest entry did that says something.
    says = fresh | ~says_nothing
    return used[np.maximum.accumulate(np.where(says, np.arange(len(used)), 0))]


def _endings(part: Part, kv: Operations, resets: Resets, last: Ints) -> tuple[Ints, Ints]:
    """How m lives end: the index in `ENDINGS`, and the row of the log; length m each.

    Args:
        part: What happened to their blocks.
        kv: The operations.
        resets: The resets of the prefix cache.
        last: The last entry of each life, length m.
    """
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
    """The lives of some blocks: the log of each block is cut into them.

    A life is a run of entries of one block. It begins with the first entry of the block, the first
    after a reset of the prefix cache, an allocation, or what follows an eviction; it goes on to the
    entry before the next one begins. Its figures are then sums, minima and maxima over its run.

    Args:
        part: All that happened to these blocks: n entries.
        kv: The operations that the entries are of.
        resets: The resets of the prefix cache.
        end_of_trace: When an open life ends, ns.

    Returns:
        One element per life, in the order of the entries.
    """
    log = part.log
    fresh = log.first.copy()  # entries before which nothing is known of the block's content
    passed = resets.before(part.stream, log.row)
    fresh[1:] |= passed[1:] != passed[:-1]
    begins = fresh | (log.kind == ALLOC)
    begins[1:] |= log.kind[:-1] == EVICT
    in_use = _in_use(log, fresh)

    runs = _Runs(log.row, begins)
    start, last = runs.start, runs.last
    # What a connector evicts of a block that is free, and nothing after it: no life goes on.
    lasting = ~((start == last) & (log.kind[start] == RESTART) & ~in_use[start])
    ending, end_row = _endings(part, kv, resets, last)
    ended = np.where(ending == OPEN, end_of_trace, kv.ts[end_row])

    # Each entry holds until the next one of its life, the last one until the life ends.
    entry_ns = kv.ts[log.row]
    until_ns = np.append(entry_ns[1:], 0)
    until_ns[last] = ended

    touch = log.kind == TOUCH
    content = np.isin(log.kind, (CACHE, MOVE_OUT, MOVE_IN, EVICT))
    # A prefix hit, and a touch that takes a block from the free queue, found it by its content.
    content |= touch & (log.changed | kv.hit(log.row))
    columns = {
        "stream": part.stream[start],
        "block": part.block[start],
        "allocated": runs.first_row(log.kind == ALLOC),
        "first_touch": runs.first_row(touch),
        "last_touch": runs.last_row(touch),
        "freed": runs.last_row((log.kind == FREE) & log.changed),
        "cached": runs.first_row(log.kind == CACHE),
        "touches": runs.total(touch),
        "had_content": runs.total(content) > 0,
        "after_connector": log.kind[start] == RESTART,
        "ending": ending,
        "ended": ended,
        "end_row": end_row,
        "active": runs.total(np.where(in_use, until_ns - entry_ns, 0)),
    }
    return Lives(**{name: values[lasting] for name, values in columns.items()})


class _Runs:
    """n entries cut into m runs, and what can be said of each run: arrays of length m.

    Attributes:
        start, last: First and last entry of each run.

    Args:
        row: Row of the log of each entry; it rises within a run.
        begins: Entries that begin a run; the first one does, if there is any.
    """

    def __init__(self, row: Ints, begins: Bools) -> None:
        self._row = row
        self.start = np.flatnonzero(begins)
        self.last = np.append(self.start[1:], len(row))[: len(self.start)] - 1

    def first_row(self, wanted: Bools) -> Ints:
        """Row of the first wanted entry (a mask, length n) of each run, `NEVER` for none."""
        if not len(self.start):
            return self.start
        row = np.minimum.reduceat(np.where(wanted, self._row, FOREVER), self.start)
        return np.where(row == FOREVER, NEVER, row)

    def last_row(self, wanted: Bools) -> Ints:
        """Row of the last wanted entry (a mask, length n) of each run, `NEVER` for none."""
        if not len(self.start):
            return self.start
        return np.maximum.reduceat(np.where(wanted, self._row, NEVER), self.start)

    def total(self, values: Ints | Bools) -> Ints:
        """Sum of the values of its entries (length n)."""
        if not len(self.start):
            return self.start
        return np.add.reduceat(values, self.start, dtype=np.int64)
