"""The log of block operations: all of them in order, a slice at a time.

Ten million operations are gigabytes as a frame and some 200 MB in packed columns, which go into a
temporary file where that is more than is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import NONE, Bools, Ints
from profilemate.parse.columns.budget import Budget
from profilemate.parse.columns.id_lists import IdLists
from profilemate.parse.columns.packed import joined, pack, picked, rows_of, unpack
from profilemate.parse.columns.pandas import booleans, column_of, integers
from profilemate.parse.columns.spool import Blocks
from profilemate.parse.trace.event_columns import KV_COLUMNS
from profilemate.schema import KV_OPS

OPS = tuple(name.removeprefix("kv.") for name in KV_OPS)
"""Names of the operations, by their number."""


class Texts:
    """Different strings, and columns of them."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self._numbers: dict[str, int] = {}  # of those that were asked for
        self._dtype: Any = pd.StringDtype()
        self._arrow: Any = None
        if self._dtype.storage == "pyarrow":
            import pyarrow as pa

            try:
                self._arrow = pa.array(self.texts, type=pa.large_string())
            except UnicodeEncodeError:  # a lone surrogate, which UTF-8 cannot spell
                self._arrow = None

    def number(self, text: str) -> int:
        """The number of a string; -2, which no column has, where it is none of these."""
        if text not in self._numbers:
            self._numbers[text] = self.texts.index(text) if text in self.texts else -2
        return self._numbers[text]

    def column(self, codes: Ints) -> Any:
        """The strings of these numbers, NA for -1, as a column of dtype `string`."""
        if self._arrow is not None:
            import pyarrow as pa

            taken = self._arrow.take(pa.array(codes, mask=codes < 0))
            return self._dtype.__from_arrow__(pa.chunked_array([taken]))
        values = np.array([*self.texts, None], dtype=object)
        return pd.array(values[codes], dtype="string")


_OPS_TEXTS = Texts(OPS)
_NUMBERS = ("dur", "pool", "used", "group")
_FLAGS = ("partial", "hit", "ok")
_STRINGS = ("req", "cause")
_LISTS = ("ids", "subset", "dst")


@dataclass(frozen=True, slots=True)
class KvSlice:
    """n operations of one process that follow each other.

    Attributes:
        first: Row of the first of them in the log.
        pid: Their process.
        columns: By the names of `KV_COLUMNS` (but `pid`), as many of them as were asked for, each
            of length n. `ids`, `subset` and `dst` are `IdLists`; all others are arrays of int64:
            `ts` in ns on the trace's clock, `dur` in ns, `op` the number in `OPS`, `req` and
            `cause` numbers in `texts`, -1 for none, flags 1, 0 or -1 for unknown; `NONE` where
            another number is unknown.
        texts: The strings of the log.
    """

    first: int
    pid: int
    columns: Mapping[str, Any]
    texts: Texts

    def __len__(self) -> int:
        """How many operations there are."""
        return rows_of(self.columns)

    def ints(self, name: str, unknown: int = NONE) -> Ints:
        """A column of integers, with `unknown` where an operation does not say."""
        values: Ints = self.columns[name]
        return values if unknown == NONE else np.where(values == NONE, unknown, values)

    def ids(self, name: str = "ids") -> IdLists:
        """A column of lists of block ids."""
        lists: IdLists = self.columns[name]
        return lists

    def says(self, flag: str) -> Bools:
        """Where a flag is true; one that is unknown counts as False."""
        return np.asarray(self.columns[flag] == 1)

    def is_op(self, *ops: str) -> Bools:
        """Which operations are one of these."""
        op = self.columns["op"]
        return np.asarray(np.logical_or.reduce([op == OPS.index(name) for name in ops]))

    def by_connector(self) -> Bools:
        """Which operations a KV connector caused."""
        return np.asarray(self.columns["cause"] == self.texts.number("connector"))

    def pick(self, rows: Any) -> KvSlice:
        """Those of these rows (indices or a mask), which need not follow each other any more."""
        return KvSlice(self.first, self.pid, picked(self.columns, rows), self.texts)

    def column(self, name: str) -> Any:
        """A column as pandas has it, with NA where an operation does not say."""
        if name == "pid":
            return np.full(len(self), self.pid, dtype=np.int64)
        values = self.columns[name]
        if name in _NUMBERS:
            return integers(values)
        if name in _FLAGS:
            return booleans(values)
        if name == "op":
            return _OPS_TEXTS.column(values)
        if name in _STRINGS:
            return self.texts.column(values)
        return column_of(values) if name in _LISTS else values

    def frame(self) -> pd.DataFrame:
        """All its columns and `pid` as a frame, in the order of `KV_COLUMNS`."""
        names = [name for name in KV_COLUMNS if name == "pid" or name in self.columns]
        return pd.DataFrame({name: self.column(name) for name in names})


