"""Rows that come in any order, given back in parts, each of which comes before the next one.

Sorting a part at a time is sorting everything, in the memory that a part takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.columns.budget import Budget
from profilemate.parse.columns.packed import joined, pack, picked, rows_of, unpack
from profilemate.parse.columns.spool import Blocks

_SAMPLED = 64  # one of so many rows is looked at to cut them into even parts

Batch = dict[str, Any]
Key = Callable[[Mapping[str, Any]], Ints]


class Divided:
    """Batches of rows: arrays of integers or `IdLists` by name, the same names in each."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._blocks = Blocks(budget)
        self._sample: list[Batch] = []
        self._total = 0

    def __len__(self) -> int:
        """How many rows there are."""
        return self._total

    def add(self, batch: Mapping[str, Any]) -> None:
        """Take rows."""
        count = rows_of(batch)
        if count:
            self._total += count
            # By their numbers: a slice would keep the whole batch.
            self._sample.append(picked(batch, np.arange(0, count, _SAMPLED)))
            self._blocks.add(pack(batch))

    def column(self, name: str) -> Iterator[Ints]:
        """A column, batch by batch; its rows are kept."""
        for number in range(len(self._blocks)):
            yield unpack(self._blocks[number], (name,))[name]

    def parts(self, size: int, key: Key) -> Iterator[Batch]:
        """All rows in parts of about that size; they are kept no longer.

        Rows of the same key are in the same part, and those of a smaller key in an earlier one.
        Within a part they are in the order in which they came.
        """
        count = -(-self._total // max(size, 1))
        if count <= 1:
            if self._total:
                yield _read(self._blocks, list(range(len(self._blocks))))
            return
        sample = np.sort(key(joined(self._sample)))
        self._sample = []
        edges = np.unique(sample[np.arange(1, count) * len(sample) // count])
        blocks = Blocks(self._budget)
        pieces: list[list[int]] = [[] for _ in range(len(edges) + 1)]
        for number in range(len(self._blocks)):
            batch = unpack(self._blocks[number])
            self._blocks.forget(number)
            part = np.searchsorted(edges, key(batch), "right").astype(np.uint32)
            order = np.argsort(part, kind="stable")
            bounds = np.flatnonzero(np.diff(part[order])) + 1
            for some in np.split(order, bounds):
                pieces[int(part[some[0]])].append(blocks.add(pack(picked(batch, some))))
        for mine in pieces:
            if mine:
                yield _read(blocks, mine)


def _read(blocks: Blocks, numbers: list[int]) -> Batch:
    parts = []
    for number in numbers:
        parts.append(unpack(blocks[number]))
        blocks.forget(number)
    return joined(parts)
