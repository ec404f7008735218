"""The settings of an engine that figures and advice use, as vLLM resolved them."""

from __future__ import annotations

from dataclasses import dataclass

from profilemate.schema.fields import Field, Value


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: vLLM's name of it, as in its flags, and the key in metadata.json.
        field: The field of a `config` event that holds it; its name has 16 letters at most.
        is_share: The field is text that holds a decimal number.
    """

    name: str
    field: Field
    is_share: bool = False


CONFIG: tuple[Setting, ...] = (
    Setting("max_model_len", Field("max_model_len", "int", "longest context", "tokens")),
    Setting("max_num_seqs", Field("max_num_seqs", "int", "requests that run at once", "requests")),
    Setting(
        "max_num_batched_tokens",
        Field("max_num_batched", "int", "tokens that a step may have", "tokens"),
    ),
    Setting("block_size", Field("block_size", "int", "tokens that a block holds", "tokens")),
    Setting(
        "num_gpu_blocks",
        Field("num_gpu_blocks", "int", "blocks of the pool with the null block", "blocks"),
    ),
    Setting(
        "num_gpu_blocks_override",
        Field("blocks_override", "int", "blocks that were asked for", "blocks"),
    ),
    Setting(
        "gpu_memory_utilization",
        Field("gpu_memory", "str", "share of the GPU's memory that vLLM may take, 0..1"),
        is_share=True,
    ),
    Setting(
        "bytes_per_block", Field("block_bytes", "int", "a block in all layers of a worker", "bytes")
    ),
    Setting("kv_cache_dtype", Field("kv_cache_dtype", "str", "data type of the KV cache")),
    Setting("enable_prefix_caching", Field("prefix_caching", "bool", "prefix caching is on")),
    Setting("cudagraph_mode", Field("cudagraph_mode", "str", "CUDAGraphMode")),
    Setting("cudagraph_capture_sizes", Field("capture_sizes", "str", "sizes to capture, as 1,2,4")),
    Setting("enforce_eager", Field("enforce_eager", "bool", "graphs were switched off")),
    Setting("speculative_method", Field("spec_method", "str", "how tokens are drafted; None: not")),
    Setting(
        "num_speculative_tokens", Field("spec_tokens", "int", "tokens drafted in a step", "tokens")
    ),
    Setting(
        "enable_chunked_prefill", Field("chunked_prefill", "bool", "prompts may run in chunks")
    ),
    Setting(
        "async_scheduling",
        Field("async_scheduling", "bool", "a step is scheduled while the one before it runs"),
    ),
    Setting("scheduling_policy", Field("policy", "str", "order of waiting requests")),
    Setting("tensor_parallel_size", Field("tp_size", "int", "workers that share each layer")),
    Setting("pipeline_parallel_size", Field("pp_size", "int", "workers that share the layers")),
    Setting("data_parallel_size", Field("dp_size", "int", "engines that this one works with")),
)


def setting_value(setting: Setting, value: Value | None) -> Value | float | None:
    """A setting as people and JSON have it; None where it is not known or is no number."""
    if not setting.is_share or value is None:
        return value
    try:
        return float(str(value))
    except ValueError:
        return None
