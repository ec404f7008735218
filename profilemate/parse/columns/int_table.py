"""Columns of integers in few bytes.

Times of a block lie close together, ids rise, and most other columns hold one value over and over:
a GPU record that is nine integers of 64 bits takes about a dozen bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Ints, Matrix

_WIDTHS = ((1 << 8, np.uint8), (1 << 16, np.uint16), (1 << 32, np.uint32))
_AT_ONCE = 1 << 17  # rows that are given at once
_TOGETHER = 1 << 14  # single rows that are put into columns at once


@dataclass(frozen=True, slots=True)
class Column:
    """Values less their smallest; None where they are all the same."""

    length: int
    base: int
    above: npt.NDArray[np.unsignedinteger[Any]] | None

    @classmethod
    def of(cls, values: Ints) -> Column:
        """Pack values, of which there is at least one."""
        base = int(values.min())
        reach = int(values.max()) - base
        if not reach:
            return cls(len(values), base, None)
        for limit, width in _WIDTHS:
            if reach < limit:
                return cls(len(values), base, (values - base).astype(width))
        # The distance of two integers of 64 bits needs no more as an unsigned one.
        return cls(len(values), base, values.astype(np.uint64) - np.uint64(base % (1 << 64)))

    def values(self) -> Ints:
        """All values."""
        out = np.empty(self.length, dtype=np.int64)
        self.into(out)
        return out

    def into(self, out: Ints) -> None:
        """Write all values into an array."""
        if self.above is None:
            out[:] = self.base
        else:
            np.add(
                self.above.astype(np.uint64),
                np.uint64(self.base % (1 << 64)),
                out=out.view(np.uint64),
            )


class Table:
    """Rows of integers, in order."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._single = array("q")
        self._batches: list[list[Column]] = []

    def add(self, *row: int) -> None:
        """One row."""
        self._single.extend(row)
        if len(self._single) >= _TOGETHER * len(self.names):
            self._flush()

    def extend(self, rows: Matrix) -> None:
        """Rows, one a column of the array."""
        if rows.shape[1]:
            self._flush()
            self._keep(rows)

    def merge(self, other: Table) -> None:
        """All rows of another table after those of this one."""
        self._flush()
        other._flush()
        self._batches += other._batches
        other._batches = []

    def _keep(self, rows: Matrix) -> None:
        self._batches.append([Column.of(row) for row in rows])

    def _flush(self) -> None:
        if len(self._single):
            self._keep(np.array(self._single, dtype=np.int64).reshape(-1, len(self.names)).T)
            self._single = array("q")

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._single) // len(self.names) + sum(b[0].length for b in self._batches)

    def batches(self, most: int = _AT_ONCE) -> Iterator[dict[str, Ints]]:
        """All rows by column, about so many at a time; what was given is kept no longer."""
        self._flush()
        waiting, self._batches = self._batches[::-1], []
        while waiting:
            together = [waiting.pop()]
            total = together[0][0].length
            while waiting and total + waiting[-1][0].length <= most:
                together.append(waiting.pop())
                total += together[-1][0].length
            yield self._columns(together, total)

    def column(self, name: str) -> Ints:
        """A column; its rows are kept."""
        self._flush()
        place = self.names.index(name)
        found = [batch[place].values() for batch in self._batches]
        return np.concatenate([np.empty(0, dtype=np.int64), *found])

    def columns(self) -> dict[str, Ints]:
        """All rows by column; they are kept no longer."""
        self._flush()
        together, self._batches = self._batches, []
        return self._columns(together, sum(b[0].length for b in together))

    def _columns(self, batches: list[list[Column]], total: int) -> dict[str, Ints]:
        found = {}
        for place, name in enumerate(self.names):
            out = np.empty(total, dtype=np.int64)
            at = 0
            for batch in batches:
                column = batch[place]
                column.into(out[at : at + column.length])
                at += column.length
            found[name] = out
        return found

    def renumber(self, name: str, numbers: Ints) -> None:
        """Replace the values of a column by what `numbers` has at them."""
        self._flush()
        place = self.names.index(name)
        for batch in self._batches:
            batch[place] = Column.of(numbers[batch[place].values()])
