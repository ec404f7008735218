"""The KV tables on small traces: one rule each. The whole is in `test_tables_kv_model`."""

from __future__ import annotations

import gc
from typing import Any

import pandas as pd
import pytest
from frames import At, at, trace_of

from profilemate.parse.tables import TABLES, collector_view, lives
from profilemate.parse.trace import Trace


def build(name: str, trace: Trace) -> pd.DataFrame:
    table = TABLES[name]
    frame = table.build(trace)
    if not table.heading:
        assert list(frame.columns) == [column.name for column in table.columns]
    return frame


def rows(frame: pd.DataFrame, *columns: str) -> list[tuple[object, ...]]:
    part = frame[list(columns)] if columns else frame
    part = part.astype(object).where(part.notna(), None)
    return [tuple(row) for row in part.itertuples(index=False)]


def kv(ts: int, op: str, *, pid: int = 1, pool: int = 0, used: int = 0, **values: Any) -> At:
    return at(ts, f"kv.{op}", pid=pid, pool=pool, used=used, **values)


def pool(total: int, *, number: int = 0, pid: int = 1, **values: Any) -> At:
    return at(0, "kv.pool", pid=pid, pool=number, num_blocks=total, **values)


def step(ts: int, dur: int | None, number: int, *, pid: int = 1) -> At:
    return at(ts, "sched.step", dur=dur, pid=pid, step=number)


# --------------------------------------------------------------------------- usage


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


def test_without_steps_each_operation_is_one() -> None:
    trace = trace_of([kv(5, "usage", used=3), kv(6, "cache", used=3), kv(7, "usage", used=4)])
    assert rows(build("kv_cache_usage", trace)) == [(5, None, 3, None), (7, None, 4, None)]


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


def test_a_pool_on_the_cpu_alone_leaves_the_standard_files_empty() -> None:
    trace = trace_of([pool(4, medium="CPU"), kv(1, "alloc", used=1, ids=(1,))])
    assert rows(build("kv_cache_usage", trace)) == []
    assert rows(build("kv_cache_summary", trace)) == []


# --------------------------------------------------------------------------- lifetimes


def test_a_life_from_allocation_to_eviction() -> None:
    trace = trace_of(
        [
            pool(8, caching=True),
            kv(100, "alloc", used=2, ids=(5, 6), req="a"),
            kv(110, "cache", used=2, ids=(5,), req="a"),  # group 0 is not said on the wire
            kv(150, "free", used=0, ids=(6, 5), req="a"),
            kv(170, "touch", used=1, ids=(5,), req="b", hit=True),
            kv(180, "touch", used=1, ids=(5,), revived=(), req="c", hit=True),
            kv(190, "free", used=1, ids=(5,), freed=(), req="b"),
            kv(200, "free", used=0, ids=(5,), req="c"),
            kv(250, "evict", used=2, ids=(5,), cause="alloc"),
            kv(250, "alloc", used=2, ids=(6, 5), req="d"),
        ]
    )
    first, second, third, fourth = build("kv_block_lifetimes", trace).to_dict("records")
    assert first == {
        "pool": 0,
        "block_id": 5,
        "group": 0,
        "request_id": "a",
        "allocated_sec": 100,
        "first_access_sec": 170,
        "last_access_sec": 180,
        "freed_sec": 200,
        "ended_sec": 250,
        "lifetime_sec": 150,
        "active_sec": 50 + 30,
        "idle_sec": 70,
        "accesses": 2,
        "ended_by": "evicted",
        "cached": True,
        "censored_start": False,
        "censored_end": False,
        "counted_by_vllm": True,
    }
    assert (second["block_id"], second["request_id"], second["ended_by"]) == (5, "d", "open")
    assert third["block_id"] == 6
    assert (third["ended_by"], third["lifetime_sec"], third["idle_sec"]) == ("reused", 150, 150)
    assert (third["cached"], third["counted_by_vllm"]) == (False, True)
    assert (fourth["ended_by"], fourth["censored_end"]) == ("open", True)
    assert rows(build("kv_cache_evictions", trace)) == [(250, 150, 70)]


