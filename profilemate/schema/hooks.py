"""What hooks are called, and what those of each place in vLLM tell of.

A hook's name begins with the class (or function) that it wraps. Who reads a recording asks here
what an installed or a skipped hook means, so that a hook that gets another name is noticed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

HookGroup = Literal["engine", "kv", "graphs", "custom"]
"""The switch that a hook belongs to; `custom` are those that users register themselves."""

HOOK_GROUPS: tuple[str, ...] = get_args(HookGroup)


class Feed(StrEnum):
    """What the hooks of a place tell of."""

    KV_BLOCKS = "operations on the blocks of the KV cache"
    KV_REQUESTS = "whom blocks are for, and what is found in the prefix cache"
    SCHEDULER = "steps as they are scheduled, and requests"
    STEPS = "steps as the model executes them"
    DISPATCH = "the graph that a step is to run on"
    GRAPHS = "captures and replays of CUDA graphs"
    GRAPH_OWNERS = "what a CUDA graph is captured for"
    PROFILERS = "when a profiler begins and ends"


_FEEDS: dict[Feed, tuple[str, ...]] = {
    Feed.KV_BLOCKS: ("BlockPool",),
    Feed.KV_REQUESTS: ("KVCacheManager",),
    Feed.SCHEDULER: ("Scheduler",),
    Feed.STEPS: ("Worker",),
    Feed.DISPATCH: ("dispatch",),
    Feed.GRAPHS: ("CUDAGraph", "CUDAGraphWrapper"),
    Feed.GRAPH_OWNERS: (
        "BreakableCUDAGraphWrapper",
        "CudaGraphManager",
        "EagleCudaGraphManager",
        "EncoderCudaGraphManager",
        "GPUModelRunner",
        "UBatchWrapper",
    ),
    Feed.PROFILERS: ("CPUWorker", "EngineCore", "VllmConfig", "WorkerProfiler"),
}
_BY_PLACE = {place: feed for feed, places in _FEEDS.items() for place in places}
_PLACE = re.compile(r"\w*")

KV_FEEDS = (Feed.KV_BLOCKS, Feed.KV_REQUESTS)
"""What tables of the KV cache are made of."""
GRAPH_FEEDS = (Feed.GRAPHS, Feed.STEPS, Feed.DISPATCH)
"""What tables of CUDA graphs are made of."""


def feed_of(hook: str) -> Feed | None:
    """What a hook of this name tells of; None for one of the user's, or of another version."""
    found = _PLACE.match(hook)
    return None if found is None else _BY_PLACE.get(found[0])


@dataclass(frozen=True, slots=True)
class HookReport:
    """What a process says of a hook.

    Attributes:
        status: As in a `hook` event.
        why: Its reason, or the first of its faults.
        faults: How often it failed.
    """

    status: str
    why: str = ""
    faults: int = 0

    @property
    def trouble(self) -> str | None:
        """Why it may have missed something, None if it has not.

        One that waits for a module has nothing to see: the class is not in this process.
        """
        if self.faults and self.status != "failed":
            return f"failed {self.faults:,} time{'s' * (self.faults > 1)} ({self.why})"
        return self.why or self.status if self.status in ("failed", "off") else None


_BLOCK_HOOKS: dict[str, tuple[str, ...]] = {
    "kv.alloc": ("BlockPool.get_new_blocks",),
    "kv.evict": (
        "BlockPool._maybe_evict_cached_block",
        "BlockPool.get_new_blocks",
        "BlockPool.evict_blocks",
    ),
    "kv.cache": ("BlockPool.cache_full_blocks", "BlockPool.cache_partial_block"),
    "kv.touch": ("BlockPool.touch", "KVCacheManager.allocate_slots"),
    "kv.free": ("BlockPool.free_blocks", "BlockPool.unpin_blocks"),
    "kv.move": ("BlockPool.move_block_hashes",),
    "kv.reset": ("BlockPool.reset_prefix_cache",),
}

_CAPTURES = ("CUDAGraph.capture_begin", "CUDAGraph.capture_end")
_OWNERS = (
    "CUDAGraphWrapper.__call__",
    "BreakableCUDAGraphWrapper._capture",
    "CudaGraphManager.capture",
    "EagleCudaGraphManager.capture",
    "UBatchWrapper._capture_ubatches",
    "EncoderCudaGraphManager._capture_budget_graph",
)
_DISPATCH = ("dispatch", "dispatch (V2)", "dispatch (V2, ranks agreed)")

SUFFICIENT: dict[str, tuple[str, ...]] = {
    **_BLOCK_HOOKS,
    "kv.usage": ("Scheduler.schedule",),
    "kv.alloc_failed": ("KVCacheManager.allocate_slots",),
    "kv.lookup": ("KVCacheManager.lookup",),
    "preempt": ("Scheduler._preempt_request", "Scheduler.schedule"),
    "request": ("Scheduler.add_request", "Scheduler._free_request"),
    "sched.step": ("Scheduler.schedule",),
    "step": ("Worker.execute_model", "Worker.execute_dummy_batch", *_DISPATCH),
    "step.end": ("Worker.execute_model", "Worker.execute_dummy_batch", "CUDAGraph.replay"),
    "step.sample": ("Worker.sample_tokens",),
    "step.gpu": ("CUDAGraph.replay, timed",),
    "graph.capture": (*_CAPTURES, *_OWNERS),
    "graph.replay": ("CUDAGraph.replay", *_OWNERS),
}
"""The hooks that together see every event of a kind. Kinds that are not here need none: what they
say is repeated with the session."""

ENGINE_KINDS = tuple(k for k in SUFFICIENT if k.startswith(("kv.", "sched.", "preempt", "request")))
"""What the process of a scheduler says; the others are a worker's."""

ESSENTIAL = frozenset(
    {
        *("BlockPool.get_new_blocks", "BlockPool._maybe_evict_cached_block", "BlockPool.touch"),
        *("BlockPool.free_blocks", "BlockPool.cache_full_blocks", "BlockPool.reset_prefix_cache"),
        *(f"KVCacheManager.{name}" for name in ("allocate_slots", "lookup")),
        *(f"Scheduler.{name}" for name in ("schedule", "add_request", "_free_request")),
        *("Scheduler._preempt_request", "Worker.execute_model", "CUDAGraph.replay", *_CAPTURES),
    }
)
"""Hooks that find their place in every vLLM that is known: where one finds none, what it would tell
of happens at a place that we do not know. Of the others it does not happen in that vLLM."""


def unseen(kind: str, reports: Mapping[str, HookReport]) -> str | None:
    """Why events of a kind may have been missed in a process, None where all of them were seen.

    Args:
        kind: Of the events.
        reports: What the process says of its hooks, by name; a hook that it does not name is of
            another version of profilemate and not judged.
    """
    for name in SUFFICIENT.get(kind, ()):
        report = reports.get(name)
        if report is None:
            continue
        if report.status == "skipped" and name in ESSENTIAL:
            return f"the hook {name} found no place ({report.why})"
        if report.trouble is not None:
            return f"the hook {name}: {report.trouble}"
    return None
