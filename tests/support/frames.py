"""Build a `Trace` from events and times, without any recording."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from profilemate import schema
from profilemate.parse.columns.arrays import NONE
from profilemate.parse.columns.budget import Budget
from profilemate.parse.columns.id_lists import IdLists
from profilemate.parse.trace.kv_log import (
    ALL,
    OPS,
    KvLog,
    KvLogWriter,
    Texts,
    empty_slice,
    together,
)
from profilemate.parse.trace.trace import FRAME_NAMES, KV_COLUMNS, Trace, columns_of
from profilemate.schema import Event


@dataclass(frozen=True, slots=True)
class At:
    """An event and its time, ns."""

    ts: int
    event: Event
    dur: int | None = None
    pid: int = 1
    tid: int = 1


def at(ts: int, kind: str, *, dur: int | None = None, pid: int = 1, **values: Any) -> At:
    """An event of a kind with these fields; None is the same as left out, as on the wire."""
    known = {name: value for name, value in values.items() if value is not None}
    assert set(known) <= {f.name for f in schema.KINDS[kind].fields}, (kind, known)
    return At(ts, Event(kind, known), dur, pid)


_COLUMN_OF = {
    "kv.move": {"src": "ids"},
    "kv.touch": {"revived": "subset"},
    "kv.free": {"freed": "subset"},
}


def trace_of(
    events: Iterable[At], *, window: tuple[int, int] | None = None, start_unix_ns: int | None = None
) -> Trace:
    """The trace of these events; block operations of a process are in the order given."""
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in FRAME_NAMES}
    operations: list[dict[str, object]] = []
    order: dict[int, int] = {}
    counts: dict[str, int] = {}
    first_and_last: list[int] = []
    for item in events:
        kind = item.event.kind
        counts[kind] = counts.get(kind, 0) + 1
        first_and_last.append(item.ts)
        row: dict[str, object] = {
            "ts": item.ts,
            "dur": item.dur,
            "pid": item.pid,
            "tid": item.tid,
        }
        if kind in schema.KV_OPS:
            row["seq"] = order[item.pid] = order.get(item.pid, -1) + 1
            row["op"] = kind.removeprefix("kv.")
            names: Mapping[str, str] = _COLUMN_OF.get(kind, {})
            row |= {names.get(name, name): value for name, value in item.event.values.items()}
            operations.append(row)
        else:
            rows[kind].append(row | item.event.values)
    frames = {name: _frame(columns_of(name), rows[name], ["ts", "pid"]) for name in FRAME_NAMES}
    if window is None:
        window = (min(first_and_last, default=0), max(first_and_last, default=0))
    return Trace(
        sources=[],
        frames=frames,
        kv=kv_log(_frame(KV_COLUMNS, operations, ["pid", "seq"])),
        start_unix_ns=start_unix_ns,
        window=window,
        counts=counts,
    )


def _frame(
    columns: Mapping[str, str], rows: list[dict[str, object]], by: list[str]
) -> pd.DataFrame:
    data = {
        column: pd.Series([row.get(column) for row in rows], dtype=dtype)
        for column, dtype in columns.items()
    }
    return pd.DataFrame(data).sort_values(by, kind="stable", ignore_index=True)


def kv_log(frame: pd.DataFrame, budget: Budget | None = None) -> KvLog:
    """The log of these operations, of which `KV_COLUMNS` are the columns, in order."""
    budget = budget or Budget()
    writer = KvLogWriter(budget)
    texts = sorted({text for name in ("req", "cause") for text in frame[name].dropna()})
    numbers = {text: number for number, text in enumerate(texts)}
    for pid, of_process in frame.groupby("pid"):
        for first in range(0, len(of_process), budget.rows):
            part = of_process.iloc[first : first + budget.rows]
            columns = {
                name: _plain(part[name], numbers)
                for name in KV_COLUMNS
                if name not in ("pid", "seq")
            }
            writer.add(int(str(pid)), columns)
    return writer.log(Texts(texts))


def _plain(column: pd.Series, texts: Mapping[str, int]) -> Any:
    """A column as a slice of the log has it."""
    dtype = KV_COLUMNS[str(column.name)]
    if dtype == "ids":
        return IdLists.of(column)
    if column.name == "op":
        return np.array([OPS.index(op) for op in column], dtype=np.int64)
    if dtype == "string":
        return np.array([-1 if pd.isna(t) else texts[t] for t in column], dtype=np.int64)
    unknown = -1 if dtype == "boolean" else NONE
    return np.array([unknown if pd.isna(v) else int(v) for v in column], dtype=np.int64)


def kv_frame(trace: Trace) -> pd.DataFrame:
    """All operations of a trace at once."""
    parts = [part.frame() for part in trace.kv.slices(ALL)]
    return together(parts or [empty_slice(ALL).frame()])


def with_budget(trace: Trace, budget: Budget) -> Trace:
    """The same trace, whose operations come in slices of so many rows."""
    return replace(trace, kv=kv_log(kv_frame(trace), budget))
