"""CUDA events around a step's graphs. The events are stand-ins: no machine here has a CUDA device.

The stand-in for the device is a clock that only the test moves: an event that was recorded happens
when the device gets to it.
"""

from __future__ import annotations

from typing import Any

import pytest
from graph_rig import Rig
from listsink import ListSink

from profilemate import annotate
from profilemate.annotate.settings import Settings


class Device:
    """What was recorded, and how far it has come."""

    now_ms = 0.0
    reached_ms = 0.0
    made = 0
    order: list[str]


class StandInEvent:
    """`torch.cuda.Event` as far as it is used: never synchronized."""

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing
        Device.made += 1
        self.at: float | None = None

    def record(self) -> None:
        Device.now_ms += 0.25
        self.at = Device.now_ms
        Device.order.append("event")

    def query(self) -> bool:
        return self.at is not None and self.at <= Device.reached_ms

    def elapsed_time(self, end: StandInEvent) -> float:
        assert self.query()
        assert end.query(), "the device is not there yet: this would raise"
        assert self.at is not None
        assert end.at is not None
        return end.at - self.at


@pytest.fixture
def timed(layout: None, sink: ListSink) -> Rig:
    import torch.cuda
    from torch.cuda.graphs import CUDAGraph

    torch.cuda.Event = StandInEvent
    Device.now_ms = Device.reached_ms = 0.0
    Device.made, Device.order = 0, []
    original: Any = CUDAGraph.replay

    def replay(self: Any) -> None:
        Device.now_ms += 3.0
        Device.order.append("launch")
        original(self)

    CUDAGraph.replay = replay
    annotate.install(Settings(wanted=True, reason="a test", gpu_timing=True))
    return Rig(sink)


def test_a_step_is_timed_from_before_its_first_launch_to_after_its_last(timed: Rig) -> None:
    timed.runner.capture_model()
    timed.events()
    Device.order.clear()
    timed.step(3, 1, new=1)  # three pieces
    assert Device.order[:7] == ["event", *["launch", "event"] * 3]
    Device.reached_ms = 1e9
    timed.step(1, 1, 1)  # one graph; now the first is read
    timed.step(1, 1, 1)
    found = timed.events("step.gpu")
    # Three launches of 3 ms with the events of the first two between, and the last event itself.
    assert [(f["step"], f["gpu"]) for f in found] == [(1, 9_750_000), (2, 3_250_000)]


def test_nothing_is_waited_for_and_events_are_used_again(timed: Rig) -> None:
    timed.runner.capture_model()
    timed.events()
    for _ in range(5):
        timed.step(1, 1, 1)  # the device does nothing
    assert timed.events("step.gpu") == []
    assert Device.made == 10
    Device.reached_ms = 1e9
    for _ in range(20):
        timed.step(1, 1, 1)
    assert [f["step"] for f in timed.events("step.gpu")] == [*range(1, 25)]
    assert Device.made == 10


def test_what_a_step_does_not_launch_is_not_timed(timed: Rig) -> None:
    timed.runner.capture_model()
    timed.events()
    Device.order.clear()
    timed.step(100, new=1)  # eager
    timed.worker.execute_dummy_batch()
    assert "event" not in Device.order


def test_without_being_asked_no_event_is_made(layout: None, sink: ListSink, on: Settings) -> None:
    import torch.cuda

    torch.cuda.Event = StandInEvent
    Device.made = 0
    annotate.install(on)
    rig = Rig(sink)
    rig.runner.capture_model()
    rig.step(1, 1, 1)
    assert Device.made == 0
    assert "timed" not in " ".join(h.name for h in annotate.status())
