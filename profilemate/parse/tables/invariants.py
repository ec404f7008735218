"""What cannot be: each invariant that a recording must keep, and what is doubted where it does not.

A hook that a new engine made wrong, or a recorder that lost its clock, looks exactly like this. A
recording that merely lacks something, because it began late or lost events, keeps all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from profilemate.parse.tables import gpu_invariants, kv_invariants
from profilemate.parse.tables.violations import Violations
from profilemate.parse.trace.trace import Trace

KV_POOL = ("kv_cache_usage", "kv_cache_summary")
KV_BLOCKS = ("kv_block_events", "kv_block_lifetimes", "kv_cache_evictions", "kv_cache_summary")
STEPS = ("cuda_graph_steps", "cuda_graph_coverage")
GPU = (*STEPS, "cuda_graph_timeline", "cuda_graph_usage", "cuda_graph_replay_latency")


@dataclass(frozen=True, slots=True)
class Invariant:
    """Something that holds in every recording that is right.

    Attributes:
        name: Its name, which is the id of the warning.
        doc: What it is that cannot be.
        tables: Names of the tables whose figures depend on it.
    """

    name: str
    doc: str
    tables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Doubt:
    """An invariant that does not hold: how often, and the first case, in words."""

    invariant: Invariant
    count: int
    example: str

    @property
    def text(self) -> str:
        """The sentence about it."""
        often = "once" if self.count == 1 else f"{self.count:,} times"
        return (
            f"recorded {often}, and cannot be: {self.invariant.doc} ({self.example}); doubt "
            f"{', '.join(self.invariant.tables)}"
        )


INVARIANTS: Mapping[str, Invariant] = {
    name: Invariant(name, doc, tables)
    for name, doc, tables in (
        ("pool-negative", "a block pool of fewer than no blocks", KV_POOL),
        ("used-outside-pool", "more blocks in use than the pool has, or fewer than none", KV_POOL),
        ("used-below-allocated", "fewer blocks in use than were allocated and not freed", KV_POOL),
        ("ids-outside-pool", "ids of blocks that the pool does not have", KV_BLOCKS),
        ("allocated-twice", "a block that is allocated while it is in use", KV_BLOCKS),
        ("freed-unallocated", "a block that is freed while it is free", KV_BLOCKS),
        (
            "hits-above-asked",
            "a prefix-cache lookup that found more tokens than it asked for",
            ("kv_prefix_cache",),
        ),
        (
            "padding-negative",
            "a step on a graph that is smaller than what it runs",
            (*STEPS, "cuda_graph_padding"),
        ),
        ("duration-negative", "an event, call or GPU record that ends before it begins", GPU),
        (
            "longer-than-recording",
            "an event, call or GPU record that lasts longer than the recording",
            GPU,
        ),
        (
            "gpu-time-unmeasured",
            "a GPU record without a time, as the GPU's could not be collected (it is left out)",
            GPU,
        ),
        ("gpu-before-call", "GPU work that begins before the call that starts it", GPU),
        (
            "gpu-records-overlap",
            "GPU work that runs wholly within other work of the same stream",
            GPU,
        ),
        ("gpu-share-above-one", "more GPU time in the steps' graphs than the GPUs ran at all", GPU),
    )
}
"""All of them, by name."""


_OF_RANK: Sequence[Callable[[Trace, Violations], None]] = (
    kv_invariants.check_pools,
    kv_invariants.check_operations,
    kv_invariants.check_blocks,
    kv_invariants.check_lookups,
)
_OF_RUN: Sequence[Callable[[Trace, Violations], None]] = (
    gpu_invariants.check_padding,
    gpu_invariants.check_events,
    gpu_invariants.check_work,
    gpu_invariants.check_shares,
)
"""What is computed of the ranks for the tables anyway is asked of them, the rest of the run."""


def doubts_of(trace: Trace, ranks: Iterable[Trace]) -> list[Doubt]:
    """What cannot be in a run, in the order of `INVARIANTS`.

    Args:
        trace: The trace of the whole run.
        ranks: Those of its ranks.
    """
    found = Violations()
    for check in _OF_RUN:
        check(trace, found)
    for rank in ranks:
        for check in _OF_RANK:
            check(rank, found)
    for source in trace.sources:
        found.add("gpu-time-unmeasured", source.untimed, f"in {source.path.name}")
    return [Doubt(row, *found.counts[name]) for name, row in INVARIANTS.items() if name in found]


def doubted_tables(names: Iterable[str]) -> frozenset[str]:
    """The tables that depend on an invariant of these names; other names say nothing."""
    return frozenset(table for name in names if name in INVARIANTS for table in _tables(name))


def _tables(name: str) -> tuple[str, ...]:
    return INVARIANTS[name].tables
