"""Which engine a worker works for, which schedule call made a step, and what a step is called."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.tables.base import flags
from profilemate.parse.timeline.scope import UNKNOWN, column, of_pid
from profilemate.parse.timeline.tracks import Words
from profilemate.parse.trace.ranks import Process
from profilemate.parse.trace.trace import Trace
from profilemate.schema.modes import EAGER

KINDS = ("step", "prefill", "decode", "mixed", "empty", "dummy")
"""What a step did; `step` where the recording does not say."""
STEP, PREFILL, DECODE, MIXED, EMPTY, DUMMY = range(len(KINDS))


def engines_of(processes: Sequence[Process]) -> dict[int, int]:
    """The engine that each worker works for, by pid: that of its data-parallel rank.

    Where servers follow each other in one recording, the first worker of a place belongs to the
    first engine, the second to the second.
    """
    engines: dict[int, list[int]] = {}
    seen: dict[tuple[int, int, int], int] = {}
    engine_of = {}
    for process in processes:
        if "engine" in process.role:
            engines.setdefault(process.dp or 0, []).append(process.pid)
    for process in processes:
        if "worker" not in process.role:
            continue
        place = (process.dp or 0, process.pp or 0, process.tp or 0)
        number = seen[place] = seen.get(place, -1) + 1
        if number < len(of_rank := engines.get(place[0], [])):
            engine_of[process.pid] = of_rank[number]
    return engine_of


def schedule_calls(trace: Trace, engines: dict[int, int]) -> Ints:
    """The row of `sched.step` that made each row of `step`, by engine and number; -1 for none."""
    steps, calls = trace.frames["step"], trace.frames["sched.step"]
    step, call = column(steps, "step"), column(calls, "step")
    call_row = np.full(len(steps), -1, dtype=np.int64)
    for worker, engine in engines.items():
        step_rows, call_rows = of_pid(steps, worker), of_pid(calls, engine)
        step_rows = step_rows[step[step_rows] != UNKNOWN]
        call_rows = call_rows[np.argsort(call[call_rows], kind="stable")]
        if not len(call_rows):
            continue
        at = np.minimum(np.searchsorted(call[call_rows], step[step_rows]), len(call_rows) - 1)
        same = call[call_rows[at]] == step[step_rows]
        call_row[step_rows[same]] = call_rows[at[same]]
    return call_row


def kinds(steps: pd.DataFrame) -> Ints:
    """What each row of `step` did, as an index of `KINDS`."""
    prefill, decode = column(steps, "prefill_tokens"), column(steps, "decode_tokens")
    kind_of = np.full(len(steps), STEP, dtype=np.int64)
    kind_of[(prefill > 0) & (decode == 0)] = PREFILL
    kind_of[(prefill == 0) & (decode > 0)] = DECODE
    kind_of[(prefill > 0) & (decode > 0)] = MIXED
    kind_of[column(steps, "unpadded") == 0] = EMPTY
    kind_of[flags(steps["dummy"])] = DUMMY
    return kind_of


def call_kinds(trace: Trace, calls: Ints, kind: Ints) -> Ints:
    """What each row of `sched.step` scheduled: what the first of its workers' steps did."""
    frame = trace.frames["sched.step"]
    kind_of = np.full(len(frame), STEP, dtype=np.int64)
    rows = np.flatnonzero(calls >= 0)[::-1]  # so that the first is written last
    kind_of[calls[rows]] = kind[rows]
    kind_of[(column(frame, "num_tokens") == 0) & (kind_of == STEP)] = EMPTY
    return kind_of


def category(kind: Ints) -> Words:
    """The categories of steps: `prefill`, `decode`, `mixed` and so on."""
    return Words(KINDS, kind)


def call_names(frame: pd.DataFrame, kind: Ints) -> Words:
    """Names of schedule calls: `decode 9 tok`."""

    def spell(kind: int, tokens: int) -> str:
        return KINDS[kind] if tokens <= 0 else f"{KINDS[kind]} {tokens} tok"

    return Words.spelled(spell, kind, column(frame, "num_tokens"))


def step_names(frame: pd.DataFrame, kind: Ints) -> Words:
    """Names of model steps: `decode 13->16 FULL`, `prefill 170 eager`."""
    codes, modes = pd.factorize(frame["mode"])
    spelled = ["eager" if mode == EAGER else str(mode) for mode in modes]
    sizes = (column(frame, name) for name in ("unpadded", "num_tokens", "reqs"))
    return Words.spelled(partial(_step_name, spelled), kind, codes, *sizes)


def _step_name(
    modes: list[str], kind: int, mode: int, unpadded: int, padded: int, requests: int
) -> str:
    size = str(unpadded) if unpadded >= 0 else ""
    if unpadded < 0 and padded < 0 and requests > 0:
        size = f"{requests} req"
    if padded >= 0 and padded != unpadded:
        size += f"->{padded}"
    words = (KINDS[kind], "" if kind == EMPTY else size, modes[mode] if mode >= 0 else "")
    return " ".join(word for word in words if word)
