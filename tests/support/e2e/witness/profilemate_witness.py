"""An independent witness inside the engine: vLLM's own words after every block operation.

A plugin of its own (it shares nothing with profilemate, and neither knows of the other). It writes
one JSON line per operation to `$WITNESS_FILE.<pid>`: what was called, the block ids, and what
`get_usage()` and `get_num_free_blocks()` say right after.
"""

import functools
import json
import os
import time

_files = {}


def _file():
    # Unbuffered: the server kills its engine without asking it to exit.
    pid = os.getpid()
    if pid not in _files:
        _files[pid] = open(f"{os.environ['WITNESS_FILE']}.{pid}", "ab", buffering=0)
    return _files[pid]


def _say(pool, op, **more):
    say = {
        "op": op,
        "ns": time.monotonic_ns(),
        "usage": pool.get_usage(),
        "free": pool.get_num_free_blocks(),
        "total": pool.num_gpu_blocks - 1,
    }
    _file().write(json.dumps({**say, **more}).encode() + b"\n")


def _ids(blocks):
    return [b.block_id for b in blocks if not b.is_null]


def register():
    if not os.environ.get("WITNESS_FILE"):
        return
    from vllm.v1.core.block_pool import BlockPool

    if hasattr(BlockPool, "_witnessed"):
        return
    BlockPool._witnessed = True

    def wrap(name, after, before=None):
        original = getattr(BlockPool, name)

        @functools.wraps(original)
        def method(self, *args, **kwargs):
            args = tuple(list(a) if hasattr(a, "__next__") else a for a in args)
            noted = before(self, *args, **kwargs) if before else None
            result = original(self, *args, **kwargs)
            after(self, result, noted, *args, **kwargs)
            return result

        setattr(BlockPool, name, method)

    wrap("get_new_blocks", lambda p, r, n, *a, **k: _say(p, "alloc", ids=_ids(r)))
    wrap(
        "_maybe_evict_cached_block",
        lambda p, r, n, b: r and _say(p, "evict", ids=[b.block_id]),
    )
    wrap(
        "touch",
        lambda p, r, n, b: n[0] and _say(p, "touch", ids=n[0], revived=n[1]),
        lambda p, b: (_ids(b), [x.block_id for x in b if x.ref_cnt == 0 and not x.is_null]),
    )
    wrap(
        "free_blocks",
        lambda p, r, n, b: (
            _ids(b)
            and _say(p, "free", ids=_ids(b), freed=[x.block_id for x in b if x.ref_cnt == 0])
        ),
    )
    wrap("reset_prefix_cache", lambda p, r, n: _say(p, "reset", ok=r))
    _watch_schedule()


def _watch_schedule():
    # The scheduler's module must not be imported early, and this runs inside EngineCore.__init__:
    # the first step is where the scheduler can be had.
    from vllm.v1.engine.core import EngineCore

    def watch(scheduler):
        schedule = scheduler.schedule
        pool = scheduler.kv_cache_manager.block_pool

        def counted(*args, **kwargs):
            output = schedule(*args, **kwargs)
            _say(pool, "schedule", tokens=output.total_num_scheduled_tokens)
            return output

        scheduler.schedule = counted

    for name in ("step", "step_with_batch_queue"):
        original = getattr(EngineCore, name)

        @functools.wraps(original)
        def step(self, *args, _original=original, **kwargs):
            if not hasattr(self, "_witnessed"):
                self._witnessed = True
                watch(self.scheduler)
            return _original(self, *args, **kwargs)

        setattr(EngineCore, name, step)
