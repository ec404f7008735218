"""GPU records folded as they stream in: a row per API call instead of one per record.

The answers stay exact for every grouping that is asked for later (launches, steps, devices), though
it is not known yet. In order of time the records of a process fall into clusters: records that
overlap, with nothing running between one cluster and the next. A cluster whose records all belong
to one call on one device is that call's alone: the length of its union adds up, whatever the call
is grouped with. The few records of the other clusters (a copy beside a kernel of the next step) are
kept as they are, as `overlaps`, and their union is computed once the groups are known.

A reader that gives its records in order of time says so, see `Fold.until`; memory then does not
grow with the records. Without such a promise they wait, in few bytes, until the last one has come.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import (
    FOREVER,
    Bools,
    Columns,
    Hashes,
    Ints,
    compact,
    run_starts,
)
from profilemate.parse.gpu.kernel_sequences import hashes, mix_by_group
from profilemate.parse.gpu.work import WORK_COLUMNS

KERNEL, GRAPH = 0, 3  # of `activity`, which stands above this module
_BLOCK = 1 << 17  # records that are folded together


_TIMES = ("start", "end")
_GIVEN = ("start", "end", "device", "stream", "correlation", "graph", "node", "kind", "name")


class UnorderedError(Exception):
    """A record came after the promise that none so early would: read all of it again without."""


def _of_graphs(records: Columns) -> npt.NDArray[Any]:
    """The correlation ids of records that name their node, each at least once."""
    named = records["correlation"][records["node"] != 0]
    found: npt.NDArray[Any] = named[run_starts(named)] if len(named) else named
    return found


class _Process:
    """The records of one process that wait to be folded."""

    def __init__(self) -> None:
        self.parts: list[dict[str, npt.NDArray[Any]]] = []
        self.waiting = 0
        self.tried = 0  # records that waited when nothing could be cut off last time
        self.done = -FOREVER  # everything before is folded
        self.flushed: list[npt.NDArray[Any]] = []  # correlation ids of graphs whose rows are made
        self.highest = -1

    def settled(self) -> dict[str, npt.NDArray[Any]]:
        """What waits, in order of time."""
        joined = {n: np.concatenate([p[n] for p in self.parts]) for n in _GIVEN}
        if (joined["start"][1:] < joined["start"][:-1]).any():
            order = np.argsort(joined["start"], kind="stable")
            joined = {n: values[order] for n, values in joined.items()}
        return joined

    def again(self, key: Ints) -> bool:
        """Whether some of a graph's correlation ids have a row already; takes them in."""
        if not len(key):
            return False
        low, high = int(key.min()), int(key.max())
        known = low <= self.highest and any(np.isin(key, some).any() for some in self.flushed)
        self.flushed.append(key)
        self.highest = max(self.highest, high)
        return known


