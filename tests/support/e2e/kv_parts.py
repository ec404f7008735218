"""vLLM's own scheduler and block pool without an engine, also those of other versions.

    python kv_parts.py MODEL RESULT

Run by vLLM's own interpreter, or by that over the sources of another version. A real Scheduler is
given requests and made-up tokens; everything that it does with blocks goes through the hooks. Now
and then the state of the pool is written down, for the test to compare with what our messages add
up to.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

BLOCK_SIZE = 32
NUM_BLOCKS = 13
VOCABULARY = 200


def call(function: Callable[..., Any], **known: Any) -> Any:
    """Call with those of the arguments that this version takes."""
    parameters = inspect.signature(function).parameters
    return function(**{name: value for name, value in known.items() if name in parameters})


class Rig:
    """A scheduler of this version, its pool, and the requests in it."""

    def __init__(self, model: str) -> None:
        args = importlib.import_module("vllm.engine.arg_utils").EngineArgs(
            model=model,
            load_format="dummy",
            max_model_len=512,
            max_num_seqs=8,
            max_num_batched_tokens=512,
            enforce_eager=True,
            enable_prefix_caching=True,
        )
        config: Any = args.create_engine_config()
        # Here, because vLLM 0.11 takes no such size on the CPU and later ones no smaller one.
        config.cache_config.block_size = BLOCK_SIZE
        config.cache_config.num_gpu_blocks = NUM_BLOCKS
        utils = importlib.import_module("vllm.v1.core.kv_cache_utils")
        self.hash_function = _sha256()
        utils.init_none_hash(self.hash_function)
        self.hasher = utils.get_request_block_hasher(BLOCK_SIZE, self.hash_function)
        scheduler = importlib.import_module("vllm.v1.core.sched.scheduler").Scheduler
        self.scheduler: Any = call(
            scheduler,
            vllm_config=config,
            kv_cache_config=_kv_cache_config(),
            structured_output_manager=MagicMock(**{"should_advance.return_value": False}),
            block_size=BLOCK_SIZE,
            hash_block_size=BLOCK_SIZE,
            log_stats=True,
        )
        self.pool: Any = self.scheduler.kv_cache_manager.block_pool
        self.steps: list[dict[str, Any]] = []
        self.lookups = {"queries": 0, "hits": 0}

    def add(self, name: str, tokens: Sequence[int], max_tokens: int) -> None:
        """A request arrives."""
        self.scheduler.add_request(self.request(name, tokens, max_tokens))

    def request(self, name: str, tokens: Sequence[int], max_tokens: int = 1) -> Any:
        """A request of this version."""
        parameters = importlib.import_module("vllm").SamplingParams(
            max_tokens=max_tokens, temperature=0.0, ignore_eos=True
        )
        return call(
            importlib.import_module("vllm.v1.request").Request,
            request_id=name,
            prompt_token_ids=list(tokens),
            sampling_params=parameters,
            pooling_params=None,
            eos_token_id=None,
            block_hasher=self.hasher,
        )

    def step(self) -> int:
        """Schedule, and answer with one token for everyone who has had all of his prompt."""
        output = self.scheduler.schedule()
        preempted = getattr(output, "preempted_req_ids", None)
        self.steps.append(
            {
                "tokens": output.total_num_scheduled_tokens,
                "requests": len(output.num_scheduled_tokens),
                "preempted": None if preempted is None else sorted(preempted),
            }
        )
        ids = list(output.num_scheduled_tokens)
        sampled = [
            [len(self.steps) % VOCABULARY] if _is_generating(self.scheduler.requests[r]) else []
            for r in ids
        ]
        made = importlib.import_module("vllm.v1.outputs").ModelRunnerOutput
        answer = {
            "req_ids": ids,
            "req_id_to_index": {r: i for i, r in enumerate(ids)},
            "sampled_token_ids": sampled,
            "logprobs": None,
            "prompt_logprobs_dict": {},
            "pooler_output": [None] * len(ids),
        }
        fields = {f.name for f in dataclasses.fields(made)}
        outputs = self.scheduler.update_from_output(
            output, made(**{k: v for k, v in answer.items() if k in fields})
        )
        self._count(outputs)
        return int(output.total_num_scheduled_tokens)

    def _count(self, outputs: Any) -> None:
        """Add what vLLM's own counters say of prefix-cache look-ups in this step."""
        for engine_outputs in outputs.values():
            stats = getattr(engine_outputs.scheduler_stats, "prefix_cache_stats", None)
            for name in self.lookups if stats is not None else ():
                # Since vLLM 0.12 requests that come back from a preemption count apart.
                preempted = getattr(stats, f"preempted_{name}", 0)
                self.lookups[name] += getattr(stats, name) + preempted

    def drain(self) -> None:
        """Step until nobody is left."""
        while self.scheduler.requests:
            self.step()

    def state(self) -> dict[str, Any]:
        """The pool in its own words."""
        blocks = [b for b in self.pool.blocks if not b.is_null]
        return {
            "references": {b.block_id: b.ref_cnt for b in blocks if b.ref_cnt},
            "cached": [b.block_id for b in blocks if b.block_hash is not None],
            "free": self.pool.get_num_free_blocks(),
        }


