"""Drives vLLM's own Scheduler, KVCacheManager and BlockPool without a model or a GPU.

Every step schedules for real; the model's answer is one made-up token for each request that has
reached the end of its known tokens. Used by `bench_overhead` and by tests that need many steps in
little time. Runs in an environment with vLLM (0.32; the constructor arguments are asked from the
classes, so neighbours work too).
"""

from __future__ import annotations

import inspect
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def _config(model: Path, *, max_seqs: int, max_len: int, caching: bool, block_size: int) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs(
        model=str(model),
        tokenizer=str(model),
        load_format="dummy",
        max_model_len=max_len,
        max_num_seqs=max_seqs,
        max_num_batched_tokens=max(8192, max_len),
        block_size=block_size,
        enable_prefix_caching=caching,
        enforce_eager=True,
        skip_tokenizer_init=True,  # there is no tokenizer, and the scheduler needs none
    ).create_engine_config()


def write_model(folder: Path) -> Path:
    """A config of a tiny Llama: enough for the scheduler, no tokenizer and no weights."""
    import json

    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 258,
        "max_position_embeddings": 32768,
        "torch_dtype": "bfloat16",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


class Load:
    """A scheduler with its pool, and the loop that feeds it.

    Args:
        num_blocks: Size of the pool, the null block included.
        max_seqs: Largest batch.
        block_size: Tokens per block.
        caching: Prefix caching.
        metrics: Give the pool vLLM's own KVCacheMetricsCollector, sampling every block.
    """

    def __init__(
        self,
        num_blocks: int,
        *,
        max_seqs: int = 256,
        max_len: int = 8192,
        block_size: int = 32,
        caching: bool = True,
        metrics: bool = False,
    ) -> None:
        import torch
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
        from vllm.v1.structured_output import StructuredOutputManager

        self._folder = tempfile.TemporaryDirectory(prefix="profilemate-load-")
        model = write_model(Path(self._folder.name))
        config = _config(
            model, max_seqs=max_seqs, max_len=max_len, caching=caching, block_size=block_size
        )
        config.cache_config.num_gpu_blocks = num_blocks
        if metrics:
            config.observability_config.kv_cache_metrics = True
            config.observability_config.kv_cache_metrics_sample = 1.0
        spec = FullAttentionSpec(
            block_size=block_size, num_kv_heads=2, head_size=32, dtype=torch.bfloat16
        )
        kv = KVCacheConfig(
            num_blocks=num_blocks,
            kv_cache_tensors=[],
            kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
        )
        wanted = {
            "vllm_config": config,
            "kv_cache_config": kv,
            "log_stats": True,
            "block_size": block_size,
            "hash_block_size": block_size,
            "structured_output_manager": StructuredOutputManager(config),
        }
        known = inspect.signature(Scheduler.__init__).parameters
        self.block_size = block_size
        self.scheduler = Scheduler(**{k: v for k, v in wanted.items() if k in known})
        self.pool = self.scheduler.kv_cache_manager.block_pool
        self._added = 0

    def add(self, prompt: list[int], max_tokens: int) -> str:
        """Queue a request; returns its id."""
        from vllm import SamplingParams
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.request import Request

        if not self._added:
            init_none_hash(sha256)
        self._added += 1
        name = f"load-{self._added}"
        params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        params.update_from_generation_config({}, 257)
        request = Request(
            request_id=name,
            prompt_token_ids=prompt,
            sampling_params=params,
            pooling_params=None,
            block_hasher=get_request_block_hasher(self.block_size, sha256),
        )
        self.scheduler.add_request(request)
        return name

    def step(self) -> tuple[Any, Any]:
        """One scheduler step and the made-up answer to it: (SchedulerOutput, engine outputs)."""
        from vllm.v1.outputs import ModelRunnerOutput

        output = self.scheduler.schedule()
        names = list(output.num_scheduled_tokens)
        sampled = []
        for name in names:
            request = self.scheduler.requests[name]
            done = request.num_computed_tokens >= request.num_tokens
            sampled.append([1 + request.num_tokens % 250] if done else [])
        answer = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: i for i, name in enumerate(names)},
            sampled_token_ids=sampled,
            logprobs=None,
            prompt_logprobs_dict={},
            pooler_output=[],
        )
        return output, self.scheduler.update_from_output(output, answer)

    def run(self, limit: int = 100_000) -> int:
        """Step until nothing is left to do; returns the number of steps."""
        steps = 0
        while self.scheduler.has_unfinished_requests() and steps < limit:
            self.step()
            steps += 1
        return steps
