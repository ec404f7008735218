"""Which request a block operation serves, and what it found: `KVCacheManager`."""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from profilemate.annotate.faults import shield
from profilemate.annotate.hook import Hook, Method, Original, Target
from profilemate.annotate.wrapping import Arguments, compile_wrapper, observe
from profilemate.schema import KINDS

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter

MANAGER = "vllm.v1.core.kv_cache_manager:KVCacheManager"

_FAILED = KINDS["kv.alloc_failed"].encode
_LOOKUP = KINDS["kv.lookup"].encode


_SLOTS = """
pm_serving.slots = FIRST
try:
    pm_result = CALL
finally:
    pm_serving.slots = None
if pm_result is None and pm_emitter.active:
    pm_failed(SELF, FIRST)
return pm_result
"""


def wrap_allocate_slots(original: Original, emitter: Emitter) -> Method:
    """allocate_slots: the request behind pool operations; None means that it did not fit.

    Runs for every request in every step, so nothing is read or emitted when all is well; to note
    the request takes less than to ask whether anybody wants to know.
    """

    def failed(manager: Any, request: Any) -> None:
        pool = manager.block_pool
        info = emitter.pool(pool)
        free = pool.get_num_free_blocks()
        now = monotonic_ns()
        values = (info.number, info.total - free, request.request_id, free)
        emitter.add(_FAILED, now, now, values)

    failed = shield(original.hook, emitter.faults, failed)
    return compile_wrapper(
        original, _SLOTS, pm_emitter=emitter, pm_serving=emitter.state.serving, pm_failed=failed
    )


_FREE = """
pm_serving.free = FIRST
try:
    return CALL
finally:
    pm_serving.free = None
"""


def wrap_free(original: Original, emitter: Emitter) -> Method:
    """free: the request whose blocks are given back."""
    return compile_wrapper(original, _FREE, pm_serving=emitter.state.serving)


def wrap_pop_blocks_for_free(original: Original, emitter: Emitter) -> Method:
    """pop_blocks_for_free: these blocks reach the pool later, without their request."""
    state = emitter.state

    def after(manager: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        request_id = args[0].request_id
        state.deferred.update((block.block_id, request_id) for block in result)

    return observe(original, emitter, after, wants=("request",))


def _emit_lookup(
    emitter: Emitter, manager: Any, start: int, end: int, request: Any, hits: int
) -> None:
    preempted = getattr(request, "num_preemptions", 0) > 0
    engine = emitter.pool(manager.block_pool).engine
    values = (request.request_id, request.num_tokens, hits, preempted, engine)
    emitter.add(_LOOKUP, start, end, values)


def wrap_record_stats(original: Original, emitter: Emitter) -> Method:
    """record_prefix_cache_stats: where vLLM itself counts a lookup, once per admission.

    It returns early for a request that skipped the cache, so that is asked first here too.
    """

    def after(manager: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        request, hits = args
        if manager.enable_caching and not getattr(request, "skip_reading_prefix_cache", False):
            _emit_lookup(emitter, manager, start, end, request, hits)

    return observe(original, emitter, after, wants=("request", "num_hits"))


def wrap_get_computed_blocks(original: Original, emitter: Emitter) -> Method:
    """get_computed_blocks: older versions count every lookup here, repeated ones included.

    The result grew from two to three members; the second has always been the computed tokens.
    """

    def after(manager: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        request = args[0]
        if manager.enable_caching and not getattr(request, "skip_reading_prefix_cache", False):
            _emit_lookup(emitter, manager, start, end, request, result[1])

    return observe(original, emitter, after, wants=("request",))


HOOKS = (
    Hook(
        "KVCacheManager.allocate_slots",
        "kv",
        (Target(f"{MANAGER}.allocate_slots", wrap_allocate_slots, "request"),),
        ("kv.alloc_failed",),
        "the request that a pool operation serves, and that it did not fit",
    ),
    Hook(
        "KVCacheManager.free",
        "kv",
        (Target(f"{MANAGER}.free", wrap_free, "request"),),
        (),
        "the request whose blocks are given back",
    ),
    Hook(
        "KVCacheManager.pop_blocks_for_free",
        "kv",
        (Target(f"{MANAGER}.pop_blocks_for_free", wrap_pop_blocks_for_free, "request"),),
        (),
        "the request whose blocks are given back later",
    ),
    Hook(
        "KVCacheManager.lookup",
        "kv",
        (
            Target(f"{MANAGER}.record_prefix_cache_stats", wrap_record_stats, "request, num_hits"),
            Target(f"{MANAGER}.get_computed_blocks", wrap_get_computed_blocks, "request"),
        ),
        ("kv.lookup",),
        "prefix-cache queries and hits, request by request, as vLLM's own counters count them",
    ),
)
