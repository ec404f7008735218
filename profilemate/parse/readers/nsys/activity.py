"""GPU activity in an nsys export, whatever it is stored in.

Recordings made with `--cuda-graph-trace=node` have a row per kernel of a replay, with
`graphNodeId`; those made with `graph` have one row per launch in GRAPH_TRACE instead. Both carry
the correlation id of the launch call.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.readers.nsys.facts import Facts
from profilemate.parse.readers.nsys.layout import Found, by_role
from profilemate.parse.recording.activity import (
    GRAPH,
    KERNEL,
    MEMCPY,
    MEMSET,
    START_COLUMNS,
    ActivitySink,
    is_graph_launch,
)

_COPY_KINDS = {1: "HtoD", 2: "DtoH", 8: "DtoD", 10: "PtoP"}  # CUpti_ActivityMemcpyKind
_NAMES_END = 1 << 40  # above every number of a string: names that we make up ourselves


class Batch(Protocol):
    """Some rows of a table."""

    def __len__(self) -> int:
        """How many rows."""

    def column(self, name: str, at: Ints | None = None) -> Ints:
        """A column of integers, NULL as 0; of some rows or of all."""

    def extent(self, first: str, last: str) -> tuple[int, int] | None:
        """Smallest and largest time stamp in two columns."""


@dataclass(frozen=True, slots=True)
class ArrayBatch:
    """A `Batch` whose columns are there already, one at least."""

    columns: Mapping[str, Ints]

    def __len__(self) -> int:
        """How many rows."""
        return len(next(iter(self.columns.values())))

    def column(self, name: str, at: Ints | None = None) -> Ints:
        """A column."""
        return self.columns[name] if at is None else self.columns[name][at]

    def extent(self, first: str, last: str) -> tuple[int, int] | None:
        """Smallest and largest time stamp; 0 may stand for NULL, so it is none."""
        times = np.concatenate([self.columns[first], self.columns[last]])
        times = times[times != 0]
        return (int(times.min()), int(times.max())) if len(times) else None


class BatchStore(Protocol):
    """The large tables of an export, in batches of columns."""

    def batches(
        self, table: str, columns: Sequence[str], now: Sequence[str] = ()
    ) -> Iterator[Batch]:
        """The rows of a table in some columns, of which some are going to be asked for at once."""

    def values(self, strings: Found, ids: Sequence[int]) -> Mapping[int, str]:
        """Strings by their number; of all of them those that exist."""


@dataclass(frozen=True, slots=True)
class _Records:
    """A table of GPU records: what they are, and the columns their name may be in."""

    table: str
    kind: int
    named: tuple[str, ...]


_RECORDS = (
    _Records("CUPTI_ACTIVITY_KIND_KERNEL", KERNEL, ("demangledName", "shortName")),
    _Records("CUPTI_ACTIVITY_KIND_MEMCPY", MEMCPY, ("copyKind",)),
    _Records("CUPTI_ACTIVITY_KIND_MEMSET", MEMSET, ()),
    _Records("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", GRAPH, ()),
)
_STARTS = re.compile("Launch|Memcpy|Memset|Prefetch")
"""Names of calls that may start GPU work; those of the others are not read one by one."""

_TIMES = ("start", "end")
_OF_GRAPHS = ("graphNodeId", "graphId", "graphExecId")
_CALLS = "CUPTI_ACTIVITY_KIND_RUNTIME"


def _table(found: Sequence[Found], name: str) -> Found | None:
    return next((f for f in found if name in f.spec.called), None)


def _calls(found: Sequence[Found]) -> Found | None:
    """The table of API calls, where it can be read."""
    calls, strings = _table(found, _CALLS), by_role(found, "strings")
    needed = {*_TIMES, "nameId"}
    named = strings is not None and not strings.missing
    return calls if calls and named and needed <= calls.columns.keys() else None


def _records(found: Sequence[Found]) -> Iterator[tuple[_Records, Found]]:
    """The tables of GPU records that can be read."""
    for records in _RECORDS:
        table = _table(found, records.table)
        if table is not None and {*_TIMES} <= table.columns.keys():
            yield records, table


def tables_read(found: Sequence[Found]) -> list[str]:
    """Those tables of which `read_activity` reads each row's times."""
    calls = _calls(found)
    return [*([] if calls is None else [calls.table]), *(f.table for _, f in _records(found))]


