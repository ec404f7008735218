"""Frames of events of kinds that others define: one per kind, typed by its own values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.events.custom import CustomRows
from profilemate.schema.custom import Scalar


def _column(values: Sequence[Scalar | None]) -> Any:
    """One type for all: that of the values; int and float are float, any other mixture is text."""
    types = {type(value) for value in values if value is not None}
    same: Any = values
    if types == {bool}:
        return pd.array(same, dtype="boolean")
    if types == {int}:
        return pd.array(same, dtype="Int64")
    if types <= {int, float}:
        known = np.array([value is not None for value in values])
        numbers = np.array([0.0 if value is None else float(value) for value in values])
        return pd.arrays.FloatingArray(numbers, ~known)  # a NaN stays one: it was measured
    return pd.array([None if v is None else str(v) for v in values], dtype="string")


def frame(events: CustomRows, order: Ints, given: Mapping[str, Any]) -> pd.DataFrame:
    """The frame of one kind: the given columns, then its fields."""
    fields = {name: _column(values) for name, values in events.values(order).items()}
    return pd.DataFrame({**given, **fields})
