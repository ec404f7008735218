"""The log of block operations turned by block: what happened to each, in order.

All in numpy: a trace of ten million operations holds some ten million block ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse.ids import IdsArray, ids_of
from profilemate.parse.tables.base import Bools, Ints
from profilemate.parse.tables.pools import Pools

ALLOC, CACHE, TOUCH, FREE, MOVE_OUT, MOVE_IN, EVICT, RESTART = range(8)
"""What happened to a block. RESTART follows the eviction of a block that may go on being in use."""

_KIND_BITS = 3
_OPS = ("alloc", "cache", "touch", "free", "move", "evict")


@dataclass(frozen=True, slots=True)
class BlockLog:
    """Entries ordered by stream (see `Pools`), block and time: one per operation and block.

    Attributes:
        kind: What happened, see above.
        changed: The block left the free queue (ALLOC, TOUCH) or joined it (FREE).
        row: Row of the operation in the frame `kv`.
        first: The entry is the first one of its block.
    """

    kind: npt.NDArray[np.int8]
    changed: Bools
    row: Ints
    first: Bools
    _block: Ints

    def block(self, entries: Ints) -> Ints:
        """Block ids of some entries."""
        return self._block[entries]


def _spread(lists: IdsArray, rows: Ints) -> tuple[Ints, Ints]:
    """The ids in some rows, one after the other, and the row each comes from."""
    picked = lists.take(rows)
    return np.repeat(rows, picked.lengths), picked.flat


def _parts(kv: pd.DataFrame) -> Iterator[tuple[int, bool, Ints, Ints]]:
    """All entries, in any order: kind, `changed`, rows, blocks."""
    code, names = pd.factorize(kv["op"])
    op = np.array([_OPS.index(n) if n in _OPS else -1 for n in names], dtype=np.int8)[code]
    ids, subset = ids_of(kv["ids"]), ids_of(kv["subset"])
    whole = subset.isna()
    alloc, cache, touch, free, move, evict = (np.flatnonzero(op == i) for i in range(len(_OPS)))
    yield ALLOC, True, *_spread(ids, alloc)
    yield CACHE, False, *_spread(ids, cache)
    for kind, rows in ((TOUCH, touch), (FREE, free)):
        in_part = ~whole[rows]
        yield kind, True, *_spread(ids, rows[~in_part])
        # These come twice, see `_merged`.
        yield kind, False, *_spread(ids, rows[in_part])
        yield kind, True, *_spread(subset, rows[in_part])
    yield MOVE_OUT, False, *_spread(ids, move)
    yield MOVE_IN, False, *_spread(ids_of(kv["dst"]), move)
    yield EVICT, False, *_spread(ids, evict)
    by_connector = (kv["cause"] == "connector").to_numpy(dtype=bool, na_value=False)
    yield RESTART, False, *_spread(ids, evict[by_connector[evict]])


def _merged(packed: Ints) -> Ints:
    """Drop the entry of a block that its operation names in `ids` where it names it in `subset`."""
    keep = np.ones(len(packed), dtype=bool)
    keep[:-1] = (packed[1:] ^ packed[:-1]) != 1  # they differ in `changed` alone
    return packed[keep]


def block_log(kv: pd.DataFrame, pools: Pools) -> BlockLog:
    """Sort the operations by block. The null block, id 0, is left out: it is never really used."""
    parts = list(_parts(kv))
    labels, blocks = _dense([block for *_, block in parts])
    span = 1 + max((int(block.max(initial=0)) for block in blocks), default=0)
    row_bits = max(len(kv), 1).bit_length()
    # One integer per entry, sorted in place, takes a fraction of the time and memory of sorting
    # four columns. The kind is part of the order: within an operation only RESTART follows EVICT.
    packed = np.concatenate(
        [
            ((((pools.of_row[row] * span + block) << row_bits) | row) << (_KIND_BITS + 1))
            | (kind << 1)
            | int(changed)
            for (kind, changed, row, _), block in zip(parts, blocks, strict=True)
        ]
    )
    real = np.concatenate([block for *_, block in parts]) != 0
    del parts, blocks
    packed = packed[real]
    packed.sort()
    packed = _merged(packed)
    owner = packed >> (row_bits + _KIND_BITS + 1)
    first = np.ones(len(packed), dtype=bool)
    first[1:] = owner[1:] != owner[:-1]
    return BlockLog(
        kind=((packed >> 1) & ((1 << _KIND_BITS) - 1)).astype(np.int8),
        changed=(packed & 1).astype(bool),
        row=(packed >> (_KIND_BITS + 1)) & ((1 << row_bits) - 1),
        first=first,
        _block=owner % span if labels is None else labels[owner % span],
    )


def _dense(blocks: list[Ints]) -> tuple[Ints | None, list[Ints]]:
    """Small numbers for block ids that are too large to pack, and what they stand for."""
    if all(int(block.max(initial=0)) < 1 << 28 for block in blocks):
        return None, blocks  # every real pool: 2**28 blocks are petabytes
    labels, codes = np.unique(np.concatenate(blocks), return_inverse=True)
    return labels, np.split(codes.astype(np.int64), np.cumsum([len(b) for b in blocks])[:-1])
