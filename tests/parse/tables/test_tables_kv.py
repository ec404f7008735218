"""Usage, summary and log on small traces: one rule each. The whole is in `test_tables_kv_model`."""

from __future__ import annotations

import pytest
from frames import At, trace_of, with_budget
from kv_events import build, kv, pool, rows, step

from profilemate.parse.columns.budget import Budget
from profilemate.parse.session.coverage import coverage, doubts


def test_usage_has_one_row_per_step_that_changed_it() -> None:
    trace = trace_of(
        [
            pool(8),
            kv(100, "alloc", used=1, ids=(1,)),
            kv(110, "alloc", used=2, ids=(2,)),
            step(90, 30, 1),  # both lie in it
            kv(130, "free", used=1, ids=(2,)),
            kv(150, "alloc", used=2, ids=(3,)),
            step(140, 20, 2),  # the free came before it; 2 again: no change, no row
            kv(200, "free", used=0, ids=(1, 3)),  # no step comes after
        ]
    )
    assert rows(build("kv_cache_usage", trace)) == [(110, 0.25, 2, 8), (200, 0.0, 0, 8)]
    assert rows(build("kv_block_events", trace), "step", "used_blocks", "usage_pct") == [
        (1, 1, 0.125),
        (1, 2, 0.25),
        (2, 1, 0.125),
        (2, 2, 0.25),
        (None, 0, 0.0),
    ]


def test_an_operation_at_the_end_of_a_call_lies_in_it() -> None:
    events = [step(0, 10, 1), step(20, 10, 2)]
    events += [kv(ts, "usage", used=1) for ts in (0, 10, 11, 30, 31)]
    steps = rows(build("kv_block_events", trace_of(events)), "step")
    assert steps == [(1,), (1,), (2,), (2,), (None,)]


def test_every_process_has_a_usage_of_its_own() -> None:
    # Both are in the first step of their process.
    events = [step(0, 10, 1), step(0, 10, 1, pid=2)]
    events += [kv(5, "alloc", used=1, ids=(1,)), kv(4, "alloc", pid=2, used=2, ids=(1, 2))]
    assert rows(build("kv_cache_usage", trace_of(events))) == [
        (4, None, 2, None),
        (5, None, 1, None),
    ]


def test_without_steps_each_operation_is_one() -> None:
    trace = trace_of([kv(5, "usage", used=3), kv(6, "cache", used=3), kv(7, "usage", used=4)])
    assert rows(build("kv_cache_usage", trace)) == [(5, None, 3, None), (7, None, 4, None)]


def test_an_operation_that_does_not_say_the_usage_changes_none() -> None:
    trace = trace_of(
        [
            pool(8),
            kv(1, "alloc", used=2, ids=(1, 2)),
            kv(2, "cache", used=None, ids=(1,)),
            kv(3, "free", used=0, ids=(1, 2)),
        ]
    )
    assert rows(build("kv_cache_usage", trace)) == [(1, 0.25, 2, 8), (3, 0.0, 0, 8)]
    assert rows(build("kv_block_events", trace), "used_blocks", "usage_pct") == [
        (2, 0.25),
        (None, None),
        (0, 0.0),
    ]


@pytest.mark.parametrize("at_a_time", [1, 2, 100])
def test_the_order_of_the_log_rules_where_time_stamps_run_backwards(at_a_time: int) -> None:
    trace = trace_of(
        [
            step(80, 20, 1),
            step(120, 20, 2),
            kv(110, "evict", used=2, ids=(1,), cause="alloc"),
            kv(95, "alloc", used=2, ids=(1,)),  # of the same call
            kv(130, "free", used=0, ids=(1,)),
        ]
    )
    trace = with_budget(trace, Budget(rows=at_a_time))
    assert rows(build("kv_block_events", trace), "step") == [(2,), (2,), (2,)]
    assert rows(build("kv_cache_usage", trace)) == [(130, None, 0, None)]


@pytest.mark.parametrize(("total", "used"), [(7, 3), (3, 1), (4095, 625), (800, 1), (1, 1), (0, 0)])
def test_usage_is_what_vllm_returns_to_the_last_bit(total: int, used: int) -> None:
    usage = build("kv_cache_usage", trace_of([pool(total), kv(1, "usage", used=used)]))
    expected = 1.0 - (total - used) / total if total else 0.0
    assert usage["usage_pct"].tolist() == [expected]


def test_the_standard_files_are_about_the_gpu_pool() -> None:
    trace = trace_of(
        [
            pool(4, number=0, medium="CPU"),
            pool(8, number=1, medium="GPU"),
            pool(9, number=2, medium="GPU"),
            kv(1, "alloc", pool=0, used=1, ids=(1,)),
            kv(2, "alloc", pool=1, used=2, ids=(1, 2)),
            kv(3, "alloc", pool=2, used=3, ids=(1, 2, 3)),
        ]
    )
    assert rows(build("kv_cache_usage", trace)) == [(2, 0.25, 2, 8)]
    assert build("kv_cache_summary", trace)["Total allocations"].tolist() == [2]
    assert rows(build("kv_block_lifetimes", trace), "pool", "block_id") == [
        (0, 1),
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
        (2, 3),
    ]


