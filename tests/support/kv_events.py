"""Block operations in one line each, for tests that build a small trace."""

from __future__ import annotations

from typing import Any

import pandas as pd
from frames import At, at

from profilemate.parse.tables import TABLES
from profilemate.parse.trace.trace import Trace


def build(name: str, trace: Trace) -> pd.DataFrame:
    table = TABLES[name]
    frame = table.build(trace)
    if not table.heading:
        assert list(frame.columns) == [column.name for column in table.columns]
    return frame


def rows(frame: pd.DataFrame, *columns: str) -> list[tuple[object, ...]]:
    part = frame[list(columns)] if columns else frame
    part = part.astype(object).where(part.notna(), None)
    return [tuple(row) for row in part.itertuples(index=False)]


def kv(ts: int, op: str, *, pid: int = 1, pool: int = 0, used: int | None = 0, **values: Any) -> At:
    return at(ts, f"kv.{op}", pid=pid, pool=pool, used=used, **values)


def pool(total: int, *, number: int = 0, pid: int = 1, **values: Any) -> At:
    return at(0, "kv.pool", pid=pid, pool=number, num_blocks=total, **values)


def step(ts: int, dur: int | None, number: int, *, pid: int = 1) -> At:
    return at(ts, "sched.step", dur=dur, pid=pid, step=number)
