"""Columns of block ids: a tuple of integers a row, kept as two arrays.

Ten million block operations are ten million tuples; as Python objects they take a minute to make
and gigabytes to hold. Nothing here imports pandas, so that a process that only reads starts soon;
`ids_column` is the same as a column of pandas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Self

import numpy as np

from profilemate.parse.columns.arrays import Bools, Ints, ranges, starts_of


class IdLists:
    """Tuples of integers, some of them missing.

    Args:
        flat: All integers, one row after the other, `int64`.
        lengths: How many are each row's; 0 where it is missing.
        missing: Rows that are None.
    """

    def __init__(self, flat: Ints, lengths: Ints, missing: Bools) -> None:
        self.flat = flat
        self.lengths = lengths
        self.missing = missing
        self.starts = starts_of(lengths)

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | None]) -> Self:
        """Rows that are there as Python objects."""
        rows = list(rows)
        lengths = np.array([0 if row is None else len(row) for row in rows], dtype=np.int64)
        known = chain.from_iterable(row for row in rows if row is not None)
        flat = np.fromiter(known, dtype=np.int64, count=int(lengths.sum()))
        return cls(flat, lengths, np.array([row is None for row in rows], dtype=bool))

    @classmethod
    def none(cls, rows: int) -> Self:
        """Rows that are all missing."""
        zero = np.zeros(rows, dtype=np.int64)
        return cls(np.empty(0, dtype=np.int64), zero, np.ones(rows, dtype=bool))

    @classmethod
    def joined(cls, parts: Sequence[IdLists]) -> Self:
        """The rows of several, one after the other."""
        flat, lengths, missing = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("flat", "lengths", "missing")
        )
        return cls(flat, lengths, missing)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        arrays = (self.flat, self.lengths, self.missing, self.starts)
        return int(sum(array.nbytes for array in arrays))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, int | np.integer):
            number = range(len(self))[item]
            if self.missing[number]:
                return None
            return tuple(self.flat[self.starts[number] : self.starts[number + 1]].tolist())
        return self.rows(np.arange(len(self))[item])

    def __iter__(self) -> Iterator[Any]:
        numbers, starts = self.flat.tolist(), self.starts.tolist()
        for i, gone in enumerate(self.missing.tolist()):
            yield None if gone else tuple(numbers[starts[i] : starts[i + 1]])

    def rows(self, rows: Ints) -> Self:
        """Rows by their number."""
        lengths = self.lengths[rows]
        flat = self.flat[ranges(self.starts[:-1][rows], lengths)]
        return type(self)(flat, lengths, self.missing[rows])

    def rows_or_none(self, rows: Ints) -> Self:
        """Rows by their number; -1 is a missing one."""
        padded = type(self)(self.flat, np.append(self.lengths, 0), np.append(self.missing, True))
        return padded.rows(np.where(rows == -1, len(self), rows))

    def only(self, rows: Bools) -> Self:
        """These rows, the others missing."""
        kept = np.where(rows, self.lengths, 0)
        flat = self.flat[ranges(self.starts[:-1], kept)]
        return type(self)(flat, kept, self.missing | ~rows)

    def filled_from(self, other: IdLists) -> Self:
        """These rows, and those of another one of the same length where they are missing."""
        rows = np.arange(len(self))
        return self.joined([self, other]).rows(np.where(self.missing, rows + len(self), rows))
