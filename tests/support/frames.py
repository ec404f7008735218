"""Build a `Trace` from events and times, without any recording."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from profilemate import schema
from profilemate.parse.trace.trace import FRAME_NAMES, Trace, columns_of
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
            rows["kv"].append(row)
        else:
            rows[kind].append(row | item.event.values)
    frames = {name: _frame(name, rows[name]) for name in FRAME_NAMES}
    if window is None:
        window = (min(first_and_last, default=0), max(first_and_last, default=0))
    return Trace([], frames, start_unix_ns, window, counts)


def _frame(name: str, rows: list[dict[str, object]]) -> pd.DataFrame:
    data = {
        column: pd.Series([row.get(column) for row in rows], dtype=dtype)
        for column, dtype in columns_of(name).items()
    }
    by = ["pid", "seq"] if name == "kv" else ["ts", "pid"]
    return pd.DataFrame(data).sort_values(by, kind="stable", ignore_index=True)
