"""The KV tables equal the witness, whatever happens and wherever the recording starts."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pandas as pd
from frames import At, at, trace_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_model import Block, Life, Pool, World

from profilemate.parse.tables import TABLES, collector_view
from profilemate.parse.trace import Trace

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


def records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Rows as plain Python: None for NA."""
    columns = {
        str(name): column.astype(object).where(column.notna(), None).tolist()
        for name, column in frame.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def expected_life(pool: Pool, life: Life, *, knows_caching: bool) -> dict[str, object]:
    def since(begin: int | None) -> int | None:
        return None if begin is None or life.ended is None else life.ended - begin

    counts = life.ended_by in ("evicted", "connector")
    counts |= life.ended_by == "reused" and knows_caching
    return {
        "pool": pool.number,
        "block_id": life.key[2],
        "group": life.group,
        "request_id": life.request,
        "allocated_sec": life.allocated,
        "first_access_sec": life.first_access,
        "last_access_sec": life.last_access,
        "freed_sec": life.freed,
        "ended_sec": life.ended,
        "lifetime_sec": since(life.allocated),
        "active_sec": life.active,
        "idle_sec": since(life.last_access),
        "accesses": life.accesses,
        "ended_by": life.ended_by,
        "cached": life.cached,
        "censored_start": life.began_before,
        "censored_end": life.ended is None,
        "counted_by_vllm": counts and life.allocated is not None,
    }


def knows_caching(pool: Pool, *, say_pools: bool) -> bool:
    return pool.caching if say_pools else pool.shows_caching


def check_lives(world: World, trace: Trace, *, say_pools: bool) -> None:
    lifetimes = TABLES["kv_block_lifetimes"].build(trace)
    expected = [
        expected_life(p, life, knows_caching=knows_caching(p, say_pools=say_pools))
        for p in sorted(world.pools, key=lambda p: (p.pid, p.number))
        for life in sorted(p.lives, key=lambda life: life.key)
    ]
    assert records(lifetimes) == expected

    # Blocks are told apart by pool number, which differs in the two processes of the programs.
    for pool in world.pools:
        if knows_caching(pool, say_pools=say_pools):
            view = collector_view(lifetimes[lifetimes["pool"] == pool.number])
            found = view[["ended_sec", "lifetime_sec", "idle_sec"]].itertuples(index=False)
            assert sorted(tuple(row) for row in found) == sorted(pool.collected)


def check_standard(world: World, trace: Trace, *, say_pools: bool) -> None:
    first, second, other = world.pools
    # Where no pool is described, the first that does something is taken for the GPU's.
    pools = [first if say_pools or first.usage else second, other]
    evictions = TABLES["kv_cache_evictions"].build(trace)
    found = [tuple(r.values()) for r in records(evictions)]
    expected = [e for p in pools for e in p.evictions]
    assert sorted(found, key=repr) == sorted(expected, key=repr)
    assert [row[0] for row in found] == sorted(e[0] for e in expected)

    for pool in pools:
        one = trace.only({pool.pid})
        total = pool.size if say_pools else None
        assert records(TABLES["kv_cache_usage"].build(one)) == [
            {
                "timestamp_sec": ts,
                # to the last bit what get_usage returned
                "usage_pct": 1.0 - (pool.size - used) / pool.size if say_pools else None,
                "num_blocks": used,
                "total_blocks": total,
            }
            for ts, used in sorted(pool.step_usage, key=lambda sample: sample[0])
        ]
        assert records(TABLES["kv_cache_summary"].build(one)) == expected_summary(pool, total)


def expected_summary(pool: Pool, total: int | None) -> list[dict[str, object]]:
    if total is None and not pool.usage:
        return []
    peak = max((used for _, used in pool.usage), default=0)
    lines: dict[str, object] = {
        "Total blocks available": total,
        "Total allocations": pool.allocations,
        "Total deallocations": pool.deallocations,
        "Peak blocks used": peak,
        "Peak usage": None if total is None else 1.0 - (total - peak) / total,
        "Total evictions": len(pool.evictions),
    }
    if pool.evictions:
        for index, name in ((1, "Avg block lifetime"), (2, "Avg idle before eviction")):
            known = [time for e in pool.evictions if (time := e[index]) is not None]
            lines[name] = round(Fraction(sum(known), len(known))) if known else None
    return [lines]


@settings(max_examples=200, deadline=None)
@given(programs())
def test_tables_equal_the_witness(program: Program) -> None:
    world, trace = run(program)
    check_lives(world, trace, say_pools=program.say_pools)
    check_standard(world, trace, say_pools=program.say_pools)
