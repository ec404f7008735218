"""What may happen to the block pools of `pool_model`, drawn by hypothesis, and the trace of it."""

from __future__ import annotations

from dataclasses import dataclass

from frames import At, at, trace_of
from hypothesis import strategies as st
from pool_model import Block, Pool, World

from profilemate.parse.trace.trace import Trace

# Weighted, for pools that are mostly full of content which comes and goes.
WEIGHTS = {
    "alloc": 12,
    "free": 8,
    "cache": 8,
    "touch": 8,
    "evict_blocks": 2,
    "move": 2,
    "pin": 1,
    "open": 2,
    "close": 3,
    "reset": 1,
    "drain_and_reset": 1,
    "steal": 1,
}
OPS = [op for op, weight in WEIGHTS.items() for _ in range(weight)]


@dataclass(frozen=True)
class Do:
    """One instruction: what, to which pool, to which blocks, after how long."""

    op: str
    pool: int
    first: int
    count: int
    pause: int


@dataclass(frozen=True)
class Program:
    """What happens, in pools of which sizes, with prefix caching where, recorded from where on."""

    sizes: tuple[int, int, int]
    caching: tuple[bool, bool, bool]
    say_pools: bool
    steps: list[Do]
    start: int

    def pools(self) -> list[Pool]:
        """The GPU pools of two processes, and a further pool in the first."""
        who = ((1, 0, None), (1, 1, "CPU"), (2, 3, "GPU"))
        return [
            Pool(pid, number, size, caching, medium)
            for (pid, number, medium), size, caching in zip(
                who, self.sizes, self.caching, strict=True
            )
        ]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    size, yes = st.integers(1, 6), st.booleans()
    mostly = st.sampled_from((True, True, True, False))
    steps = st.builds(
        Do,
        st.sampled_from(OPS),
        st.sampled_from((0, 0, 0, 1, 2)),
        st.integers(0, 7),
        st.integers(1, 3),
        st.just(0) | st.integers(1, 1000),
    )
    # Left to itself hypothesis draws lists of five.
    least = draw(st.sampled_from((0, 40, 80)))
    program = draw(st.lists(steps, min_size=least, max_size=100))
    start = draw(st.just(0) | st.integers(0, len(program)))
    return Program(
        draw(st.tuples(size, size, size)),
        draw(st.tuples(mostly, mostly, mostly)),
        draw(yes),
        program,
        start,
    )


def pick(blocks: list[Block], do: Do) -> list[Block]:
    """Up to `count` of the blocks."""
    if not blocks:
        return []
    start = do.first % len(blocks)
    return (blocks[start:] + blocks[:start])[: do.count]


def execute(world: World, do: Do) -> None:
    pool = world.pools[do.pool]
    blocks = list(pool.blocks.values())
    used = [b for b in blocks if b.ref > 0]
    hashed = [b for b in blocks if b.hashed]
    plain = [b for b in used if not b.hashed]
    if do.op == "alloc":
        world.alloc(pool, min(do.count, len(pool.free)), f"request-{do.first}")
    elif do.op == "free" and used:
        world.free_blocks(pool, pick(used, do))
    elif do.op == "pin" and used:
        world.pin(pick(used, do)[0])
    elif do.op == "steal" and do.first == 0:
        world.steal(pool)
    elif do.op in ("reset", "drain_and_reset") and do.first < 2:
        while do.op == "drain_and_reset" and (used := [b for b in blocks if b.ref > 0]):
            world.free_blocks(pool, used)
        world.reset(pool)
    elif do.op == "open":
        world.open_step(pool.pid)
    elif do.op == "close":
        world.close_step(pool.pid)
    elif not pool.caching:
        return
    elif do.op == "cache" and used:
        world.cache(pool, pick(used, do), do.first % 3, partial=do.count == 1)
    elif do.op == "touch" and hashed:
        world.touch(pool, pick(hashed, do), hit=do.first % 2 == 0)
    elif do.op == "evict_blocks" and hashed:
        world.evict_blocks(pool, pick(hashed, do))
    elif do.op == "move" and plain and set(used) & set(hashed):
        world.move(pool, pick([b for b in hashed if b.ref > 0], do)[0], pick(plain, do)[0])


def run(program: Program) -> tuple[World, Trace]:
    world = World(program.pools(), recording=False)
    for i, do in enumerate(program.steps):
        if i == program.start:
            world.start_recording()
        world.now += do.pause
        execute(world, do)
    world.now += 7
    if not world.recording:
        world.start_recording()
    world.finish()
    said: list[At] = [
        at(
            0,
            "kv.pool",
            pid=p.pid,
            pool=p.number,
            num_blocks=p.size,
            caching=p.caching,
            medium=p.medium,
        )
        for p in world.pools
        if program.say_pools
    ]
    return world, trace_of([*said, *world.events], window=(0, world.now))
