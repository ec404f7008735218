"""GPU records folded in the order of a file that promises none.

A torch trace has the records of a launch together, but for some, and its records in order of time,
but for some. What lies together is folded as it comes, thousands of records at once; the records
themselves are put aside (`Blocks`). In the end those are read back that sums cannot answer for:
records of one call in several parts of the file, and calls that overlap in time. The result is that
of `Fold` in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from profilemate.parse.columns.arrays import Bools, Columns, Ints, Matrix, compact
from profilemate.parse.columns.budget import Budget
from profilemate.parse.columns.int_table import IntTable
from profilemate.parse.columns.packed import pack, unpack
from profilemate.parse.columns.spool import Blocks
from profilemate.parse.gpu.fold_in_order import clusters
from profilemate.parse.gpu.interval_unions import fold
from profilemate.parse.gpu.kernel_sequences import _Sequences, hashes
from profilemate.parse.gpu.work import WORK_COLUMNS
from profilemate.parse.recording.activity import GPU_COLUMNS, GRAPH, KERNEL

_TOGETHER = 1 << 16  # records that are folded at once
IN_MEMORY = 1 << 23  # bytes of packed records; a temporary file has the others
_AT_ONCE = 1 << 18  # about so many are read back at once
NAMES = tuple(n for n in GPU_COLUMNS if n != "pid")
"""Columns of a record; whose it is is found out in the end."""

_WIDE = ("start", "end", "busy")  # columns that are computed with
_ROWS = (*(n for n in WORK_COLUMNS if n not in ("pid", "id")), "mixed")


class AnyOrder:
    """The GPU records of one recording."""

    def __init__(self) -> None:
        self._single: list[int] = []
        self._waiting: list[Matrix] = []
        self._many = 0  # records that wait
        self._rows = IntTable(_ROWS)  # one for each call in each part
        self._parts = Blocks(Budget(held=IN_MEMORY))  # records, packed
        self._first = [0]  # rows before each part
        self._sequences = _Sequences()
        self._length = 0

    def __len__(self) -> int:
        """How many records there are."""
        return self._length + self._many + len(self._single) // len(NAMES)

    def add(self, *record: int) -> None:
        """One record, with the columns `NAMES`."""
        self._single.extend(record)
        if len(self._single) >= _TOGETHER * len(NAMES):
            self._settle()

    def extend(self, records: Matrix) -> None:
        """Records, one a column of the array."""
        if records.shape[1]:
            self._settle()
            self._waiting.append(records)
            self._many += records.shape[1]
            if self._many >= _TOGETHER:
                self._flush()

    def _settle(self) -> None:
        if self._single:
            records = np.array(self._single, dtype=np.int64).reshape(-1, len(NAMES)).T
            self._single = []
            self.extend(records)

    def _flush(self) -> None:
        """Fold what waits."""
        self._settle()
        if self._many:
            together = np.concatenate(self._waiting, axis=1)
            self._waiting, self._many = [], 0
            records = dict(zip(NAMES, together, strict=True))
            row = _row_of(records)
            rows = self._folded(records, row, int(row.max()) + 1)
            self._rows.extend(rows)
            self._parts.add(pack(records))
            self._first.append(self._first[-1] + rows.shape[1])
            self._length += len(row)

    def merge(self, other: AnyOrder, names: Ints) -> None:
        """All records of another one after those of this one, with other numbers of names."""
        self._flush()
        other._flush()
        for records in other.records():
            self._parts.add(pack(records | {"name": names[records["name"]]}))
        numbers = np.append(self._sequences.take(other._sequences, names), -1)
        rows = other._rows.columns()
        rows["sequence"] = numbers[rows["sequence"]]
        self._rows.extend(np.array([rows[name] for name in _ROWS]))
        self._first += [self._first[-1] + n for n in other._first[1:]]
        self._length += other._length

    # -------------------------------------------------------------- folding

    def _folded(self, records: Columns, row: Ints, rows: int) -> Matrix:
        """Records folded by row, with the columns `_ROWS`."""
        start, end, device = records["start"], records["end"], records["device"]
        times = fold(row, rows, start, end)
        kernel = records["kind"] == KERNEL
        of_graph = (records["node"] != 0) | (records["graph"] != 0)
        graph = np.zeros(rows, dtype=np.int64)
        np.maximum.at(graph, row, records["graph"])
        at = np.zeros(rows, dtype=np.int64)
        opening = np.flatnonzero(start == times.first[row])[::-1]
        at[row[opening]] = opening  # of several the first one
        mixed = np.zeros(rows, dtype=np.int64)
        mixed[row[device != device[at][row]]] = 1
        found = {
            "start": times.first,
            "end": times.last,
            "device": device[at],
            "stream": records["stream"][at],
            "correlation": records["correlation"][at],
            "records": times.count,
            "kernels": _summed(row, rows, kernel),
            "kernel_ns": _summed(row, rows, kernel, end - start),
            "busy": times.busy,
            "graph": graph,
            "sequence": self._sequence(records, row, rows, np.flatnonzero(kernel)),
            "graph_records": _summed(row, rows, of_graph),
            "graph_kernels": _summed(row, rows, of_graph & kernel),
            "graph_kernel_ns": _summed(row, rows, of_graph & kernel, end - start),
            "whole": _summed(row, rows, records["kind"] == GRAPH),
            "mixed": mixed,
        }
        return np.array([found[name] for name in _ROWS])

    def _sequence(self, records: Columns, row: Ints, rows: int, kernels: Ints) -> Ints:
        keys = [row[kernels], *(records[n][kernels] for n in ("node", "start", "name"))]
        if not _in_order(keys):
            order = np.lexsort(keys[::-1])
            keys = [key[order] for key in keys]
        of, node, start, name = keys
        tied = np.zeros(len(of), dtype=bool)
        tied[1:] = (of[1:] == of[:-1]) & (start[1:] == start[:-1]) & (node[1:] == node[:-1])
        return self._sequences.number(of, rows, name, tied)

    # -------------------------------------------------------------- what came of it

    def finish(self, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Ints]]:
        """Columns of the rows (all but `pid`), and of the overlaps; to be called once.

        Args:
            names: The names by their numbers.
        """
        self._flush()
        key = self._rows.column("correlation")
        first, row = _calls(key)
        found = self._joined(first, row)
        overlaps = self._overlaps(found, row)
        found["sequence"] = self._sequences.hashes(hashes(names))[found["sequence"]]
        del found["mixed"]
        return found, overlaps

    def _joined(self, first: Ints, row: Ints) -> dict[str, Any]:
        """One row for each call: where it has several, what its records say together."""
        split = np.flatnonzero(np.bincount(row, minlength=len(first)) > 1)
        total = np.zeros(len(first), dtype=np.int64)
        np.add.at(total, row, self._rows.column("records"))
        again = np.empty((len(_ROWS), len(split)), dtype=np.int64)
        for some in _chunks(total[split], np.ones(len(split), dtype=bool)):
            of, records = self._read(row, split[some])
            again[:, some] = self._folded(records, of, len(split[some]))
        found = {}
        for name, values in zip(_ROWS, again, strict=True):
            column = self._rows.column(name)[first]
            column[split] = values
            found[name] = column if name in _WIDE else compact(column)
        return found

    def _overlaps(self, found: dict[str, Ints], row: Ints) -> dict[str, Ints]:
        """Records that run beside those of another row, which then count in no row's union."""
        order = np.argsort(found["start"], kind="stable")
        start, end = found["start"][order], found["end"][order]
        opens = np.ones(len(order), dtype=bool)
        opens[1:] = start[1:] >= np.maximum.accumulate(end)[:-1]
        cluster = np.cumsum(opens) - 1
        doubted = (np.bincount(cluster)[cluster] > 1) | (found["mixed"][order] > 0)
        rows, opens = order[doubted], opens[doubted]
        parts: list[tuple[Ints, ...]] = []
        for some in _chunks(found["records"][rows], opens):
            mine = rows[some]
            of, records = self._read(row, mine)
            by_time = np.argsort(records["start"], kind="stable")
            of = mine[of[by_time]]
            timed = {name: records[name][by_time] for name in ("start", "end", "device")}
            added, mixed = clusters({**timed, "correlation": of}, found["device"][of])
            found["busy"][mine] = 0
            np.add.at(found["busy"], of, added)
            parts.append((*(timed[name][mixed] for name in timed), of[mixed]))
        columns = zip(*parts, strict=True) if parts else [()] * 4
        none = np.empty(0, dtype=np.int64)
        names = ("start", "end", "device", "row")
        return {n: np.concatenate([none, *c]) for n, c in zip(names, columns, strict=True)}

    def _read(self, row: Ints, wanted: Ints) -> tuple[Ints, dict[str, Ints]]:
        """The records of some rows: the place of each one's row among these, and columns."""
        place = np.full(int(row.max(initial=-1)) + 1, -1, dtype=np.int64)
        place[wanted] = np.arange(len(wanted))
        of = place[row]  # for each row of a part
        found: list[tuple[Ints, Matrix]] = []
        for part, (first, end) in enumerate(zip(self._first[:-1], self._first[1:], strict=True)):
            if (of[first:end] >= 0).any():
                records = self._part(part)
                at = of[first + _row_of(records)]
                kept = np.flatnonzero(at >= 0)
                found.append((at[kept], np.array([records[name][kept] for name in NAMES])))
        together = np.concatenate([records for _, records in found], axis=1)
        return np.concatenate([at for at, _ in found]), dict(zip(NAMES, together, strict=True))

    def _part(self, number: int) -> dict[str, Ints]:
        return unpack(self._parts[number])

    def records(self) -> Iterator[dict[str, Ints]]:
        """All records, in the order of the file."""
        self._flush()
        return (self._part(number) for number in range(len(self._parts)))


