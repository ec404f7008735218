"""Arguments of events: columns to typed debug annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse.writers.perfetto.interning import Interner
from profilemate.schema import encode_ids

Column = tuple[int, str, list[Any]]
"""Number of the argument's name, the field of the annotation, and a value or None per event."""


def spelled(
    args: Mapping[str, Any], rows: npt.NDArray[np.int64], interner: Interner
) -> Iterator[Column]:
    """The arguments of some events, column by column; columns without any value are left out."""
    for name, column in args.items():
        array = column.array if isinstance(column, pd.Series) else column
        field, values = _values(array.take(rows))
        if field == "string_value_iid":
            values = interner.numbers("text", values)
        if any(value is not None for value in values):
            yield interner.number("argument", name), field, values


def _values(array: Any) -> tuple[str, list[Any]]:
    """The field of a debug annotation for values of this type, and the values."""
    kind = array.dtype.kind
    missing = pd.isna(array)
    if kind == "O":
        plain = np.asarray(array, dtype=object).tolist()
        if any(isinstance(value, tuple) for value in plain):
            # Hardly two lists of blocks are alike: remembering them would only take memory.
            return "string_value", [_text(value) for value in plain]
        return "string_value_iid", [_text(value) for value in plain]
    field = {"b": "bool_value", "f": "double_value"}.get(kind, "int_value")
    filled = array.to_numpy(dtype=_PLAIN[field], na_value=0) if _nullable(array) else array
    values = np.asarray(filled).tolist()
    if missing.any():
        values = [None if gone else v for v, gone in zip(values, missing, strict=True)]
    return field, values


_NULLABLE = (pd.arrays.IntegerArray, pd.arrays.BooleanArray, pd.arrays.FloatingArray)
_PLAIN = {"bool_value": bool, "double_value": float, "int_value": np.int64}


def _nullable(array: Any) -> bool:
    return isinstance(array, _NULLABLE)


def _text(value: Any) -> str | None:
    """A string as it is, block ids as ranges."""
    if isinstance(value, tuple):
        return encode_ids(value)
    return None if value is None or value is pd.NA or value != value else str(value)
