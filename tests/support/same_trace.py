"""Whether two traces are the same to the last bit, which `==` of pandas does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
from frames import kv_frame

from profilemate.parse.columns.pandas import IdsArray
from profilemate.parse.trace.trace import Trace


def assert_same_trace(one: Trace, other: Trace) -> None:
    """Equal in every field, with the same types inside and the same order."""
    for field in fields(Trace):
        if field.name == "kv":
            _assert_same(kv_frame(one), kv_frame(other), "kv")
        else:
            _assert_same(getattr(one, field.name), getattr(other, field.name), field.name)


def _assert_same(one: Any, other: Any, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, pd.DataFrame):
        assert list(one.columns) == list(other.columns), where
        assert one.index.equals(other.index), where
        assert isinstance(other.index, pd.RangeIndex), where
        for name in one.columns:
            _assert_same_column(one[name], other[name], f"{where}[{name!r}]")
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, where
        assert np.array_equal(one, other), where
    elif isinstance(one, Mapping):
        assert list(one) == list(other), where
        for key, value in one.items():
            _assert_same(value, other[key], f"{where}[{key!r}]")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            _assert_same(a, b, f"{where}[{number}]")
    elif is_dataclass(one) and not isinstance(one, type):
        for field in fields(one):
            name = field.name
            _assert_same(getattr(one, name), getattr(other, name), f"{where}.{name}")
    else:
        assert one == other, where


def _assert_same_column(one: pd.Series, other: pd.Series, where: str) -> None:
    assert one.dtype == other.dtype, where
    assert str(one.dtype) == str(other.dtype), where
    assert type(one.array) is type(other.array), where
    assert getattr(one.dtype, "storage", None) == getattr(other.dtype, "storage", None), where
    if isinstance(one.array, IdsArray):
        for part in ("flat", "lengths", "missing", "starts"):
            _assert_same_values(getattr(one.array, part), getattr(other.array, part), where)
    elif hasattr(one.array, "_mask"):
        for part in ("_data", "_mask"):
            _assert_same_values(getattr(one.array, part), getattr(other.array, part), where)
    elif isinstance(one.dtype, np.dtype) and one.dtype.kind != "O":
        _assert_same_values(one.to_numpy(), other.to_numpy(), where)
    else:
        assert [v if v is not pd.NA else None for v in one] == [
            v if v is not pd.NA else None for v in other
        ], where
        assert [type(v) for v in one] == [type(v) for v in other], where


def _assert_same_values(one: Any, other: Any, where: str) -> None:
    assert one.dtype == other.dtype, where
    assert one.shape == other.shape, where
    assert one.tobytes() == other.tobytes(), where
    assert one.flags.writeable == other.flags.writeable, where
