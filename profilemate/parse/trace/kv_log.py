"""The log of block operations: all of them in order, a slice at a time.

Ten million operations are gigabytes as a frame and some 200 MB in packed columns, which go into a
temporary file where that is more than is allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.columns.budget import Budget
from profilemate.parse.columns.packed import unpack
from profilemate.parse.columns.pandas import booleans, column_of, integers
from profilemate.parse.columns.spool import Blocks
from profilemate.parse.trace.event_columns import KV_COLUMNS, empty_frame
from profilemate.schema import KV_OPS

OPS = tuple(name.removeprefix("kv.") for name in KV_OPS)
"""Names of the operations, by their number."""


class Slice(NamedTuple):
    """Some operations that follow each other.

    Attributes:
        first: Row of the first of them in the log.
        frame: The operations, with columns of `trace.KV_COLUMNS`; its index begins at 0.
    """

    first: int
    frame: pd.DataFrame


class Log(Protocol):
    """Operations in the order of (pid, seq)."""

    @property
    def budget(self) -> Budget:
        """What may be kept in memory of what is made of it."""

    def __len__(self) -> int:
        """How many operations there are."""

    def slices(self, columns: Sequence[str]) -> Iterator[Slice]:
        """All operations, slice by slice, each of one process or of several."""

    def frame(self) -> pd.DataFrame:
        """All operations at once."""

    def only(self, pids: set[int]) -> Log:
        """The operations of some processes."""

    def requests(self) -> tuple[Iterator[Ints], Texts]:
        """The column `req` as numbers of strings, -1 for none, slice by slice; the strings."""


@dataclass(frozen=True, slots=True)
class FrameLog:
    """A log that is a frame."""

    whole: pd.DataFrame
    budget: Budget = field(default_factory=Budget)

    def __len__(self) -> int:
        """How many operations there are."""
        return len(self.whole)

    def slices(self, columns: Sequence[str]) -> Iterator[Slice]:
        """All operations, slice by slice."""
        some = self.whole[list(columns)]
        for first in range(0, len(some), self.budget.rows):
            part = some.iloc[first : first + self.budget.rows]
            yield Slice(first, part.reset_index(drop=True))

    def frame(self) -> pd.DataFrame:
        """All operations at once."""
        return self.whole

    def only(self, pids: set[int]) -> FrameLog:
        """The operations of some processes."""
        mine = self.whole[self.whole["pid"].isin(pids)].reset_index(drop=True)
        return FrameLog(mine, self.budget)

    def requests(self) -> tuple[Iterator[Ints], Texts]:
        """The column `req` as numbers of strings, and these."""
        codes, texts = pd.factorize(self.whole["req"])
        return iter([codes.astype(np.int64)]), Texts([str(text) for text in texts])


class Texts:
    """Different strings, and columns of them."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self._dtype: Any = pd.StringDtype()
        self._arrow: Any = None
        if self._dtype.storage == "pyarrow":
            import pyarrow as pa

            try:
                self._arrow = pa.array(self.texts, type=pa.large_string())
            except UnicodeEncodeError:  # a lone surrogate, which UTF-8 cannot spell
                self._arrow = None

    def column(self, codes: Ints) -> Any:
        """The strings of these numbers, NA for -1, as a column of dtype `string`."""
        if self._arrow is not None:
            import pyarrow as pa

            taken = self._arrow.take(pa.array(codes, mask=codes < 0))
            return self._dtype.__from_arrow__(pa.chunked_array([taken]))
        values = np.array([*self.texts, None], dtype=object)
        return pd.array(values[codes], dtype="string")


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


_OPS_TEXTS = Texts(OPS)
_NUMBERS = ("dur", "pool", "used", "group")
_FLAGS = ("partial", "hit", "ok")
_STRINGS = ("req", "cause")
_LISTS = ("ids", "subset", "dst")


@dataclass(frozen=True, slots=True)
class KvLog:
    """A log in packed columns.

    Attributes:
        blocks: The bytes of its segments, and maybe of others.
        segments: In order.
        texts: The strings in it.
    """

    blocks: Blocks
    segments: list[Segment]
    texts: Texts

    @property
    def budget(self) -> Budget:
        """What may be kept in memory of what is made of it."""
        return self.blocks.budget

    def __len__(self) -> int:
        """How many operations there are."""
        return sum(one.rows for one in self.segments)

    def slices(self, columns: Sequence[str]) -> Iterator[Slice]:
        """All operations, slice by slice, each of one process."""
        first = 0
        for one in self.segments:
            found = unpack(self.blocks[one.block], columns)
            yield Slice(first, self._frame(one, found, columns))
            first += one.rows

    def _frame(
        self, one: Segment, found: Mapping[str, Any], columns: Collection[str]
    ) -> pd.DataFrame:
        return pd.DataFrame({name: self._column(one, found, name) for name in columns})

    def _column(self, one: Segment, found: Mapping[str, Any], name: str) -> Any:
        if name == "pid":
            return np.full(one.rows, one.pid, dtype=np.int64)
        if name == "seq":
            return np.arange(one.seq, one.seq + one.rows, dtype=np.int64)
        values = found[name]
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
        """All operations at once; ten million take gigabytes."""
        parts = [part.frame for part in self.slices(list(KV_COLUMNS))]
        if not parts:
            return empty_frame("kv")
        return together(parts)

    def only(self, pids: set[int]) -> KvLog:
        """The operations of some processes."""
        mine = [one for one in self.segments if one.pid in pids]
        return KvLog(self.blocks, mine, self.texts)

    def requests(self) -> tuple[Iterator[Ints], Texts]:
        """The column `req` as numbers of strings, and these."""
        blocks = (self.blocks[one.block] for one in self.segments)
        return (unpack(block, ("req",))["req"] for block in blocks), self.texts


def together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Frames of the same columns, one after the other."""
    return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
