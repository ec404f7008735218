"""Another tool's wrappers around vLLM's methods, which hide the methods' signatures.

Tracers do so with `def wrapper(*args, **kwargs)` and without `functools.wraps`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from graph_rig import Rig, output_of
from listsink import ListSink
from opaque import WRAPPERS, wrap_all

from profilemate import annotate, schema
from profilemate.annotate import current
from profilemate.annotate.hook import Original
from profilemate.annotate.hooks import HOOKS
from profilemate.annotate.settings import Settings
from profilemate.annotate.signatures import parameters_of

Make = Callable[..., Any]
TIMES = ("ago", "dur")


def block_work(request_of: Make) -> None:
    """Every hooked method of the engine's side, called as vLLM calls it."""
    from vllm.v1.core.sched.scheduler import Scheduler

    scheduler = Scheduler()
    pool = scheduler.kv_cache_manager.block_pool
    manager = scheduler.kv_cache_manager
    first, second = request_of("a", 32), request_of("b", 48)
    manager.record_prefix_cache_stats(first, num_hits=0)
    scheduler.add_request(first)
    scheduler.add_request(request=second)
    scheduler.schedule()
    held = manager.held["a"]
    pool.cache_full_blocks(
        request=first,
        blocks=held,
        num_cached_blocks=0,
        num_full_blocks=2,
        block_size=16,
        kv_cache_group_id=1,
    )
    pool.cache_full_blocks(second, manager.held["b"], 0, 3, 16, 0, [True, False, True])
    pool.cache_partial_block(second, manager.held["b"][1], 8, kv_cache_group_id=0, block_size=16)
    pool.move_block_hashes(src_block=held[1], dst_block=manager.held["b"][1])
    scheduler._preempt_request(second, timestamp=1.0)
    kept = list(held)
    scheduler.update_from_output(None)
    third = request_of("c", 16)
    manager.allocate_slots(third, 16, kept[:1], reserve=0)
    manager.allocate_slots(request_of("d", 999), num_new_tokens=999)
    pool.free_blocks(reversed(manager.pop_blocks_for_free(third)))
    pool.evict_blocks({kept[0].block_id})
    manager.allocate_slots(request_of("e", 144), 144)
    manager.free(request_of("e"))
    pool.reset_prefix_cache()
    scheduler.schedule()


def graph_work(sink: ListSink) -> None:
    """Every hooked method of the worker's side."""
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner as SecondRunner
    from vllm.v1.worker.gpu_worker import Worker

    rig = Rig(sink)
    rig.runner.profile_cudagraph_memory()
    rig.runner.capture_model()
    rig.step(1, 1)
    rig.step(2, 1, new=1)
    rig.step(9)
    rig.worker.execute_dummy_batch()
    second = Worker(SecondRunner())
    second.model_runner.profile_cudagraph_memory()
    second.model_runner.capture_model()
    second.execute_model(output_of(1, 1))
    second.execute_model(scheduler_output=output_of(3))


def recorded(sink: ListSink) -> list[tuple[str, dict[str, Any]]]:
    """Everything that was said, without times; batches first, ranges after."""
    assert current.emitter is not None
    current.emitter.flush()
    assert current.emitter.faults.counts == {}
    events = sink.events()
    for text in sink.ranges:
        message = schema.decode(text)
        assert message is not None
        events += message.events
    return [(e.kind, {k: v for k, v in e.values.items() if k not in TIMES}) for e in events]


def run(sink: ListSink, request_of: Make) -> list[tuple[str, dict[str, Any]]]:
    block_work(request_of)
    graph_work(sink)
    return recorded(sink)


def forget_modules() -> None:
    import sys

    for name in [n for n in sys.modules if n.partition(".")[0] in ("vllm", "torch")]:
        del sys.modules[name]


@pytest.fixture
def plain(layout: None, on: Settings, request_of: Make, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is recorded where nobody else wraps anything."""
    from profilemate.annotate import sinks

    sink = ListSink()
    monkeypatch.setattr(sinks, "open_sinks", lambda *_: ([sink], ""))
    annotate.install(on)
    found = run(sink, request_of)
    annotate.uninstall()
    forget_modules()
    return found


def test_the_work_has_every_kind(plain: list[tuple[str, dict[str, Any]]]) -> None:
    kinds = {kind for kind, _ in plain}
    assert kinds >= {
        *("kv.alloc", "kv.evict", "kv.cache", "kv.touch", "kv.free", "kv.move", "kv.reset"),
        *("kv.alloc_failed", "kv.lookup", "preempt", "request", "sched.step"),
        *("step", "step.end", "graph.capture"),
    }
    assert ("preempt", {"req": "b", "blocks": 3, "tokens": 48}) in plain


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("when", ["before our hooks", "after our hooks"])
def test_opaque_wrappers_around_every_method_change_nothing(
    plain: Any, sink: ListSink, on: Settings, request_of: Make, wrapper: Any, when: str
) -> None:
    if when.startswith("before"):
        wrapped = wrap_all(HOOKS, wrapper)
        annotate.install(on)
    else:
        annotate.install(on)
        wrapped = wrap_all(HOOKS, wrapper)
    assert {"BlockPool.touch", "Scheduler._preempt_request", "Worker.execute_model"} <= {*wrapped}
    assert len(wrapped) >= 30
    states = {s.name: s.state for s in annotate.status()}
    assert "failed" not in states.values()
    assert states["BlockPool.touch"] == states["dispatch"] == "installed"
    assert run(sink, request_of) == plain


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_was_there_before_is_put_back(
    layout: None, sink: ListSink, on: Settings, wrapper: Any
) -> None:
    wrap_all(HOOKS, wrapper)
    from vllm.v1.core.block_pool import BlockPool

    before = dict(vars(BlockPool))
    annotate.install(on)
    assert dict(vars(BlockPool)) != before
    annotate.uninstall()
    assert dict(vars(BlockPool)) == before


def test_what_does_not_learn_its_self_is_left_alone_and_said(
    layout: None, sink: ListSink, on: Settings
) -> None:
    from vllm.v1.core.block_pool import BlockPool

    class Counts:
        def __call__(self, *a: Any) -> int:
            return len(a)

    BlockPool.touch = counts = Counts()
    annotate.install(on)
    (status,) = [s for s in annotate.status() if s.name == "BlockPool.touch"]
    assert status.state == "failed"
    assert "does not learn whose it is" in status.why
    assert vars(BlockPool)["touch"] is counts


def test_parameters_that_rows_state_are_those_of_the_layouts(layout: None) -> None:
    """As far as a row states them: vLLM's methods have further ones, and other defaults."""
    import importlib

    checked = 0
    for target in (target for hook in HOOKS for target in hook.targets):
        try:
            owner: Any = importlib.import_module(target.module)
        except ImportError:
            continue
        for name in filter(None, target.owner.split(".")):
            owner = getattr(owner, name, None)
        method = getattr(owner, target.attribute, None)
        if method is None:
            continue
        stated, _ = parameters_of(
            Original(lambda *a, **k: None, "x", "x", target.parameters, bool(target.owner))
        )
        names = [n for n in stated.parameters if not n.startswith("pm_")]
        found = list(inspect.signature(method).parameters)
        assert found[: len(names)] == names, target.path
        checked += len(names) > 1
    assert checked >= 20
