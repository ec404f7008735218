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
_STARTS = re.compile("Launch|Memcpy|Memset|Prefetch")
"""Names of calls that may start GPU work; those of the others are not read one by one."""

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
    used: set[int] = set()
    for records in _RECORDS:
        found = _table(facts, records.table)
        if found is not None and {"start", "end"} <= {*found.columns}:
            used |= _read_records(store, facts, records, found, sink)
    made_up = {n for n in used if n >= _NAMES_END}
    names |= {n: _made_up(n - _NAMES_END) for n in made_up}
    if strings is not None and not strings.missing:
        names |= store.values(strings, sorted(used - made_up))
    sink.names(names)


def _read_calls(
    store: BatchStore, facts: Facts, calls: Found, strings: Found, sink: ActivitySink
) -> dict[int, str]:
    """Launches to the sink, all calls counted there; the names of the launches."""
    counts: Counter[int] = Counter()
    for (ids,) in store.batches(calls.table, [calls.columns["nameId"]]):
        values, number = np.unique(ids, return_counts=True)
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


def _read_records(
    store: BatchStore, facts: Facts, records: _Records, found: Found, sink: ActivitySink
) -> set[int]:
    """Records to the sink; the numbers of their names."""
    name = next((n for n in records.named if n in found.columns), None)
    ours = (
        *("start", "end", "globalPid", "deviceId", "streamId", "correlationId"),
        *("graphNodeId", "graphId", "graphExecId"),
        *([] if name is None else [name]),
    )
    used: set[int] = set()
    without_time = 0
    for column in _columns(store, found, ours, None):
        number = _number(records, column, name)
        used.update(np.unique(number).tolist())
        graph = np.where(column["graphId"] != 0, column["graphId"], column["graphExecId"])
        batch = {
            "start": column["start"] - facts.shift,
            "end": column["end"] - facts.shift,
            "pid": (column["globalPid"] >> 24) & 0xFFFFFF,
            "device": column["deviceId"],
            "stream": column["streamId"],
            "correlation": column["correlationId"],
            "graph": graph,
            "node": column["graphNodeId"],
            "kind": np.full(len(number), records.kind, dtype=np.int64),
            "name": number,
        }
        # CUPTI: start and end are both 0 where the time could not be collected.
        timed = (column["start"] != 0) | (column["end"] != 0)
        without_time += int((~timed).sum())
        sink.gpu({name: values[timed] for name, values in batch.items()})
    if without_time:
        facts.info.notes.append(
            f"{without_time} rows of {found.table} have no time, because the GPU's could not be "
            "collected: they are left out."
        )
    return used


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
