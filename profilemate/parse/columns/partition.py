"""Rows that come in any order, given back in parts, each of which comes before the next one.

Sorting a part at a time is sorting everything, in the memory that a part takes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.columns.budget import Budget
from profilemate.parse.columns.packed import joined, pack, picked, rows_of, unpack
from profilemate.parse.columns.spool import Blocks

_SAMPLED = 64  # one of so many rows is looked at to cut them into even parts

Batch = dict[str, Any]
Key = Callable[[Mapping[str, Any]], Ints]


class Batches:
    """Batches of rows that are put aside: as they are while they are few, then in packed columns.

    Packing is worth its time where many rows wait, in memory or in a file; not where all of them
    are asked for again at once.

    Args:
        budget: What may be kept in memory, shared with others.
        few: Rows that are left as they are, where the budget has room for them.
    """

    def __init__(self, budget: Budget, few: int) -> None:
        self._budget, self._few = budget, few
        self._blocks = Blocks(budget)
        self._items: list[Batch | int] = []  # a batch as it is, or the number of its block
        self._packed = 0  # so many of the first are packed
        self._rows = 0
        self._plain_bytes = 0

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self._items)

    def add(self, batch: Mapping[str, Any]) -> int:
        """Put rows aside, whose arrays nobody changes any more; returns the number of the batch."""
        self._items.append(dict(batch))
        self._rows += rows_of(batch)
        self._hold(_bytes_of(batch))
        if self._rows > self._few or self._budget.used > self._budget.held:
            self._pack()
        return len(self._items) - 1

    def _hold(self, size: int) -> None:
        self._plain_bytes += size
        self._budget.used += size

    def _pack(self) -> None:
        """Put those into blocks that are still as they were."""
        for number in range(self._packed, len(self._items)):
            item = self._items[number]
            if not isinstance(item, int):
                self._hold(-_bytes_of(item))
                self._items[number] = self._blocks.add(pack(item))
        self._packed = len(self._items)

    def get(self, number: int, wanted: Collection[str] | None = None) -> Batch:
        """The rows of a batch; only these columns if so `wanted`."""
        item = self._items[number]
        if isinstance(item, int):
            return unpack(self._blocks[item], wanted)
        return {name: column for name, column in item.items() if wanted is None or name in wanted}

    def forget(self, number: int) -> None:
        """These rows are needed no more."""
        item, self._items[number] = self._items[number], {}
        if isinstance(item, int):
            self._blocks.forget(item)
        else:
            self._hold(-_bytes_of(item))

    def __del__(self) -> None:
        self._hold(-self._plain_bytes)


def _bytes_of(batch: Mapping[str, Any]) -> int:
    return sum(int(column.nbytes) for column in batch.values())


class Divided:
    """Batches of rows: arrays of integers or `IdLists` by name, the same names in each.

    Args:
        budget: What may be kept in memory, shared with others.
        size: Rows of a part, about.
    """

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget, self._size = budget, max(size, 1)
        self._batches = Batches(budget, self._size)
        self._sample: list[Batch] = []
        self._total = 0

    def __len__(self) -> int:
        """How many rows there are."""
        return self._total

    def add(self, batch: Mapping[str, Any]) -> None:
        """Take rows, whose arrays nobody changes any more."""
        count = rows_of(batch)
        if count:
            self._total += count
            # By their numbers: a slice would keep the whole batch.
            self._sample.append(picked(batch, np.arange(0, count, _SAMPLED)))
            self._batches.add(batch)

    def column(self, name: str) -> Iterator[Ints]:
        """A column, batch by batch; its rows are kept."""
        for number in range(len(self._batches)):
            yield self._batches.get(number, (name,))[name]

    def parts(self, key: Key) -> Iterator[Batch]:
        """All rows in parts; they are kept no longer.

        Rows of the same key are in the same part, and those of a smaller key in an earlier one.
        Within a part they are in the order in which they came.
        """
        count = -(-self._total // self._size)
        if count <= 1:
            if self._total:
                yield _read(self._batches, list(range(len(self._batches))))
            return
        sample = np.sort(key(joined(self._sample)))
        self._sample = []
        edges = np.unique(sample[np.arange(1, count) * len(sample) // count])
        pieces = Batches(self._budget, self._size)
        pieces_of: list[list[int]] = [[] for _ in range(len(edges) + 1)]  # by number of the part
        for number in range(len(self._batches)):
            batch = self._batches.get(number)
            self._batches.forget(number)
            part = np.searchsorted(edges, key(batch), "right").astype(np.uint32)
            order = np.argsort(part, kind="stable")
            bounds = np.flatnonzero(np.diff(part[order])) + 1
            for rows in np.split(order, bounds):
                pieces_of[int(part[rows[0]])].append(pieces.add(picked(batch, rows)))
        for numbers in pieces_of:
            if numbers:
                yield _read(pieces, numbers)


def _read(batches: Batches, numbers: list[int]) -> Batch:
    """Some batches as one, which are kept no longer."""
    parts = []
    for number in numbers:
        parts.append(batches.get(number))
        batches.forget(number)
    return joined(parts)
