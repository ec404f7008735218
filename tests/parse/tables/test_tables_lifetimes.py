"""Lives and evictions on small traces: one rule each. The whole is in `test_tables_kv_model`."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pandas as pd
import pytest
from collector_view import collector_view
from frames import trace_of
from kv_events import build, kv, pool, rows

from profilemate.parse.tables.block_log import EVICT, block_log
from profilemate.parse.trace.trace import Trace


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


def test_a_recording_ends_no_earlier_than_its_last_operation() -> None:
    # The window may be that of a file that was cut short.
    events = [kv(20, "alloc", used=1, ids=(1,)), kv(50, "touch", used=1, ids=(1,), revived=())]
    found = build("kv_block_lifetimes", trace_of(events, window=(0, 10)))
    assert rows(found, "active_sec", "ended_by") == [(30, "open")]


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


def test_an_eviction_stays_one_where_a_reset_comes_later() -> None:
    trace = trace_of(
        [
            pool(8, caching=True),
            kv(10, "alloc", used=1, ids=(5,)),
            kv(20, "cache", used=1, ids=(5,)),
            kv(30, "free", used=0, ids=(5,)),
            kv(40, "evict", used=0, ids=(5,), cause="connector"),
            kv(70, "reset", used=0, ok=True),
        ]
    )
    found = rows(build("kv_block_lifetimes", trace), "ended_by", "ended_sec", "active_sec")
    assert found == [("connector", 40, 20)]
    assert rows(build("kv_cache_evictions", trace)) == [(40, 30, 30)]


def test_what_shows_that_a_block_has_content() -> None:
    # None of them began in the recording.
    trace = trace_of(
        [
            kv(1, "touch", used=9, ids=(1,), revived=(), hit=True),
            kv(2, "touch", used=9, ids=(2,), revived=()),  # a pin
            kv(3, "touch", used=9, ids=(3,), revived=(3,)),
            kv(4, "move", used=9, src=(4,), dst=(5,)),
            kv(5, "free", used=8, ids=(6,)),
        ]
    )
    found = rows(build("kv_block_lifetimes", trace), "block_id", "cached")
    assert found == [(1, True), (2, None), (3, True), (4, True), (5, True), (6, None)]


def test_a_connectors_eviction_does_not_say_whether_the_block_is_in_use() -> None:
    trace = trace_of(
        [
            kv(10, "alloc", used=3, ids=(1,)),
            kv(30, "evict", used=3, ids=(2, 3), cause="connector"),  # never seen before
            kv(50, "free", used=2, ids=(3,)),
        ]
    )
    columns = ("block_id", "allocated_sec", "ended_by", "active_sec")
    assert rows(build("kv_block_lifetimes", trace), *columns) == [
        (1, 10, "open", 40),
        (2, None, "connector", 0),
        (3, None, "connector", 0),
        (3, None, "open", 0),  # was in use, as its later free says, but since when?
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


@pytest.mark.parametrize("big", [1 << 40, (1 << 63) - 1])
def test_the_null_block_and_odd_ids_do_no_harm(big: int) -> None:
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
    longer = replace(second, window=(0, 200))
    assert build("kv_block_lifetimes", longer)["active_sec"].tolist() == [180]
    other = replace(longer, kv=first.kv)
    assert build("kv_block_lifetimes", other)["active_sec"].tolist() == [190]
    assert build("kv_block_lifetimes", second)["active_sec"].tolist() == [80]


def test_entries_that_do_not_fit_into_one_integer_are_not_sorted_wrongly() -> None:
    row, what = np.array([0, (1 << 31) - 1]), np.array([2 * EVICT, 2 * EVICT])
    fits = block_log(np.array([5, 5 + (1 << 28) - 1]), row, what)
    assert (fits.row.tolist(), fits.owner.tolist()) == ([0, (1 << 31) - 1], [5, 4 + (1 << 28)])
    with pytest.raises(AssertionError):
        block_log(np.array([5, 5 + (1 << 28)]), row, what)


def test_a_trace_is_not_changed_after_it_was_made() -> None:
    trace = trace_of([])
    with pytest.raises(FrozenInstanceError):
        trace.window = (0, 1)  # type: ignore[misc]
