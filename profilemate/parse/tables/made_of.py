"""Which kinds of events each table is made of: where one may be missing, the table may be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_BLOCKS = ("kv.alloc", "kv.evict", "kv.cache", "kv.touch", "kv.free", "kv.move", "kv.reset")
_LIVES = ("kv.alloc", "kv.evict", "kv.touch", "kv.free", "kv.reset")
_REPLAYS = ("graph.replay", "step")

EVENT_KINDS: Mapping[str, tuple[str, ...]] = {
    "kv_cache_usage": ("kv.usage", "kv.alloc", "kv.free"),
    "kv_cache_evictions": _LIVES,
    "kv_cache_summary": ("kv.usage", "kv.alloc", "kv.evict", "kv.free"),
    "kv_block_lifetimes": _LIVES,
    "kv_block_events": _BLOCKS,
    "kv_prefix_cache": ("kv.lookup",),
    "kv_preemptions": ("preempt",),
    "cuda_graph_captures": ("graph.capture",),
    "cuda_graph_usage": _REPLAYS,
    "cuda_graph_timeline": _REPLAYS,
    "cuda_graph_replay_latency": _REPLAYS,
    "cuda_graph_steps": ("step",),
    "cuda_graph_padding": ("step",),
    "cuda_graph_coverage": ("step",),
    "ranks": ("step",),
}
"""By table. What a single column has of other kinds (the scheduler's side of a step) is not here:
that column is None where those are missing."""


def kinds_of(tables: Iterable[str]) -> frozenset[str]:
    """The kinds of events that any of these tables is made of."""
    return frozenset(kind for table in tables for kind in EVENT_KINDS.get(table, ()))