def _calls(correlation: Ints) -> tuple[Ints, Ints]:
    """The first row of each call in the order of the file, and the call of each row.

    Rows without a correlation id are calls of their own.
    """
    order = np.argsort(correlation, kind="stable")
    key = correlation[order]
    opens = np.ones(len(key), dtype=bool)
    opens[1:] = (key[1:] != key[:-1]) | (key[1:] == 0)
    first = order[opens]
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    call = np.empty(len(key), dtype=np.int64)
    call[order] = rank[np.cumsum(opens) - 1]
    return np.sort(first), call


def _in_order(keys: Sequence[Ints]) -> bool:
    """Whether elements are in order of the first key, then of the second and so on.

    Kernels of a graph nearly always are, which is found out sooner than sorted.
    """
    level = np.ones(max(len(keys[0]) - 1, 0), dtype=bool)  # equal by all keys up to here
    for key in keys:
        if (level & (key[1:] < key[:-1])).any():
            return False
        level &= key[1:] == key[:-1]
    return True


def _row_of(records: Columns) -> Ints:
    """The row of each record in its part: of equal records always the same."""
    key = records["correlation"]
    opens = np.ones(len(key), dtype=bool)
    opens[1:] = key[1:] != key[:-1]
    row: Ints = np.unique(key[opens], return_inverse=True)[1][np.cumsum(opens) - 1]
    return row


def _summed(row: Ints, rows: int, which: Bools, values: Ints | None = None) -> Ints:
    """How many of some records each row has, or the sum of their values."""
    if values is None:
        return np.bincount(row[which], minlength=rows).astype(np.int64)
    total = np.zeros(rows, dtype=np.int64)
    np.add.at(total, row[which], values[which])
    return total


def _chunks(records: Ints, opens: Bools) -> Iterator[slice]:
    """Stretches of about `_AT_ONCE` records, each from where one may begin."""
    begins, count = [0], 0
    for at, (more, may) in enumerate(zip(records.tolist(), opens.tolist(), strict=True)):
        if may and count >= _AT_ONCE:
            begins.append(at)
            count = 0
        count += more
    if len(records):
        yield from map(slice, begins, [*begins[1:], len(records)])


# ------------------------------------------------------------------ sequences of kernels
