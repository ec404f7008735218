"""A made-up run of vLLM, and what each kind of recorder writes of it.

An engine (its KV cache is `pool_model`'s) and some workers say their messages as the emitter does:
batches with the monotonic clock in them, steps as ranges. Each recorder hears some of the messages,
numbers its batches on its own, has a wall clock that is off by some amount and runs at its own
speed, and sees a message some microseconds late. Constructed, not recorded; the format of the
sidecar is that of `annotate/sinks/sidecar.py`.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from build import MARK, PUSH_POP, Export, Row
from frames import At
from pool_model import Pool, World

from profilemate import schema
from profilemate.schema import Event
from profilemate.schema.live import SIDECAR, SIDECAR_END

TICK = 100_000  # ns per unit of the pool model's clock
BOOT_UNIX_NS = 1_795_000_000_000_000_000  # wall clock when the host's monotonic clock was 0
START = 7_654_321_000_000_000  # monotonic clock when the run begins: 88 days of uptime
ENGINE, WORKER = 4000, 4001


@dataclass(frozen=True, slots=True)
class Said:
    """A message: when (monotonic, ns), by whom, and its events. A range has a duration."""

    t: int
    pid: int
    events: tuple[Event, ...]
    dur: int | None = None

    @property
    def tid(self) -> int:
        return self.pid + 1000

    def text(self, seq: int) -> str:
        """As the emitter spells it for a sink that it has given so many batches."""
        if self.dur is not None:
            return schema.encode(self.events[0])
        return schema.encode_batch([schema.encode_event(e) for e in self.events], t=self.t, seq=seq)


@dataclass(slots=True)
class MadeUp:
    """A run.

    Attributes:
        said: All messages but the sessions.
        pools: The pool model's, with the truth in them.
        steps: Number of steps.
        launches: Of each worker: begin of every graph launch (monotonic) and the step's number.
    """

    host: str
    said: list[Said]
    pools: list[Pool]
    steps: int
    pids: list[int]
    launches: dict[int, list[tuple[int, int]]]
    roles: dict[int, dict[str, Any]] = field(default_factory=dict)

    def session(self, pid: int, t: int) -> Said:
        """Who a process is: what a sink is told first."""
        values: dict[str, Any] = {
            "ago": 0,
            "pid": pid,
            "host": self.host,
            "unix_ns": BOOT_UNIX_NS + t,
            "mono_ns": t,
            "faults": 0,
            **self.roles[pid],
        }
        return Said(t, pid, (Event("session", values),))

    def of(self, pid: int) -> list[Said]:
        return [s for s in self.said if s.pid == pid]


def make_up(
    seed: int,
    *,
    steps: int = 30,
    workers: int = 1,
    host: str = "box-1",
    first: int = START,
    engine: int = ENGINE,
) -> MadeUp:
    """A run of so many steps; process numbers follow that of the engine."""
    rng = random.Random(seed)
    pool = Pool(engine, 0, 8, True)
    world = World([pool], recording=True)
    said: list[Said] = []
    pids = [engine, *(engine + 1 + i for i in range(workers))]
    launches: dict[int, list[tuple[int, int]]] = {pid: [] for pid in pids[1:]}
    head = Event("kv.pool", {"ago": 0, "pool": 0, "num_blocks": 8, "caching": True, "used": 0})
    said.append(Said(first, engine, (head,)))
    told = 0
    for number in range(1, steps + 1):
        _operate(world, pool, rng)
        events, told = world.events[told:], len(world.events)
        end = first + world.now * TICK
        calls = [_event(at, end, first, number, rng) for at in events]
        said.append(Said(end, engine, tuple(calls)))
        for pid in pids[1:]:
            said += _execute(pid, number, end + 150_000 + rng.randrange(90_000), rng, launches[pid])
        world.now += 40 + rng.randrange(5)
    world.finish()
    roles: dict[int, dict[str, Any]] = {engine: {"role": "engine", "dp": 0}}
    roles |= {p: {"role": "worker", "dp": 0, "pp": 0, "tp": i} for i, p in enumerate(pids[1:])}
    return MadeUp(host, sorted(said, key=lambda s: s.t), [pool], steps, pids, launches, roles)


def _operate(world: World, pool: Pool, rng: random.Random) -> None:
    world.open_step(pool.pid)
    for _ in range(rng.randrange(4)):
        blocks = list(pool.blocks.values())
        used = [b for b in blocks if b.ref > 0]
        hashed = [b for b in blocks if b.hashed]
        what = rng.choice(("alloc", "alloc", "free", "cache", "touch"))
        if what == "alloc":
            world.alloc(pool, min(rng.randrange(1, 4), len(pool.free)), f"r{rng.randrange(9)}")
        elif what == "free" and used:
            world.free_blocks(pool, rng.sample(used, rng.randrange(1, len(used) + 1)))
        elif what == "cache" and used:
            world.cache(pool, used[:2], 0, partial=False)
        elif what == "touch" and hashed:
            world.touch(pool, hashed[:2], hit=True)
        world.now += 1
    world.close_step(pool.pid)


def _event(at: At, end: int, first: int, number: int, rng: random.Random) -> Event:
    values: dict[str, Any] = dict(at.event.values)
    if at.event.kind == "sched.step":
        values |= {
            "num_tokens": number + 3,
            "num_reqs": 1 + number % 3,
            "new": number % 2,
            "preempted": 0,
            "running": 2,
            "waiting": rng.randrange(4),
        }
    return Event(
        at.event.kind, {"ago": end - first - at.ts * TICK, "dur": (at.dur or 0) * TICK, **values}
    )


def _execute(
    pid: int, number: int, begin: int, rng: random.Random, launches: list[tuple[int, int]]
) -> Iterable[Said]:
    dur = 900_000 + rng.randrange(200_000)
    mode = "FULL" if number % 3 else "NONE"
    tokens, reqs = number + 3, 1 + number % 3
    key: dict[str, Any] = {"mode": mode, "num_tokens": 128 * (1 + number % 2)}
    key |= {"uniform": True, "has_lora": False}
    key |= {"unpadded": tokens, "reqs": reqs, "launches": int(mode == "FULL")}
    step = Event("step", {"ago": 40_000, "step": number, **key})
    yield Said(begin + 40_000, pid, (step,), dur)
    if mode == "FULL":
        launches.append((begin + 300_000, number))
        took = {"ago": dur + 50_000, "dur": dur + 40_000}
        end = Event("step.end", {**took, "step": number, "seen": 1})
        yield Said(begin + dur + 50_000, pid, (end,))


# ------------------------------------------------------------------ recorders


@dataclass(slots=True)
class Recorder:
    """How a recorder sees the time.

    Attributes:
        off: How far its wall clock is off, ns.
        drift: By how much its clock runs too fast.
        seed: Of the delays.
        seq: Batches that it has heard before.
    """

    off: int = 0
    drift: float = 0.0
    seed: int = 0
    seq: int = 0

    def wall(self, t: int) -> int:
        return BOOT_UNIX_NS + t + self.off + round((t - START) * self.drift)

    def heard(self, run: MadeUp, pid: int, said: Sequence[Said]) -> list[tuple[int, Said, str]]:
        """Messages of a process as it hears them: wall clock, message, text; a session first."""
        rng = random.Random(self.seed * 1_000_003 + pid)
        mine = sorted((s for s in said if s.pid == pid), key=lambda s: s.t)
        if not mine:
            return []
        told = [run.session(pid, mine[0].t - 5_000 - self.seed), *mine]
        found, seq = [], self.seq
        for one in told:
            seq += one.dur is None
            delay = 1_000 + min(int(rng.expovariate(1 / 2_000)), 15_000)
            found.append((self.wall(one.t) + delay, one, one.text(seq)))
        return found


def _us(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03}"


def _lines(heard: Iterable[tuple[int, Said, str]]) -> list[str]:
    lines = []
    for ts, one, text in heard:
        place = f'"name":"{text}","pid":{one.pid},"tid":{one.tid},"ts":{_us(ts)}'
        if one.dur is None:
            lines.append(f'{{"ph":"i","cat":"profilemate",{place},"s":"t"}},\n')
        else:
            lines.append(f'{{"ph":"X","cat":"profilemate",{place},"dur":{_us(one.dur)}}},\n')
    return lines


def sidecar(
    folder: Path,
    run: MadeUp,
    pid: int,
    said: Sequence[Said],
    recorder: Recorder,
    *,
    segments: int = 1,
    end: bool = True,
    packed: bool = False,
) -> list[Path]:
    """The files of a process's sidecar."""
    folder.mkdir(parents=True, exist_ok=True)
    role = run.roles[pid]
    stem = f"{role['role']}_dp0_pp0_tp{role.get('tp', 0)}_{pid}"
    lines = _lines(recorder.heard(run, pid, said))
    paths = []
    size = -(-len(lines) // segments)
    for number in range(1, segments + 1):
        args = {**role, "segment": number, "dropped_segments": 0, "dropped_bytes": 0}
        mine = {"ph": "M", "cat": "profilemate", "pid": pid, "tid": 0}
        head = {**mine, "name": SIDECAR, "args": args}
        part = lines[(number - 1) * size : number * size]
        text = "[\n" + json.dumps(head) + ",\n" + "".join(part)
        if end or number < segments:
            last = {**mine, "name": SIDECAR_END}
            text += json.dumps({**last, "args": {"messages": len(part)}}) + "\n]\n"
        name = stem + ("" if number == 1 else f".{number}") + ".trace.json" + ".gz" * packed
        raw = text.encode()
        (folder / name).write_bytes(gzip.compress(raw) if packed else raw)
        paths.append(folder / name)
    return paths


def torch_trace(
    path: Path,
    run: MadeUp,
    pid: int,
    said: Sequence[Said],
    recorder: Recorder,
    *,
    gpu: bool = True,
    among: Callable[[int], bool] = lambda t: True,
) -> Path:
    """The torch profiler's trace of a process: its messages as scopes, and GPU work."""
    base = recorder.wall(min((s.t for s in said), default=START)) - 50_000_000
    events: list[dict[str, Any]] = [
        {
            "ph": "X",
            "cat": "user_annotation",
            "name": text,
            "pid": one.pid,
            "tid": one.tid,
            "ts": (ts - base) / 1000,
            "dur": (600 if one.dur is None else one.dur) / 1000,
        }
        for ts, one, text in recorder.heard(run, pid, said)
    ]
    for number, (t, step) in enumerate(run.launches.get(pid, ()) if gpu else ()):
        if not among(t):
            continue
        at = (recorder.wall(t) - base) / 1000
        call = {
            "ph": "X",
            "cat": "cuda_runtime",
            "name": "cudaGraphLaunch",
            "pid": pid,
            "tid": pid + 1000,
            "ts": at,
            "dur": 5.0,
            "args": {"correlation": 100 + number},
        }
        events.append(call)
        for node in range(2 + step % 2):
            args = {"device": 0, "stream": 7, "correlation": 100 + number}
            events.append(
                {
                    "ph": "X",
                    "cat": "kernel",
                    "name": f"k{node}",
                    "pid": 0,
                    "tid": 7,
                    "ts": at + 40 + 30 * node,
                    "dur": 20.0,
                    "args": args,
                }
            )
    document = {"schemaVersion": 1, "baseTimeNanoseconds": base, "traceEvents": events}
    raw = json.dumps(document).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def nsys(path: Path, run: MadeUp, said: Sequence[Said], recorder: Recorder) -> Path:
    """An export of nsys with the messages of all processes, and no GPU activity."""
    start = recorder.wall(run.said[0].t) - 30_000_000
    rows = []
    for pid in run.pids:
        for ts, one, text in recorder.heard(run, pid, said):
            end = None if one.dur is None else ts - start + one.dur
            kind = MARK if one.dur is None else PUSH_POP
            rows.append(Row(ts - start, text, end, kind, one.pid, one.tid))
    path.parent.mkdir(parents=True, exist_ok=True)
    # No trace of API calls, so that a mix with and without nsys knows the same.
    return Export(rows, start_unix_ns=start, without=["CUPTI_ACTIVITY_KIND_RUNTIME"]).write(path)
