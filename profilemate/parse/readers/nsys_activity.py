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

from profilemate.parse import activity
from profilemate.parse.activity import ActivitySink, Columns, Ints, is_graph_launch
from profilemate.parse.readers.nsys_facts import Facts
from profilemate.parse.readers.nsys_layout import Found

Only = tuple[str, Sequence[int]]
"""A column, and the values of the rows that are wanted."""

_COPY_KINDS = {1: "HtoD", 2: "DtoH", 8: "DtoD", 10: "PtoP"}  # CUpti_ActivityMemcpyKind
_NAMES_END = 1 << 40  # above every number of a string: names that we make up ourselves


class BatchStore(Protocol):
    """The large tables of an export, in batches of columns."""

    def batches(
        self, table: str, columns: Sequence[str], only: Only | None = None
    ) -> Iterator[list[Ints]]:
        """Columns of integers, NULL as 0."""

    def values(self, strings: Found, ids: Sequence[int]) -> Mapping[int, str]:
        """Strings by their number; of all of them those that exist."""


@dataclass(frozen=True, slots=True)
class _Records:
    """A table of GPU records: what they are, and the columns their name may be in."""

    table: str
    kind: int
    named: tuple[str, ...]


_RECORDS = (
    _Records("CUPTI_ACTIVITY_KIND_KERNEL", activity.KERNEL, ("demangledName", "shortName")),
    _Records("CUPTI_ACTIVITY_KIND_MEMCPY", activity.MEMCPY, ("copyKind",)),
    _Records("CUPTI_ACTIVITY_KIND_MEMSET", activity.MEMSET, ()),
    _Records("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", activity.GRAPH, ()),
)
RECORD_TABLES = tuple(records.table for records in _RECORDS)
"""Tables of GPU records; reading the activity reads all of each."""

_STARTS = re.compile("Launch|Memcpy|Memset|Prefetch")
"""Names of calls that may start GPU work; those of the others are not read one by one."""

_TIMES = ("start", "end")
_CALLS = "CUPTI_ACTIVITY_KIND_RUNTIME"


def _table(facts: Facts, name: str) -> Found | None:
    return next((f for f in facts.found if name in f.spec.called), None)


def read_activity(store: BatchStore, facts: Facts, sink: ActivitySink) -> None:
    """Give a sink what an export knows of the GPU."""
    strings = facts.table("strings")
    names: dict[int, str] = {}
    calls = _table(facts, _CALLS)
    if calls is not None and strings is not None and {"start", "end", "nameId"} <= {*calls.columns}:
        names |= _read_calls(store, facts, calls, strings, sink)
    streams = [
        _Stream(store, facts, records, found)
        for records in _RECORDS
        if (found := _table(facts, records.table)) is not None
        and {"start", "end"} <= {*found.columns}
    ]
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


def distinct(numbers: Ints) -> Ints:
    """The different ones among numbers, most of which lie close together, in order."""
    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, -1)
    if high - low > 1 << 20:
        return np.unique(numbers)
    there = np.zeros(high - low + 1, dtype=bool)
    there[numbers - low] = True
    return np.flatnonzero(there) + low


