"""GPU activity in an nsys export, whatever it is stored in.

Recordings made with `--cuda-graph-trace=node` have a row per kernel of a replay, with
`graphNodeId`; those made with `graph` have one row per launch in GRAPH_TRACE instead. Both carry
the correlation id of the launch call.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.readers.nsys.facts import Facts
from profilemate.parse.readers.nsys.layout import Found, by_role, pid_and_tid
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


class BatchStore(Protocol):
    """The large tables of an export, in batches of columns."""

    def batches(
        self, table: str, columns: Sequence[str], where: tuple[str, Collection[int]] | None = None
    ) -> Iterator[Mapping[str, Ints]]:
        """Some thousands of rows of a table at a time, by column, NULL as 0.

        Args:
            table: Its name.
            columns: Those to read, one at least.
            where: A column and numbers: only rows that hold one of these there; None for all.
        """

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
    """Launches to the sink, all calls counted there; the names of the launches by their numbers.

    The table is read twice: of most calls only the number of their name is needed.
    """
    name_id = calls.columns["nameId"]
    counts: Counter[int] = Counter()
    for batch in store.batches(calls.table, [name_id]):
        ids, many = counted(batch[name_id])
        counts.update(dict(zip(ids.tolist(), many.tolist(), strict=True)))
    texts = store.values(strings, sorted(counts))
    total: Counter[str] = Counter()
    for number, count in sorted(counts.items()):
        total[texts.get(number, f"call {number}")] += count
    launches = {n: text for n, text in texts.items() if is_graph_launch(text)}
    starting = [n for n, text in texts.items() if n in launches or _STARTS.search(text)]
    wanted = (*_TIMES, "globalTid", "correlationId", "nameId")
    have = [calls.columns[name] for name in wanted if name in calls.columns]
    if starting:
        for batch in store.batches(calls.table, have, (name_id, starting)):
            _give(batch, calls, facts.shift, sorted(launches), sink)
    sink.calls(total)
    return launches


def _give(
    batch: Mapping[str, Ints],
    calls: Found,
    shift: int,
    launches: Sequence[int],
    sink: ActivitySink,
) -> None:
    """Give some calls to the sink: launches, or what else may start GPU work."""
    name = batch[calls.columns["nameId"]]
    nothing = np.zeros(len(name), dtype=np.int64)

    def column(name: str) -> Ints:
        return batch[calls.columns[name]] if name in calls.columns else nothing

    start = column("start")
    pid, tid = pid_and_tid(column("globalTid"))
    found = {
        "ts": start - shift,
        "dur": column("end") - start,
        "pid": pid,
        "tid": tid,
        "correlation": column("correlationId"),
        "name": name,
    }
    launched = np.isin(name, launches)
    sink.launches({name: values[launched] for name, values in found.items()})
    sink.starts({name: found[name][~launched] for name in START_COLUMNS})


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
        self._batches = store.batches(found.table, have)

    def next(self) -> dict[str, Ints] | None:
        """The next batch of records that have a time; None for none."""
        batch = next(self._batches, None)
        if batch is None:
            self.over = True
            return None
        columns = self._found.columns
        start, end = (batch[columns[name]] for name in _TIMES)
        # CUPTI: start and end are both 0 where the time could not be collected.
        if not end.all() and not (timed := (start != 0) | (end != 0)).all():
            self._without_time += int((~timed).sum())
            batch = {name: values[timed] for name, values in batch.items()}
            start, end = start[timed], end[timed]
        if not len(start):
            return None
        nothing = np.zeros(len(start), dtype=np.int64)

        def column(name: str | None) -> Ints:
            return nothing if name not in columns else batch[columns[str(name)]]

        graph = column("graphId")
        if "graphExecId" in columns:
            graph = np.where(graph != 0, graph, column("graphExecId"))
        self.reached = int(start[-1]) - self._facts.shift
        return {
            "start": start - self._facts.shift,
            "end": end - self._facts.shift,
            "pid": pid_and_tid(column("globalPid"))[0],
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
        self._facts.info.untimed += self._without_time


def _named(records: _Records, name: Ints) -> Ints:
    """Numbers of the names of records: of a string, or of a name that we make up."""
    return name if records.kind == KERNEL else _NAMES_END + (records.kind << 20) + name


def _made_up(number: int) -> str:
    kind, copied = number >> 20, number & 0xFFFFF
    if kind == MEMCPY:
        return f"Memcpy {_COPY_KINDS.get(copied, copied)}"
    return "Memset" if kind == MEMSET else "CUDA graph"