def test_a_recording_that_starts_in_the_middle() -> None:
    trace = trace_of(
        [
            kv(100, "touch", used=5, ids=(1,), hit=True),
            kv(110, "free", used=4, ids=(1, 2), freed=(2,)),
            kv(120, "evict", used=5, ids=(3, 1), cause="alloc"),
            kv(120, "alloc", used=5, ids=(3, 1)),
        ],
        window=(50, 500),
    )
    found = build("kv_block_lifetimes", trace)
    columns = ("block_id", "allocated_sec", "last_access_sec", "ended_sec", "idle_sec", "cached")
    assert rows(found[found["censored_start"]], *columns) == [
        (1, None, 100, 120, 20, True),
        (2, None, None, None, None, None),
        (3, None, None, 120, None, True),
    ]
    assert found["counted_by_vllm"].sum() == 0
    assert rows(build("kv_cache_evictions", trace)) == [(120, None, 20), (120, None, None)]
    assert rows(build("kv_cache_usage", trace))[0] == (100, None, 5, None)


def test_time_in_use_of_an_open_life_goes_to_the_end_of_the_recording() -> None:
    trace = trace_of([kv(100, "alloc", used=1, ids=(1,))], window=(0, 1000))
    columns = ("lifetime_sec", "active_sec", "ended_sec", "censored_end")
    assert rows(build("kv_block_lifetimes", trace), *columns) == [(None, 900, None, True)]


def test_a_connector_ends_the_content_of_a_block_in_use() -> None:
    trace = trace_of(
        [
            pool(4, caching=True),
            kv(10, "alloc", used=1, ids=(1,)),
            kv(20, "cache", used=1, ids=(1,)),
            kv(30, "evict", used=1, ids=(1,), cause="connector"),
            kv(40, "cache", used=1, ids=(1,)),
            kv(50, "free", used=0, ids=(1,)),
            kv(60, "evict", used=1, ids=(1,), cause="alloc"),
            kv(60, "alloc", used=1, ids=(1,)),
            kv(70, "free", used=0, ids=(1,)),
            kv(80, "evict", used=0, ids=(1,), cause="connector"),  # impossible, and harmless
        ]
    )
    found = build("kv_block_lifetimes", trace)
    columns = ("allocated_sec", "ended_sec", "ended_by", "active_sec", "censored_start")
    assert rows(found, *columns) == [
        (10, 30, "connector", 20, False),
        (None, 60, "evicted", 20, False),  # goes on without an allocation of its own
        (60, 80, "connector", 10, False),  # and nothing goes on of a free block
    ]
    assert rows(collector_view(found), "ended_sec") == [(30,), (80,)]
    assert rows(build("kv_cache_evictions", trace)) == [
        (30, 20, 20),
        (60, None, None),
        (80, 20, 20),
    ]


def test_a_reset_ends_all_lives_of_its_pool_and_a_failed_one_none() -> None:
    trace = trace_of(
        [
            pool(4, caching=True),
            kv(10, "alloc", used=2, ids=(1, 2)),
            kv(11, "alloc", pool=1, used=1, ids=(1,)),
            kv(15, "reset", used=2, ok=False),
            kv(20, "free", used=0, ids=(2, 1)),
            kv(30, "reset", used=0, ok=True),
            kv(40, "reset", used=0, ok=True),
            kv(50, "alloc", used=1, ids=(2,)),
        ]
    )
    assert rows(
        build("kv_block_lifetimes", trace), "pool", "block_id", "ended_sec", "ended_by"
    ) == [
        (0, 1, 30, "reset"),
        (0, 2, 30, "reset"),
        (0, 2, None, "open"),
        (1, 1, None, "open"),
    ]
    assert collector_view(build("kv_block_lifetimes", trace)).empty