class _Names:
    """The names of GPU records, given to the sink as soon as one with a new name was read."""

    def __init__(self, store: BatchStore, strings: Found | None, sink: ActivitySink) -> None:
        self._store, self._sink = store, sink
        self._strings = None if strings is None or strings.missing else strings
        self._given: set[int] = set()

    def add(self, numbers: Ints) -> None:
        """Give the names of these numbers."""
        new = set(distinct(numbers).tolist()) - self._given
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
    for (ids,) in store.batches(calls.table, [calls.columns["nameId"]]):
        values = distinct(ids)
        number = np.bincount(np.searchsorted(values, ids))
        counts.update(dict(zip(values.tolist(), number.tolist(), strict=True)))
    called = store.values(strings, sorted(counts))
    sink.calls({called.get(n, f"call {n}"): count for n, count in counts.items()})
    launches = {n: text for n, text in called.items() if is_graph_launch(text)}
    starting = [n for n, text in called.items() if _STARTS.search(text) is not None]
    wanted = sorted({*launches, *starting})
    ours = ("start", "end", "globalTid", "correlationId", "nameId")
    only = (calls.columns["nameId"], wanted)
    for column in _columns(store, calls, ours, only) if wanted else ():
        thread = column["globalTid"]
        batch = {
            "ts": column["start"] - facts.shift,
            "dur": column["end"] - column["start"],
            "pid": (thread >> 24) & 0xFFFFFF,
            "tid": thread & 0xFFFFFF,
            "correlation": column["correlationId"],
            "name": column["nameId"],
        }
        mine = np.isin(column["nameId"], sorted(launches))
        sink.launches({name: values[mine] for name, values in batch.items()})
        sink.starts({name: batch[name][~mine] for name in activity.START_COLUMNS})
    return launches


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
        ours = (
            *("start", "end", "globalPid", "deviceId", "streamId", "correlationId"),
            *("graphNodeId", "graphId", "graphExecId"),
            *([] if self._name is None else [self._name]),
        )
        self._batches = _columns(store, found, ours, None)

    def next(self) -> dict[str, Ints] | None:
        """The next batch of records that have a time; None for none."""
        column = next(self._batches, None)
        if column is None:
            self.over = True
            return None
        self._extend(column)
        # CUPTI: start and end are both 0 where the time could not be collected.
        timed = (column["start"] != 0) | (column["end"] != 0)
        if not timed.all():
            self._without_time += int((~timed).sum())
            column = {name: values[timed] for name, values in column.items()}
        count = len(column["start"])
        if not count:
            return None
        batch = {
            "start": column["start"] - self._facts.shift,
            "end": column["end"] - self._facts.shift,
            "pid": (column["globalPid"] >> 24) & 0xFFFFFF,
            "device": column["deviceId"],
            "stream": column["streamId"],
            "correlation": column["correlationId"],
            "graph": np.where(column["graphId"] != 0, column["graphId"], column["graphExecId"]),
            "node": column["graphNodeId"],
            "kind": np.full(count, self._records.kind, dtype=np.int64),
            "name": _number(self._records, column, self._name),
        }
        self.reached = int(batch["start"][-1])
        return batch

    def _extend(self, column: Columns) -> None:
        """Take times into the recording's window, where it was opened without them."""
        if len(column["start"]) and self._found.table in self._facts.later:
            window = (int(column["start"].min()), max(int(column[n].max()) for n in _TIMES))
            first, last = (time - self._facts.shift for time in window)
            known = self._facts.info.window or (first, last)
            self._facts.info.window = (min(known[0], first), max(known[1], last))

    def note(self) -> None:
        """Say what was left out."""
        if self._without_time:
            self._facts.info.notes.append(
                f"{self._without_time} rows of {self._found.table} have no time, because the "
                "GPU's could not be collected: they are left out."
            )


def _number(records: _Records, column: Columns, name: str | None) -> Ints:
    if records.kind == activity.KERNEL:
        return column["start"] * 0 if name is None else column[name]
    copied = column[name] if name is not None else column["start"] * 0
    return _NAMES_END + (records.kind << 20) + copied


def _made_up(number: int) -> str:
    kind, copied = number >> 20, number & 0xFFFFF
    if kind == activity.MEMCPY:
        return f"Memcpy {_COPY_KINDS.get(copied, copied)}"
    return "Memset" if kind == activity.MEMSET else "CUDA graph"


def _columns(
    store: BatchStore, found: Found, ours: Sequence[str], only: Only | None
) -> Iterator[dict[str, Ints]]:
    """Batches by our names of the columns; those that the export lacks are 0."""
    have = [name for name in ours if name in found.columns]
    for arrays in store.batches(found.table, [found.columns[n] for n in have], only):
        column = dict(zip(have, arrays, strict=True))
        yield {n: column.get(n, np.zeros(len(arrays[0]), dtype=np.int64)) for n in ours}