def _is_generating(request: Any) -> bool:
    # The scheduler has counted the tokens of this step already.
    return bool(request.num_computed_tokens >= request.num_tokens)


def _sha256() -> Any:
    for place in ("vllm.utils.hashing", "vllm.utils"):
        try:
            return importlib.import_module(place).sha256
        except (ImportError, AttributeError):
            continue
    raise ImportError("vLLM has no sha256")


def _kv_cache_config() -> Any:
    interface = importlib.import_module("vllm.v1.kv_cache_interface")
    torch: Any = importlib.import_module("torch")
    spec = call(
        interface.FullAttentionSpec,
        block_size=BLOCK_SIZE,
        num_kv_heads=1,
        head_size=8,
        dtype=torch.float32,
        use_mla=False,
    )
    group = interface.KVCacheGroupSpec(["layer"], spec)
    return call(
        interface.KVCacheConfig,
        num_blocks=NUM_BLOCKS,
        kv_cache_tensors=[],
        kv_cache_groups=[group],
    )


def drive(rig: Rig, note: Callable[[], None]) -> None:
    """Everything that can happen to a block: new, shared, evicted, preempted, reset."""
    prefix = [1 + i % 150 for i in range(2 * BLOCK_SIZE)]
    rig.add("first", [*prefix, 151, 152], 3)
    rig.step()
    note()
    rig.add("shares", [*prefix, 153], 3)  # two blocks are held twice
    rig.step()
    note()
    rig.drain()
    note()
    rig.add("again", [*prefix, 154, 155, 156], 3)  # two blocks come back from the free queue
    rig.drain()
    note()
    for i in range(4):  # four times two blocks fit, four times four do not
        rig.add(f"grows {i}", [10 * i + j % 7 for j in range(BLOCK_SIZE + 20)], 2 * BLOCK_SIZE)
    for _ in range(20):
        rig.step()
    note()
    rig.drain()
    note()
    rig.add("long", [160 + i % 30 for i in range(10 * BLOCK_SIZE)], 2)
    rig.drain()
    note()
    assert rig.scheduler.reset_prefix_cache() is not False
    note()


def directly(rig: Rig) -> None:
    """What the scheduler does not do in so small a set-up, called on the pool itself."""
    pool = rig.pool
    if hasattr(pool, "evict_blocks"):
        cached = next(b for b in pool.blocks if b.block_hash is not None)
        pool.evict_blocks({cached.block_id})
    if hasattr(pool, "cache_partial_block"):
        (block,) = pool.get_new_blocks(1)
        request = rig.request("partial", range(1, BLOCK_SIZE + 8))
        pool.cache_partial_block(
            request=request,
            block=block,
            num_tokens=BLOCK_SIZE,
            kv_cache_group_id=0,
            block_size=2 * BLOCK_SIZE,
        )
        if hasattr(pool, "move_block_hashes"):
            (copy,) = pool.get_new_blocks(1)
            pool.move_block_hashes(block, copy)
            pool.free_blocks([copy])
        pool.free_blocks([block])
    if hasattr(pool, "unpin_blocks"):
        pool.unpin_blocks(iter(pool.get_new_blocks(2)), lambda block: None)


def main(arguments: Sequence[str]) -> None:
    """See the top of this file."""
    from graph_engine import hooks

    from profilemate import annotate
    from profilemate.annotate import current

    model, result = arguments
    with hooks() as sink:
        rig = Rig(model)
        emitter = current.emitter
        assert emitter is not None
        states: list[tuple[int, dict[str, Any]]] = []

        def note() -> None:
            emitter.flush()
            states.append((len(sink.calls), rig.state()))

        drive(rig, note)
        rig.add("last", [1 + i % 150 for i in range(3 * BLOCK_SIZE)], 2)
        rig.drain()
        directly(rig)
        note()
        found = {
            "version": importlib.import_module("vllm.version").__version__,
            "states": states,
            "steps": rig.steps,
            "lookups": rig.lookups,
            "hooks": {h.name: [h.state, h.target or h.why] for h in annotate.status()},
            "messages": sink.calls,
        }
    Path(result).write_text(json.dumps(found), encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1:])
