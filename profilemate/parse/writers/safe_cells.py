"""Cells that no spreadsheet takes for a formula, and the text behind them again.

A name in a recording is anybody's: `=HYPERLINK(...)` as a request id is text to us and a program to
a spreadsheet. With an apostrophe in front it is text there too. Numbers of ours are not touched.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype, is_string_dtype

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_GUARDED = re.compile(r"'+[=+\-@\t\r]")


class ColumnLayout(Protocol):
    """A column as far as it matters here. `profilemate.parse.tables.Column` is one."""

    @property
    def name(self) -> str:
        """Its name in the header."""

    @property
    def spelling(self) -> str:
        """A key of `SPELLINGS`."""


def guarded(frame: pd.DataFrame, columns: Sequence[ColumnLayout]) -> pd.DataFrame:
    """The frame with an apostrophe in front of each text that looks like a formula.

    So it is with one that has apostrophes there already: what `unguarded` makes of it is the text.
    """
    changed = {
        c.name: _of_texts(frame[c.name], _FORMULA, lambda text: f"'{text}")
        for c in columns
        if c.spelling == "value" and not _is_number(frame[c.name])
    }
    return frame.assign(**changed) if changed else frame


def unguarded(frame: pd.DataFrame, **how: Any) -> pd.DataFrame:
    """What `guarded` was given, from a frame that was read from its CSV file.

    Args:
        frame: The frame.
        how: How `pandas.read_csv` read it: numbers among texts are told as it tells them.
    """
    for name in frame.columns:
        column = frame[name]
        if is_string_dtype(column.dtype) and column.str.match(_GUARDED).any():
            texts = _of_texts(column, _GUARDED, lambda text: text[1:])
            # The csv module quotes a line feed or carriage return that ends its own lines.
            spelled = texts.to_frame(name).to_csv(index=False, na_rep="None", lineterminator="\r\n")
            file = io.StringIO(spelled, newline="")
            frame = frame.assign(**{name: pd.read_csv(file, **how)[name].set_axis(frame.index)})
    return frame


def _is_number(column: pd.Series) -> bool:
    return is_numeric_dtype(column.dtype) or is_bool_dtype(column.dtype)


def _of_texts(column: pd.Series, form: re.Pattern[str], change: Callable[[str], str]) -> pd.Series:
    values = column.astype(object)
    return values.map(lambda v: change(v) if isinstance(v, str) and form.match(v) else v)
