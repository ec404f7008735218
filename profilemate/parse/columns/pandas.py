"""A column of pandas that holds block ids: a tuple of integers a row, kept as two arrays."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.extensions import ExtensionArray, ExtensionDtype, register_extension_dtype
from pandas.api.indexers import check_array_indexer

from profilemate.parse.columns.arrays import NONE, Bools, Ints
from profilemate.parse.columns.id_lists import IdLists


def integers(values: Ints) -> pd.arrays.IntegerArray:
    """A nullable column from integers in which `NONE` stands for NA."""
    missing = values == NONE
    return pd.arrays.IntegerArray(np.where(missing, 0, values), missing)


def booleans(values: np.ndarray[Any, Any]) -> pd.arrays.BooleanArray:
    """A nullable column from numbers in which -1 stands for NA."""
    return pd.arrays.BooleanArray(values == 1, values == -1)


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


class IdsArray(IdLists, ExtensionArray):
    """Tuples of integers, see `IdLists`."""

    @classmethod
    def _from_sequence(
        cls, scalars: Iterable[Any], *, dtype: object = None, copy: bool = False
    ) -> Self:
        if isinstance(scalars, cls):
            return scalars.copy() if copy else scalars
        return cls.of(None if row is None or row is pd.NA or row != row else row for row in scalars)

    @property
    def dtype(self) -> IdsDtype:
        """Always the same one."""
        return IdsDtype()

    def __getitem__(self, item: Any) -> Any:
        return super().__getitem__(check_array_indexer(self, item))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        result = np.empty(len(self), dtype=object)
        for i, row in enumerate(self):
            result[i] = row
        return result

    def __eq__(self, other: object) -> Any:
        return np.array([a == b for a, b in zip(self, other, strict=True)])  # type: ignore[call-overload]

    def isna(self) -> Bools:
        """Rows that are None."""
        return self.missing.copy()

    def take(self, indices: Any, *, allow_fill: bool = False, fill_value: Any = None) -> Self:
        """Rows by their number; with `allow_fill`, -1 is a missing one."""
        rows = np.asarray(indices, dtype=np.int64)
        if not allow_fill:
            return self.rows(np.arange(len(self))[rows])
        if len(rows) and (rows.min() < -1 or rows.max() >= len(self)):
            raise IndexError("a row that is not there")
        return self.rows_or_none(rows)

    def copy(self) -> Self:
        """The same rows once more."""
        return type(self)(self.flat.copy(), self.lengths.copy(), self.missing.copy())

    @classmethod
    def _concat_same_type(cls, to_concat: Sequence[Self]) -> Self:
        return cls.joined(to_concat)


def column_of(lists: IdLists) -> IdsArray:
    """Lists as a column."""
    return IdsArray(lists.flat, lists.lengths, lists.missing)