class Fold:
    """The GPU records of one recording, folded as they come.

    Attributes:
        names: What the numbers in the column `name` stand for; those of the records that begin
            before `until` must be known when that is called.
    """

    def __init__(self, first_id: int = 0) -> None:
        self.names: dict[int, str] = {}
        self._next = first_id
        self._processes: dict[int, _Process] = {}
        self._work: list[dict[str, npt.NDArray[Any]]] = []
        self._overlaps: list[dict[str, npt.NDArray[Any]]] = []
        self._hashed: tuple[int, Ints, Hashes] = (-1, np.empty(0, np.int64), np.empty(0, np.uint64))

    def add(self, batch: Columns) -> None:
        """Take records, with `activity.GPU_COLUMNS`.

        Raises:
            UnorderedError: One begins before what `until` promised.
        """
        low, high = int(batch["pid"].min()), int(batch["pid"].max())
        pids = [low] if low == high else np.unique(batch["pid"]).tolist()
        for pid in pids:
            mine = batch
            if low != high:
                rows = np.flatnonzero(batch["pid"] == pid)
                mine = {name: batch[name][rows] for name in _GIVEN}
            of = self._processes.setdefault(pid, _Process())
            if int(mine["start"].min()) < of.done:
                raise UnorderedError
            part = {name: np.asarray(mine[name], dtype=np.int64) for name in _GIVEN}
            of.parts.append({n: v if n in _TIMES else compact(v) for n, v in part.items()})
            of.waiting += len(mine["start"])

    def until(self, ts: int) -> None:
        """No record that begins before `ts` will come any more.

        Raises:
            UnorderedError: A graph's records were so far apart that its row was made too early.
        """
        for pid, of in self._processes.items():
            if pid >= 0 and of.waiting >= max(_BLOCK, 2 * of.tried):
                self._cut(pid, of, ts)

    def _cut(self, pid: int, of: _Process, ts: int) -> None:
        """Fold what is over: where nothing runs, and no call has records on both sides."""
        waits = of.settled()
        start, key = waits["start"], waits["correlation"]
        ends = np.maximum.accumulate(waits["end"])
        count = len(start)
        free = np.zeros(count, dtype=bool)  # whether a cut may lie before this record
        free[1:] = (start[1:] >= ends[:-1]) & (start[1:] <= ts)
        order = np.argsort(key, kind="stable")  # nearly sorted already: one pass
        runs = run_starts(key[order])
        reach = np.empty(count, dtype=np.int64)  # the last record of the same call
        ends_at = np.append(runs[1:], count)
        reach[order] = np.repeat(order[ends_at - 1], ends_at - runs)
        reach[key == 0] = 0
        free[1:] &= np.maximum.accumulate(reach)[:-1] < np.arange(1, count)
        cuts = np.flatnonzero(free)
        if not len(cuts):
            of.parts, of.tried = [waits], count
            return
        at = int(cuts[-1])
        now = {name: values[:at] for name, values in waits.items()}
        of.parts = [{name: values[at:].copy() for name, values in waits.items()}]
        of.waiting, of.tried, of.done = count - at, 0, int(ends[at - 1])
        if of.again(_of_graphs(now)):
            raise UnorderedError
        self._make(pid, now)

    def finish(self) -> tuple[list[dict[str, npt.NDArray[Any]]], list[dict[str, npt.NDArray[Any]]]]:
        """After the last record: parts of the columns of the rows, and of the overlaps.

        Raises:
            UnorderedError: As above.
        """
        for pid, of in sorted(self._processes.items()):
            if of.waiting:
                waits = of.settled()
                of.parts.clear()
                if of.again(_of_graphs(waits)):
                    raise UnorderedError
                self._make(pid, waits)
        self._processes.clear()
        return self._work, self._overlaps

    @property
    def next_id(self) -> int:
        """The first `id` that is free."""
        return self._next

    def reserve(self, count: int) -> int:
        """Leave so many to whoever folds by himself; return the first one."""
        self._next += count
        return self._next - count

    def _make(self, pid: int, records: dict[str, npt.NDArray[Any]]) -> None:
        """Make rows of the records of a process, which are in order of time."""
        key = records["correlation"]
        order: npt.NDArray[Any] | slice = slice(None)
        if (key[1:] < key[:-1]).any():
            order = np.argsort(key, kind="stable")
        sorted_ = {name: values[order] for name, values in records.items()}
        opens = run_starts(sorted_["correlation"])
        row = np.repeat(np.arange(len(opens)), np.diff(np.append(opens, len(key))))
        device = sorted_["device"][opens]
        of_record = row
        if not isinstance(order, slice):
            of_record = np.empty(len(key), dtype=np.int64)
            of_record[order] = row
        if pid >= 0:
            alone, mixed = clusters(records, device[of_record])
        else:  # several processes may hide behind it
            alone, mixed = np.zeros(len(key), dtype=np.int64), np.ones(len(key), dtype=bool)
        work = _rows(sorted_, opens)
        work["busy"] = np.add.reduceat(alone[order], opens)
        work["sequence"] = self._sequences(sorted_, row, len(opens))
        work["pid"] = np.full(len(opens), pid, dtype=np.int64)
        work["id"] = np.arange(self._next, self._next + len(opens), dtype=np.int64)
        rows = np.flatnonzero(mixed)
        self._overlaps.append(
            {
                "start": records["start"][rows],
                "end": records["end"][rows],
                "pid": np.full(len(rows), pid, dtype=np.int64),
                "device": records["device"][rows].astype(np.int64),
                "row": of_record[rows] + self._next,
            }
        )
        last = self._overlaps[-1]
        self._overlaps[-1] = {n: v if n in _TIMES else compact(v) for n, v in last.items()}
        self._work.append({name: compact(work[name]) for name in WORK_COLUMNS})
        self._next += len(opens)

    def _sequences(self, records: Columns, row: Ints, rows: int) -> Hashes:
        """A number for the sequence of kernels of each row: equal for equal names in equal order.

        In order of the graph's nodes where they are known: parallel branches of a graph may run in
        another order each time.
        """
        result = np.zeros(rows, dtype=np.uint64)
        kernel = np.flatnonzero(records["kind"] == KERNEL)
        if not len(kernel):
            return result
        group = row[kernel]
        start, node, name = (records[n][kernel] for n in ("start", "node", "name"))
        same = group[1:] == group[:-1]
        level = node[1:] == node[:-1]
        after = (start[1:] < start[:-1]) | ((start[1:] == start[:-1]) & (name[1:] < name[:-1]))
        wrong = np.flatnonzero(same & ((node[1:] < node[:-1]) | (level & after)))
        if len(wrong):
            bad = np.zeros(rows, dtype=bool)
            bad[group[wrong]] = True
            some = np.flatnonzero(bad[group])
            within = np.lexsort((name[some], start[some], node[some], group[some]))
            name[some] = name[some][within]
        mix_by_group(result, group, self._hash(name))
        return result

    def _hash(self, numbers: npt.NDArray[Any]) -> Hashes:
        """The hashes of names, by their numbers; one that is not known is the empty name's."""
        if self._hashed[0] != len(self.names):
            known = sorted(self.names)
            texts = [self.names[n] for n in known] + [""]
            self._hashed = (len(known), np.array(known, dtype=np.int64), hashes(texts))
        count, known_, hashed = self._hashed
        if not count:
            return hashed[np.zeros(len(numbers), dtype=np.int64)]
        at = np.minimum(np.searchsorted(known_, numbers), count - 1)
        return hashed[np.where(known_[at] == numbers, at, count)]


