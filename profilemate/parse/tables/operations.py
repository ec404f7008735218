"""What is asked of single block operations by their row in the log, and resets of the cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.columns.budget import Budget
from profilemate.parse.columns.spool import array
from profilemate.parse.tables.base import Bools, flags, numbers
from profilemate.parse.tables.pools import Pools
from profilemate.parse.trace.kv_log import Log, Slice

NEEDED = ("pid", "pool", "ts", "op", "ids", "subset", "dst", "group", "hit", "cause", "ok")
"""Columns of the log that `Operations.take` looks at, and `entries_of`."""

_HIT, _CONNECTOR = 1, 2


class Operations:
    """Some facts of every operation.

    Attributes:
        ts: When each began, ns.
        texts: The strings that `request` has the numbers of.
    """

    def __init__(self, log: Log) -> None:
        self._budget: Budget = log.budget
        self.ts: npt.NDArray[np.int64] = array(len(log), "int64", log.budget)
        self._flags: npt.NDArray[np.uint8] = array(len(log), "uint8", log.budget)
        self._request: npt.NDArray[np.int32] = array(len(log), "int32", log.budget)
        self._group: Ints | None = None
        codes, self.texts = log.requests()
        at = 0
        for some in codes:
            self._request[at : at + len(some)] = some
            at += len(some)

    def take(self, part: Slice) -> None:
        """Note the facts of some operations."""
        kv, rows = part.frame, slice(part.first, part.first + len(part.frame))
        self.ts[rows] = kv["ts"].to_numpy(dtype=np.int64)
        connector = (kv["cause"] == "connector").to_numpy(dtype=bool, na_value=False)
        self._flags[rows] = _HIT * flags(kv["hit"]) + _CONNECTOR * connector
        group = numbers(kv["group"], 0)
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


@dataclass(slots=True)
class Resets:
    """Successful resets of the prefix cache: their rows in order, by stream."""

    found: dict[int, list[int]]

    def take(self, part: Slice, streams: Pools) -> None:
        """Note those among some operations."""
        kv = part.frame
        ok = (kv["op"] == "reset").to_numpy(dtype=bool, na_value=False) & flags(kv["ok"])
        some = np.flatnonzero(ok)
        if not len(some):
            return
        stream = streams.of(kv)
        for at in some.tolist():
            self.found.setdefault(int(stream[at]), []).append(part.first + at)

    def before(self, stream: Ints, row: Ints) -> Ints:
        """How many came so far in its stream, up to each row and with it."""
        count = np.zeros(len(row), dtype=np.int64)
        for number, rows in self.found.items():
            mine = stream == number
            count[mine] = np.searchsorted(rows, row[mine], side="right")
        return count

    def count(self, stream: Ints) -> Ints:
        """How many there are in each stream."""
        count = np.zeros(len(stream), dtype=np.int64)
        for number, rows in self.found.items():
            count[stream == number] = len(rows)
        return count

    def row_of(self, stream: Ints, number: Ints) -> Ints:
        """Row of the reset of this number in its stream."""
        row = np.zeros(len(stream), dtype=np.int64)
        for which, rows in self.found.items():
            mine = stream == which
            row[mine] = np.array(rows, dtype=np.int64)[number[mine]]
        return row
