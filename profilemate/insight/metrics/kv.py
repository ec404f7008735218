"""Metrics of the KV cache."""

from __future__ import annotations

from profilemate.insight.metrics.family import Collector, Spec, number, text
from profilemate.insight.metrics.run import Facts
from profilemate.parse.session.saved import SavedSession

# Line of the summary; the metric; how many of the summary's unit make one of the metric's; the hook
# without which a 0 counts nothing.
SUMMARY = (
    (
        "Total blocks available",
        Spec("profilemate_kv_cache_blocks", "gauge", "Blocks of the pool without the null block."),
        1,
        "",
    ),
    (
        "Peak blocks used",
        Spec("profilemate_kv_cache_blocks_peak", "gauge", "Most blocks in use at any time."),
        1,
        "",
    ),
    (
        "Peak usage",
        Spec(
            "profilemate_kv_cache_peak_usage_ratio",
            "gauge",
            "Most blocks in use at any time, as a share of the pool.",
        ),
        100,
        "",
    ),
    (
        "Total allocations",
        Spec("profilemate_kv_block_allocations", "counter", "Blocks that were handed out."),
        1,
        "BlockPool.get_new_blocks",
    ),
    (
        "Total deallocations",
        Spec("profilemate_kv_block_deallocations", "counter", "Blocks that joined the free queue."),
        1,
        "BlockPool.free_blocks",
    ),
    (
        "Total evictions",
        Spec(
            "profilemate_kv_block_evictions",
            "counter",
            "Blocks that lost their cached content to make room.",
        ),
        1,
        "BlockPool._maybe_evict_cached_block",
    ),
)

BOUNDS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0),
)
"""Seconds; those of vLLM's own `vllm:kv_block_lifetime_seconds`."""

LIFETIMES = (
    (
        "lifetime_sec",
        Spec(
            "profilemate_kv_block_lifetime_seconds",
            "histogram",
            "Time from a block's allocation to the end of its content, by how that ended. With "
            'counted_by_vllm="True" it is vllm:kv_block_lifetime_seconds.',
        ),
    ),
    (
        "idle_sec",
        Spec(
            "profilemate_kv_block_idle_seconds",
            "histogram",
            "Time from the last access of a block to the end of its content, by how that ended. "
            'With counted_by_vllm="True" it is vllm:kv_block_idle_before_evict_seconds.',
        ),
    ),
)

# What is counted: rows, or the sum of a column.
LOOKUPS = (
    (
        Spec(
            "profilemate_prefix_cache_lookups",
            "counter",
            "Prefix-cache look-ups; vLLM's own metrics leave those of preempted requests out.",
        ),
        "",
    ),
    (
        Spec(
            "profilemate_prefix_cache_queries", "counter", "Tokens looked up in the prefix cache."
        ),
        "tokens",
    ),
    (
        Spec("profilemate_prefix_cache_hits", "counter", "Tokens found in the prefix cache."),
        "hit_tokens",
    ),
)

PREEMPTIONS = (
    (Spec("profilemate_preemptions", "counter", "Preemptions of requests."), ""),
    (
        Spec("profilemate_preempted_blocks", "counter", "Blocks that became free by preemptions."),
        "blocks_freed",
    ),
    (
        Spec(
            "profilemate_preempted_tokens",
            "counter",
            "Computed tokens that preempted requests gave up.",
        ),
        "tokens_lost",
    ),
)

SPECS = (
    *(spec for _, spec, *_ in SUMMARY),
    *(spec for _, spec in LIFETIMES),
    *(spec for spec, _ in (*LOOKUPS, *PREEMPTIONS)),
)


def collect(found: Collector, session: SavedSession, facts: Facts) -> None:
    """Add the metrics of one rank's engine."""
    _summary(found, session, facts)
    lives = session.table("kv_block_lifetimes")
    for (ended_by, counted), group in lives.groupby(["ended_by", "counted_by_vllm"]):
        for column, spec in LIFETIMES:
            values = group[column].dropna()
            if len(values):
                labels = {"ended_by": str(ended_by), "counted_by_vllm": str(counted)}
                found.histogram(spec, BOUNDS, values, labels)
    _lookups(found, session, facts)
    table = session.table("kv_preemptions")
    if len(table) or facts.counts("engine", "Scheduler._preempt_request"):
        for spec, column in PREEMPTIONS:
            if not column or table[column].notna().all():
                found.add(spec, len(table) if not column else table[column].sum())


def _summary(found: Collector, session: SavedSession, facts: Facts) -> None:
    table = session.table("kv_cache_summary")
    if table.empty:
        return
    row = table.iloc[0]
    for line, spec, scale, hook in SUMMARY:
        said = text(row.get(line)).removesuffix("%")
        value = None if said in ("", "None") else number(said)
        if value or not hook or facts.counts("engine", hook):
            found.add(spec, value, scale=scale)


def _lookups(found: Collector, session: SavedSession, facts: Facts) -> None:
    table = session.table("kv_prefix_cache")
    if not len(table) and not facts.counts("engine", "KVCacheManager.lookup"):
        return
    for preempted in (False, True):
        rows = table[table["preempted"] == preempted]
        for spec, column in LOOKUPS:
            count = len(rows) if not column else rows[column].sum()
            found.add(spec, count, {"preempted": str(preempted)})