ALL = tuple(name for name in KV_COLUMNS if name != "pid")
"""All columns of a slice."""


def empty_slice(columns: Sequence[str]) -> KvSlice:
    """No operation at all."""
    nothing: dict[str, Any] = {
        name: IdLists.none(0) if name in _LISTS else np.empty(0, dtype=np.int64) for name in columns
    }
    return KvSlice(0, 0, nothing, Texts([]))


def joined_slices(parts: Sequence[KvSlice]) -> KvSlice:
    """Slices of one process that follow each other, as one."""
    columns = joined([part.columns for part in parts])
    return KvSlice(parts[0].first, parts[0].pid, columns, parts[0].texts)


@dataclass(frozen=True, slots=True)
class Segment:
    """Operations of one process that follow each other.

    Attributes:
        block: Number of the bytes that hold them.
        rows: How many there are.
        pid: Their process.
        seq: Number of the first one in its process.
    """

    block: int
    rows: int
    pid: int
    seq: int


@dataclass(frozen=True, slots=True)
class KvLog:
    """All operations in the order of (pid, seq), in packed columns.

    Attributes:
        blocks: The bytes of its segments, and maybe of others.
        segments: In order.
        texts: The strings in it.
    """

    blocks: Blocks
    segments: Sequence[Segment]
    texts: Texts

    @property
    def budget(self) -> Budget:
        """What may be kept in memory of what is made of it."""
        return self.blocks.budget

    def __len__(self) -> int:
        """How many operations there are."""
        return sum(one.rows for one in self.segments)

    def slices(self, columns: Sequence[str]) -> Iterator[KvSlice]:
        """All operations with these columns, slice by slice, each of one process."""
        first = 0
        for one in self.segments:
            data = unpack(self.blocks[one.block], columns)
            if "seq" in columns:
                data["seq"] = np.arange(one.seq, one.seq + one.rows, dtype=np.int64)
            yield KvSlice(first, one.pid, data, self.texts)
            first += one.rows

    def only(self, pids: set[int]) -> KvLog:
        """The operations of some processes."""
        segments = [one for one in self.segments if one.pid in pids]
        return KvLog(self.blocks, segments, self.texts)


class KvLogWriter:
    """Makes a log of operations, which come in the order of each process."""

    def __init__(self, budget: Budget) -> None:
        self._blocks = Blocks(budget)
        self._segments: list[Segment] = []
        self._counts: dict[int, int] = {}  # operations so far, by process

    def add(self, pid: int, columns: Mapping[str, Any]) -> None:
        """Add operations of a process: all columns of `KvSlice` but `pid` and `seq`."""
        seq, rows = self._counts.get(pid, 0), rows_of(columns)
        self._segments.append(Segment(self._blocks.add(pack(columns)), rows, pid, seq))
        self._counts[pid] = seq + rows

    def log(self, texts: Texts) -> KvLog:
        """The log, with the strings that the columns have the numbers of."""
        return KvLog(self._blocks, self._segments, texts)


def empty_log() -> KvLog:
    """A log without operations."""
    return KvLog(Blocks(Budget()), [], Texts([]))


def together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Frames of the same columns, one after the other."""
    return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
