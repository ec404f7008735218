"""Block operations: `vllm.v1.core.block_pool.BlockPool`.

Every change of a block's state goes through these few methods, in the EngineCore process, on one
thread. The null block (id 0 of the GPU pool) stands for "no block" in sliding-window and Mamba
tables; its reference count means nothing, so it is left out everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from profilemate.annotate.faults import shield
from profilemate.annotate.hook import Hook, Method, Original, Target
from profilemate.annotate.wrapping import Arguments, compile_wrapper, observe
from profilemate.schema import KINDS

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter

POOL = "vllm.v1.core.block_pool:BlockPool"

_ALLOC = KINDS["kv.alloc"].spell
_CACHE = KINDS["kv.cache"].spell
_EVICT = KINDS["kv.evict"].spell
_FREE = KINDS["kv.free"].spell
_MOVE = KINDS["kv.move"].spell
_RESET = KINDS["kv.reset"].spell
_TOUCH = KINDS["kv.touch"].spell


def _usage(emitter: Emitter) -> Callable[[Any], tuple[int, int]]:
    """Pool -> its number and its blocks in use now, as `BlockPool.get_usage` counts them."""
    state = emitter.state

    def usage(pool: Any) -> tuple[int, int]:
        info = state.pools.get(id(pool)) or emitter.new_pool(pool)
        info.used = used = info.total - pool.get_num_free_blocks()
        return info.number, used

    return usage


# --------------------------------------------------------------------------- creation


def wrap_init(original: Original, emitter: Emitter) -> Method:
    """BlockPool.__init__: number the pools of a process in order of creation."""

    def after(pool: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        emitter.new_pool(pool)

    return observe(original, emitter, after, wants=(), gate="pm_emitter.on")


# --------------------------------------------------------------------------- alloc, evict


def wrap_get_new_blocks(original: Original, emitter: Emitter) -> Method:
    """get_new_blocks: what was handed out, and what it cost the prefix cache."""
    state, serving = emitter.state, emitter.state.serving

    def after(pool: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        # What `_usage` does, in line: this is the hook that runs most often.
        info = state.pools.get(id(pool)) or emitter.new_pool(pool)
        info.used = used = info.total - pool.get_num_free_blocks()
        request = serving.slots
        request_id = None if request is None else request.request_id
        if state.evicted:
            # wrap_maybe_evict only notes ids: one event a call, not one a block.
            ids, state.evicted = state.evicted, []
            emitter.add(_EVICT, start, end, (info.number, used, ids, request_id, "alloc"))
        # In a decode step it is one, which a comprehension takes twice the time for.
        ids = [result[0].block_id] if len(result) == 1 else [b.block_id for b in result]
        emitter.add(_ALLOC, start, end, (info.number, used, ids, request_id))

    return observe(original, emitter, after, wants=())


_MAYBE_EVICT = """
pm_result = CALL
if pm_result and pm_emitter.active:
    pm_note(FIRST)
return pm_result
"""


def wrap_maybe_evict(original: Original, emitter: Emitter) -> Method:
    """_maybe_evict_cached_block: runs once per block handed out, so it only notes the id."""
    state = emitter.state

    def note(block: Any) -> None:
        state.evicted.append(block.block_id)

    note = shield(original.hook, emitter.faults, note)
    return compile_wrapper(original, _MAYBE_EVICT, pm_emitter=emitter, pm_note=note)


def wrap_evict_blocks(original: Original, emitter: Emitter) -> Method:
    """evict_blocks: a KV connector declares cached content invalid."""
    state, usage = emitter.state, _usage(emitter)

    def after(pool: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        if state.evicted:
            number, used = usage(pool)
            ids, state.evicted = state.evicted, []
            emitter.add(_EVICT, start, end, (number, used, ids, None, "connector"))

    return observe(original, emitter, after, wants=())


# --------------------------------------------------------------------------- references


def _flat(blocks: Sequence[Any]) -> Sequence[Any]:
    """The blocks of touch's argument: flat, or per group as in vLLM 0.11 and 0.12."""
    if not blocks or hasattr(blocks[0], "block_id"):
        return blocks
    return [block for group in blocks for block in group]


