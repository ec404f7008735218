"""The log of block operations turned by block: what happened to each, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import FOREVER, Ints
from profilemate.parse.columns.id_lists import IdLists
from profilemate.parse.tables.base import Bools
from profilemate.parse.tables.pools import Pools
from profilemate.parse.trace.kv_log import KvSlice

ALLOC, CACHE, TOUCH, FREE, MOVE_OUT, MOVE_IN, EVICT, RESTART = range(8)
"""What happened to a block. RESTART follows the eviction of a block that may go on being in use."""

_KIND_BITS = 3


@dataclass(frozen=True, slots=True)
class BlockLog:
    """n entries ordered by block and time, one per operation and block: arrays of length n.

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


def _spread(lists: IdLists, rows: Ints) -> tuple[Ints, Ints]:
    """The ids in some rows, one after the other, and the row each comes from."""
    picked = lists.rows(rows)
    return np.repeat(rows, picked.lengths), picked.flat


def _parts(part: KvSlice) -> Iterator[tuple[int, bool, Ints, Ints]]:
    """All entries, in any order: kind, `changed`, rows of the slice, blocks."""
    ids, subset = part.ids(), part.ids("subset")
    alloc, cache, touch, free, move, evict = (
        np.flatnonzero(part.is_op(op))
        for op in ("alloc", "cache", "touch", "free", "move", "evict")
    )
    yield ALLOC, True, *_spread(ids, alloc)
    yield CACHE, False, *_spread(ids, cache)
    for kind, rows in ((TOUCH, touch), (FREE, free)):
        in_part = ~subset.missing[rows]
        yield kind, True, *_spread(ids, rows[~in_part])
        # These come twice, see `_merged`.
        yield kind, False, *_spread(ids, rows[in_part])
        yield kind, True, *_spread(subset, rows[in_part])
    yield MOVE_OUT, False, *_spread(ids, move)
    yield MOVE_IN, False, *_spread(part.ids("dst"), move)
    yield EVICT, False, *_spread(ids, evict)
    yield RESTART, False, *_spread(ids, evict[part.by_connector()[evict]])


def entries_of(part: KvSlice, streams: Pools) -> dict[str, Ints]:
    """The entries of some operations, in any order: arrays of length n, one element per entry.

    The null block, id 0, is left out: it is never really used. Columns are `stream` (see `Pools`),
    `block` (its id), `row` (of the log), and `what`: twice the kind, and 1 where it changed.
    """
    stream = streams.of(part)
    parts = [*_parts(part)]
    row, block = (np.concatenate([p[i] for p in parts]) for i in (2, 3))
    what_of_part = [2 * kind + changed for kind, changed, *_ in parts]
    what = np.repeat(what_of_part, [len(rows) for _, _, rows, _ in parts])
    real = block != 0
    row = row[real]
    return {
        "stream": stream[row],
        "block": block[real],
        "row": row + part.first,
        "what": what[real],
    }


def _merged(packed: Ints) -> Ints:
    """Drop the entry of a block that its operation names in `ids` where it names it in `subset`.

    Args:
        packed: Entries as `block_log` packs them, sorted: the two follow each other, and differ in
            the last bit, `changed`, alone.
    """
    keep = np.ones(len(packed), dtype=bool)
    keep[:-1] = (packed[1:] ^ packed[:-1]) != 1
    return packed[keep]


def block_log(owner: Ints, row: Ints, what: Ints) -> BlockLog:
    """Sort entries by block, then by row, then by what happened.

    Each entry is packed into one integer, and these are sorted in place, which takes a fraction of
    the time and memory of sorting four columns. From the highest bits to the lowest:

        owner - lowest owner | row | kind (3 bits) | changed (1 bit)

    The kind is part of the order: within an operation only RESTART follows EVICT.

    Args:
        owner: A number for the block of each of n entries, in the order of (stream, block).
        row: Row of its operation in the log, length n.
        what: Twice the kind, and 1 where it changed, length n.
    """
    what_bits = _KIND_BITS + 1
    row_bits = int(row.max(initial=0)).bit_length()
    base = int(owner.min(initial=FOREVER))
    owner_bits = max(int(owner.max(initial=0)) - base, 0).bit_length()
    # 16 pools of 2**28 blocks (`block_parts` allows no more) leave room for 2**27 operations: more
    # than 63 bits would wrap around and be sorted wrongly.
    assert owner_bits + row_bits + what_bits <= 63, (owner_bits, row_bits)
    packed = ((((owner - base) << row_bits) | row) << what_bits) | what
    packed.sort()
    packed = _merged(packed)
    sorted_owner = packed >> (row_bits + what_bits)
    first = np.ones(len(packed), dtype=bool)
    first[1:] = sorted_owner[1:] != sorted_owner[:-1]
    return BlockLog(
        kind=((packed >> 1) & ((1 << _KIND_BITS) - 1)).astype(np.int8),
        changed=(packed & 1).astype(bool),
        row=(packed >> what_bits) & ((1 << row_bits) - 1),
        first=first,
        owner=sorted_owner + base,
    )
