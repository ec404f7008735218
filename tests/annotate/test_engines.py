"""Which engine is which: its number, its pools, its configuration, its ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from engine_configs import Config, config_of_011, config_of_032
from graph_rig import output_of
from listsink import ListSink
from places import ROOT

from profilemate import annotate
from profilemate.annotate import current
from profilemate.annotate.engine_config import config_of
from profilemate.annotate.identity import Identity
from profilemate.annotate.settings import Settings
from profilemate.schema.config import CONFIG

Make = Callable[..., Any]


@pytest.fixture
def installed(layout: None, sink: ListSink, on: Settings) -> ListSink:
    annotate.install(on)
    return sink


def said(sink: ListSink, *kinds: str) -> list[dict[str, Any]]:
    assert current.emitter is not None
    current.emitter.touch_session()
    current.emitter.flush()
    assert current.emitter.faults.counts == {}
    return [e.values for e in sink.events(*kinds)]


def scheduler_of(config: Any, kv_cache: Any = None, connector: Any = None) -> Any:
    from vllm.v1.core.sched.scheduler import Scheduler

    return Scheduler(config, kv_cache, connector)


# --------------------------------------------------------------------------- configuration


def by_name(values: tuple[Any, ...]) -> dict[str, Any]:
    names = [*(setting.name for setting in CONFIG), "instance"]
    return dict(zip(names, values, strict=True))


def test_every_setting_of_vllm_032_is_read() -> None:
    tensors = [
        SimpleNamespace(size=64_000, layers=["a", "b"]),
        SimpleNamespace(size=64_000, layers=["c"]),
    ]
    kv_cache = SimpleNamespace(num_blocks=500, kv_cache_tensors=tensors)
    assert by_name(config_of(config_of_032(), kv_cache)) == {
        "max_model_len": 4096,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 2048,
        "block_size": 16,
        "num_gpu_blocks": 500,
        "num_gpu_blocks_override": None,
        "gpu_memory_utilization": "0.92",
        "bytes_per_block": 128,
        "kv_cache_dtype": "fp8",
        "enable_prefix_caching": True,
        "cudagraph_mode": "FULL_AND_PIECEWISE",
        "cudagraph_capture_sizes": "1,2,4,8",
        "enforce_eager": False,
        "speculative_method": "ngram",
        "num_speculative_tokens": 3,
        "enable_chunked_prefill": True,
        "async_scheduling": True,
        "scheduling_policy": "fcfs",
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 1,
        "data_parallel_size": 1,
        "instance": "ab12c",
    }


def test_what_vllm_011_calls_otherwise_is_read_and_the_rest_unknown() -> None:
    tensors = [SimpleNamespace(size=1000, shared_by=["a"]) for _ in range(4)]
    kv_cache = SimpleNamespace(num_blocks=10, kv_cache_tensors=tensors)
    found = by_name(config_of(config_of_011(), kv_cache))
    assert found["bytes_per_block"] == 400
    assert found["enable_chunked_prefill"] is True
    assert (found["speculative_method"], found["num_speculative_tokens"]) == (None, None)


@pytest.mark.parametrize("config", [None, Config(), Config(cache_config=7, model_config=None)])
def test_what_is_not_there_is_unknown(config: Any) -> None:
    assert set(config_of(config)) == {None}


def test_tensors_of_a_kind_that_is_not_known_say_nothing_of_bytes() -> None:
    for tensor in (
        SimpleNamespace(size=100),
        SimpleNamespace(size=100, layers=[], host_resident=True),
        SimpleNamespace(size=100, shared_by=[], block_stride=4),
        SimpleNamespace(size=None, shared_by=[]),
    ):
        kv_cache = SimpleNamespace(num_blocks=10, kv_cache_tensors=[tensor])
        assert by_name(config_of(None, kv_cache))["bytes_per_block"] is None


def test_the_configuration_is_said_with_the_session_and_kept_when_the_engine_is_gone(
    installed: ListSink,
) -> None:
    scheduler = scheduler_of(config_of_032())
    config = said(installed, "config")[-1]
    assert (config["max_num_seqs"], config["capture_sizes"]) == (64, "1,2,4,8")
    scheduler.vllm_config.scheduler_config.max_num_seqs = 32  # resolved later
    assert said(installed, "config")[-1]["max_num_seqs"] == 32
    del scheduler
    assert said(installed, "config")[-1]["max_num_seqs"] == 32


# --------------------------------------------------------------------------- engines of a process


def test_a_scheduler_without_any_request_leaves_a_word(installed: ListSink) -> None:
    scheduler = scheduler_of(config_of_032())
    kinds = [e.kind for e in installed.events("session", "config", "kv.pool")]
    assert kinds == ["session", "config", "kv.pool"]
    assert scheduler.running == []


def test_each_engine_of_a_process_has_a_number_in_all_its_events(
    installed: ListSink, request_of: Make
) -> None:
    from vllm.v1.worker.gpu_worker import Worker

    for number, name in enumerate(("a", "b")):
        config = config_of_032()
        worker = Worker()
        worker.vllm_config = config
        scheduler = scheduler_of(config)
        request = request_of(name)
        scheduler.add_request(request)
        scheduler.schedule()
        worker.execute_model(output_of(1))
        worker.sample_tokens(None)
        scheduler.kv_cache_manager.record_prefix_cache_stats(request, 0)
        scheduler._preempt_request(request, 0.0)
        scheduler.update_from_output(None)
        installed.messages.clear()
        scheduler.schedule()
        expected = number or None
        assert [v.get("engine") for v in said(installed, "sched.step")] == [expected]
        pools = {v["pool"]: v for v in said(installed, "kv.pool")}
        assert pools[number].get("engine") == expected
        assert pools[number]["owner"] == "scheduler"
    scheduler.add_request(request)
    scheduler.schedule()
    worker.execute_model(output_of(1))
    worker.sample_tokens(None)
    scheduler.kv_cache_manager.record_prefix_cache_stats(request, 0)
    scheduler._preempt_request(request, 0.0)
    scheduler.update_from_output(None)
    kinds = ("request", "kv.lookup", "preempt", "step.sample")
    found = said(installed, *kinds)
    assert len(found) == 5
    assert {v["engine"] for v in found} == {1}


def test_the_pool_of_the_scheduler_s_manager_says_so_whichever_came_first(
    installed: ListSink,
) -> None:
    from vllm.v1.core.block_pool import BlockPool

    scheduler = scheduler_of(config_of_032(), connector=lambda: BlockPool(5))
    pools = {v["num_blocks"]: v for v in said(installed, "kv.pool")}
    assert pools[4]["pool"] == 0
    assert "owner" not in pools[4]
    assert (pools[9]["pool"], pools[9]["owner"]) == (1, "scheduler")
    assert scheduler.connector is not None


def test_a_scheduler_that_was_there_before_the_hooks_owns_its_pool_too(
    layout: None, sink: ListSink, on: Settings, request_of: Make
) -> None:
    scheduler = scheduler_of(config_of_032())
    annotate.install(on)
    scheduler.add_request(request_of("a"))
    scheduler.schedule()
    (pool,) = {v["pool"]: v for v in said(sink, "kv.pool")}.values()
    assert pool["owner"] == "scheduler"


# --------------------------------------------------------------------------- ranks


def test_a_dense_engine_is_told_by_its_index() -> None:
    for index in (0, 1):
        identity = Identity()
        identity.saw_engine(config_of_032(index=index).parallel_config)
        session = identity.session(0, 0)
        assert (session[3], session[6]) == (index, os.getpid())


def test_without_an_index_it_is_the_rank() -> None:
    identity = Identity()
    identity.saw_worker(0, config_of_011().parallel_config)
    assert identity.session(0, 0)[3] == 3


def test_a_worker_says_which_process_its_engine_is() -> None:
    code = """
