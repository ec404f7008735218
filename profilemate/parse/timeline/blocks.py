"""How many blocks of a pool are in use, cached but free, or empty, after every operation.

The number in use travels with each operation. Which of the free blocks still hold cached content
follows from the log: chunk by chunk, with two flags a block, so that ten million operations need
no more memory than one chunk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Bools, Ints
from profilemate.parse.columns.id_lists import IdLists
from profilemate.parse.trace.kv_log import KvSlice

_KEEP, _CLEAR, _SET = -1, 0, 1
Flags = npt.NDArray[np.int8]


class CachedFree:
    """Follows the blocks of one pool through its log of operations.

    Blocks that were cached before the recording began are not known to be, until a prefix hit
    takes one of them from the free queue.

    Attributes:
        count: Blocks that are free and hold cached content, after what was fed so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._used = np.zeros(1024, dtype=bool)
        self._cached = np.zeros(1024, dtype=bool)

    def feed(self, part: KvSlice) -> Ints:
        """The count after each of these operations, which follow those that were fed before."""
        result = np.empty(len(part), dtype=np.int64)
        # A reset that does not say how it went did what it was asked for.
        resets = np.flatnonzero(part.is_op("reset") & (part.ints("ok") != 0))
        begin = 0
        for reset in (*resets.tolist(), len(part)):
            result[begin:reset] = self._feed(part.pick(slice(begin, reset)))
            if reset < len(part):
                self._cached[:] = False
                self.count = 0
                result[reset] = 0
            begin = reset + 1
        return result

    def _feed(self, part: KvSlice) -> Ints:
        """The count after each of these operations, among which is no reset."""
        rows, blocks, used, cached = self._entries(part)
        if not len(rows):
            return np.full(len(part), self.count, dtype=np.int64)
        self._grow(int(blocks.max()))
        order = np.lexsort((cached, rows, blocks))  # of one operation, what says more comes last
        rows, blocks, used, cached = rows[order], blocks[order], used[order], cached[order]
        first = np.ones(len(rows), dtype=bool)
        first[1:] = blocks[1:] != blocks[:-1]
        is_used = _filled(used, first, self._used[blocks])
        is_cached = _filled(cached, first, self._cached[blocks])
        after = is_cached & ~is_used
        before = np.empty(len(rows), dtype=bool)
        before[1:] = after[:-1]
        before[first] = (self._cached & ~self._used)[blocks[first]]
        change = np.zeros(len(part), dtype=np.int64)
        np.add.at(change, rows, after.astype(np.int64) - before)
        last = np.append(first[1:], True)
        self._used[blocks[last]] = is_used[last]
        self._cached[blocks[last]] = is_cached[last]
        counts: Ints = self.count + np.cumsum(change)
        self.count = int(counts[-1])
        return counts

    def _grow(self, largest: int) -> None:
        missing = largest + 1 - len(self._used)
        if missing > 0:
            more = np.zeros(max(missing, len(self._used)), dtype=bool)
            self._used = np.concatenate([self._used, more])
            self._cached = np.concatenate([self._cached, more])

    def _entries(self, part: KvSlice) -> tuple[Ints, Ints, Flags, Flags]:
        """One entry per block that an operation changes: row, block, used and cached after it."""
        ids, dst = part.ids(), part.ids("dst")
        changed = part.ids("subset").filled_from(ids)
        parts = [
            _spread(ids, part.is_op("alloc"), _SET, _KEEP),
            _spread(ids, part.is_op("touch"), _SET, _KEEP),
            _spread(changed, part.is_op("touch"), _SET, _SET),  # only cached ones are found again
            _spread(changed, part.is_op("free"), _CLEAR, _KEEP),
            _spread(ids, part.is_op("cache"), _SET, _SET),  # by the request that holds them
            _spread(ids, part.is_op("evict", "move"), _KEEP, _CLEAR),
            _spread(dst, part.is_op("move"), _KEEP, _SET),
        ]
        rows, blocks = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
        flags = [
            np.concatenate([np.full(len(p[0]), p[i], dtype=np.int8) for p in parts]) for i in (2, 3)
        ]
        real = blocks != 0  # the null block is never really used
        return rows[real], blocks[real], flags[0][real], flags[1][real]


def _spread(lists: IdLists, wanted: Bools, used: int, cached: int) -> tuple[Ints, Ints, int, int]:
    """The ids in the wanted rows: the row each comes from, the id, and the flags of all of them."""
    rows = np.flatnonzero(wanted)
    picked = lists.rows(rows)
    return np.repeat(rows, picked.lengths), picked.flat, used, cached


def _filled(said: Flags, first: Bools, start: Bools) -> Any:
    """The flag after each of n entries: what the last entry of the block says, else its start.

    Args:
        said: `_SET`, `_CLEAR` or `_KEEP` for each entry, in the order of blocks and time.
        first: Entries that are the first ones of their block.
        start: The flag of the block of each entry before all of them.
    """
    position = np.arange(len(said))
    opens = np.maximum.accumulate(np.where(first, position, 0))
    latest = np.maximum.accumulate(np.where(said != _KEEP, position, -1))
    return np.where(latest >= opens, said[np.maximum(latest, 0)] == _SET, start)