def read_activity(store: BatchStore, facts: Facts, sink: ActivitySink) -> None:
    """Give a sink what an export knows of the GPU."""
    strings, calls = facts.table("strings"), _calls(facts.found)
    if calls is not None and strings is not None:
        names = _read_calls(store, facts, calls, strings, sink)
    else:
        names = {}
    streams = [_Stream(store, facts, *of) for of in _records(facts.found)]
    known = _Names(store, strings, sink)
    sink.names(names)
    # nsys gives the records of each table in order of time: what is furthest behind comes next.
    while waiting := [stream for stream in streams if not stream.over]:
        behind = min(waiting, key=lambda stream: stream.reached)
        batch = behind.next()
        if batch is not None:
            known.add(batch["name"])
            sink.gpu(batch)
            sink.until(min((s.reached for s in streams if not s.over), default=behind.reached))
    for stream in streams:
        stream.note()


def counted(numbers: Ints) -> tuple[Ints, Ints]:
    """The different ones among numbers, most of which lie close together, and how many of each."""
    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, -1)
    if high - low > 1 << 20:
        return np.unique(numbers, return_counts=True)
    count = np.bincount(numbers - low)
    there = np.flatnonzero(count)
    return there + low, count[there]


class _Names:
    """The names of GPU records, given to the sink as soon as one with a new name was read."""

    def __init__(self, store: BatchStore, strings: Found | None, sink: ActivitySink) -> None:
        self._store, self._sink = store, sink
        self._strings = None if strings is None or strings.missing else strings
        self._given: set[int] = set()

    def add(self, numbers: Ints) -> None:
        """Give the names of these numbers."""
        new = set(counted(numbers)[0].tolist()) - self._given
        if new:
            self._given |= new
            names = {n: _made_up(n - _NAMES_END) for n in new if n >= _NAMES_END}
            if self._strings is not None:
                names |= self._store.values(self._strings, sorted(new - names.keys()))
            self._sink.names(names)


def _read_calls(
    store: BatchStore, facts: Facts, calls: Found, strings: Found, sink: ActivitySink
) -> dict[int, str]:
    """Launches to the sink, all calls counted there; the names of the launches."""
    counts: Counter[int] = Counter()
    called: dict[int, str] = {}
    launches: dict[int, str] = {}
    starting: set[int] = set()
    ours = (*_TIMES, "globalTid", "correlationId", "nameId")
    have = [calls.columns[name] for name in ours if name in calls.columns]
    number, start, end = (calls.columns[name] for name in ("nameId", *_TIMES))
    for batch in store.batches(calls.table, have, [number, start, end]):
        ids = batch.column(number)
        values, many = counted(ids)
        counts.update(dict(zip(values.tolist(), many.tolist(), strict=True)))
        if new := sorted(counts.keys() - called.keys()):
            texts = store.values(strings, new)
            called |= {n: texts.get(n, f"call {n}") for n in new}
            launches |= {n: called[n] for n in texts if is_graph_launch(called[n])}
            starting |= {n for n in texts if _STARTS.search(called[n]) is not None}
        facts.extend(calls.table, batch.extent(start, end))
        at = np.flatnonzero(np.isin(ids, sorted({*launches, *starting} & set(values.tolist()))))
        if len(at):
            _give(batch, calls, at, facts.shift, sorted(launches), sink)
    total: Counter[str] = Counter()
    for n, count in sorted(counts.items()):
        total[called[n]] += count
    sink.calls(total)
    return launches


