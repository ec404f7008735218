"""`kv_prefix_cache` and `kv_preemptions`: what the cache did for single requests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.tables.base import Column, Table, flags, frame_of, numbers
from profilemate.parse.trace.trace import Trace

PREFIX_COLUMNS = (
    Column("timestamp_sec", "fine_seconds", "begin of the look-up (kv.lookup)"),
    Column("request_id", "value", "vLLM's request id"),
    Column("tokens", "value", "tokens asked for: all tokens of the request at that moment"),
    Column("hit_tokens", "value", "tokens found in the prefix cache"),
    Column("hit_rate", "ratio", "hit_tokens / tokens, 0 to 1"),
    Column(
        "preempted",
        "value",
        "the request had been preempted before: vLLM keeps these out of its counters",
    ),
    Column(
        "running_queries",
        "value",
        "tokens asked for so far without the preempted: vllm:prefix_cache_queries_total",
    ),
    Column(
        "running_hits",
        "value",
        "tokens found so far without the preempted: vllm:prefix_cache_hits_total",
    ),
    Column("running_hit_rate", "ratio", "running_hits / running_queries, 0 to 1"),
)

PREEMPTION_COLUMNS = (
    Column("timestamp_sec", "fine_seconds", "begin of Scheduler._preempt_request (preempt)"),
    Column("request_id", "value", "vLLM's id of the request that had to stop"),
    Column("blocks_freed", "value", "blocks that became free by it"),
    Column(
        "tokens_lost",
        "value",
        "computed tokens it gave up; those still in the prefix cache when it resumes are not "
        "computed again",
    ),
)


def lookups(table: pd.DataFrame, *, preempted: bool = False) -> pd.DataFrame:
    """Rows of `kv_prefix_cache` that vLLM counts, of requests not preempted before; or the rest."""
    again = table["preempted"].astype("string") == "True"
    rows: pd.DataFrame = table[flags(again) == preempted]
    return rows


def looked_up(rows: pd.DataFrame) -> tuple[int, int]:
    """Tokens that these rows of `kv_prefix_cache` asked for, and those they found."""
    return int(rows["tokens"].sum()), int(rows["hit_tokens"].sum())


def hit_rate(asked: float, found: float) -> float | None:
    """The prefix hit rate, 0 to 1: tokens found, of those asked for; None where none was."""
    return found / asked if asked else None


def _rate(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> pd.Series:
    return pd.Series(part / np.maximum(whole, 1), dtype="Float64").mask(whole == 0)


def _running(values: Ints, pid: Ints) -> Ints:
    return pd.Series(values).groupby(pid).cumsum().to_numpy(dtype=np.int64)


def kv_prefix_cache(trace: Trace) -> pd.DataFrame:
    """One row per prefix-cache look-up that vLLM's statistics count, in order of time.

    The running figures are counted from the begin of the recording, per process, and like vLLM's
    Prometheus counters they survive `reset_prefix_cache`. They leave out the look-ups of requests
    that were preempted before, because vLLM's counters do. (The hit rate in vLLM's log is another
    one: of the last 1000 requests.)
    """
    lookup = trace.frames["kv.lookup"]
    pid = lookup["pid"].to_numpy(dtype=np.int64)
    tokens, hits = numbers(lookup["tokens"], 0), numbers(lookup["hits"], 0)
    preempted = flags(lookup["preempted"])
    queries = _running(np.where(preempted, 0, tokens), pid)
    running_hits = _running(np.where(preempted, 0, hits), pid)
    data = {
        "timestamp_sec": lookup["ts"],
        "request_id": lookup["req"],
        "tokens": lookup["tokens"],
        "hit_tokens": lookup["hits"],
        "hit_rate": _rate(hits, tokens),
        "preempted": preempted,
        "running_queries": queries,
        "running_hits": running_hits,
        "running_hit_rate": _rate(running_hits, queries),
    }
    return frame_of(PREFIX_COLUMNS, data)


def kv_preemptions(trace: Trace) -> pd.DataFrame:
    """One row per preemption, in order of time."""
    preempt = trace.frames["preempt"]
    data = {
        "timestamp_sec": preempt["ts"],
        "request_id": preempt["req"],
        "blocks_freed": preempt["blocks"],
        "tokens_lost": preempt["tokens"],
    }
    return frame_of(PREEMPTION_COLUMNS, data)


TABLES = (
    Table(
        "kv_prefix_cache",
        "One row per prefix-cache look-up.",
        PREFIX_COLUMNS,
        kv_prefix_cache,
        events=("kv.lookup",),
    ),
    Table(
        "kv_preemptions",
        "One row per preemption.",
        PREEMPTION_COLUMNS,
        kv_preemptions,
        events=("preempt",),
    ),
)