import multiprocessing, os, sys
from profilemate.annotate.identity import Identity

def work(queue):
    identity = Identity()
    identity.saw_worker(1, None)
    queue.put(identity.session(0, 0)[6])

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        child = context.Process(target=work, args=(queue,))
        child.start()
        print(queue.get() == os.getpid())
        child.join()
"""
    place = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"engine_pid_{os.getpid()}.py")
    with open(place, "w") as file:
        file.write(code)
    try:
        done = subprocess.run(
            [sys.executable, place],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        os.unlink(place)
    assert done.stdout.split() == ["True"] * 3


# --------------------------------------------------------------------------- steps and requests


@pytest.mark.parametrize("queue", ["skipped_waiting", "kv_holding_waiting"])
def test_who_waits_for_a_load_of_blocks_waits(
    installed: ListSink, request_of: Make, queue: str
) -> None:
    from vllm.v1.core.sched.scheduler import Scheduler

    setattr(Scheduler, queue, [request_of("loads"), request_of("too")])
    scheduler = scheduler_of(None)
    scheduler.schedule()
    assert [v["waiting"] for v in said(installed, "sched.step")] == [2]


def test_sampling_is_the_rest_of_the_step_before_it(installed: ListSink) -> None:
    from vllm.v1.worker.gpu_worker import Worker

    worker = Worker()
    for _ in range(2):
        worker.execute_model(output_of(1))
        worker.sample_tokens(None)
    assert [v["step"] for v in said(installed, "step.sample")] == [1, 2]


def test_a_partial_block_that_is_stored_again_is_nothing_new(
    installed: ListSink, request_of: Make
) -> None:
    from vllm.v1.core.block_pool import BlockPool

    pool, request = BlockPool(6), request_of("a")
    (block,) = pool.get_new_blocks(1)
    for tokens in (4, 4, 4, 8, 8):
        pool.cache_partial_block(request, block, tokens, 0, 16)
    assert len(said(installed, "kv.cache")) == 2
    pool.free_blocks([block])
    pool.evict_blocks({block.block_id})
    pool.cache_partial_block(request, block, 8, 0, 16)
    assert len(said(installed, "kv.cache")) == 3


def test_a_further_key_of_a_block_that_was_there_is_nothing_new_either(
    installed: ListSink, request_of: Make
) -> None:
    from vllm.v1.core.block_pool import BlockPool

    class Pool(BlockPool):  # type: ignore[misc]
        """Keeps the first key on the block and further ones beside it, as vLLM 0.25 does."""

        def __init__(self, size: int) -> None:
            super().__init__(size)
            self.cached_block_hashes_by_block: dict[int, set[Any]] = {}

        def keep(self, block: Any, key: Any) -> None:
            if block.block_hash is None:
                block.block_hash = key
            elif block.block_hash != key:
                self.cached_block_hashes_by_block.setdefault(block.block_id, set()).add(key)

    def store(self: Any, request: Any, block: Any, num_tokens: int, *_: Any) -> Any:
        self.keep(block, (request.request_id, num_tokens))
        return (request.request_id, num_tokens)

    annotate.uninstall()
    BlockPool.cache_partial_block = store
    annotate.install(Settings(wanted=True, reason="a test"))
    pool, request = Pool(6), request_of("a")
    (block,) = pool.get_new_blocks(1)
    for tokens in (8, 4, 4, 8, 4):
        pool.cache_partial_block(request, block, tokens, 0, 16)
    assert len(said(installed, "kv.cache")) == 2
