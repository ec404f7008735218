"""`kv_prefix_cache` and `kv_preemptions`, and what holds for all tables."""

from __future__ import annotations

import re
from typing import get_args

import pandas as pd
import pytest
from frames import At, at, trace_of

from profilemate.parse.tables import TABLES, Spelling
from profilemate.parse.writers.spelling import SPELLINGS


def lookup(ts: int, tokens: int, hits: int, *, preempted: bool | None = None, pid: int = 1) -> At:
    return at(ts, "kv.lookup", pid=pid, req=f"r{ts}", tokens=tokens, hits=hits, preempted=preempted)


def test_the_running_hit_rate_is_vllms() -> None:
    trace = trace_of(
        [
            lookup(10, 100, 0, preempted=False),
            lookup(20, 100, 64),
            lookup(30, 50, 48, preempted=True),  # vLLM counts these apart
            lookup(40, 200, 136, preempted=False),
            lookup(41, 10, 10, pid=2),
        ]
    )
    found = TABLES["kv_prefix_cache"].build(trace)
    assert list(found.columns) == [c.name for c in TABLES["kv_prefix_cache"].columns]
    assert found["running_queries"].tolist() == [100, 200, 200, 400, 10]
    assert found["running_hits"].tolist() == [0, 64, 64, 200, 10]
    assert found["running_hit_rate"].tolist() == [0.0, 0.32, 0.32, 0.5, 1.0]
    assert found["hit_rate"].tolist() == [0.0, 0.64, 0.96, 0.68, 1.0]
    assert found["preempted"].tolist() == [False, False, True, False, False]


def test_no_rate_before_anything_is_counted() -> None:
    trace = trace_of([lookup(10, 50, 48, preempted=True), lookup(20, 0, 0)])
    found = TABLES["kv_prefix_cache"].build(trace)
    assert found["running_hit_rate"].isna().all()
    assert found["hit_rate"].tolist() == [0.96, pd.NA]


def test_preemptions() -> None:
    trace = trace_of([at(5, "preempt", req="a", blocks=3, tokens=90), at(6, "preempt", req="b")])
    assert TABLES["kv_preemptions"].build(trace).to_dict("list") == {
        "timestamp_sec": [5, 6],
        "request_id": ["a", "b"],
        "blocks_freed": [3, None],
        "tokens_lost": [90, None],
    }


# --------------------------------------------------------------------------- all tables

STANDARD = {
    "cuda_graph_captures": "runtime_mode,num_tokens,num_reqs,uniform,has_lora,capture_time_sec",
    "cuda_graph_usage": "runtime_mode,num_tokens,num_reqs,uniform,has_lora,replay_count",
    "cuda_graph_timeline": "timestamp_sec,descriptor,duration_ms",
    "kv_cache_usage": "timestamp_sec,usage_pct,num_blocks,total_blocks",
    "kv_cache_evictions": "timestamp_sec,lifetime_sec,idle_sec",
}


def test_the_columns_of_the_standard_files_never_change() -> None:
    found = {
        name: ",".join(column.name for column in table.columns)
        for name, table in TABLES.items()
        if table.standard and not table.heading
    }
    assert found == STANDARD
    assert TABLES["kv_cache_summary"].standard
    assert TABLES["kv_cache_summary"].file == "kv_cache_summary.txt"


@pytest.mark.parametrize("name", list(TABLES))
def test_every_table_and_column_is_documented(name: str) -> None:
    table = TABLES[name]
    assert table.name == name
    assert table.doc.endswith(".")
    for column in table.columns:
        assert len(column.doc) > 10, column.name
        assert column.spelling in SPELLINGS
        if not table.heading:
            assert re.fullmatch(r"[a-z_0-9]+", column.name)
            unit = column.name.rsplit("_", 1)[-1]
            assert (unit == "sec") == (column.spelling in ("seconds", "fine_seconds"))
            assert (unit == "ms") == (column.spelling in ("milliseconds", "fine_milliseconds"))
            assert (unit == "pct") == (column.spelling == "percent")


def test_writers_can_spell_all_that_tables_hold() -> None:
    assert set(SPELLINGS) == set(get_args(Spelling))


@pytest.mark.parametrize("name", list(TABLES))
def test_nothing_recorded_gives_no_rows_and_all_columns(name: str) -> None:
    found = TABLES[name].build(trace_of([]))
    assert len(found) == 0
    assert list(found.columns) == [column.name for column in TABLES[name].columns]
