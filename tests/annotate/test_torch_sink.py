"""The torch sink with a stand-in for torch; a real one is in tests/e2e."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from profilemate.annotate import sinks
from profilemate.annotate.settings import Settings
from profilemate.annotate.sinks.torch_profiler import TorchProfilerSink, open_sink

ON = Settings(wanted=True)
NSYS = {"NSYS_PROFILING_SESSION_ID": "1"}


@pytest.fixture
def torch(layout: None) -> Iterator[Any]:
    import torch.profiler

    torch.profiler.start()
    yield torch.profiler
    torch.profiler.stop()


def test_a_mark_is_a_scope_that_is_closed_at_once(torch: Any) -> None:
    sink, why = open_sink(ON, {})
    assert sink is not None, why
    assert (sink.name, sink.scope) == ("torch profiler", "torch")
    sink.push("a")
    sink.mark("b")
    sink.push("c")
    sink.pop()
    sink.pop()
    sink.flush()
    begins_and_ends = [("begin", "a"), ("begin", "b"), ("end", "b"), ("begin", "c")]
    assert [*begins_and_ends, ("end", "c"), ("end", "a")] == torch.TRACE


def test_each_thread_closes_its_own_ranges() -> None:
    calls: list[tuple[str, str, int]] = []

    class Scope:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> None:
            calls.append(("begin", self.name, threading.get_ident()))

        def __exit__(self, *_: object) -> None:
            calls.append(("end", self.name, threading.get_ident()))

    sink = TorchProfilerSink(Scope)
    meet = threading.Barrier(2)

    def work(name: str) -> None:
        sink.push(name)
        meet.wait()
        sink.pop()

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(name, thread) for what, name, thread in calls if what == "begin"} == {
        (name, thread) for what, name, thread in calls if what == "end"
    }


def test_the_fast_scope_is_taken_where_it_is(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, _ = open_sink(ON, {})
    fast = SimpleNamespace(_profiler=SimpleNamespace(_RecordFunctionFast=torch.record_function))
    monkeypatch.setattr(sys.modules["torch"], "_C", fast, raising=False)
    monkeypatch.delattr(torch, "record_function")
    found, _ = open_sink(ON, {})
    assert slow is not None
    assert found is not None
    found.mark("fast")
    slow.mark("slow")
    assert [name for what, name in torch.TRACE if what == "begin"] == ["fast", "slow"]


def test_where_there_is_no_torch_it_says_so_and_imports_none() -> None:
    assert open_sink(ON, {}) == (None, "torch is not loaded or has no profiler")
    assert "torch" not in sys.modules


@pytest.mark.parametrize(
    ("settings", "env", "opens"),
    [
        (ON, {}, True),
        (ON, NSYS, False),
        (Settings(wanted=True, torch=True), NSYS, True),
        (Settings(wanted=True, mode="on"), NSYS, True),
    ],
)
def test_under_nsight_systems_no_step_asks_for_a_profiler_that_nobody_configured(
    torch: Any, settings: Settings, env: dict[str, str], opens: bool
) -> None:
    assert (open_sink(settings, env)[0] is not None) is opens


def test_another_sink_does_not_hide_that_nsight_systems_gets_nothing(
    torch: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "nvtx", None)
    settings = Settings(wanted=True, torch=True)
    found, _ = sinks.open_sinks(settings, NSYS)
    assert [sink.name for sink in found] == ["torch profiler", "sidecar"]
    said = capsys.readouterr().err
    assert said.count("nothing reaches Nsight Systems") == 1
    assert "nvtx package cannot be imported" in said