def clusters(records: Columns, device: npt.NDArray[Any]) -> tuple[Ints, Bools]:
    """What each record adds to the union, and whether it is one of the overlaps and adds nothing.

    Args:
        records: Records in order of time; of one process, unless `correlation` tells those of
            several apart.
        device: The device of each record's row.
    """
    start, end, key = records["start"], records["end"], records["correlation"]
    before = np.concatenate([start[:1], np.maximum.accumulate(end)[:-1]])
    opens = start >= before
    opens[0] = True
    cluster = np.cumsum(opens) - 1
    foreign = records["device"] != device
    foreign[1:] |= ~opens[1:] & (
        (key[1:] != key[:-1]) | (records["device"][1:] != records["device"][:-1])
    )
    mixed_ = np.zeros(int(cluster[-1]) + 1, dtype=bool)
    mixed_[cluster[foreign]] = True
    mixed: Bools = mixed_[cluster]
    alone = np.maximum(end - np.maximum(start, before), 0)
    alone[mixed] = 0
    return alone, mixed


def _rows(records: Columns, opens: Ints) -> dict[str, npt.NDArray[Any]]:
    """Most columns of the rows; a row's records lie together and in order of time."""
    kernel, of_graph = records["kind"] == KERNEL, (records["node"] != 0) | (records["graph"] != 0)
    dur = records["end"] - records["start"]

    def total(values: npt.NDArray[Any]) -> Ints:
        summed: Ints = np.add.reduceat(values.astype(np.int64), opens)
        return summed

    return {
        "start": records["start"][opens],
        "end": np.maximum.reduceat(records["end"], opens),
        "device": records["device"][opens].astype(np.int64),
        "stream": records["stream"][opens].astype(np.int64),
        "correlation": records["correlation"][opens].astype(np.int64),
        "records": np.diff(np.append(opens, len(dur))),
        "kernels": total(kernel),
        "kernel_ns": total(dur * kernel),
        "graph": np.maximum.reduceat(records["graph"], opens).astype(np.int64),
        "graph_records": total(of_graph),
        "graph_kernels": total(kernel & of_graph),
        "graph_kernel_ns": total(dur * (kernel & of_graph)),
        "whole": total(records["kind"] == GRAPH),
    }
