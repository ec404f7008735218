"""The part of bench_overhead that vLLM's own interpreter runs; prints one JSON object.

costs               what our hooks add to a call of vLLM's, in ns, and spelling an event
decode              a decode step of 256 sequences: operations, messages, time with and without
torch               ns of a message in the torch profiler, and of asking whether one runs
nvtx                what a recorder adds to an NVTX event (run this one under nsys and without)
workload MODEL      one run of an engine in this process: seconds of its generate calls
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_overhead_common import Null, annotate
from bench_overhead_decode import decode

ROUNDS = 15
SHORT = (20, 600)
"""Calls and rounds where windows must be short; compare a least with one of its like only."""


def best(call: Callable[[], object], count: int = 3000, rounds: int = ROUNDS) -> float:
    """The least ns a call takes, over some rounds: noise only ever adds."""
    least = float("inf")
    for _ in range(rounds):
        start = time.perf_counter_ns()
        for _ in range(count):
            call()
        least = min(least, (time.perf_counter_ns() - start) / count)
    return least


def costs() -> dict[str, Any]:
    """What each hook adds to a call of the real method, when recording and when nobody does."""
    from scheduler_load import Load

    from profilemate.annotate import current

    load = Load(4096, max_seqs=16)
    request = load.scheduler.requests[load.add(list(range(64)), 2000)]
    load.step()
    pool, manager = load.pool, load.scheduler.kv_cache_manager
    blocks = pool.get_new_blocks(1)

    def alloc_free() -> None:
        pool.free_blocks(pool.get_new_blocks(1))

    def touch_free() -> None:
        pool.touch(blocks)
        pool.free_blocks(blocks)

    def slots() -> None:
        manager.allocate_slots(request, 1)

    calls = {
        "get_new_blocks + _maybe_evict + free_blocks": alloc_free,
        "touch + free_blocks": touch_free,
        "allocate_slots that allocates nothing": slots,
        # Looked up at each call, or the hook would be missed.
        "schedule of an idle engine, with its message": lambda: load.scheduler.schedule(),
    }
    load.scheduler.finish_requests(request.request_id, _aborted())
    plain = {name: best(call, *SHORT) for name, call in calls.items()}
    sink = Null()
    annotate(sink)
    emitter: Any = current.emitter
    emitter._session_due = 1 << 62
    result: dict[str, Any] = {}
    for name, call in calls.items():
        emitter.active = True
        least = float("inf")
        for _ in range(SHORT[1]):
            emitter._buffer.clear()  # in time: a step has tens of events, not thousands
            least = min(least, best(call, SHORT[0], 1))
        emitter._buffer.clear()
        emitter.active = False
        idle = best(call, *SHORT)
        emitter.watching = True
        closed = best(call, *SHORT)
        emitter.watching, emitter.active = False, True
        result[name] = {
            "vllm_ns": plain[name],
            "recording_ns": least - plain[name],
            "idle_ns": idle - plain[name],
            "closed_ns": closed - plain[name],
        }
    result["execute_model"] = _execution(emitter)
    result["spelling and batching, per event"] = {"recording_ns": _spelling(emitter, alloc_free)}
    return {**result, **_launches(emitter)}


class Worker:
    """Has the method that is wrapped; what runs in it takes no time."""

    rank, parallel_config = 0, None

    def execute_model(self, scheduler_output: Any) -> None:
        """Execute nothing."""


def _execution(emitter: Any) -> dict[str, float]:
    """What the hook of Worker.execute_model adds while nobody records."""
    from profilemate.annotate.hook import Original
    from profilemate.annotate.hooks.worker import wrap_execute_model

    worker = Worker()
    plain = best(lambda: worker.execute_model(None))
    original = Original(Worker.execute_model, "Worker.execute_model", "execute_model")
    Worker.execute_model = wrap_execute_model(original, emitter)  # type: ignore[method-assign]
    emitter.active = False
    idle = best(lambda: worker.execute_model(None))
    emitter.watching = True
    closed = best(lambda: worker.execute_model(None))
    emitter.watching, emitter.active = False, True
    return {"vllm_ns": plain, "idle_ns": idle - plain, "closed_ns": closed - plain}


class Graph:
    """Has the method that is wrapped: there is no CUDA graph without a GPU, and none is needed."""

    def replay(self) -> None:
        """Launch nothing."""


def _launches(emitter: Any) -> dict[str, Any]:
    """What the hook of CUDAGraph.replay adds to a launch, and a step with 61 of them."""
    from profilemate.annotate.graphs import MAIN, NO_KEY, TAG, UNTAGGED
    from profilemate.annotate.hook import Original
    from profilemate.annotate.hooks.cuda_graph_replays import wrap_replay

    graph = Graph()
    setattr(graph, TAG, UNTAGGED)
    setattr(graph, MAIN, True)
    plain = best(graph.replay)
    original = Original(Graph.replay, "CUDAGraph.replay", "replay")
    Graph.replay = wrap_replay(original, emitter)  # type: ignore[method-assign]
    key = ("PIECEWISE", 512, *NO_KEY[2:])

    def step() -> None:
        emitter.step.begin(1, (500, 256, 0, 500))
        emitter.step.dispatched(key, 500)
        for _ in range(61):
            graph.replay()
        emitter.step.end()
        emitter._buffer.clear()

    emitter.active = False
    idle = best(graph.replay)
    emitter.active = True
    alone = best(graph.replay)
    emitter.step.begin(1, (500, 256, 0, 500))
    emitter.step.dispatched(key, 500)
    counted = best(graph.replay)
    emitter.step.end()
    launch = {"vllm_ns": plain, "recording_ns": counted - plain, "idle_ns": idle - plain}
    return {
        "graph launch in a step": launch,
        "graph launch outside a step, a range of its own": {"recording_ns": alone - plain},
        "piecewise step of 61 launches, all": {"recording_ns": best(step, 300) - 61 * plain},
    }


def _aborted() -> Any:
    from vllm.v1.request import RequestStatus

    return RequestStatus.FINISHED_ABORTED


def _spelling(emitter: Any, call: Callable[[], None]) -> float:
    least = float("inf")
    for _ in range(ROUNDS):
        emitter._buffer.clear()
        for _ in range(8):
            call()
        count = len(emitter._buffer)
        start = time.perf_counter_ns()
        emitter.flush()
        least = min(least, (time.perf_counter_ns() - start) / count)
    return least


def torch() -> dict[str, Any]:
    """Ns of one message of ours in the torch profiler, while none runs and while one does."""
    import torch
    import torch.profiler

    from profilemate.annotate.settings import Settings
    from profilemate.annotate.sinks.torch_profiler import TorchProfilerSink, open_sink
    from profilemate.annotate.window import torch_is_profiling

    fast, why = open_sink(Settings(), {})
    assert isinstance(fast, TorchProfilerSink), why
    slow = TorchProfilerSink(torch.profiler.record_function)
    filler = " | kv.alloc ago=224944 dur=9064 pool=0 used=31 ids=31 req=4-8eb979c9" * 16
    found = {"ask_ns": best(torch_is_profiling)}

    def measure(state: str) -> None:
        for name, sink in (("fast", fast), ("slow", slow)):

            def step(sink: TorchProfilerSink = sink) -> None:
                sink.push("pm1.step step=1234 unpadded=256 reqs=256")
                sink.pop()

            def batch(sink: TorchProfilerSink = sink) -> None:
                sink.mark(f"pm1.batch t=123{filler}")

            found[f"{name}_range_{state}_ns"] = best(step, 1000, 5)
            found[f"{name}_batch_{state}_ns"] = best(batch, 1000, 5)

    measure("off")
    with torch.profiler.profile():
        measure("on")
    return found


def nvtx() -> dict[str, Any]:
    """Ns of one NVTX event of ours, through the sink that would be used here."""
    from profilemate.annotate.settings import Settings
    from profilemate.annotate.sinks.nvtx import DomainSink, open_sink

    sink, _ = open_sink(Settings(), os.environ)
    if sink is None:
        import nvtx

        sink = DomainSink(nvtx.get_domain("profilemate"))
    number = iter(range(1 << 62))

    def step() -> None:
        sink.push(f"pm1.step step={next(number)} unpadded=256 reqs=256")
        sink.pop()

    filler = " | kv.alloc ago=224944 dur=9064 pool=0 used=31 ids=31 req=4-8eb979c9" * 16
    return {
        "sink": sink.name,
        "range_ns": best(step, 2000, 5),
        "batch_ns": best(lambda: sink.mark(f"pm1.batch t={next(number)}{filler}"), 2000, 5),
    }


def workload(model: str) -> dict[str, Any]:
    """Generate with the engine in this process; start-up is left out."""
    import inside
    from engine import phases

    llm = inside.make_engine(Path(model), disable_log_stats=True)
    requests = phases()
    inside.generate(llm, requests[:1])
    times = []
    for _ in range(6):
        start = time.perf_counter()
        inside.generate(llm, requests)
        times.append(time.perf_counter() - start)
    return {"seconds": min(times), "steps": _count_steps(lambda: inside.generate(llm, requests))}


def _count_steps(run: Callable[[], object]) -> int:
    from vllm.v1.core.sched.scheduler import Scheduler

    schedule, count = Scheduler.schedule, 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return schedule(*args, **kwargs)

    Scheduler.schedule = counted
    run()
    Scheduler.schedule = schedule
    return count


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    tasks: dict[str, Callable[..., dict[str, Any]]] = {
        "costs": costs,
        "decode": decode,
        "torch": torch,
        "nvtx": nvtx,
        "workload": workload,
    }
    found = tasks[name](*arguments)
    sys.stdout.flush()
    print("RESULT " + json.dumps(found), flush=True)
    os._exit(0)  # vLLM's libraries have much to say on the way out
