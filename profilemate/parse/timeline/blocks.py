"""How many blocks of a pool are in use, cached but free, or empty, after every operation.

The number in use travels with each operation. Which of the free blocks still hold cached content
follows from the log: chunk by chunk, with two flags a block, so that ten million operations need
no more memory than one chunk.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse.columns.arrays import Ints

_KEEP, _CLEAR, _SET = -1, 0, 1


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

    def feed(self, kv: pd.DataFrame) -> Ints:
        """The count after each of these operations, which follow those that were fed before."""
        result = np.empty(len(kv), dtype=np.int64)
        op, ok = kv["op"].to_numpy(dtype=object), kv["ok"].fillna(True).to_numpy(dtype=bool)
        resets = np.flatnonzero((op == "reset") & ok)
        begin = 0
        for reset in (*resets.tolist(), len(kv)):
            result[begin:reset] = self._feed(kv.iloc[begin:reset], op[begin:reset])
            if reset < len(kv):
                self._cached[:] = False
                self.count = 0
                result[reset] = 0
            begin = reset + 1
        return result

    def _feed(self, kv: pd.DataFrame, op: npt.NDArray[np.object_]) -> Ints:
        rows, blocks, used, cached = self._entries(kv, op)
        if not len(rows):
            return np.full(len(kv), self.count, dtype=np.int64)
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
        change = np.zeros(len(kv), dtype=np.int64)
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

    def _entries(
        self, kv: pd.DataFrame, op: npt.NDArray[np.object_]
    ) -> tuple[Ints, Ints, npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """One entry per block that an operation changes: row, block, used and cached after it."""
        ids, dst = kv["ids"].to_numpy(dtype=object), kv["dst"].to_numpy(dtype=object)
        subset = kv["subset"].to_numpy(dtype=object)
        changed = np.where(pd.isna(subset), ids, subset)
        parts = [
            _spread(ids, op == "alloc", _SET, _KEEP),
            _spread(ids, op == "touch", _SET, _KEEP),
            _spread(changed, op == "touch", _SET, _SET),  # only cached blocks are found again
            _spread(changed, op == "free", _CLEAR, _KEEP),
            _spread(ids, op == "cache", _SET, _SET),  # by the request that holds them
            _spread(ids, (op == "evict") | (op == "move"), _KEEP, _CLEAR),
            _spread(dst, op == "move", _KEEP, _SET),
        ]
        rows, blocks = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
        flags = [
            np.concatenate([np.full(len(p[0]), p[i], dtype=np.int8) for p in parts]) for i in (2, 3)
        ]
        real = blocks != 0  # the null block is never really used
        return rows[real], blocks[real], flags[0][real], flags[1][real]


def _spread(
    tuples: npt.NDArray[np.object_], wanted: npt.NDArray[np.bool_], used: int, cached: int
) -> tuple[Ints, Ints, int, int]:
    rows = np.flatnonzero(wanted)
    picked = [t or () for t in tuples[rows]]
    counts = np.fromiter(map(len, picked), dtype=np.int64, count=len(picked))
    ids = np.fromiter(chain.from_iterable(picked), dtype=np.int64, count=int(counts.sum()))
    return np.repeat(rows, counts), ids, used, cached


def _filled(said: npt.NDArray[np.int8], first: npt.NDArray[np.bool_], start: Any) -> Any:
    """The flag after each entry: what the last entry of the block said, else how it started."""
    position = np.arange(len(said))
    opens = np.maximum.accumulate(np.where(first, position, 0))
    latest = np.maximum.accumulate(np.where(said != _KEEP, position, -1))
    return np.where(latest >= opens, said[np.maximum(latest, 0)] == _SET, start)
