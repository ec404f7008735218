"""The resolved configuration of an engine, read from vLLM's own objects.

Names have moved between vLLM's versions and may move again: what is not found is None.
"""

from __future__ import annotations

from typing import Any

Values = tuple[Any, ...]


def config_of(config: Any, kv_cache: Any = None) -> Values:
    """The fields of a `config` event after its engine, in the order of its row in the schema.

    Args:
        config: vLLM's VllmConfig.
        kv_cache: The scheduler's KVCacheConfig, None where there is no scheduler.
    """
    blocks = _integer(kv_cache, "num_blocks")
    if blocks is None:
        blocks = _integer(config, "cache_config.num_gpu_blocks")
    share = _at(config, "cache_config.gpu_memory_utilization")
    sizes = _at(config, "compilation_config.cudagraph_capture_sizes")
    return (
        _integer(config, "model_config.max_model_len"),
        _integer(config, "scheduler_config.max_num_seqs"),
        _integer(config, "scheduler_config.max_num_batched_tokens"),
        _integer(config, "cache_config.block_size"),
        blocks,
        _integer(config, "cache_config.num_gpu_blocks_override"),
        str(share) if isinstance(share, int | float) else None,
        _bytes_per_block(kv_cache),
        _text(_at(config, "cache_config.cache_dtype")),
        _truth(config, "cache_config.enable_prefix_caching"),
        _text(_at(config, "compilation_config.cudagraph_mode")),
        ",".join(map(str, sorted(sizes))) if isinstance(sizes, list | tuple) else None,
        _truth(config, "model_config.enforce_eager"),
        _text(_at(config, "speculative_config.method")),
        _integer(config, "speculative_config.num_speculative_tokens"),
        _chunked(config),
        _truth(config, "scheduler_config.async_scheduling"),
        _text(_at(config, "scheduler_config.policy")),
        _integer(config, "parallel_config.tensor_parallel_size"),
        _integer(config, "parallel_config.pipeline_parallel_size"),
        _integer(config, "parallel_config.data_parallel_size"),
        _text(_at(config, "instance_id")),
    )


def _at(owner: Any, path: str) -> Any:
    for name in path.split("."):
        owner = getattr(owner, name, None)
    return owner


def _integer(owner: Any, path: str) -> int | None:
    value = _at(owner, path)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _truth(owner: Any, path: str) -> bool | None:
    value = _at(owner, path)
    return value if isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    """An enum member by its name; nothing else but plain text."""
    name = getattr(value, "name", value)
    return name if isinstance(name, str) and name else None


def _chunked(config: Any) -> bool | None:
    # Up to vLLM 0.12 the scheduler asks `chunked_prefill_enabled`, which is resolved later.
    found = _truth(config, "scheduler_config.enable_chunked_prefill")
    return _truth(config, "scheduler_config.chunked_prefill_enabled") if found is None else found


def _bytes_per_block(kv_cache: Any) -> int | None:
    """Bytes that a block takes in all layers of a worker, None where vLLM does not say.

    Up to vLLM 0.30 a tensor is an allocation of its own, which the layers in `shared_by` use. In
    0.32 tensors are views of one allocation, of which each says the whole size.
    """
    tensors: Any = getattr(kv_cache, "kv_cache_tensors", None) or ()
    blocks = _integer(kv_cache, "num_blocks")
    sizes = [_integer(tensor, "size") for tensor in tensors]
    if not blocks or not sizes:
        return None
    known = [size for size in sizes if size is not None]
    if all(hasattr(t, "layers") and not getattr(t, "host_resident", 0) for t in tensors):
        return known[0] // blocks if len({*sizes}) == 1 and known else None
    if any(not hasattr(t, "shared_by") or getattr(t, "block_stride", 0) for t in tensors):
        return None
    return sum(known) // blocks if len(known) == len(sizes) else None