def wrap_touch(original: Original, emitter: Emitter) -> Method:
    """touch: blocks gain a reference; a prefix hit if slots of a request are being allocated."""
    serving, usage = emitter.state.serving, _usage(emitter)

    def before(pool: Any, args: Arguments) -> Any:
        blocks = _flat(args[0])
        ids = [b.block_id for b in blocks if not b.is_null]
        return ids, [b.block_id for b in blocks if b.ref_cnt == 0 and not b.is_null]

    def after(pool: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        ids, revived = note
        if not ids:
            return
        number, used = usage(pool)
        part = None if len(revived) == len(ids) else revived
        hit = serving.slots is not None
        request = serving.slots if hit else serving.free
        request_id = None if request is None else request.request_id
        emitter.add(_TOUCH, start, end, (number, used, ids, part, request_id, hit))

    return observe(original, emitter, after, before, wants=("blocks",))


def wrap_free(original: Original, emitter: Emitter) -> Method:
    """free_blocks and unpin_blocks: blocks lose a reference, the last one frees them.

    The argument is often a one-shot iterator: it is read once, and the list is handed on.
    """
    state, serving = emitter.state, emitter.state.serving
    usage = _usage(emitter)

    def after(pool: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        """Emit the release: the ids, which of them are free now, and for whom."""
        blocks = args[0]
        if len(state.pools) > 1:
            # Since vLLM 0.30 free_blocks hands blocks of another pool to that pool's free_blocks.
            blocks = [b for b in blocks if getattr(b, "pool", None) in (None, pool)]
        ids = [b.block_id for b in blocks if not b.is_null]
        if not ids:
            return
        freed = [b.block_id for b in blocks if b.ref_cnt == 0 and not b.is_null]
        request = serving.slots if serving.free is None else serving.free
        request_id = None if request is None else request.request_id
        if state.deferred:
            owners = [state.deferred.pop(block_id, None) for block_id in ids]
            request_id = request_id or owners[0]
        number, used = usage(pool)
        part = None if len(freed) == len(ids) else freed
        emitter.add(_FREE, start, end, (number, used, ids, part, request_id))

    return observe(original, emitter, after, list_first=True)


# --------------------------------------------------------------------------- the prefix cache


def wrap_cache_full(original: Original, emitter: Emitter) -> Method:
    """cache_full_blocks: `blocks[num_cached_blocks:num_full_blocks]` enter the prefix cache."""
    emit_cached = _cached(emitter)

    def after(pool: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        """Emit the ids of the blocks that entered; `mask`, one bool a block, leaves some out."""
        request, group, blocks, first, last, mask = args
        if first >= last:
            return
        if first + 1 == last and mask is None:
            ids = [] if blocks[first].is_null else [blocks[first].block_id]
        else:
            blocks = blocks[first:last]
            if mask is not None:
                blocks = [b for b, cached in zip(blocks, mask, strict=False) if cached]
            ids = [b.block_id for b in blocks if not b.is_null]
        if ids:
            emit_cached(pool, start, end, request, group, ids, None)

    slice_ = ("blocks", "num_cached_blocks", "num_full_blocks", "block_mask")
    return observe(original, emitter, after, wants=(*_CACHED, *slice_))


def wrap_cache_partial(original: Original, emitter: Emitter) -> Method:
    """cache_partial_block: a prefix that ends inside a block enters the cache.

    Called in every step for the last block of a request of a hybrid model: what it stored before is
    stored again, and that is nothing new.
    """
    emit_cached = _cached(emitter)

    def before(pool: Any, args: Arguments) -> Any:
        return _entries(pool, args[2])

    def after(pool: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        request, group, block = args
        if result is not None and result not in note:  # None: the null block
            emit_cached(pool, start, end, request, group, [block.block_id], True)

    return observe(original, emitter, after, before, wants=(*_CACHED, "block"))


def _entries(pool: Any, block: Any) -> tuple[Any, ...]:
    """The keys under which a block is found in the prefix cache."""
    further = getattr(pool, "cached_block_hashes_by_block", None) or {}
    return (block.block_hash, *further.get(block.block_id, ()))


_CACHED = ("request", "kv_cache_group_id")


def _cached(emitter: Emitter) -> Callable[..., None]:
    """What emits a `kv.cache`: called with the pool, begin and end (ns), and the event's fields."""
    state = emitter.state

    def emit_cached(
        pool: Any,
        start: int,
        end: int,
        request: Any,
        group: int | None,
        ids: list[int],
        partial: bool | None,
    ) -> None:
        info = state.pools.get(id(pool)) or emitter.new_pool(pool)  # `_usage` in line: runs often
        info.used = used = info.total - pool.get_num_free_blocks()
        request_id = getattr(request, "request_id", None)
        # Group 0, the only one of most models, is not said.
        values = (info.number, used, ids, request_id, group or None, partial)
        emitter.add(_CACHE, start, end, values)

    return emit_cached


def wrap_move(original: Original, emitter: Emitter) -> Method:
    """move_block_hashes: the cache entry of one block moves to another (copy-on-write)."""
    usage = _usage(emitter)

    def before(pool: Any, args: Arguments) -> bool:
        return args[0].block_hash is not None

    def after(pool: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        if note:
            number, used = usage(pool)
            src, dst = ([block.block_id] for block in args)
            emitter.add(_MOVE, start, end, (number, used, src, dst))

    return observe(original, emitter, after, before, wants=("src_block", "dst_block"))


def wrap_reset(original: Original, emitter: Emitter) -> Method:
    """reset_prefix_cache: all hashes go, unless blocks are in use."""
    usage = _usage(emitter)

    def after(pool: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        number, used = usage(pool)
        emitter.add(_RESET, start, end, (number, used, bool(result)))
        emitter.flush()  # comes between steps, perhaps the last thing for a long time

    return observe(original, emitter, after, wants=())


def _hook(method: str, parameters: str, wrap: Any, emits: tuple[str, ...], why: str) -> Hook:
    target = Target(f"{POOL}.{method}", wrap, parameters)
    return Hook(f"BlockPool.{method}", "kv", (target,), emits, why)


_FULL = (
    "request, blocks, num_cached_blocks, num_full_blocks, block_size, kv_cache_group_id, "
    "block_mask=None"
)
_PARTIAL = "request, block, num_tokens, kv_cache_group_id, block_size"

HOOKS = (
    _hook("__init__", "", wrap_init, ("kv.pool",), "size and kind of the pool"),
    _hook(
        "get_new_blocks",
        "num_blocks",
        wrap_get_new_blocks,
        ("kv.alloc", "kv.evict"),
        "every allocation",
    ),
    _hook("_maybe_evict_cached_block", "block", wrap_maybe_evict, ("kv.evict",), "every eviction"),
    _hook(
        "evict_blocks",
        "block_ids",
        wrap_evict_blocks,
        ("kv.evict",),
        "content that a connector invalidates",
    ),
    _hook("touch", "blocks", wrap_touch, ("kv.touch",), "prefix hits, and pins of other owners"),
    _hook("free_blocks", "ordered_blocks", wrap_free, ("kv.free",), "every release"),
    _hook(
        "unpin_blocks",
        "blocks, on_reuse=None",
        wrap_free,
        ("kv.free",),
        "a release that bypasses free_blocks",
    ),
    _hook("cache_full_blocks", _FULL, wrap_cache_full, ("kv.cache",), "content becomes reusable"),
    _hook(
        "cache_partial_block",
        _PARTIAL,
        wrap_cache_partial,
        ("kv.cache",),
        "so does part of a block",
    ),
    _hook(
        "move_block_hashes",
        "src_block, dst_block",
        wrap_move,
        ("kv.move",),
        "content that changes its block",
    ),
    _hook("reset_prefix_cache", "", wrap_reset, ("kv.reset",), "the end of all cached content"),
)
