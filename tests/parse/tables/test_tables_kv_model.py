"""The KV tables equal the witness, whatever happens and wherever the recording starts."""

from __future__ import annotations

from fractions import Fraction

import pandas as pd
from collector_view import collector_view
from frames import with_budget
from hypothesis import given, settings
from pool_model import Life, Pool, World
from pool_programs import Program, programs, run

from profilemate.parse.columns.budget import Budget
from profilemate.parse.tables import TABLES
from profilemate.parse.trace.trace import Trace


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


@settings(max_examples=100, deadline=None)
@given(programs())
def test_tables_equal_the_witness(program: Program) -> None:
    world, trace = run(program)
    check_lives(world, trace, say_pools=program.say_pools)
    check_standard(world, trace, say_pools=program.say_pools)


@settings(max_examples=30, deadline=None)
@given(programs())
def test_so_they_do_a_few_operations_at_a_time(program: Program) -> None:
    world, trace = run(program)
    trace = with_budget(trace, Budget(held=0, rows=2, entries=3, strict=True))
    check_lives(world, trace, say_pools=program.say_pools)
    check_standard(world, trace, say_pools=program.say_pools)
