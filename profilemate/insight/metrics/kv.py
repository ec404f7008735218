"""Metrics of the KV cache."""

from __future__ import annotations

from profilemate.insight.figures import kv
from profilemate.insight.metrics.family import Collector, Metric, Spec, metric
from profilemate.parse.session.saved import SavedSession

METRICS = (
    metric(kv.BLOCKS, "kv_cache_blocks", "gauge"),
    metric(kv.PEAK_BLOCKS, "kv_cache_blocks_peak", "gauge"),
    metric(kv.PEAK, "kv_cache_peak_usage_ratio", "gauge"),
    metric(kv.ALLOCATIONS, "kv_block_allocations", "counter"),
    metric(kv.DEALLOCATIONS, "kv_block_deallocations", "counter"),
    metric(kv.EVICTIONS, "kv_block_evictions", "counter"),
)
PREEMPTIONS = (
    metric(kv.PREEMPTIONS, "preemptions", "counter"),
    metric(kv.BLOCKS_FREED, "preempted_blocks", "counter"),
    metric(kv.LOST, "preempted_tokens", "counter"),
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

LOOKUPS = (
    Spec(
        "profilemate_prefix_cache_lookups",
        "counter",
        "Prefix-cache look-ups; vLLM's own metrics leave those of preempted requests out.",
    ),
    Spec("profilemate_prefix_cache_queries", "counter", "Tokens looked up in the prefix cache."),
    Spec("profilemate_prefix_cache_hits", "counter", "Tokens found in the prefix cache."),
)
LOOKED_UP = tuple(
    Metric(figure, spec, {"preempted": preempted})
    for preempted, figures in (("False", (kv.LOOKUPS, kv.ASKED, kv.FOUND)), ("True", kv.AGAIN))
    for figure, spec in zip(figures, LOOKUPS, strict=True)
)

SPECS = (
    *(m.spec for m in METRICS),
    *(spec for _, spec in LIFETIMES),
    *LOOKUPS,
    *(m.spec for m in PREEMPTIONS),
)


def collect(found: Collector, session: SavedSession) -> None:
    """Add the metrics of one rank's engine."""
    found.add_figures(METRICS, session)
    lives = session.table("kv_block_lifetimes")
    for (ended_by, counted), group in lives.groupby(["ended_by", "counted_by_vllm"]):
        for column, spec in LIFETIMES:
            values = group[column].dropna()
            if len(values):
                labels = {"ended_by": str(ended_by), "counted_by_vllm": str(counted)}
                found.histogram(spec, BOUNDS, values, labels)
    found.add_figures((*LOOKED_UP, *PREEMPTIONS), session)