def test_that_there_are_more_pools_on_the_gpu_is_said() -> None:
    pools = [pool(4, number=0, medium="CPU"), pool(8, number=1), pool(9, number=2)]
    pools += [pool(7, number=0, pid=2)]

    def told(*events: At) -> list[str]:
        trace = trace_of([*pools, *events])
        return [doubt.text for doubt in doubts(trace, coverage(trace))]

    own = [kv(1, "alloc", pool=0, used=1, ids=(1,)), kv(1, "alloc", pool=1, used=1, ids=(1,))]
    own += [kv(1, "alloc", pid=2, used=1, ids=(1,))]
    assert told(*own) == []
    (said,) = told(*own, kv(2, "alloc", pool=2, used=1, ids=(1,)))
    assert said.startswith("process 1 has several block pools on the GPU")


def test_what_was_said_last_of_a_pool_counts() -> None:
    trace = trace_of([pool(4), pool(8), kv(1, "usage", used=2)])
    assert rows(build("kv_cache_usage", trace)) == [(1, 0.25, 2, 8)]


def test_a_pool_on_the_cpu_alone_leaves_the_standard_files_empty() -> None:
    trace = trace_of([pool(4, medium="CPU"), kv(1, "alloc", used=1, ids=(1,))])
    assert rows(build("kv_cache_usage", trace)) == []
    assert rows(build("kv_cache_summary", trace)) == []


# --------------------------------------------------------------------------- summary, log


def test_summary() -> None:
    trace = trace_of(
        [
            pool(8, caching=True),
            kv(0, "alloc", used=3, ids=(1, 2, 3)),
            kv(10, "free", used=1, ids=(3, 2, 1), freed=(3, 2)),
            kv(20, "free", used=0, ids=(1,)),
            kv(101, "evict", used=2, ids=(1, 2), cause="alloc"),
            kv(101, "alloc", used=2, ids=(1, 2)),
            kv(104, "evict", used=2, ids=(3,), cause="alloc"),
        ]
    )
    assert build("kv_cache_summary", trace).to_dict("records") == [
        {
            "Total blocks available": 8,
            "Total allocations": 5,
            "Total deallocations": 3,
            "Peak blocks used": 3,
            "Peak usage": 0.375,
            "Total evictions": 3,
            "Avg block lifetime": 102,
            "Avg idle before eviction": 102,
        }
    ]


def test_summary_without_evictions_has_no_averages_and_without_pools_no_row() -> None:
    assert build("kv_cache_summary", trace_of([])).empty
    only_a_pool = build("kv_cache_summary", trace_of([pool(8)]))
    assert rows(only_a_pool) == [(8, 0, 0, 0, 0.0, 0)]
    # Of one of two processes it is not known how many there are.
    both = build("kv_cache_summary", trace_of([pool(8), kv(1, "alloc", pid=2, used=1, ids=(1,))]))
    assert rows(both) == [(None, 1, 0, 1, None, 0)]


def test_the_log_says_which_blocks_changed_their_state() -> None:
    trace = trace_of(
        [
            kv(1, "alloc", used=3, ids=(1, 2, 3), req="a", dur=4),
            kv(2, "cache", used=3, ids=(1,), req="a"),
            kv(3, "cache", used=3, ids=(2,), group=1, partial=True),
            kv(4, "touch", used=3, ids=(1,), revived=(), hit=True),
            kv(5, "free", used=2, ids=(3, 2, 1), freed=(3,)),
            kv(6, "free", used=0, ids=(2, 1)),
            kv(7, "move", used=0, src=(1,), dst=(9,)),
            kv(8, "reset", used=0, ok=True),
        ]
    )
    found = build("kv_block_events", trace)
    assert rows(found, "op", "blocks", "changed_blocks", "num_changed", "dst_blocks", "group") == [
        ("alloc", (1, 2, 3), (1, 2, 3), 3, None, None),
        ("cache", (1,), None, None, None, 0),
        ("cache", (2,), None, None, None, 1),
        ("touch", (1,), (), 0, None, None),
        ("free", (3, 2, 1), (3,), 1, None, None),
        ("free", (2, 1), (2, 1), 2, None, None),
        ("move", (1,), None, None, (9,), None),
        ("reset", None, None, None, None, None),
    ]
    # Blocks in use are what was taken from the queue less what joined it.
    sign = found["op"].map({"alloc": 1, "touch": 1, "free": -1}).fillna(0)
    balance = (sign * found["num_changed"].fillna(0)).cumsum()
    assert balance.tolist() == found["used_blocks"].tolist()
