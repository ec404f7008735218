"""What hooks are called, and what those of each place in vLLM tell of.

A hook's name begins with the class (or function) that it wraps. Who reads a recording asks here
what an installed or a skipped hook means, so that a hook that gets another name is noticed here.
"""

from __future__ import annotations

import re
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
