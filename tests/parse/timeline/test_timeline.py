"""Lanes, cached blocks and steps against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from frames import at, trace_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_model import Pool, World
from pool_programs import Program, execute, programs

from profilemate.errors import InputError
from profilemate.parse.session.timeline_file import window_of
from profilemate.parse.timeline import steps
from profilemate.parse.timeline.blocks import CachedFree
from profilemate.parse.timeline.lanes import in_order, lanes
from profilemate.parse.timeline.tracks import Flows, Words
from profilemate.parse.trace.kv_log import ALL
from profilemate.parse.trace.ranks import Process

SLICES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=40)


def crosses(a: tuple[int, int], b: tuple[int, int], *, nest: bool) -> bool:
    """Whether two slices cannot share a line: they overlap, and none holds the other."""
    (_, a2), (b1, b2) = sorted([a, b], key=lambda s: (s[0], -s[1]))
    if b1 >= a2:
        return False
    return not (nest and b2 <= a2)


@settings(deadline=None)
@given(SLICES, st.booleans())
def test_slices_of_a_lane_never_cross(drawn: list[tuple[int, int]], nest: bool) -> None:
    ts, dur = (np.array([d[i] for d in drawn], dtype=np.int64) for i in (0, 1))
    order = in_order(ts, ts + dur)
    ts, end = ts[order], (ts + dur)[order]
    found = lanes(ts, end, nest=nest)
    for i in range(len(ts)):
        for j in range(i):
            if found[i] == found[j]:
                pair = (int(ts[j]), int(end[j])), (int(ts[i]), int(end[i]))
                assert not crosses(*pair, nest=nest), pair


@settings(deadline=None)
@given(SLICES)
def test_as_few_lanes_as_slices_at_once(drawn: list[tuple[int, int]]) -> None:
    ts, dur = (np.array([d[i] for d in drawn], dtype=np.int64) for i in (0, 1))
    order = in_order(ts, ts + dur)
    found = lanes(ts[order], (ts + dur)[order])
    most = max((sum(b <= t < b + d for b, d in drawn) for t in range(43)), default=0)
    # What takes no time may need a lane of its own where everything is taken.
    instants = any(d == 0 for _, d in drawn)
    assert int(found.max(initial=-1)) + 1 <= most + instants


class Watched(World):
    """A world that counts, block by block, what is free and cached after each operation."""

    def __init__(self, pools: list[Pool], *, recording: bool) -> None:
        super().__init__(pools, recording=recording)
        self.truth: dict[tuple[int, int], list[int]] = {}

    def say(self, ts: int, kind: str, pool: Pool, **values: Any) -> None:
        free = sum(b.ref == 0 and b.hashed for b in pool.blocks.values())
        self.truth.setdefault((pool.pid, pool.number), []).append(free)
        super().say(ts, kind, pool, **values)


@settings(max_examples=150, deadline=None)
@given(programs(), st.integers(1, 9))
def test_cached_free_blocks_equal_the_model(program: Program, chunk: int) -> None:
    world = Watched(program.pools(), recording=True)
    for do in program.steps:
        world.now += do.pause
        execute(world, do)
    trace = trace_of(world.events)
    for (pid, number), truth in world.truth.items():
        (whole,) = trace.kv.only({pid}).slices(ALL)
        of_pool = np.flatnonzero(whole.ints("pool") == number)
        counter, found = CachedFree(), []
        for begin in range(0, len(of_pool), chunk):
            found += counter.feed(whole.pick(of_pool[begin : begin + chunk])).tolist()
        assert found == truth


def process(pid: int, role: str, dp: int = 0, tp: int = 0) -> Process:
    return Process(pid, role, dp, 0, tp, None, 1, pid)


def test_a_worker_belongs_to_the_engine_of_its_rank() -> None:
    found = steps.engines_of(
        [
            process(1, "engine"),
            process(2, "engine", dp=1),
            process(11, "worker"),
            process(12, "worker", tp=1),
            process(21, "worker", dp=1),
            process(3, "engine"),  # the server was started again
            process(31, "worker"),
            process(4, "engine+worker", dp=2),
            process(99, "worker", dp=7),
        ]
    )
    assert found == {11: 1, 12: 1, 21: 2, 31: 3, 4: 4}


def test_steps_are_joined_by_number_and_named_by_what_they_did() -> None:
    said = [(1, 7, 0), (2, 5, 3), (3, 0, 4), (5, None, None)]  # step, prefill, decode
    trace = trace_of(
        [
            *(at(10 * n, "sched.step", pid=1, dur=2, step=n, num_tokens=9) for n in (1, 2, 3, 4)),
            *(
                at(
                    10 * n + 5,
                    "step",
                    pid=2,
                    dur=3,
                    step=n,
                    mode="FULL",
                    unpadded=9,
                    num_tokens=16,
                    prefill_tokens=prefill,
                    decode_tokens=decode,
                )
                for n, prefill, decode in said
            ),
            at(70, "step", pid=2, dur=1, mode="NONE", unpadded=8, num_tokens=8, dummy=True),
            at(80, "step", pid=2, dur=1, step=9, unpadded=0),
        ]
    )
    frame = trace.frames["step"]
    calls = steps.schedule_calls(trace, {2: 1})
    assert calls.tolist() == [0, 1, 2, -1, -1, -1]
    kind = steps.kinds(frame)
    names = steps.step_names(frame, kind)
    assert [names.texts[i] for i in names.codes] == [
        "prefill 9->16 FULL",
        "mixed 9->16 FULL",
        "decode 9->16 FULL",
        "step 9->16 FULL",
        "dummy 8 eager",
        "empty",
    ]
    scheduled = steps.call_kinds(trace, calls, kind)
    called = steps.call_names(trace.frames["sched.step"], scheduled)
    assert [called.texts[i] for i in called.codes] == [
        "prefill 9 tok",
        "mixed 9 tok",
        "decode 9 tok",
        "step 9 tok",
    ]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 99), max_size=4), max_size=9), st.data())
def test_flows_are_ids_by_event(drawn: list[list[int]], data: st.DataObject) -> None:
    event = np.array([i for i, ids in enumerate(drawn) for _ in ids], dtype=np.int64)
    ids = np.array([n for ids in drawn for n in ids], dtype=np.int64)
    flows = Flows.grouped(event, ids, len(drawn))
    rows = np.array(data.draw(st.permutations(range(len(drawn)))), dtype=np.int64)
    both = flows.joined(Flows.single(np.arange(len(drawn)) * 100)).take(rows)
    found = [both.ids[a:b].tolist() for a, b in zip(both.start, both.start[1:], strict=False)]
    assert found == [drawn[i] + ([i * 100] if i else []) for i in rows]


def test_words_are_spelled_once() -> None:
    calls = []

    def spell(*row: int) -> str:
        calls.append(row)
        return "-".join(map(str, row))

    words = Words.spelled(spell, np.array([1, 2, 1]), np.array([5, 6, 5]))
    assert [words.texts[i] for i in words.codes] == ["1-5", "2-6", "1-5"]
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, (None, None)), ("1:2.5", (1, 2.5)), (":3", (None, 3)), ("4:", (4, None))],
)
def test_windows(text: str | None, expected: tuple[float | None, float | None]) -> None:
    assert window_of(text) == expected


@pytest.mark.parametrize("text", ["3", "5:4", "4:4", "a:b", "-1:2", "1:2:3", ".:1"])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(InputError, match="no window"):
        window_of(text)
