"""A table of integers that grows by rows and takes few bytes (`packed`)."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from profilemate.parse.columns.arrays import Ints, Matrix
from profilemate.parse.columns.packed import pack, unpack

_AT_ONCE = 1 << 17  # rows that are given at once
_TOGETHER = 1 << 14  # single rows that are packed at once


class _Batch(NamedTuple):
    """Rows that were packed together: how many, and their columns."""

    rows: int
    packed: bytes


class IntTable:
    """Rows of integers, in order.

    Attributes:
        names: The columns.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._single = array("q")
        self._batches: list[_Batch] = []

    def add(self, *row: int) -> None:
        """One row."""
        self._single.extend(row)
        if len(self._single) >= _TOGETHER * len(self.names):
            self._flush()

    def extend(self, rows: Matrix) -> None:
        """Rows, one a column of the array."""
        if rows.shape[1]:
            self._flush()
            self._pack(rows)

    def merge(self, other: IntTable) -> None:
        """All rows of another table after those of this one."""
        self._flush()
        other._flush()
        self._batches += other._batches
        other._batches = []

    def _pack(self, rows: Matrix) -> None:
        columns = dict(zip(self.names, rows, strict=True))
        self._batches.append(_Batch(rows.shape[1], pack(columns)))

    def _flush(self) -> None:
        if len(self._single):
            self._pack(np.array(self._single, dtype=np.int64).reshape(-1, len(self.names)).T)
            self._single = array("q")

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._single) // len(self.names) + sum(b.rows for b in self._batches)

    def batches(self, most: int = _AT_ONCE) -> Iterator[dict[str, Ints]]:
        """All rows by column, about so many at a time; what was given is kept no longer."""
        self._flush()
        waiting, self._batches = self._batches[::-1], []
        while waiting:
            together = [waiting.pop()]
            total = together[0].rows
            while waiting and total + waiting[-1].rows <= most:
                together.append(waiting.pop())
                total += together[-1].rows
            yield {name: _column(together, name) for name in self.names}

    def column(self, name: str) -> Ints:
        """A column; its rows are kept."""
        self._flush()
        return _column(self._batches, name)

    def columns(self) -> dict[str, Ints]:
        """All rows by column; they are kept no longer."""
        self._flush()
        together, self._batches = self._batches, []
        return {name: _column(together, name) for name in self.names}

    def renumber(self, name: str, numbers: Ints) -> None:
        """Replace the values of a column by what `numbers` has at them."""
        self._flush()
        for place, batch in enumerate(self._batches):
            columns = unpack(batch.packed)
            columns[name] = numbers[columns[name]]
            self._batches[place] = _Batch(batch.rows, pack(columns))


def _column(batches: Sequence[_Batch], name: str) -> Ints:
    """A column of some batches, one after the other."""
    found = [unpack(batch.packed, [name])[name] for batch in batches]
    return np.concatenate([np.empty(0, dtype=np.int64), *found])
