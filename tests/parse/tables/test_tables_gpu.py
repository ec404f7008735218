"""Latency, steps, padding and coverage on constructed events and GPU activity."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import pytest
from frames import At, at, trace_of
from hypothesis import given
from hypothesis import strategies as st
from matching import matched

from profilemate.parse.recording.activity import GPU_COLUMNS, START_COLUMNS
from profilemate.parse.tables import TABLES
from profilemate.parse.tables.cuda_graph_latency import statistics
from profilemate.parse.trace.trace import Trace

FULL: dict[str, Any] = {"mode": "FULL", "num_tokens": 8, "num_reqs": 8, "uniform": True}
PIECEWISE: dict[str, Any] = {"mode": "PIECEWISE", "num_tokens": 512}


class Launch(NamedTuple):
    """A launch call of 10 ns and its GPU records as (start, end)."""

    ts: int
    gpu: tuple[tuple[int, int], ...] = ()
    pid: int = 1
    device: int = 0


def with_gpu(
    events: list[At],
    *launches: Launch,
    eager: tuple[tuple[int, int], ...] = (),
    others: tuple[Launch, ...] = (),
) -> Trace:
    """A trace with graph launches, `others` that are none, and `eager` records of no known call."""
    trace = trace_of(events)
    every = (*launches, *others)
    nothing = np.zeros(len(every), dtype=np.int64)
    calls = {
        "ts": np.array([call.ts for call in every], dtype=np.int64),
        "dur": nothing + 10,
        "pid": np.array([call.pid for call in every], dtype=np.int64),
        "tid": nothing + 1,
        "correlation": np.arange(1, len(every) + 1),
        "name": nothing,
        "recording": nothing,
    }
    of_graphs = {name: values[: len(launches)] for name, values in calls.items()}
    starts = {n: calls[n][len(launches) :] for n in (*START_COLUMNS, "recording")}
    ran = [(i + 1, x.pid, x.device, *r) for i, x in enumerate(every) for r in x.gpu]
    ran += [(0, 1, 0, *r) for r in eager]
    gpu = {name: np.zeros(len(ran), dtype=np.int64) for name in GPU_COLUMNS}
    gpu["recording"] = gpu["name"].copy()
    for place, name in enumerate(("correlation", "pid", "device", "start", "end")):
        gpu[name] = np.array([row[place] for row in ran], dtype=np.int64)
    found = matched(of_graphs, starts, gpu, ["k"])
    return replace(
        trace,
        launches=found.launches,
        work=found.work,
        gpu=found.gpu,
        api_calls={"cudaGraphLaunch": len(launches)},
    )


def rows(name: str, trace: Trace) -> list[dict[str, Any]]:
    frame = TABLES[name].build(trace)
    assert list(frame.columns) == [column.name for column in TABLES[name].columns]
    frame = frame.astype(object).where(frame.notna(), None)
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def step(ts: int, number: int, key: dict[str, Any], **values: Any) -> At:
    return at(ts, "step", dur=100, step=number, **key, **values)


def test_the_timeline_has_gpu_spans_where_there_are_some() -> None:
    trace = with_gpu(
        [step(0, 1, FULL), step(200, 2, FULL), step(400, 3, PIECEWISE)],
        Launch(20, ((1000, 1100), (1050, 1300))),
        Launch(220),
        Launch(410, ((2000, 2010),)),
        Launch(430, ((2100, 2150),)),
    )
    assert [r["duration_ms"] for r in rows("cuda_graph_timeline", trace)] == [300, 100, 150]


def test_latency_of_a_graph() -> None:
    trace = with_gpu(
        [step(0, 1, PIECEWISE), step(200, 2, PIECEWISE), step(400, 3, PIECEWISE)],
        Launch(20, ((1000, 1100), (1050, 1200))),
        Launch(40, ((1500, 1600),)),
        Launch(220, ((2000, 2100),)),
        Launch(410),
        eager=((3000, 4000),),
    )
    (row,) = rows("cuda_graph_replay_latency", trace)
    assert (row["steps"], row["launches"], row["gpu_steps"]) == (3, 4, 2)
    assert (row["launch_total_ms"], row["launch_max_ms"], row["launch_p50_ms"]) == (40, 20, 10)
    assert (row["delay_mean_ms"], row["delay_max_ms"]) == ((980 + 1780) // 2, 1780)
    assert (row["gpu_span_total_ms"], row["gpu_span_p50_ms"]) == (600 + 100, 100)
    assert (row["gpu_busy_total_ms"], row["gpu_busy_max_ms"]) == (300 + 100, 300)
    assert row["gpu_idle_total_ms"] == 300
    assert row["gpu_time_share"] == pytest.approx(400 / 1400)
    # Of one without GPU records too.
    assert [r["launch_ms"] for r in rows("cuda_graph_steps", trace)] == [20, 10, 10]


def test_delay_is_that_of_the_first_launch_that_has_records() -> None:
    # The records of the very first one were dropped.
    trace = with_gpu([step(0, 1, PIECEWISE)], Launch(20), Launch(40, ((1000, 1100),)))
    (row,) = rows("cuda_graph_replay_latency", trace)
    assert row["delay_mean_ms"] == 960
    assert rows("cuda_graph_steps", trace)[0]["gpu_delay_ms"] == 960


def test_gpu_time_of_a_step_is_of_all_that_it_started() -> None:
    trace = with_gpu(
        [step(0, 1, PIECEWISE), step(200, 2, {"mode": "NONE"})],
        Launch(20, ((1000, 1100), (1300, 1400))),
        others=(Launch(40, ((1350, 1500),)), Launch(210, ((2000, 2010), (2030, 2040)))),
    )
    names = ("graph_gpu_ms", "graph_gpu_busy_ms", "gpu_ms", "gpu_busy_ms", "gpu_records")
    assert [tuple(r[n] for n in names) for r in rows("cuda_graph_steps", trace)] == [
        (400, 200, 500, 300, 2),
        (None, None, 40, 20, None),
    ]
    _, piecewise, eager = rows("cuda_graph_coverage", trace)
    assert (piecewise["gpu_graph_ms"], piecewise["gpu_ms"], eager["gpu_ms"]) == (200, 300, 20)
    assert (piecewise["gpu_share"], eager["gpu_share"]) == (300 / 320, 20 / 320)


def test_a_process_has_the_number_that_it_had() -> None:
    trace = replace(with_gpu([step(0, 1, FULL)]), aliases={1: 77})
    assert [r["pid"] for r in rows("cuda_graph_steps", trace)] == [77]


def test_what_sample_tokens_starts_is_the_step_s() -> None:
    """The lm_head and the sampler run after execute_model has returned."""
    events = [
        step(0, 1, FULL, launches=1),
        at(150, "step.sample", dur=40, step=1),
        step(200, 2, FULL, launches=1),
        at(350, "step.sample", dur=40, step=2),
        at(450, "step.sample", dur=40, step=9),
    ]
    sampled = (Launch(160, ((1100, 1150),)), Launch(360, ((2100, 2130),)))
    stray = (Launch(120, ((1090, 1095),)), Launch(460, ((2900, 2999),)))
    trace = with_gpu(
        events,
        Launch(10, ((1000, 1080),)),
        Launch(210, ((2000, 2080),)),
        others=(*sampled, *stray),
    )
    found = rows("cuda_graph_steps", trace)
    assert [row["gpu_busy_ms"] for row in found] == [130, 110]
    assert [row["gpu_ms"] for row in found] == [150, 130]


def test_gpus_run_side_by_side() -> None:
    events = [step(0, 1, FULL), step(200, 2, FULL)]
    launches = Launch(20, ((1000, 1100),)), Launch(220, ((1050, 1200),), device=1)
    (row,) = rows("cuda_graph_replay_latency", with_gpu(events, *launches))
    assert (row["gpu_busy_total_ms"], row["gpu_time_share"]) == (250, 1)


def test_the_graph_with_the_most_gpu_time_comes_first() -> None:
    keys = [FULL | {"num_tokens": tokens} for tokens in (1, 2, 4)]
    busy = [20, 300, 20]
    trace = with_gpu(
        [step(200 * i, i + 1, key) for i, key in enumerate(keys)],
        *(Launch(200 * i + 20, ((1000 * i, 1000 * i + ns),)) for i, ns in enumerate(busy)),
    )
    found = rows("cuda_graph_replay_latency", trace)
    assert [(r["num_tokens"], r["gpu_busy_total_ms"]) for r in found] == [
        (2, 300),
        (1, 20),
        (4, 20),
    ]


def test_a_drafters_launch_is_not_its_models() -> None:
    draft = FULL | {"num_tokens": 4}
    events = [
        step(0, 1, FULL),
        at(50, "graph.replay", dur=20, step=1, **draft, model="drafter"),
        at(150, "graph.replay", dur=20, step=1, **draft, model="drafter"),
    ]
    trace = with_gpu(
        events,
        Launch(20, ((1000, 1100),)),
        Launch(55, ((2000, 2010),)),
        Launch(155, ((3000, 3001),)),
    )
    found = {r["num_tokens"]: r for r in rows("cuda_graph_replay_latency", trace)}
    assert (found[8]["launches"], found[8]["gpu_busy_total_ms"]) == (1, 100)
    assert (found[4]["launches"], found[4]["gpu_busy_total_ms"]) == (2, 11)
    # The step table has whatever was launched inside the step's range.
    assert rows("cuda_graph_steps", trace)[0]["launches"] == 2


def test_launches_of_other_threads_and_processes_are_not_the_steps() -> None:
    trace = with_gpu([step(0, 1, FULL)], Launch(20, ((1000, 1100),), pid=2))
    assert rows("cuda_graph_steps", trace)[0]["launches"] == 0
    part = trace.only({2})
    assert len(part.launches) == 1
    assert rows("cuda_graph_steps", part) == []


def test_of_some_processes_only() -> None:
    events = [step(0, 1, FULL), at(0, "step", dur=100, pid=2, step=1, **FULL)]
    # Equal times and equal numbers of threads: only the process tells them apart.
    launches = Launch(20, ((1000, 1100),)), Launch(20, ((1000, 1250),), pid=2)
    trace = with_gpu(events, *launches)
    for pid, span in ((1, 100), (2, 250)):
        (row,) = rows("cuda_graph_steps", trace.only({pid}))
        assert (row["graph_gpu_ms"], row["pid"]) == (span, pid)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["FULL", "PIECEWISE", "NONE"]),
            st.integers(1, 4),
            st.integers(0, 2),
            st.sampled_from([None, None, None, True]),
        ),
        max_size=40,
    )
)
def test_padding_is_what_vllm_counts(steps: list[tuple[str, int, int, bool | None]]) -> None:
    events = [
        step(100 * i, i, {"mode": mode, "num_tokens": n + pad}, unpadded=n, dummy=dummy)
        for i, (mode, n, pad, dummy) in enumerate(steps)
    ]
    # vllm/compilation/cuda_graph.py, CUDAGraphLogging.generate_metric_table
    stats = Counter((n, n + pad, pad, mode) for mode, n, pad, dummy in steps if not dummy)
    expected = [
        (*stat, count)
        for stat, count in sorted(stats.items(), key=lambda item: item[1], reverse=True)
    ]
    found = rows("cuda_graph_padding", trace_of(events))
    assert [tuple(row.values()) for row in found] == expected


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 99)), max_size=60))
def test_percentiles_are_nearest_rank(values: list[tuple[int, int]]) -> None:
    group = np.array([g for g, _ in values], dtype=np.int64)
    numbers = np.array([v for _, v in values], dtype=np.int64)
    found = statistics(group, 3, numbers, np.ones(len(values), dtype=bool))
    for g in range(3):
        mine = sorted(v for k, v in values if k == g)
        got = {name: cast("pd.arrays.IntegerArray", column)[g] for name, column in found.items()}
        if not mine:
            assert all(v is pd.NA for v in got.values())
            continue
        for percent in (50, 90, 99):
            # The smallest value that at least so many of all are not above.
            expected = next(
                v for v in mine if sum(x <= v for x in mine) * 100 >= percent * len(mine)
            )
            assert got[f"p{percent}"] == expected
        assert (got["total"], got["max"]) == (sum(mine), mine[-1])
        assert abs(got["mean"] * len(mine) - sum(mine)) * 2 <= len(mine)


def test_coverage_by_mode() -> None:
    capture = [
        at(1, "graph.capture", dur=500, phase="real", **FULL),
        at(2, "graph.capture", dur=30, phase="real", **PIECEWISE, piece=0),
        at(3, "graph.capture", dur=40, phase="real", **PIECEWISE, piece=1),
        at(4, "graph.capture", dur=9, phase="profile", **PIECEWISE | {"num_tokens": 7}),
    ]
    events = [
        *capture,
        step(1000, 1, FULL, unpadded=6),
        step(1200, 2, FULL, unpadded=8),
        step(1400, 3, {"mode": "NONE", "num_tokens": 900}, unpadded=900),
        step(1600, 4, {}, unpadded=0),
        step(1800, 5, FULL, dummy=True),
    ]
    trace = with_gpu(
        events,
        Launch(1010, ((5000, 5400),)),
        Launch(1210, ((6000, 6400),)),
        Launch(1810, ((7000, 7100),)),
        eager=((8000, 8100),),
    )
    full, piecewise, eager = rows("cuda_graph_coverage", trace)
    assert [r["steps"] for r in (full, piecewise, eager)] == [2, 0, 1]
    assert [r["empty_steps"] for r in (full, piecewise, eager)] == [0, 0, 1]
    assert full["step_share"] == pytest.approx(2 / 3)
    assert (full["unpadded_tokens"], full["padded_tokens"], full["padding_tokens"]) == (14, 16, 2)
    assert full["padding_share"] == pytest.approx(2 / 16)
    assert (full["gpu_graph_ms"], eager["gpu_graph_ms"]) == (800, 0)
    assert full["gpu_graph_share"] == pytest.approx(800 / 1000)
    assert (full["gpu_ms"], full["gpu_share"]) == (800, pytest.approx(800 / 1000))
    assert full["padding_gpu_ms"] == 100  # a quarter of the first step's 400 ns
    assert (full["graphs_captured"], full["graphs_replayed"]) == (1, 1)
    assert (full["graphs_never_replayed"], full["never_replayed_capture_ms"]) == (0, 0)
    assert (piecewise["graphs_captured"], piecewise["graphs_replayed"]) == (1, 0)
    assert (piecewise["graphs_never_replayed"], piecewise["never_replayed_capture_ms"]) == (1, 70)


def test_of_nothing_there_is_no_share() -> None:
    trace = with_gpu([step(0, 1, FULL, dummy=True)])
    for row in rows("cuda_graph_coverage", trace):
        shares = [value for name, value in row.items() if name.endswith("_share")]
        assert shares == [None] * len(shares)


def test_steps_that_do_not_say_everything_count_by_what_they_say() -> None:
    keys: list[dict[str, Any]]
    keys = [{"mode": "FULL", "num_tokens": 8}, {"unpadded": 5}, {"unpadded": 5}, {}]
    trace = trace_of([step(200 * i, i + 1, key) for i, key in enumerate(keys)])
    full, *_, unknown = rows("cuda_graph_coverage", trace)
    assert (full["steps"], full["unpadded_tokens"], full["padded_tokens"]) == (1, None, 8)
    assert (unknown["runtime_mode"], unknown["steps"], unknown["unpadded_tokens"]) == (None, 3, 10)
    names = ("unpadded_tokens", "padded_tokens", "num_paddings", "runtime_mode", "count")
    assert [tuple(r[n] for n in names) for r in rows("cuda_graph_padding", trace)] == [
        (5, None, None, None, 2),
        (None, 8, None, "FULL", 1),
    ]


def test_without_a_trace_of_api_calls_launches_are_the_hooks() -> None:
    draft = FULL | {"num_tokens": 4}
    events = [
        step(0, 1, PIECEWISE, launches=3),
        at(0, "step.end", dur=100, step=1, seen=2),
        step(200, 2, PIECEWISE, launches=3),
        step(400, 3, FULL),
        *(at(300 + i, "graph.replay", dur=1, step=2, **draft) for i in range(2)),
    ]
    found = rows("cuda_graph_replay_latency", trace_of(events))
    launches = {(r["runtime_mode"], r["num_tokens"]): r["launches"] for r in found}
    assert launches == {("PIECEWISE", 512): 2 + 3, ("FULL", 8): None, ("FULL", 4): 2}
