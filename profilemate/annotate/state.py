"""What hooks tell each other about the engine, whether anybody records or not.

vLLM's methods know little of each other: `BlockPool` hands out blocks and does not know for whom,
the scheduler's step has no number. What one hook learns and another one says stands here.
"""

from __future__ import annotations

import weakref
from typing import Any

from profilemate.annotate.engines import Engines


class PoolInfo:
    """What we know of a BlockPool.

    Attributes:
        number: In order of creation in this process, from 0.
        pool: The pool, weakly held.
        total: Blocks, without the null block.
        used: Blocks in use when it was last said, -1 before.
        facts: The fields of its `kv.pool` event between `number` and `used`.
        engine: Number of its engine as events have it.
        owner: `scheduler` if the scheduler's KV cache manager hands its blocks out.
    """

    __slots__ = ("engine", "facts", "number", "owner", "pool", "total", "used")

    def __init__(self, number: int, pool: Any) -> None:
        medium = getattr(pool, "medium", None)
        self.number = number
        self.pool = weakref.ref(pool)
        self.total: int = pool.num_gpu_blocks - 1
        self.used = -1
        self.engine: int | None = None
        self.owner: str | None = None
        self.facts = (
            self.total,
            getattr(pool, "hash_block_size", None),
            pool.enable_caching,
            None if medium is None else str(medium),
        )


class Serving:
    """The request that is being served, as a vLLM object, while a call of `KVCacheManager` runs.

    Both are set by the code of the wrappers in `hooks/kv_cache_manager.py`.

    Attributes:
        slots: The one that allocate_slots runs for, or None.
        free: The one whose blocks are given back, or None.
    """

    __slots__ = ("free", "slots")

    def __init__(self) -> None:
        self.slots: Any = None
        self.free: Any = None


class EngineState:
    """What hooks know of the engine in this process. One object for ever: wrappers hold it.

    Attributes:
        serving: The request that is being served. One object for ever, too.
        scheduler_step: Number of `Scheduler.schedule` calls so far, recorded or not. Counted by
            the code `COUNT` in `wrapping.py`.
        worker_step: Number of `Worker.execute_model` calls so far, likewise.
        armed: A profiler of vLLM's was started and may begin to record inside a step. Asked by
            the code `_AROUND` in `hooks/worker.py`, in text that no type checker reads.
        pools: id() of a BlockPool -> what we know of it.
        engines: The engines of this process.
        evicted: Block ids whose content was lost since the last operation of a pool.
        deferred: Block id -> request id, of blocks that vLLM will free later.
        given_back: Requests whose blocks were given back since the last step began to be
            scheduled, for vLLM 0.11, where only the scheduler knows which were preempted: request,
            begin and end of the call (ns, monotonic), blocks, computed tokens.
    """

    def __init__(self) -> None:
        self.serving = Serving()
        self.reset()

    def reset(self) -> None:
        """A process begins, perhaps as the child of one that has steps and pools."""
        self.scheduler_step = self.worker_step = 0
        self.armed = False
        self.pools: dict[int, PoolInfo] = {}
        self.engines = Engines()
        self.forget_operations()

    def forget_operations(self) -> None:
        """Drop what is only true as long as every block operation is seen."""
        self.evicted: list[int] = []
        self.deferred: dict[int, str] = {}
        self.given_back: list[tuple[Any, int, int, int, int]] = []
        for info in self.pools.values():
            info.used = -1

    def add_pool(self, pool: Any) -> PoolInfo:
        """Number a pool and note its facts."""
        number = 1 + max((info.number for info in self.pools.values()), default=-1)
        info = self.pools[id(pool)] = PoolInfo(number, pool)
        return info

    def find_owners(self) -> None:
        """Note which pools the schedulers' managers hand out: asked before each session is said."""
        for engine in self.engines.every:
            manager = getattr(engine.part("scheduler"), "kv_cache_manager", None)
            pool = getattr(manager, "block_pool", None)
            info = self.pools.get(id(pool))
            if info is not None and info.pool() is pool:
                info.engine, info.owner = engine.label, "scheduler"
