"""`step.gpu`, the time between CUDA events, in the tables."""

from __future__ import annotations

from typing import Any

from frames import At, at, trace_of
from graph_events import EAGER, FULL, PIECEWISE, replay, step

from profilemate.parse.session.coverage import durations
from profilemate.parse.tables import TABLES

STEPS = [
    step(0, 1, FULL, launches=1),
    step(100, 2, PIECEWISE, launches=3),
    step(200, 3, EAGER),
    step(300, 4, FULL, launches=1),
]


def gpu(number: int, ns: int, pid: int = 1) -> At:
    return at(1000 + number, "step.gpu", step=number, gpu=ns, pid=pid)


def column(name: str, column: str, events: list[At]) -> list[Any]:
    frame = TABLES[name].build(trace_of(events))[column]
    return frame.astype(object).where(frame.notna(), None).tolist()


def test_the_timeline_has_it_and_says_so() -> None:
    events = [*STEPS, gpu(1, 7), gpu(2, 8), gpu(4, 9), gpu(4, 5000, pid=2)]
    assert column("cuda_graph_timeline", "duration_ms", events) == [7, 8, 9]
    assert durations(trace_of(events)) == "CUDA events"
    assert column("cuda_graph_steps", "graph_gpu_ms", events) == [7, 8, None, 9]
    latency = TABLES["cuda_graph_replay_latency"].build(trace_of(events))
    spans = dict(zip(latency["num_tokens"], latency["gpu_span_total_ms"], strict=True))
    assert spans == {256: 16, 512: 8}
    assert latency["gpu_busy_total_ms"].isna().all()


def test_what_was_not_read_is_the_host_s() -> None:
    events = [*STEPS, gpu(1, 7), gpu(2, 8)]
    assert column("cuda_graph_timeline", "duration_ms", events) == [7, 8, 90]
    assert durations(trace_of(events)) == "CUDA events and host"


def test_graphs_of_another_model_in_the_step_do_not_have_it() -> None:
    """Events are around the model's own launches: a drafter's have the host's time."""
    events = [*STEPS, replay(150, 2, FULL), gpu(1, 7), gpu(2, 8), gpu(4, 9)]
    assert column("cuda_graph_timeline", "duration_ms", events) == [7, 8, 2, 9]
    latency = TABLES["cuda_graph_replay_latency"].build(trace_of(events))
    spans = dict(zip(latency["num_tokens"], latency["gpu_span_total_ms"], strict=True))
    assert spans == {256: 16, 512: 8}
    assert column("ranks", "replay_on", events) == ["CUDA events and host"]
    assert durations(trace_of(events)) == "CUDA events and host"


def test_without_it_nothing_changes() -> None:
    assert column("cuda_graph_timeline", "duration_ms", STEPS) == [90, 90, 90]
    assert durations(trace_of(STEPS)) == "host"
    assert column("cuda_graph_steps", "graph_gpu_ms", STEPS) == [None] * 4


def test_ranks_have_the_durations_of_the_timeline() -> None:
    """By hand: steps on graphs take 90 on the host, and what CUDA events say on the GPU."""
    events = [*STEPS, gpu(1, 7), gpu(2, 30), gpu(4, 9)]
    assert column("ranks", "replay_p50_ms", events) == [9]
    assert column("ranks", "replay_on", events) == ["CUDA events"]
    some = [*STEPS, gpu(1, 7), gpu(4, 9)]
    assert column("ranks", "replay_p50_ms", some) == [9]
    assert column("ranks", "replay_on", some) == ["CUDA events and host"]
    assert column("ranks", "replay_p50_ms", STEPS) == [90]
    assert column("ranks", "replay_on", STEPS) == ["host"]
    assert column("ranks", "replay_on", []) == []
