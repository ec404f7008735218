"""What rules need to read a session: columns as arrays, and the reason where there is nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables import TABLES


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
        file = TABLES[name].file
        raise NoData(session.metadata.empty_files.get(file) or f"{file} has no rows")
    return table_of(session, name, columns)


def table_of(session: SavedSession, name: str, columns: Iterable[str]) -> pd.DataFrame:
    """A table that may be without rows, but must have these columns.

    Raises:
        NoData: It has not.
    """
    frame = session.table(name)
    absent = session.lacks(name)
    missing = [c for c in columns if c not in frame.columns or c in absent]
    if missing:
        raise NoData(f"{name}.csv has no column {missing[0]}: another profilemate wrote it")
    return frame


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


def window(session: SavedSession) -> tuple[float, float] | None:
    """Begin and end of the recording, s; None where metadata.json does not say."""
    said = session.metadata.window_sec
    return said if said is not None and said[1] > said[0] else None


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
