"""What a table is, and the few lines every table needs to make its frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.trace.trace import Trace

Bools = npt.NDArray[np.bool_]

Spelling = Literal[
    "value",
    "seconds",
    "fine_seconds",
    "milliseconds",
    "fine_milliseconds",
    "percent",
    "ratio",
    "ids",
]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    `spelling` says what the frame holds and what a writer makes of it: `seconds` (int ns ->
    seconds, 3 decimals), `fine_seconds` (int ns -> seconds, 6 decimals), `milliseconds` (int ns ->
    ms, 3 decimals), `fine_milliseconds` (int ns -> ms, 6 decimals), `percent` (0..1 -> percent, 2
    decimals), `ratio` (0..1, 4 decimals), `ids` (tuple of int -> ranges), `value` (as it is). NA is
    spelled None everywhere.
    """

    name: str
    spelling: Spelling
    doc: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the CSV layout: its file is `<name>.csv`, or `<name>.txt` where it has a heading.

    A table with a `heading` is a list of `name: value` lines: a frame of one row, or of none where
    nothing was recorded, which may lack some of its columns.

    A table is about one rank: `build` is given the trace of that rank, and each rank has a file.
    One that is `of_run` is about all of them: it is built once, of the whole trace.

    A table whose length grows with that of the recording is also built in `slices`: at least one
    frame, which together are what `build` returns.

    `events` are the kinds of events that it is made of: where some of these may be missing, because
    a hook failed, nothing that is made of the table is known. What a single column has of other
    kinds (the scheduler's side of a step) is None where those are missing.
    """

    name: str
    doc: str
    columns: tuple[Column, ...]
    build: Callable[[Trace], pd.DataFrame]
    standard: bool = False  # one of the files whose columns never change
    heading: str = ""
    of_run: bool = False
    slices: Callable[[Trace], Iterator[pd.DataFrame]] | None = None
    events: tuple[str, ...] = ()

    def parts(self, trace: Trace) -> Iterator[pd.DataFrame]:
        """The table, in one piece or in several."""
        if self.slices is None:
            yield self.build(trace)
        else:
            yield from self.slices(trace)

    @property
    def file(self) -> str:
        """Name of its file in a session directory."""
        return f"{self.name}.txt" if self.heading else f"{self.name}.csv"


def frame_of(columns: tuple[Column, ...], data: Mapping[str, object]) -> pd.DataFrame:
    """A frame with exactly these columns, in their order."""
    return pd.DataFrame({c.name: data[c.name] for c in columns})


def nullable(values: Ints, known: Bools) -> pd.arrays.IntegerArray:
    """Integers of which some are not known."""
    return pd.arrays.IntegerArray(np.where(known, values, 0), ~known)


def flags(series: pd.Series) -> Bools:
    """A nullable boolean column as plain booleans; NA counts as False."""
    return series.to_numpy(dtype=bool, na_value=False)


def numbers(series: pd.Series, unknown: int) -> Ints:
    """A nullable integer column as plain integers, with a stand-in for NA."""
    return series.to_numpy(dtype=np.int64, na_value=unknown)
