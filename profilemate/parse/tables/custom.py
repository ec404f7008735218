"""`custom_<kind>`: a table for every kind of event that somebody else's hook recorded."""

from __future__ import annotations

from functools import partial

import pandas as pd

from profilemate.parse.tables.base import Column, Table, frame_of
from profilemate.parse.trace.trace import Trace

COMMON = (
    Column("timestamp_sec", "fine_seconds", "begin of the call"),
    Column("duration_ms", "fine_milliseconds", "how long it took on the host"),
    Column("pid", "value", "process id"),
)


def custom_tables(trace: Trace) -> dict[str, Table]:
    """A table for each kind that the trace has events of, by the table's name."""
    tables: dict[str, Table] = {}
    for kind, frame in trace.custom.items():
        fields = [name for name in frame.columns if name not in ("ts", "dur", "pid", "tid")]
        columns = (*COMMON, *(Column(name, "value", "as its hook says") for name in fields))
        name = f"custom_{kind}"
        build = partial(_rows, kind, columns)
        tables[name] = Table(name, f"One row per event custom.{kind}.", columns, build)
    return tables


def _rows(kind: str, columns: tuple[Column, ...], trace: Trace) -> pd.DataFrame:
    frame = trace.custom[kind]
    data = {c.name: frame[c.name] for c in columns[len(COMMON) :]}
    common = {
        "timestamp_sec": frame["ts"],
        "duration_ms": frame["dur"],
        "pid": frame["pid"],
    }
    return frame_of(columns, {**common, **data})
