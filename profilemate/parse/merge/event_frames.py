"""Event frames, built column by column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.columns.pandas import booleans, column_of, integers
from profilemate.parse.events.rows import Rows
from profilemate.parse.trace.event_columns import columns_of


def _series(dtype: str, column: Any, order: Ints) -> Any:
    if dtype == "Int64":
        return integers(np.array(column)[order])
    if dtype == "boolean":
        return booleans(np.array(column)[order])
    if dtype == "ids":
        return column_of(column.ids().rows(order))
    objects = np.fromiter(column, dtype=object, count=len(order))
    return pd.array(objects[order], dtype="string")


def build(name: str, rows: Rows, order: Ints, given: Mapping[str, Any]) -> pd.DataFrame:
    """The frame `name` from the rows of its kind.

    Args:
        name: One of `FRAME_NAMES`.
        rows: The rows; their columns are taken out of them, so that no column is there twice for
            longer than it takes to make it.
        order: Puts the rows into their order.
        given: Columns that are there already, in their order: times and processes.
    """
    data: dict[str, Any] = {}
    for column, dtype in columns_of(name).items():
        if column in given:
            data[column] = pd.Series(given[column], dtype=dtype)
        else:
            data[column] = pd.Series(_series(dtype, rows.columns.pop(column), order), dtype=dtype)
    return pd.DataFrame(data)
