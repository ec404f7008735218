"""A made-up run of vLLM on two GPUs, small enough to look at: what happened, in no file format.

An engine schedules steps; two workers run them: on FULL and PIECEWISE graphs, on one with LoRA,
eagerly, as dummies, and one without tokens. Work overlaps on several streams. The same every time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from profilemate.schema import Event, Value

MONOTONIC = 7_654_321_000_000_000
"""The hosts' monotonic clock when the run begins."""
UNIX_NS = 1_795_600_000_000_000_000
"""The wall clock at that instant."""

ENGINE, WORKERS = 5000, (5100, 5200)
TURNS, PERIOD_NS = 25, 4_000_000
"""Steps with and without requests. Those without, dummies, have no number."""
FIRST_STEP_NS = 60_000_000
POOL_BLOCKS = 12


@dataclass(frozen=True, slots=True)
class Message:
    """What a process says at `ns` after the run began; with a duration it is a range."""

    ns: int
    pid: int
    events: tuple[Event, ...]
    duration_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the CUDA runtime."""

    ns: int
    duration_ns: int
    pid: int
    name: str
    correlation: int


@dataclass(frozen=True, slots=True)
class Work:
    """What a call started on a GPU; graph and node are None where it was no graph launch."""

    ns: int
    duration_ns: int
    pid: int
    device: int
    stream: int
    kind: str
    name: str
    correlation: int
    graph: int | None = None
    node: int | None = None


@dataclass(slots=True)
class Run:
    """Everything that happened, each list in order of time."""

    messages: list[Message] = field(default_factory=list)
    annotations: list[Message] = field(default_factory=list)
    """The engine's own ranges: the events' kind is their whole text."""
    calls: list[Call] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """A kind of step: its graph, what it runs, and how it is launched."""

    key: dict[str, Value]
    unpadded: int
    requests: int
    graph: int
    """Number of the first of its graphs; each piece has one."""
    pieces: int
    nodes: int
    dummy: bool = False


def _key(mode: str, tokens: int, reqs: int | None = None, **more: Value) -> dict[str, Value]:
    key: dict[str, Value] = {"mode": mode, "num_tokens": tokens}
    key |= {"num_reqs": reqs} if reqs is not None else {}
    return {**key, "uniform": reqs is not None, "has_lora": False, **more}


_FULL = _key("FULL", 8, 8)
_LORA = _key("FULL", 8, 8) | {"has_lora": True, "num_active_loras": 2, "descriptor": "ubatch:2"}
_PIECEWISE = _key("PIECEWISE", 32)
_UNUSED = _key("PIECEWISE", 64)
PLANS = (
    Plan(_FULL, 6, 6, 10, 1, 6),
    Plan(_PIECEWISE, 27, 3, 20, 3, 3),
    Plan(_LORA, 7, 7, 30, 1, 5),
    Plan(_key("NONE", 90), 90, 2, 0, 0, 0),
    Plan(_FULL, 8, 0, 10, 1, 6, dummy=True),
)
NOTHING = Plan({}, 0, 0, 0, 0, 0)


def make() -> Run:
    """The run."""
    run, rng = Run(), random.Random(7)
    for pid in (ENGINE, *WORKERS):
        run.messages.append(Message(1_000_000 + pid, pid, tuple(_beginning(pid))))
    blocks = _block_operations()
    number = 0
    for turn in range(1, TURNS + 1):
        begin = FIRST_STEP_NS + turn * PERIOD_NS
        plan = PLANS[(turn - 1) % len(PLANS)]
        if not plan.dummy:
            number += 1
            run.messages.append(_schedule(begin - 300_000, number, plan, blocks.get(turn, [])))
        for rank, pid in enumerate(WORKERS):
            _execute(run, rng, begin + 30_000 * rank, number, plan, rank, pid)
    end, last = FIRST_STEP_NS + (TURNS + 1) * PERIOD_NS, number + 1
    run.messages.append(_schedule(end - 300_000, last, NOTHING, []))
    for rank, pid in enumerate(WORKERS):
        _without_tokens(run, end + 1000 * rank, last, pid)
    for listed in (run.messages, run.annotations, run.calls, run.work):
        listed.sort(key=lambda one: (one.ns, one.pid))
    return run


def _beginning(pid: int) -> Iterator[Event]:
    """Who a process is, its pool, and the graphs that it captured before anybody recorded."""
    rank = WORKERS.index(pid) if pid in WORKERS else None
    role: dict[str, Value] = {"role": "engine", "dp": 0}
    if rank is not None:
        role = {"role": "worker", "dp": 0, "pp": 0, "tp": rank}
    now: dict[str, Value] = {
        "unix_ns": UNIX_NS + 1_000_000 + pid,
        "mono_ns": MONOTONIC + 1_000_000 + pid,
    }
    versions: dict[str, Value] = {"vllm": "0.32.0", "torch": "2.13.0", "python": "3.12.0"}
    about: dict[str, Value] = {"pid": pid, "host": "made-up", "graphs": True, "kv": True}
    yield Event("session", {"ago": 0, "dur": 0, **role, **about, **now, **versions, "faults": 0})
    if rank is None:
        sizes: dict[str, Value] = {"pool": 0, "num_blocks": POOL_BLOCKS, "block_size": 16}
        yield Event("kv.pool", {"ago": 0, "dur": 0, **sizes, "caching": True, "used": 0})
        return
    for i, (key, pieces) in enumerate(((_FULL, 1), (_LORA, 1), (_PIECEWISE, 3), (_UNUSED, 3))):
        for piece in range(pieces):
            times: dict[str, Value] = {
                "ago": 900_000 - 100_000 * i - 9_000 * piece,
                "dur": 7_000 + 500 * i,
            }
            owner: dict[str, Value] = {"owner": "CUDAGraphWrapper", "phase": "real"}
            owner |= {"piece": piece, "pieces": pieces} if pieces > 1 else {}
            yield Event("graph.capture", {**times, **key, **owner})


def _schedule(ns: int, number: int, plan: Plan, operations: list[Event]) -> Message:
    lost = sum(e.kind == "preempt" for e in operations)
    said = [
        Event(e.kind, {"ago": 90_000 - 5_000 * i, "dur": 2_000 + 100 * i, **e.values})
        for i, e in enumerate(operations)
    ]
    step: dict[str, Value] = {"step": number, "num_tokens": plan.unpadded}
    step |= {"num_reqs": plan.requests, "new": int(number < 4), "preempted": lost}
    step |= {"running": plan.requests, "waiting": number % 3}
    said.append(Event("sched.step", {"ago": 100_000, "dur": 95_000 + number, **step}))
    return Message(ns, ENGINE, tuple(said))


def _execute(
    run: Run, rng: random.Random, begin: int, number: int, plan: Plan, rank: int, pid: int
) -> None:
    """A step of a worker: its range, launches, and their work on the GPU, which comes later."""
    lasted = 1_400_000 + rng.randrange(90_000)
    tokens: dict[str, Value] = {"unpadded": plan.unpadded, "reqs": plan.requests}
    prefill = plan.unpadded if plan.key["mode"] == "NONE" else 0
    tokens |= {"prefill_tokens": prefill, "decode_tokens": plan.unpadded - prefill}
    which: dict[str, Value] = {"dummy": True} if plan.dummy else {"step": number}
    values = {"ago": 40_000, **plan.key, **tokens, **which, "launches": plan.pieces}
    run.messages.append(Message(begin + 40_000, pid, (Event("step", values),), lasted))
    if not plan.dummy:
        context = f"execute_context_{int(prefill > 0)}({prefill})_generation_{plan.requests}"
        text = f"{context}({plan.unpadded - prefill})"
        run.annotations.append(Message(begin + 20_000, pid, (Event(text, {}),), lasted))
    gpu = begin + 900_000 + rng.randrange(60_000)
    correlation = begin // PERIOD_NS * 100
    for piece in range(plan.pieces):
        at = begin + 100_000 + 150_000 * piece
        correlation += 1
        run.calls.append(
            Call(at, 11_000 + rng.randrange(3_000), pid, "cudaGraphLaunch", correlation)
        )
        gpu = _graph(run, rng, gpu, plan, piece, rank, pid, correlation)
    _eager(run, rng, begin + 700_000, gpu, 12 if prefill else 2, rank, pid, correlation)
    if plan.pieces:
        took: dict[str, Value] = {"ago": lasted + 50_000, "dur": lasted + 40_000}
        end = Event("step.end", {**took, **which, "seen": plan.pieces})
        run.messages.append(Message(begin + lasted + 50_000, pid, (end,)))


def _graph(
    run: Run,
    rng: random.Random,
    begin: int,
    plan: Plan,
    piece: int,
    rank: int,
    pid: int,
    correlation: int,
) -> int:
    """The nodes of a launch, one in three beside the others on a second stream; returns the end."""
    graph, at, end = plan.graph + piece, begin, begin
    for node in range(plan.nodes):
        aside = node % 3 == 1
        lasts = int((20_000 + 1_500 * node + rng.randrange(4_000)) * (1.0 + 0.3 * rank))
        kind, name = ("memcpy", "Memcpy DtoD (Device -> Device)")
        if node != 2:
            kind, name = "kernel", f"void layer_{piece}_{node}<float, 128>(Params)"
        stream = 20 if aside else 7
        where = (pid, rank, stream, kind, name, correlation, graph, (graph << 32) + node)
        run.work.append(Work(at, lasts, *where))
        end = max(end, at + lasts)
        at += 5_000 if aside else lasts + rng.choice([600, 9_000])
    return end + 2_000


def _eager(
    run: Run,
    rng: random.Random,
    called: int,
    begin: int,
    count: int,
    rank: int,
    pid: int,
    correlation: int,
) -> None:
    """Kernels that were started one by one, a memset, and the copy of what was sampled."""
    names = ("cudaLaunchKernel", "cudaMemsetAsync", "cudaMemcpyAsync")
    for i in range(count + 2):
        correlation += 1
        which = max(0, i - count + 1)
        kind = ("kernel", "memset", "memcpy")[which]
        name = (f"void sample_{i % 3}<int>(int*)", "Memset (Device)", "Memcpy DtoH")[which]
        run.calls.append(Call(called, 4_000, pid, names[which], correlation))
        lasts = 6_000 + rng.randrange(2_000)
        stream = 21 if kind == "memcpy" else 7
        run.work.append(Work(begin, lasts, pid, rank, stream, kind, name, correlation))
        called, begin = called + 6_000, begin + lasts + 700


def _without_tokens(run: Run, ns: int, number: int, pid: int) -> None:
    """A step in which no model runs: no range, but an event."""
    values: dict[str, Value] = {"ago": 90_000, "dur": 80_000, "step": number, "unpadded": 0}
    values |= {"reqs": 0, "prefill_tokens": 0, "decode_tokens": 0, "launches": 0}
    run.messages.append(Message(ns, pid, (Event("step", values),)))


def _block_operations() -> dict[int, list[Event]]:
    """What the KV cache does, by turn: a pool of twelve blocks that two requests fight for."""

    def of(kind: str, used: int, **values: Any) -> Event:
        return Event(f"kv.{kind}", {"pool": 0, "used": used, **values})

    def request(name: str, what: str, **more: Value) -> Event:
        return Event("request", {"req": name, "what": what, "prompt_tokens": 40, **more})

    def look_up(name: str, hits: int, *, again: bool = False) -> Event:
        return Event("kv.lookup", {"req": name, "tokens": 40, "hits": hits, "preempted": again})

    lost = Event("preempt", {"req": "second", "blocks": 3, "tokens": 33})
    return {
        1: [
            request("first", "arrived"),
            look_up("first", 0),
            of("alloc", 4, ids=(1, 2, 3, 4), req="first"),
            of("cache", 4, ids=(1, 2, 3), req="first"),
        ],
        3: [
            request("second", "arrived"),
            of("touch", 4, ids=(1, 2), revived=(), req="second", hit=True),
            of("alloc", 6, ids=(5, 6), req="second"),
            look_up("second", 32),
        ],
        4: [of("cache", 6, ids=(5,), req="second", group=1, partial=True)],
        6: [of("free", 4, ids=(4, 3, 2, 1), freed=(4, 3), req="first")],
        7: [
            of("alloc", 10, ids=(7, 8, 9, 10, 11, 12), req="third"),
            of("cache", 10, ids=(7, 8), req="third"),
            of("evict", 10, ids=(3,), req="third", cause="alloc"),
            of("alloc", 11, ids=(3,), req="third"),
        ],
        8: [of("free", 7, ids=(6, 5, 2, 1), req="second"), lost],
        9: [of("move", 7, src=(7,), dst=(9,))],
        11: [of("evict", 7, ids=(1,), cause="connector")],
        12: [of("reset", 7, ok=False)],
        13: [
            of("touch", 8, ids=(2,), req="second", hit=True),
            look_up("second", 16, again=True),
            of("free", 7, ids=(2,), req="second"),
        ],
        14: [
            of("free", 0, ids=(12, 11, 10, 9, 8, 7, 3), req="third"),
            request("third", "finished", output_tokens=9, status="FINISHED_STOPPED"),
        ],
        16: [of("reset", 0, ok=True)],
        17: [of("alloc", 2, ids=(1, 2), req="fourth")],
        19: [of("free", 0, ids=(2, 1), req="fourth")],
    }
