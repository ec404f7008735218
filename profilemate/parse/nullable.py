"""Nullable columns of arrays in which a number stands for NA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from profilemate.parse.ids import NONE, Ints


def integers(values: Ints) -> pd.arrays.IntegerArray:
    """A nullable column from integers in which `NONE` stands for NA."""
    missing = values == NONE
    return pd.arrays.IntegerArray(np.where(missing, 0, values), missing)


def booleans(values: np.ndarray[Any, Any]) -> pd.arrays.BooleanArray:
    """A nullable column from numbers in which -1 stands for NA."""
    return pd.arrays.BooleanArray(values == 1, values == -1)
