"""What cannot be is doubted, and nothing else is: every invariant with and without a violation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from frames import At, at, trace_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pool_programs import Program, programs, run
from recorded import real_traces

from profilemate.parse.pipeline import parse_session, read_trace
from profilemate.parse.tables import TABLES
from profilemate.parse.tables.invariants import INVARIANTS, doubts_of
from profilemate.parse.trace.trace import Trace
from profilemate.schema import Event


def doubted(trace: Trace) -> dict[str, int]:
    """How often each invariant is violated, by its name."""
    return {doubt.invariant.name: doubt.count for doubt in doubts_of(trace, [trace])}


def test_every_invariant_names_its_tables() -> None:
    for name, invariant in INVARIANTS.items():
        assert invariant.name == name
        assert invariant.tables
        assert set(invariant.tables) <= set(TABLES)


# ------------------------------------------------------------------ block operations


@settings(max_examples=80, deadline=None)
@given(programs())
def test_whatever_pools_do_is_not_doubted(program: Program) -> None:
    _, trace = run(program)
    assert doubted(trace) == {}


Inject = Callable[[At, int], list[At]]


def changed(item: At, **values: Any) -> At:
    return replace(item, event=Event(item.event.kind, {**item.event.values, **values}))


def ids_of(item: At) -> tuple[int, ...]:
    ids = item.event.values["ids"]
    assert isinstance(ids, tuple)
    return ids


def again(item: At, size: int) -> list[At]:
    return [item, item]


def one_more(item: At, size: int) -> list[At]:
    return [changed(item, ids=(*ids_of(item), size + 1))]


def too_full(item: At, size: int) -> list[At]:
    return [changed(item, used=size + 1)]


def too_empty(item: At, size: int) -> list[At]:
    return [changed(item, used=len(ids_of(item)) - 1)]


def below_nothing(item: At, size: int) -> list[At]:
    return [changed(item, used=-1)]


INJECTIONS: list[tuple[str, str, Inject]] = [
    ("allocated-twice", "kv.alloc", again),
    ("freed-unallocated", "kv.free", again),
    ("ids-outside-pool", "kv.alloc", one_more),
    ("ids-outside-pool", "kv.cache", one_more),
    ("used-outside-pool", "kv.alloc", too_full),
    ("used-outside-pool", "kv.free", below_nothing),
    ("used-below-allocated", "kv.alloc", too_empty),
]


@settings(max_examples=120, deadline=None)
@given(programs(), st.sampled_from(INJECTIONS), st.data())
def test_one_violation_is_found(
    program: Program, injection: tuple[str, str, Inject], data: st.DataObject
) -> None:
    name, kind, inject = injection
    world, trace = run(program)
    places = [
        i
        for i, item in enumerate(world.events)
        if item.event.kind == kind and item.event.values.get("freed") != ()
    ]
    assume(places)
    place = data.draw(st.sampled_from(places))
    item = world.events[place]
    (size,) = [
        p.size for p in world.pools if (p.pid, p.number) == (item.pid, item.event.values["pool"])
    ]
    events = [*world.events[:place], *inject(item, size), *world.events[place + 1 :]]
    pools = [
        at(0, "kv.pool", pid=p.pid, pool=p.number, num_blocks=p.size, caching=p.caching)
        for p in world.pools
    ]
    found = doubted(trace_of([*pools, *events], window=trace.window))
    assert found.get(name, 0) >= 1
    # What was lost explains it: then nothing is said of what follows what.
    torn = replace(trace_of(events, window=trace.window), lost_batches={item.pid: 1})
    assert (
        not {"allocated-twice", "freed-unallocated", "used-below-allocated"} & doubted(torn).keys()
    )


def test_a_block_of_an_empty_pool_is_not_freed() -> None:
    pool = at(0, "kv.pool", pool=0, num_blocks=9, used=0)
    freed = at(5, "kv.free", pool=0, ids=(3,), used=0)
    assert doubted(trace_of([pool, freed])) == {"freed-unallocated": 1}
    # In a pool that was in use already it may have been allocated before.
    busy = at(0, "kv.pool", pool=0, num_blocks=9, used=1)
    assert doubted(trace_of([busy, freed])) == {}


def test_a_negative_pool_is_doubted() -> None:
    pool = at(0, "kv.pool", pool=0, num_blocks=-5, used=0)
    assert doubted(trace_of([pool, at(1, "kv.alloc", pool=0, ids=(1,), used=1)])) == {
        "pool-negative": 1
    }


def test_more_hits_than_tokens_are_doubted() -> None:
    lookups = [at(n, "kv.lookup", tokens=8, hits=hits) for n, hits in enumerate((0, 8, 9, -1))]
    assert doubted(trace_of(lookups)) == {"hits-above-asked": 2}


def test_a_graph_smaller_than_its_step_is_doubted() -> None:
    steps = [
        at(n, "step", dur=1, mode=mode, num_tokens=tokens, unpadded=8)
        for n, (mode, tokens) in enumerate((("FULL", 8), ("FULL", 7), ("NONE", 7)))
    ]
    assert doubted(trace_of(steps)) == {"padding-negative": 1}


def test_a_step_longer_than_the_recording_is_doubted() -> None:
    events = [at(5, "step", dur=100), at(6, "step", dur=101), at(7, "step", dur=-1)]
    assert doubted(trace_of(events, window=(0, 100))) == {
        "longer-than-recording": 1,
        "duration-negative": 1,
    }


# ------------------------------------------------------------------ GPU records


def written(path: Path, *records: tuple[float, float, int], stream: int = 7) -> Path:
    """A torch trace of calls at 10, 20, ... us and these records: begin, duration, call."""
    events: list[dict[str, Any]] = [{"ph": "X", "cat": "cpu_op", "name": "op", "pid": 7, "tid": 7}]
    events[0] |= {"ts": 0, "dur": 0}
    call = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 7, "tid": 8}
    events += [
        {**call, "ts": 1000 + 10 * number, "dur": 2, "args": {"correlation": number}}
        for number in range(1, 10)
    ]
    for ts, dur, correlation in records:
        args = {"device": 0, "stream": stream, "correlation": correlation}
        record = {"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": stream}
        events.append({**record, "ts": ts, "dur": dur, "args": args})
    path.write_text(json.dumps({"baseTimeNanoseconds": 10**18, "traceEvents": events}))
    return path


RECORDS = [(1100.0, 50.0, 1), (1140.0, 60.0, 2), (1300.0, 5.0, 3)]
"""The second begins before the first has ended, which it may."""


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        (None, {}),
        ((0, 0, 4), {"gpu-time-unmeasured": 1}),
        ((1005, 4, 4), {"gpu-before-call": 1}),
        ((1110, 20, 4), {"gpu-records-overlap": 1}),
        ((1400, -3, 4), {"duration-negative": 1}),
    ],
)
def test_gpu_records_that_cannot_be(
    tmp_path: Path, extra: tuple[float, float, int] | None, found: dict[str, int]
) -> None:
    path = written(tmp_path / "x.json", *RECORDS, *([extra] if extra else []))
    assert doubted(read_trace([path])) == found
    metadata = parse_session([path], tmp_path / "s").metadata
    assert {w.id for w in metadata.warnings} & INVARIANTS.keys() == found.keys()
    assert len(metadata.doubts) == len(found)


def test_streams_run_beside_each_other(tmp_path: Path) -> None:
    first = written(tmp_path / "a.json", *RECORDS)
    other = written(tmp_path / "b.json", (1110, 20, 4), stream=9)
    events = [json.loads(p.read_text())["traceEvents"] for p in (first, other)]
    both = {"baseTimeNanoseconds": 10**18, "traceEvents": [*events[0], events[1][-1]]}
    first.write_text(json.dumps(both))
    assert doubted(read_trace([first])) == {}


def test_what_nobody_asks_for_moves_no_time(tmp_path: Path) -> None:
    path = written(tmp_path / "x.json", *RECORDS, (0, 0, 4))
    trace = read_trace([path])
    # From the first call to the last record: neither the operator at 0 nor the record at 0.
    assert trace.window == (0, 1305_000 - 1010_000)
    assert trace.start_unix_ns == 10**18 + 1010_000


@pytest.mark.parametrize(
    "name",
    [
        "nsys_h100_2gpu_no_graphs.sqlite",
        "training_v100_two_graphs_old_kineto.json.gz",
        "vllm_b200_eager_prefill.json.gz",
        "vllm_mi300x_mixed_piecewise.json.gz",
        "vllm_rtx3090_gptoss20b_full_and_piecewise.pt.trace.json.gz",
    ],
)
def test_real_recordings_are_not_doubted(name: str) -> None:
    assert doubted(read_trace([real_traces() / name])) == {}
