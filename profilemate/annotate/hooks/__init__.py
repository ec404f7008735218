"""The hook table. One file per place in vLLM, one row per method.

Nothing here imports vLLM: hooks read the objects they are given.
"""

from profilemate.annotate.hook import Hook
from profilemate.annotate.hooks import (
    block_pool,
    cuda_graph_captures,
    cuda_graph_replays,
    kv_cache_manager,
    profilers,
    scheduler,
    steps,
    worker,
)

HOOKS: tuple[Hook, ...] = (
    *block_pool.HOOKS,
    *kv_cache_manager.HOOKS,
    *scheduler.HOOKS,
    *worker.HOOKS,
    *steps.HOOKS,
    *cuda_graph_captures.HOOKS,
    *cuda_graph_replays.HOOKS,
    *profilers.HOOKS,
)