def _give(
    batch: Batch, calls: Found, at: Ints, shift: int, launches: Sequence[int], sink: ActivitySink
) -> None:
    """Give some calls to the sink: launches, or what else may start GPU work."""

    def column(name: str) -> Ints:
        if name not in calls.columns:
            return np.zeros(len(at), dtype=np.int64)
        return batch.column(calls.columns[name], at)

    start, thread = column("start"), column("globalTid")
    found = {
        "ts": start - shift,
        "dur": column("end") - start,
        "pid": (thread >> 24) & 0xFFFFFF,
        "tid": thread & 0xFFFFFF,
        "correlation": column("correlationId"),
        "name": column("nameId"),
    }
    mine = np.isin(found["name"], launches)
    sink.launches({name: values[mine] for name, values in found.items()})
    sink.starts({name: found[name][~mine] for name in START_COLUMNS})


class _Stream:
    """The records of one table, batch by batch.

    Attributes:
        reached: Begin of the last record, on the clock of what the sink gets.
        over: Whether there is none any more.
    """

    def __init__(self, store: BatchStore, facts: Facts, records: _Records, found: Found) -> None:
        self.reached, self.over = -(1 << 62), False
        self._facts, self._records, self._found = facts, records, found
        self._name = next((n for n in records.named if n in found.columns), None)
        self._without_time = 0
        ours = (*_TIMES, "globalPid", "deviceId", "streamId", "correlationId", *_OF_GRAPHS)
        named = () if self._name is None else (self._name,)
        have = [found.columns[n] for n in (*ours, *named) if n in found.columns]
        self._batches = store.batches(found.table, have, have)

    def next(self) -> dict[str, Ints] | None:
        """The next batch of records that have a time; None for none."""
        batch = next(self._batches, None)
        if batch is None:
            self.over = True
            return None
        columns, table = self._found.columns, self._found.table
        self._facts.extend(table, batch.extent(columns["start"], columns["end"]))
        at = None
        start, end = (batch.column(columns[name]) for name in _TIMES)
        # CUPTI: start and end are both 0 where the time could not be collected.
        if not end.all() and not (timed := (start != 0) | (end != 0)).all():
            self._without_time += int((~timed).sum())
            at = np.flatnonzero(timed)
            start, end = start[at], end[at]
        if not len(start):
            return None
        nothing = np.zeros(len(start), dtype=np.int64)

        def column(name: str | None) -> Ints:
            return nothing if name not in columns else batch.column(columns[str(name)], at)

        graph = column("graphId")
        if "graphExecId" in columns:
            graph = np.where(graph != 0, graph, column("graphExecId"))
        self.reached = int(start[-1]) - self._facts.shift
        return {
            "start": start - self._facts.shift,
            "end": end - self._facts.shift,
            "pid": (column("globalPid") >> 24) & 0xFFFFFF,
            "device": column("deviceId"),
            "stream": column("streamId"),
            "correlation": column("correlationId"),
            "graph": graph,
            "node": column("graphNodeId"),
            "kind": np.full(len(start), self._records.kind, dtype=np.int64),
            "name": _named(self._records, column(self._name)),
        }

    def note(self) -> None:
        """Say what was left out."""
        if self._without_time:
            self._facts.info.notes.append(
                f"{self._without_time} rows of {self._found.table} have no time, because the "
                "GPU's could not be collected: they are left out."
            )


def _named(records: _Records, name: Ints) -> Ints:
    """Numbers of the names of records: of a string, or of a name that we make up."""
    return name if records.kind == KERNEL else _NAMES_END + (records.kind << 20) + name


def _made_up(number: int) -> str:
    kind, copied = number >> 20, number & 0xFFFFF
    if kind == MEMCPY:
        return f"Memcpy {_COPY_KINDS.get(copied, copied)}"
    return "Memset" if kind == MEMSET else "CUDA graph"
