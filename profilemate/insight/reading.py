"""What rules need to read a session: columns as arrays, and the reason where there is nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse.session.saved import SavedSession


class NoData(Exception):  # noqa: N818 - a result, not an error
    """The recording cannot answer a rule's question; the message says why, for people."""


Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def rows_of(session: SavedSession, name: str, columns: Iterable[str]) -> pd.DataFrame:
    """A table that must have rows and these columns.

    Raises:
        NoData: It has not; the session's own words on it, where it has some.
    """
    frame = session.table(name)
    if frame.empty:
        said = session.metadata.get("empty_files")
        why = said.get(f"{name}.csv") if isinstance(said, dict) else None
        raise NoData(str(why) if why else f"{name}.csv has no rows")
    return table_of(session, name, columns)


def table_of(session: SavedSession, name: str, columns: Iterable[str]) -> pd.DataFrame:
    """A table that may be without rows, but must have these columns.

    Raises:
        NoData: It has not.
    """
    frame = session.table(name)
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise NoData(f"{name}.csv has no column {missing[0]}: another profilemate wrote it")
    return frame


def objects(metadata: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects of a list in metadata.json; what is none is left out."""
    value = metadata.get(name)
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def object_of(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object in metadata.json, an empty one if there is none."""
    value = metadata.get(name)
    return value if isinstance(value, dict) else {}


def floats(column: pd.Series) -> Floats:
    """A column of numbers; what is not known is NaN."""
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def total(frame: pd.DataFrame, column: str) -> float | None:
    """The sum of a column's known values, None where none is known."""
    values = floats(frame[column]) if column in frame else np.array([])
    return None if np.isnan(values).all() else float(np.nansum(values))


def texts(column: pd.Series) -> npt.NDArray[np.object_]:
    """A column of words; what is not known is an empty one."""
    return column.astype("string").fillna("").to_numpy(dtype=object)


def truths(column: pd.Series) -> Bools:
    """A column of `True` and `False`; what is not known counts as False."""
    return cast("Bools", texts(column) == "True")


def fact(session: SavedSession, *keys: str) -> float | None:
    """A number in metadata.json by its path, None where there is none."""
    value: object = session.metadata
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(cast("float", value)) if number else None


def window(session: SavedSession) -> tuple[float, float] | None:
    """Begin and end of the recording, s; None where metadata.json does not say."""
    said = session.metadata.get("window_sec")
    if isinstance(said, list) and len(said) == 2:
        begin, end = said
        if isinstance(begin, int | float) and isinstance(end, int | float) and end > begin:
            return float(begin), float(end)
    return None


def percent(share: float, digits: int = 1) -> str:
    """A share as text; what is not nought is not shown as nought, nor as all what is not."""
    text, least = f"{100 * share:.{digits}f}", 10**-digits
    if share > 0 and float(text) == 0:
        return f"< {least:g} %"
    if share < 1 and float(text) == 100:
        return f"> {100 - least:g} %"
    return f"{text.removesuffix('.' + '0' * digits)} %"


def count(number: float, one: str, many: str | None = None) -> str:
    """A number with its noun: `1 step`, `12,000 steps`."""
    return f"{number:,.0f} {one if number == 1 else many or one + 's'}"