def test_a_gap_in_the_log_after_a_reset_is_a_start_that_nobody_saw() -> None:
    trace = trace_of(
        [
            kv(10, "alloc", used=1, ids=(1,)),
            kv(20, "reset", used=0, ok=True),  # the free was lost
            kv(30, "free", used=0, ids=(1,)),  # and so was an allocation
        ]
    )
    columns = ("allocated_sec", "ended_by", "censored_start", "active_sec")
    assert rows(build("kv_block_lifetimes", trace), *columns) == [
        (10, "reset", False, 10),
        (None, "open", True, 0),
    ]


@pytest.mark.parametrize(
    ("caching", "op", "counted"),
    [(True, None, True), (False, None, False), (None, None, False), (None, "evict", True)],
)
def test_reuse_is_counted_by_vllm_with_prefix_caching_only(
    caching: bool | None, op: str | None, counted: bool
) -> None:
    events = [
        pool(4, caching=caching),
        kv(10, "alloc", used=1, ids=(1,)),
        kv(20, "free", used=0, ids=(1,)),
        kv(30, "alloc", used=1, ids=(1,)),
    ]
    # An operation that only exists with prefix caching says so where no pool event does.
    events += [kv(40, op, used=1, ids=(3,), cause="alloc")] if op else []
    found = build("kv_block_lifetimes", trace_of(events))
    assert found.loc[found["ended_by"] == "reused", "counted_by_vllm"].tolist() == [counted]


def test_content_that_moves_changes_no_life() -> None:
    trace = trace_of(
        [
            kv(10, "alloc", used=1, ids=(1,)),
            kv(11, "cache", used=1, ids=(1,), partial=True, group=2),
            kv(20, "alloc", used=2, ids=(2,)),
            kv(21, "move", used=2, src=(1,), dst=(2,)),
            kv(30, "free", used=0, ids=(1, 2)),
            kv(40, "evict", used=2, ids=(2,), cause="alloc"),
            kv(40, "alloc", used=2, ids=(1, 2)),
        ]
    )
    found = build("kv_block_lifetimes", trace)
    columns = ("block_id", "group", "lifetime_sec", "ended_by", "cached")
    assert rows(found[found["ended_by"] != "open"], *columns) == [
        (1, 2, 30, "reused", True),
        (2, None, 20, "evicted", True),
    ]


def test_the_null_block_and_odd_ids_do_no_harm() -> None:
    big = 1 << 40
    trace = trace_of(
        [
            kv(1, "alloc", used=1, ids=(0, big, 3)),
            kv(2, "free", used=0, ids=(big, 0), freed=(big,)),
            kv(3, "touch", used=0, ids=()),
            kv(4, "free", used=0),
        ]
    )
    assert rows(build("kv_block_lifetimes", trace), "block_id", "freed_sec") == [
        (3, None),
        (big, 2),
    ]
    assert build("kv_block_events", trace)["num_blocks"].tolist() == [3, 2, 0, pd.NA]


def test_processes_do_not_mix() -> None:
    events = [
        event
        for pid in (1, 2)
        for event in (
            pool(4, pid=pid),
            kv(10 * pid, "alloc", pid=pid, used=1, ids=(1,)),
            kv(10 * pid + 5, "evict", pid=pid, used=1, ids=(1,), cause="alloc"),
        )
    ]
    assert rows(build("kv_cache_evictions", trace_of(events))) == [(15, 5, 5), (25, 5, 5)]


def test_what_is_kept_for_the_next_table_is_not_kept_for_another_trace() -> None:
    def trace(ts: int) -> Trace:
        return trace_of([kv(ts, "alloc", used=1, ids=(1,))], window=(0, 100))

    first, second = trace(10), trace(20)
    assert build("kv_block_lifetimes", first)["active_sec"].tolist() == [90]
    assert build("kv_block_lifetimes", second)["active_sec"].tolist() == [80]
    second.window = (0, 200)
    assert build("kv_block_lifetimes", second)["active_sec"].tolist() == [180]
    del first, second
    gc.collect()
    assert lives._last is None


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
