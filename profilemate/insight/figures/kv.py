"""Figures of the KV cache: how full it was, what it lost, what it found, who had to stop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from profilemate.insight.figures.base import Figure, counted
from profilemate.insight.reading import Floats, NoData, floats, rows_of, table_of
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables.kv_requests import hit_rate, looked_up, lookups

ALLOCATE = "BlockPool.get_new_blocks"
FREE = "BlockPool.free_blocks"
EVICT = "BlockPool._maybe_evict_cached_block"
PREEMPT = "Scheduler._preempt_request"
LOOK_UP = "KVCacheManager.lookup"


def _said(session: SavedSession, line: str) -> float:
    """A line of kv_cache_summary.txt, in the unit that it has there.

    Raises:
        NoData: It is not there, or None.
    """
    row = rows_of(session, "kv_cache_summary", ()).iloc[0]
    text = str(row.get(line, "None")).rstrip("%s")
    try:
        return float(text)
    except ValueError:
        raise NoData(f"kv_cache_summary.txt does not say: {line}") from None


def _blocks(session: SavedSession) -> float:
    total = _said(session, "Total blocks available")
    if total <= 0:
        raise NoData("the size of the block pool is not known")
    return total


def _peak_blocks(session: SavedSession) -> float:
    return counted(_said(session, "Peak blocks used"), session, "engine", ALLOCATE)


def held(session: SavedSession) -> tuple[Floats, Floats]:
    """Usage after each change of it, 0 to 1, and how long it was so, in seconds.

    A row holds until the next one; the time is from the first row to the last, so that an idle
    server before and after the load does not count.

    Raises:
        NoData: The session has no usage.
    """
    columns = ("timestamp_sec", "usage_pct", "total_blocks")
    frame = rows_of(session, "kv_cache_usage", columns)
    frame = frame[(floats(frame["total_blocks"]) > 0) & ~np.isnan(floats(frame["usage_pct"]))]
    if frame.empty:
        raise NoData("the size of the block pool is not known")
    at = floats(frame["timestamp_sec"])
    return floats(frame["usage_pct"]) / 100, np.append(np.diff(at), 0.0)


def time_above(session: SavedSession, limit: float) -> float:
    """Share of that time in which usage was above a limit; both 0 to 1.

    Raises:
        NoData: The session has no usage.
    """
    share, seconds = held(session)
    return float(_weight(seconds)[share > limit].sum())


def _weight(seconds: Floats) -> Floats:
    whole = float(seconds.sum())
    return seconds / whole if whole > 0 else np.full(len(seconds), 1 / len(seconds))


def _mean(session: SavedSession) -> float:
    share, seconds = held(session)
    return 100 * float((share * _weight(seconds)).sum())


def _events(table: str, hook: str) -> Callable[[SavedSession], float]:
    return lambda session: counted(len(session.table(table)), session, "engine", hook)


def _totals(line: str, hook: str) -> Callable[[SavedSession], float]:
    return lambda session: counted(_said(session, line), session, "engine", hook)


def _lookups(session: SavedSession, preempted: bool) -> pd.DataFrame:
    """Look-ups of requests that were preempted before, or of those that were not.

    Raises:
        NoData: There is none at all, and nobody watched.
    """
    table = table_of(session, "kv_prefix_cache", ("preempted", "tokens", "hit_tokens"))
    counted(len(table), session, "engine", LOOK_UP)
    return lookups(table, preempted=preempted)


def _looked_up(session: SavedSession, preempted: bool = False) -> tuple[int, int]:
    """Tokens that these look-ups asked for, and those that they found.

    Raises:
        NoData: One of them does not say it.
    """
    rows = _lookups(session, preempted)[["tokens", "hit_tokens"]]
    rows = rows.apply(pd.to_numeric, errors="coerce")
    if rows.isna().to_numpy().any():
        raise NoData("the look-ups do not say how many tokens they asked for and found")
    return looked_up(rows)


def _hit_rate(session: SavedSession) -> float:
    rate = hit_rate(*_looked_up(session))
    if rate is None:
        raise NoData("no token was looked up in the prefix cache")
    return 100 * rate


def _of_lookups(prefix: str, whose: str, preempted: bool) -> tuple[Figure, Figure, Figure]:
    """How many look-ups there were, what they asked for, what they found."""
    return (
        Figure(
            f"{prefix}_lookups",
            f"look-ups {whose}",
            "",
            f"Look-ups in the prefix cache {whose}.",
            lambda session: float(len(_lookups(session, preempted))),
        ),
        Figure(
            f"{prefix}_query_tokens",
            f"tokens looked up {whose}",
            "",
            f"Tokens looked up in the prefix cache {whose}.",
            lambda session: float(_looked_up(session, preempted)[0]),
        ),
        Figure(
            f"{prefix}_hit_tokens",
            f"tokens found {whose}",
            "",
            f"Tokens found in the prefix cache {whose}.",
            lambda session: float(_looked_up(session, preempted)[1]),
            "higher",
        ),
    )


def _freed(column: str) -> Callable[[SavedSession], float]:
    """The sum of a column of kv_preemptions, as the function of a figure."""

    def of(session: SavedSession) -> float:
        values = floats(table_of(session, "kv_preemptions", (column,))[column])
        if np.isnan(values).any():
            raise NoData(f"some preemptions do not say their {column}")
        return float(values.sum()) if len(values) else counted(0, session, "engine", PREEMPT)

    return of


BLOCKS = Figure(
    "kv_blocks", "blocks of the KV cache", "", "Blocks of the pool without the null block.", _blocks
)
PEAK_BLOCKS = Figure(
    "kv_peak_blocks",
    "blocks in use, peak",
    "",
    "Most blocks in use after any operation.",
    _peak_blocks,
)
PEAK = Figure(
    "kv_peak_pct",
    "KV usage, peak",
    "%",
    "Most blocks in use after any operation, of all blocks of the pool.",
    lambda session: 100 * _peak_blocks(session) / _blocks(session),
)
MEAN = Figure(
    "kv_mean_pct",
    "KV usage, mean",
    "%",
    "Share of blocks in use, weighted by time, from the first change to the last.",
    _mean,
)
ALLOCATIONS = Figure(
    "kv_allocations",
    "blocks allocated",
    "",
    "Blocks that were handed out.",
    _totals("Total allocations", ALLOCATE),
)
DEALLOCATIONS = Figure(
    "kv_deallocations",
    "blocks freed",
    "",
    "Blocks that joined the free queue.",
    _totals("Total deallocations", FREE),
)
EVICTIONS = Figure(
    "kv_evictions",
    "evictions",
    "",
    "Blocks that lost their cached content to make room.",
    _events("kv_cache_evictions", EVICT),
    "lower",
)
LIFE = Figure(
    "kv_life_sec",
    "life of evicted content, mean",
    "s",
    "Mean time from allocation to eviction, of the evictions of which it is known.",
    lambda session: _said(session, "Avg block lifetime"),
    "higher",
)
LOOKUPS, ASKED, FOUND = _of_lookups(
    "prefix", "for requests that were not preempted before", preempted=False
)
AGAIN = _of_lookups("resumed", "for requests that were preempted before", preempted=True)
HIT_RATE = Figure(
    "prefix_hit_pct",
    "prefix cache hits",
    "%",
    "Prompt tokens found in the prefix cache, of those asked for, by requests that were not "
    "preempted before.",
    _hit_rate,
    "higher",
)
PREEMPTIONS = Figure(
    "preemptions",
    "preemptions",
    "",
    "Times that a request had to give back its blocks.",
    _events("kv_preemptions", PREEMPT),
    "lower",
)
BLOCKS_FREED = Figure(
    "preempted_blocks",
    "blocks freed by them",
    "",
    "Blocks that became free by preemptions.",
    _freed("blocks_freed"),
)
LOST = Figure(
    "tokens_lost",
    "tokens lost to them",
    "",
    "Computed tokens that preempted requests gave up.",
    _freed("tokens_lost"),
    "lower",
)

FIGURES = (
    *(BLOCKS, PEAK_BLOCKS, PEAK, MEAN, ALLOCATIONS, DEALLOCATIONS, EVICTIONS, LIFE),
    *(LOOKUPS, ASKED, FOUND, *AGAIN, HIT_RATE, PREEMPTIONS, BLOCKS_FREED, LOST),
)
