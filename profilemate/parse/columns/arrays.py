"""Arrays of integers: their types, what stands for a missing value, and steps that all take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.schema import Value

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Hashes = np.ndarray[Any, np.dtype[np.uint64]]

Columns = Mapping[str, npt.NDArray[Any]]
"""Arrays of the same length, by the name of their column."""

Matrix = np.ndarray[Any, np.dtype[np.int64]]
"""Rows of integers: one a column of the array, so that each line of it is a column of theirs."""

NONE = -(1 << 63)
"""Stands for None in arrays of integers."""

FOREVER = 1 << 62
"""A time (ns) or a number that none of a recording reaches: the end of what has no known end."""


def fits(value: Value | None) -> bool:
    """Whether 64 bits hold a value, or all of a tuple."""
    numbers = value if isinstance(value, tuple) else (value,)
    return all(n is None or isinstance(n, str) or -NONE > n >= NONE for n in numbers)


def compact(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same integers in as few bytes as they need, signed."""
    if values.dtype != np.int64 or not len(values):
        return values
    low, high = int(values.min()), int(values.max())
    for kind in (np.int8, np.int16, np.int32):
        limit = np.iinfo(kind)
        if limit.min <= low and high <= limit.max:
            return values.astype(kind)
    return values


def run_starts(values: npt.NDArray[Any]) -> Ints:
    """Where each run of equal values begins; the first one at 0, even without a value."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))


def starts_of(lengths: Ints) -> Ints:
    """Where each piece of these lengths begins, and where the last one ends: one element more."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


def ranges(start: Ints, length: Ints) -> Ints:
    """The numbers `start, start + 1, …` of each piece, one piece after the other."""
    total = starts_of(length)
    return np.repeat(start - total[:-1], length) + np.arange(total[-1], dtype=np.int64)


def numbered(*columns: npt.NDArray[Any]) -> Ints:
    """A small number for every distinct row of some columns, in the order of the rows' values."""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        if len(column) and (column == column[0]).all():
            continue  # it tells nothing apart
        values, part = np.unique(column, return_inverse=True)
        code = np.unique(code * len(values) + part, return_inverse=True)[1]
    return code


def groups(numbers: Ints) -> Iterable[tuple[int, Ints]]:
    """Each number, in order, and the places at which it stands."""
    order = np.argsort(numbers, kind="stable")
    values, first = np.unique(numbers[order], return_index=True)
    return zip(values.tolist(), np.split(order, first[1:]), strict=True) if len(values) else ()
