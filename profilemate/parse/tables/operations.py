"""What is asked of single block operations by their row in the log, and resets of the cache."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.columns.budget import Budget
from profilemate.parse.columns.spool import array
from profilemate.parse.tables.base import Bools
from profilemate.parse.tables.pools import Pools
from profilemate.parse.trace.kv_log import KvLog, KvSlice

NEEDED = ("pool", "ts", "op", "ids", "subset", "dst", "req", "group", "hit", "cause", "ok")
"""Columns of the log that `Operations.take` looks at, and `entries_of`."""

_HIT, _CONNECTOR = 1, 2


class Operations:
    """Some facts of every operation of a log, by its row there.

    Attributes:
        ts: When each began, ns on the trace's clock.
        texts: The strings that `request` has the numbers of.
    """

    def __init__(self, log: KvLog) -> None:
        self._budget: Budget = log.budget
        self.ts: npt.NDArray[np.int64] = array(len(log), "int64", log.budget)
        self._flags: npt.NDArray[np.uint8] = array(len(log), "uint8", log.budget)
        self._request: npt.NDArray[np.int32] = array(len(log), "int32", log.budget)
        self._group: Ints | None = None
        self.texts = log.texts

    def take(self, part: KvSlice) -> None:
        """Note the facts of some operations."""
        rows = slice(part.first, part.first + len(part))
        self.ts[rows] = part.ints("ts")
        self._request[rows] = part.ints("req")
        self._flags[rows] = _HIT * part.says("hit") + _CONNECTOR * part.by_connector()
        group = part.ints("group", 0)
        if self._group is None and group.any():
            # Most models have but one group.
            self._group = array(len(self.ts), "int64", self._budget)
            self._group[:] = 0
        if self._group is not None:
            self._group[rows] = group

    def hit(self, rows: Ints) -> Bools:
        """Whether each of some operations says that it is a prefix hit."""
        return np.asarray(self._flags[rows] & _HIT, dtype=bool)

    def by_connector(self, rows: Ints) -> Bools:
        """Whether a connector caused each of some operations."""
        return np.asarray(self._flags[rows] & _CONNECTOR, dtype=bool)

    def group(self, rows: Ints) -> Ints:
        """KV cache group of some operations, 0 where they do not say."""
        return np.zeros(len(rows), dtype=np.int64) if self._group is None else self._group[rows]

    def request(self, rows: Ints) -> Ints:
        """Number in `texts` of the request of each operation, -1 where it says none."""
        return self._request[rows].astype(np.int64)


class Resets:
    """Successful resets of the prefix cache: their rows in order, by stream."""

    def __init__(self) -> None:
        self._rows: dict[int, list[int]] = {}

    def take(self, part: KvSlice, streams: Pools) -> None:
        """Note those among some operations."""
        resets = np.flatnonzero(part.is_op("reset") & part.says("ok"))
        if not len(resets):
            return
        stream = streams.of(part)
        for at in resets.tolist():
            self._rows.setdefault(int(stream[at]), []).append(part.first + at)

    def before(self, stream: Ints, row: Ints) -> Ints:
        """How many came so far in its stream, up to each row and with it."""
        count = np.zeros(len(row), dtype=np.int64)
        for number, rows in self._rows.items():
            in_stream = stream == number
            count[in_stream] = np.searchsorted(rows, row[in_stream], side="right")
        return count

    def count(self, stream: Ints) -> Ints:
        """How many there are in each stream."""
        count = np.zeros(len(stream), dtype=np.int64)
        for number, rows in self._rows.items():
            count[stream == number] = len(rows)
        return count

    def row_of(self, stream: Ints, number: Ints) -> Ints:
        """Row of the reset of this number in its stream."""
        row = np.zeros(len(stream), dtype=np.int64)
        for which, rows in self._rows.items():
            in_stream = stream == which
            row[in_stream] = np.array(rows, dtype=np.int64)[number[in_stream]]
        return row
