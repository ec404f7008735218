"""Scheduler and worker count the same steps: what that says of their clocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from profilemate.parse.session.metadata_parts import Lockstep
from profilemate.parse.tables.base import numbers
from profilemate.parse.tables.engine_steps import scheduled_rows
from profilemate.parse.trace.ranks import RankTrace


def lockstep(ranks: Sequence[RankTrace]) -> Lockstep | None:
    """How long after its scheduling each model step began; None where nothing can be compared.

    A worker cannot begin a step before the call that scheduled it has returned: where it seems to,
    the clocks of the two are off by at least that. `early` counts these.
    """
    parts = []
    for rank in ranks:
        engine = rank.trace.engine or rank.trace
        rows = scheduled_rows(rank.trace)
        mine = np.flatnonzero(rows >= 0)
        calls = engine.frames["sched.step"]
        end = calls["ts"].to_numpy(dtype=np.int64) + numbers(calls["dur"], 0)
        begin = rank.trace.frames["step"]["ts"].to_numpy(dtype=np.int64)
        parts.append(begin[mine] - end[rows[mine]])
    distance = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    if not len(distance):
        return None
    return Lockstep(
        compared=len(distance),
        early=int((distance < 0).sum()),
        distance_ms={
            "min": _ms(distance.min()),
            "median": _ms(np.median(distance)),
            "max": _ms(distance.max()),
        },
    )


def _ms(ns: float) -> float:
    return round(float(ns) / 1e6, 6)
