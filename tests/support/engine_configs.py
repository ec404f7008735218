"""Configurations as vLLM has them, as far as profilemate looks."""

from __future__ import annotations

import enum
from types import SimpleNamespace
from typing import Any


class Mode(enum.Enum):
    """Like vLLM's CUDAGraphMode."""

    FULL_AND_PIECEWISE = (2, 1)


class Config:
    """An object with these attributes, which can be weakly held as vLLM's can."""

    parallel_config: Any
    scheduler_config: Any

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


def config_of_032(*, index: int = 0, rank: int = 0, **more: Any) -> Config:
    """What vLLM 0.32 has; `index` and `rank` are the data-parallel ones."""
    parts = {
        "model_config": SimpleNamespace(max_model_len=4096, enforce_eager=False),
        "scheduler_config": SimpleNamespace(
            max_num_seqs=64,
            max_num_batched_tokens=2048,
            enable_chunked_prefill=True,
            async_scheduling=True,
            policy="fcfs",
        ),
        "cache_config": SimpleNamespace(
            block_size=16,
            num_gpu_blocks=1000,
            num_gpu_blocks_override=None,
            gpu_memory_utilization=0.92,
            cache_dtype="fp8",
            enable_prefix_caching=True,
        ),
        "compilation_config": SimpleNamespace(
            cudagraph_mode=Mode.FULL_AND_PIECEWISE, cudagraph_capture_sizes=[8, 4, 2, 1]
        ),
        "speculative_config": SimpleNamespace(method="ngram", num_speculative_tokens=3),
        "parallel_config": SimpleNamespace(
            tensor_parallel_size=2,
            pipeline_parallel_size=1,
            data_parallel_size=1,
            data_parallel_rank=rank,
            data_parallel_index=index,
        ),
        "instance_id": "ab12c",
    }
    return Config(**{**parts, **more})


def config_of_011() -> Config:
    """What vLLM 0.11 has where it differs: no index, no speculative configuration."""
    config = config_of_032(speculative_config=None)
    config.parallel_config = SimpleNamespace(
        tensor_parallel_size=1, pipeline_parallel_size=1, data_parallel_size=1, data_parallel_rank=3
    )
    config.scheduler_config = SimpleNamespace(
        max_num_seqs=64,
        max_num_batched_tokens=2048,
        chunked_prefill_enabled=True,
        async_scheduling=False,
        policy="fcfs",
    )
    return config
