"""`ranks`, and the scheduler's side of `cuda_graph_steps`, on constructed events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from frames import At, at, trace_of
from kv_events import build, kv, pool, rows

from profilemate.parse.recording.contract import SourceInfo, SourceKind
from profilemate.parse.trace.trace import Placement, Trace

ENGINE, WORKER, SECOND, LATER = 1, 2, 3, 4
FULL: dict[str, Any] = {"mode": "FULL", "num_tokens": 8}


def session(pid: int, role: str, pp: int, tp: int) -> At:
    return at(0, "session", pid=pid, role=role, host=f"box-{pp}", dp=0, pp=pp, tp=tp)


def step(ts: int, number: int | None, pid: int, dur: int | None, **values: Any) -> At:
    return at(ts, "step", dur=dur, pid=pid, step=number, **{**FULL, **values})


def call(ts: int, number: int, *, pid: int = ENGINE, dur: int = 10, **values: Any) -> At:
    return at(ts, "sched.step", dur=dur, pid=pid, step=number, **values)


def run_of_three() -> Trace:
    took: dict[int, list[int | None]] = {
        WORKER: [100, 300, 200],
        SECOND: [150, 100],
        LATER: [400, 400, None],
    }
    trace = trace_of(
        [
            session(ENGINE, "engine", 0, 0),
            session(WORKER, "worker", 0, 0),
            session(SECOND, "worker", 0, 1),
            session(LATER, "worker", 1, 0),
            *(call(1000 * i, i) for i in range(1, 6)),
            *(
                step(1000 * i + 50, i, pid, dur)
                for pid, every in took.items()
                for i, dur in enumerate(every, 1)
            ),
            step(9000, None, WORKER, 900, dummy=True),
            step(9500, 4, WORKER, 7, mode="NONE"),
        ]
    )
    return replace(
        trace,
        sources=[SourceInfo(Path(n), SourceKind.TORCH, 1) for n in ("a.json", "b.json")],
        placements=[Placement(5, "first"), Placement(40, "by wall", 7, 2)],
        sources_of={WORKER: [1, 0], SECOND: [0]},
        aliases={SECOND: 2},
    )


def test_the_processes_of_a_run_side_by_side() -> None:
    found = build("ranks", run_of_three())
    assert rows(found, "rank", "role", "host", "pid", "dp_rank", "pp_rank", "tp_rank") == [
        ("dp0_pp0_tp0", "engine", "box-0", 1, 0, 0, 0),
        ("dp0_pp0_tp0", "worker", "box-0", 2, 0, 0, 0),
        ("dp0_pp0_tp1", "worker", "box-0", 2, 0, 0, 1),
        ("dp0_pp1_tp0", "worker", "box-1", 4, 0, 1, 0),
    ]
    assert rows(found, "events", "steps", "graph_steps", "replay_p50_ms", "replay_ratio") == [
        (6, 5, 0, None, None),
        (6, 4, 3, 200, 1.0),
        (3, 2, 2, 100, 0.5),
        (4, 3, 3, 400, 2.0),
    ]
    assert rows(found, "recording", "clock_offset_ms", "clock_error_ms", "replay_on") == [
        (None, None, None, None),
        ("b.json", 7, 2, "host"),
        ("a.json", 0, None, "host"),
        (None, None, None, "host"),
    ]


SCHEDULED = ("step", "scheduled_sec", "schedule_ms", "scheduled_tokens", "running_requests")
BLOCKS = ("kv_blocks_used", "kv_usage_pct", "kv_blocks_allocated", "kv_blocks_evicted")


def engine_and_worker() -> list[At]:
    return [
        pool(8),
        pool(99, number=1),
        pool(5, pid=0),
        call(1000, 1, num_tokens=5, running=1),
        kv(1002, "alloc", used=3, ids=(1, 2, 3)),
        kv(1004, "alloc", pool=1, used=50, ids=(4, 5, 6, 7)),  # not of the pool that is shown
        kv(1500, "free", used=1, ids=(2, 3)),
        kv(2000, "evict", used=1, ids=(2,), cause="alloc"),
        kv(2000, "alloc", used=3, ids=(2, 3)),
        call(2000, 2, num_tokens=7, running=2),
        call(3000, 3, num_tokens=9, running=3),
        kv(9000, "free", used=0, ids=(1, 2, 3)),  # after the last call
        # In no order: steps are joined by their number.
        step(5000, 3, WORKER, 10),
        step(6000, 1, WORKER, 10),
        step(7000, 2, WORKER, 10),
        step(8000, 4, WORKER, 10),
        step(8500, None, WORKER, 10, dummy=True),
    ]


def test_steps_are_joined_with_their_scheduling_by_number() -> None:
    found = build("cuda_graph_steps", trace_of(engine_and_worker()))
    assert rows(found, *SCHEDULED) == [
        (3, 3000, 10, 9, 3),
        (1, 1000, 10, 5, 1),
        (2, 2000, 10, 7, 2),
        (4, None, None, None, None),
        (None, None, None, None, None),
    ]
    assert rows(found, *BLOCKS) == [
        (3, 0.375, 0, 0),  # nothing happened: as many as after the call before it
        (3, 0.375, 3, 0),
        (3, 0.375, 2, 1),
        (None, None, None, None),
        (None, None, None, None),
    ]


@pytest.mark.parametrize("own", [True, False])
def test_of_two_engines_a_step_has_its_own_one_or_none(own: bool) -> None:
    other = call(1100, 1, pid=WORKER if own else LATER, num_tokens=4)
    found = build("cuda_graph_steps", trace_of([*engine_and_worker(), other]))
    assert rows(found, "step", "scheduled_tokens") == [
        (3, None),
        (1, 4 if own else None),
        (2, None),
        (4, None),
        (None, None),
    ]


def test_a_call_that_was_told_twice_is_the_first_one() -> None:
    events = [*engine_and_worker(), call(1200, 1, num_tokens=1000)]
    found = build("cuda_graph_steps", trace_of(events))
    assert rows(found, "step", "scheduled_tokens")[1] == (1, 5)
