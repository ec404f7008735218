"""The log of block operations turned by block: what happened to each, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.columns.pandas import IdsArray, ids_of
from profilemate.parse.tables.base import Bools
from profilemate.parse.tables.pools import Pools
from profilemate.parse.trace.kv_log import Slice

ALLOC, CACHE, TOUCH, FREE, MOVE_OUT, MOVE_IN, EVICT, RESTART = range(8)
"""What happened to a block. RESTART follows the eviction of a block that may go on being in use."""

_KIND_BITS = 3
_OPS = ("alloc", "cache", "touch", "free", "move", "evict")


@dataclass(frozen=True, slots=True)
class BlockLog:
    """Entries ordered by block and time: one per operation and block.

    Attributes:
        kind: What happened, see above.
        changed: The block left the free queue (ALLOC, TOUCH) or joined it (FREE).
        row: Row of the operation in the log.
        first: The entry is the first one of its block.
        owner: The block, as the number that the entries have.
    """

    kind: npt.NDArray[np.int8]
    changed: Bools
    row: Ints
    first: Bools
    owner: Ints


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


def entries_of(part: Slice, streams: Pools) -> dict[str, Ints]:
    """The entries of some operations, in any order.

    The null block, id 0, is left out: it is never really used. Columns are `stream` (see `Pools`),
    `block`, `row`, and `what`: the kind and whether it changed.
    """
    stream = streams.of(part.frame)
    parts = [*_parts(part.frame)]
    row, block = (np.concatenate([p[i] for p in parts]) for i in (2, 3))
    said = [2 * kind + changed for kind, changed, *_ in parts]
    what = np.repeat(said, [len(rows) for _, _, rows, _ in parts])
    real = block != 0
    row = row[real]
    return {
        "stream": stream[row],
        "block": block[real],
        "row": row + part.first,
        "what": what[real],
    }


def _merged(packed: Ints) -> Ints:
    """Drop the entry of a block that its operation names in `ids` where it names it in `subset`."""
    keep = np.ones(len(packed), dtype=bool)
    keep[:-1] = (packed[1:] ^ packed[:-1]) != 1  # they differ in `changed` alone
    return packed[keep]


def block_log(owner: Ints, row: Ints, what: Ints) -> BlockLog:
    """Sort entries by block.

    Args:
        owner: A number for the block of each, in the order of (stream, block).
        row: Row of its operation in the log.
        what: The kind and whether it changed.
    """
    bits = _KIND_BITS + 1
    row_bits = int(row.max(initial=0)).bit_length()
    base = int(owner.min(initial=1 << 62))
    # One integer per entry, sorted in place, takes a fraction of the time and memory of sorting
    # four columns. The kind is part of the order: within an operation only RESTART follows EVICT.
    packed = ((((owner - base) << row_bits) | row) << bits) | what
    packed.sort()
    packed = _merged(packed)
    of = packed >> (row_bits + bits)
    first = np.ones(len(packed), dtype=bool)
    first[1:] = of[1:] != of[:-1]
    return BlockLog(
        kind=((packed >> 1) & ((1 << _KIND_BITS) - 1)).astype(np.int8),
        changed=(packed & 1).astype(bool),
        row=(packed >> bits) & ((1 << row_bits) - 1),
        first=first,
        owner=of + base,
    )
