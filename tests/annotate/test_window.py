"""Which steps reach which sinks, on the stand-in layout; real engines are in tests/e2e."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from listsink import ListSink

from profilemate import annotate, schema
from profilemate.annotate import configured, current, sinks
from profilemate.annotate.settings import Settings, Steps
from profilemate.annotate.sink import Scope
from profilemate.annotate.sinks import torch_profiler

Make = Callable[..., Any]
CONFIG = {"profiler": "torch", "delay_iterations": 0, "max_iterations": 0}


class WindowSink(ListSink):
    scope: Scope = "window"


class Rig:
    """An engine of the stand-in layout in this process: scheduler, worker, profiler."""

    def __init__(self, make: Make, kind: str = "Torch", **config: Any) -> None:
        import torch.profiler
        import vllm.config
        import vllm.profiler.wrapper
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.engine.core import EngineCore
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner
        from vllm.v1.worker.gpu_worker import Worker

        self.make, self.names = make, iter(range(1 << 30))
        profiler_config = SimpleNamespace(**{**CONFIG, **config})
        self.runner = GPUModelRunner()
        self.worker = Worker(self.runner)
        profiler = getattr(vllm.profiler.wrapper, f"{kind}ProfilerWrapper")
        self.worker.profiler = profiler(profiler_config)
        self.scheduler = Scheduler()
        vllm_config = vllm.config.VllmConfig(profiler_config)
        self.core = EngineCore(vllm_config, self.scheduler, self.worker)
        self.torch = torch.profiler

    def step(self, count: int = 1) -> None:
        """A request comes, is scheduled, runs, and leaves."""
        for _ in range(count):
            name = f"r{next(self.names)}"
            self.scheduler.add_request(self.make(name, 16, req_id=name))
            output = self.scheduler.schedule()
            self.worker.execute_model(output)
            self.scheduler.update_from_output(output)

    @property
    def trace(self) -> ListSink:
        """What the torch profiler recorded, as a sink."""
        found = ListSink()
        names = [name for what, name in self.torch.TRACE if what == "begin"]
        ends = [name for what, name in self.torch.TRACE if what == "end"]
        assert sorted(names) == sorted(ends)
        for name in names:
            batch = name.startswith(("pm1.batch", "pm1.part"))
            (found.messages if batch else found.ranges).append(name)
        return found


def scheduled(sink: ListSink) -> list[object]:
    return [e.values["step"] for e in sink.events("sched.step")]


def ran(sink: ListSink) -> list[object]:
    messages = [schema.decode(text) for text in sink.ranges]
    return [m.events[0].values["step"] for m in messages if m and m.events[0].kind == "step"]


@pytest.fixture
def windowed(layout: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[WindowSink]:
    """A sink that listens in windows, beside the one for torch."""
    sink = WindowSink()

    def open_sinks(settings: Settings, env: object) -> tuple[list[Any], str]:
        torch, why = torch_profiler.open_sink(settings, {})
        assert torch is not None, why
        return [sink, torch], ""

    monkeypatch.setattr(sinks, "open_sinks", open_sinks)
    yield sink
    assert current.emitter is not None
    assert current.emitter.faults.first == {}
    assert sink.depth == 0


def test_nothing_is_told_until_a_profiler_runs_and_all_is_in_step_then(
    windowed: WindowSink, on: Settings, request_of: Make
) -> None:
    annotate.install(on)
    rig = Rig(request_of)
    rig.step(3)
    assert current.emitter is not None
    assert not current.emitter.active
    assert windowed.messages == windowed.ranges == []
    rig.core.profile(True)
    rig.step(4)
    rig.core.profile(False)
    rig.step(2)
    assert not current.emitter.active
    for sink in (windowed, rig.trace):
        assert scheduled(sink) == ran(sink) == [4, 5, 6, 7]
        assert [e.values["what"] for e in sink.events("request")] == ["arrived", "finished"] * 4
        # Each request takes one block and gives it back; the last one's is there too.
        assert [e.kind for e in sink.events("kv.alloc", "kv.free")] == ["kv.alloc", "kv.free"] * 4
        assert not sink.events("kv.usage")
    assert windowed.flushed == 1
    assert len(windowed.events("session")) == 1
    assert windowed.events("kv.pool")[0].values["used"] == 0


def test_batches_of_a_sink_are_numbered_by_what_it_got(
    windowed: WindowSink, on: Settings, request_of: Make
) -> None:
    annotate.install(on)
    rig = Rig(request_of)
    for _ in range(2):
        rig.core.profile(True)
        rig.step(2)
        rig.core.profile(False)
        rig.step(2)
    for sink in (windowed, rig.trace):
        messages = [schema.decode(text) for text in sink.messages]
        assert [m.seq for m in messages if m] == list(range(1, len(messages) + 1))
        assert scheduled(sink) == [1, 2, 5, 6]


@pytest.mark.parametrize("delay", [0, 1, 2, 5])
@pytest.mark.parametrize("limit", [0, 1, 3])
@pytest.mark.parametrize("by_request", [False, True])
def test_delays_and_limits_of_vllm_are_the_window_s(
    windowed: WindowSink,
    on: Settings,
    request_of: Make,
    delay: int,
    limit: int,
    by_request: bool,
) -> None:
    annotate.install(on)
    bounds: dict[str, Any] = {"delay_iterations": delay, "max_iterations": limit}
    rig = Rig(request_of, **({} if by_request else bounds))
    rig.step(2)
    rig.core.profile(True, None, **(bounds if by_request else {}))
    rig.step(8)
    rig.core.profile(False)
    rig.step(2)
    first = 2 + max(delay, 1)
    expected = list(range(first, first + limit if limit else 11))
    assert ran(rig.trace) == expected  # the stand-in's own count of iterations
    assert ran(windowed) == scheduled(windowed) == expected
    # A profiler that starts inside a step has not seen that step being scheduled.
    assert scheduled(rig.trace) == expected[1 if delay else 0 :]


def test_a_worker_alone_follows_its_own_profiler(
    windowed: WindowSink, on: Settings, request_of: Make
) -> None:
    annotate.install(on)
    rig = Rig(request_of, delay_iterations=2, max_iterations=3)
    output = rig.scheduler.schedule()
    assert current.emitter is not None
    current.emitter.identity.forget_process()  # the scheduler was only there to make this
    output.num_scheduled_tokens, output.total_num_scheduled_tokens = {"r": 1}, 1
    for _ in range(3):
        rig.worker.execute_model(output)
    rig.worker.profile(True)
    for _ in range(8):
        rig.worker.execute_model(output)
    assert ran(windowed) == ran(rig.trace) == [5, 6, 7]
    assert windowed.events("session")[0].values["role"] == "worker"


def test_a_profiler_of_the_user_s_own_opens_a_window(
    windowed: WindowSink, on: Settings, request_of: Make
) -> None:
    annotate.install(on)
    rig = Rig(request_of)
    rig.step(1)
    rig.torch.start()
    rig.step(2)
    rig.torch.stop()
    rig.step(1)
    assert scheduled(windowed) == ran(windowed) == [2, 3]
    assert scheduled(rig.trace) == ran(rig.trace) == [2, 3]


def test_another_profiler_of_vllm_s_opens_a_window_without_torch(
    windowed: WindowSink, on: Settings, request_of: Make
) -> None:
    annotate.install(on)
    rig = Rig(request_of, "Cuda", profiler="cuda")
    assert current.emitter is not None
    current.emitter.window.plan = None
    rig.step(1)
    rig.worker.profile(True)
    rig.step(2)
    rig.worker.profile(False)
    rig.step(1)
    assert ran(windowed) == [2, 3]
    assert ran(rig.trace) == []


def test_where_nsight_systems_begins_with_cuda_s_profiler_it_is_told_what_came_before(
    layout: None, sink: ListSink, on: Settings, request_of: Make
) -> None:
    annotate.install(on)
    rig = Rig(request_of, "Cuda", profiler="cuda", delay_iterations=2)
    rig.runner.capture_model()
    rig.step(2)
    rig.core.profile(True)
    rig.step(1)
    sink.messages.clear()
    rig.step(1)
    assert len(sink.events("session")) == 1
    assert sum(e.values["again"] for e in sink.events("graph.capture")) == 10  # type: ignore[misc]


def test_steps_that_are_asked_for_are_the_only_ones_for_every_sink(
    windowed: WindowSink, monkeypatch: pytest.MonkeyPatch, request_of: Make
) -> None:
    always = ListSink()
    both = sinks.open_sinks

    def open_sinks(settings: Settings, env: Any) -> tuple[list[Any], str]:
        return [always, *both(settings, env)[0]], ""

    monkeypatch.setattr(sinks, "open_sinks", open_sinks)
    annotate.install(Settings(wanted=True, steps=Steps(3, 2)))
    rig = Rig(request_of)
    rig.worker._dummy = None
    rig.core.profile(True)
    rig.step(2)
    rig.worker.execute_dummy_batch()  # is no step
    for _ in range(4):
        rig.step()
        if current.emitter is not None and current.emitter.state.scheduler_step == 4:
            assert always.flushed == 1  # at once, not with a next step that may never come
    rig.core.profile(False)
    for sink in (always, windowed, rig.trace):
        assert scheduled(sink) == ran(sink) == [3, 4]
    assert always.flushed == 1


def test_graphs_of_before_are_told_again_in_short(
    windowed: WindowSink, on: Settings, request_of: Make
) -> None:
    annotate.install(on)
    rig = Rig(request_of)
    rig.runner.profile_cudagraph_memory()
    rig.runner.capture_model()
    rig.step(1)
    rig.core.profile(True)
    rig.step(1)
    rig.core.profile(False)
    for sink in (windowed, rig.trace):
        told = [e.values for e in sink.events("graph.capture")]
        # Two sizes: pieces, their drafter's, and the whole model; three captures for pieces.
        found = {(t["mode"], t["num_tokens"], t.get("model")): t["again"] for t in told}
        assert len(found) == len(told) == 6
        assert found["PIECEWISE", 4, "backbone"] == 3
        assert found["FULL", 2, None] == 1
        assert all(t["ago"] >= t["dur"] > 0 for t in told)  # type: ignore[operator]
        step = schema.decode(sink.ranges[0])
        assert step is not None
        assert step.events[0].values["launches"] == 1


def test_ranges_end_where_they_began(
    windowed: WindowSink, on: Settings, request_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotate.install(on)
    rig = Rig(request_of)
    emitter = current.emitter
    assert emitter is not None
    inside = rig.runner._determine_batch_execution_and_padding

    def starting(*args: Any, **kwargs: Any) -> Any:
        rig.torch.start()
        return inside(*args, **kwargs)

    def ending(*args: Any, **kwargs: Any) -> Any:
        result = inside(*args, **kwargs)
        rig.torch.stop()
        emitter.advance(emitter.state.worker_step)
        return result

    # Begins in the middle of a step that nobody recorded: the next step is the first.
    monkeypatch.setattr(rig.runner, "_determine_batch_execution_and_padding", starting)
    rig.step()
    assert windowed.ranges == []
    rig.step()
    assert ran(windowed) == [2]
    # Ends in the middle of a step: its range is closed in the sinks that have it.
    monkeypatch.setattr(rig.runner, "_determine_batch_execution_and_padding", ending)
    rig.step()
    assert windowed.depth == 0
    assert ran(windowed) == [2, 3]
    assert not emitter.active


def test_what_was_half_seen_is_forgotten(
    windowed: WindowSink, on: Settings, request_of: Make
) -> None:
    annotate.install(on)
    rig = Rig(request_of)
    rig.torch.start()
    rig.step()
    manager = rig.scheduler.kv_cache_manager
    request = request_of("deferred", 16)
    manager.allocate_slots(request, 16)
    blocks = manager.pop_blocks_for_free(request)
    rig.torch.stop()
    rig.step()
    manager.block_pool.free_blocks(blocks)
    rig.torch.start()
    windowed.messages.clear()
    rig.step()
    (again,) = manager.block_pool.get_new_blocks(1)
    manager.block_pool.free_blocks([again])
    rig.step()
    assert not windowed.events("kv.usage")
    assert "deferred" not in {e.values.get("req") for e in windowed.events()}


def test_uninstalling_in_a_window_sends_what_is_there(
    windowed: WindowSink, on: Settings, request_of: Make
) -> None:
    annotate.install(on)
    rig = Rig(request_of)
    rig.torch.start()
    rig.step()
    emitter = current.emitter
    annotate.uninstall()
    assert [e.values["what"] for e in windowed.events("request")][-1:] == ["finished"]
    rig.step()
    current.emitter = emitter  # for the fixture
    assert scheduled(windowed) == [1]


def test_triton_s_profiler_is_refused_with_what_to_use_instead(
    layout: None,
    sink: ListSink,
    on: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import vllm.config

    monkeypatch.delenv(configured.PROTON_SAID, raising=False)
    annotate.install(on)
    for _ in range(2):  # vLLM makes several configurations
        vllm.config.VllmConfig(SimpleNamespace(profiler="proton"))
    monkeypatch.delenv(configured.PROTON_SAID)
    (line,) = capsys.readouterr().err.splitlines()
    assert "Triton's Proton" in line
    assert '"profiler": "torch"' in line


def test_it_is_refused_where_nobody_records_too(
    layout: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import vllm.config

    monkeypatch.delenv(configured.PROTON_SAID, raising=False)
    original = vllm.config.VllmConfig.__post_init__
    assert configured.wait(lambda: pytest.fail("nobody records Proton's"))
    vllm.config.VllmConfig(SimpleNamespace(profiler="proton"))
    monkeypatch.delenv(configured.PROTON_SAID)
    assert "Triton's Proton" in capsys.readouterr().err
    vllm.config.VllmConfig.__post_init__ = original
