"""A pandas column of block ids: a tuple of integers a row, kept as two arrays.

Ten million block operations are ten million tuples; as Python objects they take a minute to make
and gigabytes to hold.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.extensions import ExtensionArray, ExtensionDtype, register_extension_dtype
from pandas.api.indexers import check_array_indexer

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NONE = -(1 << 63)
"""Stands for None in arrays of integers."""


@register_extension_dtype
class IdsDtype(ExtensionDtype):
    """Dtype `ids`: a tuple of int, or None."""

    name = "ids"
    type = tuple
    na_value = None

    @classmethod
    def construct_array_type(cls) -> builtins.type[IdsArray]:
        """The array that holds it."""
        return IdsArray


def starts_of(lengths: Ints) -> Ints:
    """Where each of some pieces of these lengths begins, and where the last one ends."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


def ranges(start: Ints, length: Ints) -> Ints:
    """The numbers `start, start + 1, …` of each piece, one piece after the other."""
    total = starts_of(length)
    return np.repeat(start - total[:-1], length) + np.arange(total[-1], dtype=np.int64)


class IdsArray(ExtensionArray):
    """Tuples of integers.

    Args:
        flat: All integers, one row after the other, `int64`.
        lengths: How many are each row's; 0 where it is missing.
        missing: Rows that are None.
    """

    def __init__(self, flat: Ints, lengths: Ints, missing: Bools) -> None:
        self.flat = flat
        self.lengths = lengths
        self._missing = missing
        self._starts = starts_of(lengths)

    @classmethod
    def _from_sequence(
        cls, scalars: Iterable[Any], *, dtype: object = None, copy: bool = False
    ) -> Self:
        if isinstance(scalars, cls):
            return scalars.copy() if copy else scalars
        rows: list[Sequence[int] | None] = [
            None if row is None or row is pd.NA or row != row else row for row in scalars
        ]
        lengths = np.array([0 if row is None else len(row) for row in rows], dtype=np.int64)
        known = chain.from_iterable(row for row in rows if row is not None)
        flat = np.fromiter(known, dtype=np.int64, count=int(lengths.sum()))
        return cls(flat, lengths, np.array([row is None for row in rows], dtype=bool))

    @property
    def dtype(self) -> IdsDtype:
        """Always the same one."""
        return IdsDtype()

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return int(self.flat.nbytes + self.lengths.nbytes + self._starts.nbytes)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, item: Any) -> Any:
        item = check_array_indexer(self, item)
        if isinstance(item, int | np.integer):
            number = range(len(self))[item]
            if self._missing[number]:
                return None
            return tuple(self.flat[self._starts[number] : self._starts[number + 1]].tolist())
        return self._rows(np.arange(len(self))[item])

    def _rows(self, rows: Ints) -> Self:
        lengths = self.lengths[rows]
        flat = self.flat[ranges(self._starts[:-1][rows], lengths)]
        return type(self)(flat, lengths, self._missing[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        numbers = self.flat.tolist()
        starts = self._starts.tolist()
        result = np.empty(len(self), dtype=object)
        for i, gone in enumerate(self._missing.tolist()):
            result[i] = None if gone else tuple(numbers[starts[i] : starts[i + 1]])
        return result

    def __iter__(self) -> Any:
        return iter(np.asarray(self))

    def __eq__(self, other: object) -> Any:
        return np.array([a == b for a, b in zip(self, other, strict=True)])  # type: ignore[call-overload]

    def isna(self) -> Bools:
        """Rows that are None."""
        return self._missing.copy()

    def take(self, indices: Any, *, allow_fill: bool = False, fill_value: Any = None) -> Self:
        """Rows by their number; with `allow_fill`, -1 is a missing one."""
        rows = np.asarray(indices, dtype=np.int64)
        if not allow_fill:
            return self._rows(np.arange(len(self))[rows])
        if len(rows) and (rows.min() < -1 or rows.max() >= len(self)):
            raise IndexError("a row that is not there")
        padded = type(self)(self.flat, np.append(self.lengths, 0), np.append(self._missing, True))
        return padded._rows(np.where(rows == -1, len(self), rows))

    def copy(self) -> Self:
        """The same rows once more."""
        return type(self)(self.flat.copy(), self.lengths.copy(), self._missing.copy())

    @classmethod
    def _concat_same_type(cls, to_concat: Sequence[Self]) -> Self:
        flat, lengths, missing = (
            np.concatenate([getattr(part, name) for part in to_concat])
            for name in ("flat", "lengths", "_missing")
        )
        return cls(flat, lengths, missing)

    @classmethod
    def none(cls, rows: int) -> Self:
        """Rows that are all missing."""
        zero = np.zeros(rows, dtype=np.int64)
        return cls(np.empty(0, dtype=np.int64), zero, np.ones(rows, dtype=bool))

    def only(self, rows: Bools) -> Self:
        """These rows, the others missing."""
        return self.take(np.where(rows, np.arange(len(self)), -1), allow_fill=True)

    def filled_from(self, other: IdsArray) -> Self:
        """These rows, and those of another array of the same length where they are missing."""
        both = self._concat_same_type([self, other])  # type: ignore[list-item]
        rows = np.arange(len(self))
        return both._rows(np.where(self._missing, rows + len(self), rows))


def ids_of(column: pd.Series) -> IdsArray:
    """A column of block ids as the array behind it."""
    array = column.array
    assert isinstance(array, IdsArray)
    return array
