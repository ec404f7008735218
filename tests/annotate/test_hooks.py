"""What each hook reads, on the stand-in layout; the real vLLM is in tests/e2e."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from listsink import ListSink

from profilemate import annotate
from profilemate.annotate import current
from profilemate.annotate.settings import Settings
from profilemate.schema import Event

Make = Callable[..., Any]


class Rig:
    """A scheduler of the stand-in layout with hooks in it, and what they emitted."""

    def __init__(self, sink: ListSink) -> None:
        from vllm.v1.core.sched.scheduler import Scheduler

        self.sink = sink
        self.scheduler = Scheduler()
        self.manager = self.scheduler.kv_cache_manager
        self.pool = self.manager.block_pool

    def events(self, *kinds: str) -> list[Event]:
        """Everything since the last call."""
        assert current.emitter is not None
        current.emitter.flush()
        assert current.emitter.faults.count == 0
        found = self.sink.events(*kinds)
        self.sink.messages.clear()
        return found

    def values(self, *kinds: str) -> list[dict[str, Any]]:
        times = ("ago", "dur")
        return [
            {"op": e.kind, **{k: v for k, v in e.values.items() if k not in times}}
            for e in self.events(*kinds)
        ]


@pytest.fixture
def rig(layout: None, sink: ListSink, on: Settings) -> Rig:
    annotate.install(on)
    return Rig(sink)


def test_alloc_and_free_carry_ids_usage_and_the_request(rig: Rig, request_of: Make) -> None:
    request = request_of("r 1", 40)
    rig.manager.allocate_slots(request, 40)
    rig.manager.free(request)
    assert rig.values() == [
        {"op": "kv.alloc", "pool": 0, "used": 3, "ids": (1, 2, 3), "req": "r 1"},
        {"op": "kv.free", "pool": 0, "used": 0, "ids": (3, 2, 1), "req": "r 1"},
    ]


def test_free_reads_a_one_shot_iterator_once_and_tells_who_became_free(rig: Rig) -> None:
    blocks = rig.pool.get_new_blocks(3)
    rig.pool.touch(blocks[:1])
    rig.events()
    rig.pool.free_blocks(reversed([rig.pool.null_block, *blocks]))
    assert rig.values() == [
        {"op": "kv.free", "pool": 0, "used": 1, "ids": (3, 2, 1), "freed": (3, 2)}
    ]
    rig.pool.free_blocks(ordered_blocks=blocks[:1])
    assert rig.values() == [{"op": "kv.free", "pool": 0, "used": 0, "ids": (1,)}]
    assert rig.pool.get_num_free_blocks() == 9


def test_a_touch_is_a_hit_only_while_slots_are_allocated(rig: Rig, request_of: Make) -> None:
    first, second = rig.pool.get_new_blocks(2)
    rig.pool.free_blocks([first])
    rig.events()
    rig.manager.allocate_slots(request_of("a"), 0, new_computed_blocks=[first, second])
    rig.pool.touch([second])
    touch, _, pin = rig.values("kv.touch", "kv.alloc")
    assert touch == {
        "op": "kv.touch",
        "pool": 0,
        "used": 2,
        "ids": (1, 2),
        "revived": (1,),
        "req": "a",
        "hit": True,
    }
    assert pin == {
        "op": "kv.touch",
        "pool": 0,
        "used": 2,
        "ids": (2,),
        "revived": (),
        "hit": False,
    }


def test_touch_takes_groups_as_older_versions_give_them(rig: Rig) -> None:
    blocks = rig.pool.get_new_blocks(2)
    rig.events()
    # vLLM 0.11 and 0.12 pass a tuple of lists; their own touch loops over both levels.
    from profilemate.annotate.hooks.block_pool import _flat

    assert _flat(([blocks[0]], [blocks[1]])) == blocks == _flat(blocks)


def test_evictions_are_one_event_and_come_before_the_allocation(rig: Rig, request_of: Make) -> None:
    owner = request_of("owner")
    blocks = rig.pool.get_new_blocks(9)
    rig.pool.cache_full_blocks(
        request=owner,
        blocks=blocks,
        num_cached_blocks=1,
        num_full_blocks=4,
        block_size=16,
        kv_cache_group_id=0,
        block_mask=[True, False, True],
    )
    rig.pool.free_blocks(blocks)
    rig.manager.allocate_slots(request_of("new"), 48)
    ops = rig.values()
    assert [op["op"] for op in ops] == [
        "kv.alloc",
        "kv.cache",
        "kv.free",
        "kv.evict",
        "kv.alloc",
    ]
    assert ops[1] == {"op": "kv.cache", "pool": 0, "used": 9, "ids": (2, 4), "req": "owner"}
    assert ops[3] == {
        "op": "kv.evict",
        "pool": 0,
        "used": 3,
        "ids": (2,),
        "req": "new",
        "cause": "alloc",
    }


def test_a_connector_s_eviction_says_so(rig: Rig, request_of: Make) -> None:
    (block,) = rig.pool.get_new_blocks(1)
    rig.pool.cache_partial_block(request_of("a"), block, 8, 2, 16)
    rig.pool.evict_blocks({block.block_id})
    rig.pool.evict_blocks({block.block_id})
    cache, evict = rig.values("kv.cache", "kv.evict")
    assert (cache["partial"], cache["group"]) == (True, 2)
    assert (evict["ids"], evict["cause"]) == ((1,), "connector")


def test_moves_resets_and_nothing_for_the_null_block(rig: Rig, request_of: Make) -> None:
    a, b = rig.pool.get_new_blocks(2)
    rig.pool.move_block_hashes(a, b)  # nothing cached: nothing moves
    rig.pool.cache_partial_block(request_of("x"), a, 8, 0, 16)
    rig.pool.cache_partial_block(request_of("x"), rig.pool.null_block, 8, 0, 16)
    rig.pool.move_block_hashes(a, b)
    rig.pool.touch([rig.pool.null_block])
    rig.pool.free_blocks([rig.pool.null_block])
    rig.pool.reset_prefix_cache()
    rig.pool.free_blocks([b, a])
    rig.pool.reset_prefix_cache()
    ops = rig.values()
    assert [op["op"][3:] for op in ops] == ["alloc", "cache", "move", "reset", "free", "reset"]
    assert (ops[2]["src"], ops[2]["dst"]) == ((1,), (2,))
    assert [ops[3]["ok"], ops[5]["ok"]] == [False, True]


def test_blocks_of_another_pool_are_counted_there_and_once(rig: Rig) -> None:
    from vllm.v1.core.block_pool import BlockPool

    other = BlockPool(5)
    (ours,), (theirs,) = rig.pool.get_new_blocks(1), other.get_new_blocks(1)
    rig.events()
    rig.pool.free_blocks([ours, theirs])
    frees = rig.values("kv.free")
    assert sorted((f["pool"], f["ids"]) for f in frees) == [(0, (1,)), (1, (1,))]


def test_a_request_that_does_not_fit_is_said(rig: Rig, request_of: Make) -> None:
    assert rig.manager.allocate_slots(request_of("big"), 400) is None
    assert rig.values() == [
        {"op": "kv.alloc_failed", "pool": 0, "used": 0, "req": "big", "free": 9}
    ]


def test_deferred_frees_know_their_request(rig: Rig, request_of: Make) -> None:
    request = request_of("later")
    rig.manager.allocate_slots(request, 32)
    blocks = rig.manager.pop_blocks_for_free(request)
    rig.events()
    rig.pool.free_blocks(reversed(blocks))
    (free,) = rig.values()
    assert free["req"] == "later"


def test_the_request_is_forgotten_when_allocation_raises(rig: Rig, request_of: Make) -> None:
    with pytest.raises(TypeError):
        rig.manager.allocate_slots(request_of("bad"), None)
    rig.pool.get_new_blocks(1)
    (alloc,) = rig.values()
    assert "req" not in alloc


def test_lookups_as_the_newest_version_counts_them(rig: Rig, request_of: Make) -> None:
    rig.manager.record_prefix_cache_stats(request_of("a", 100), 64)
    rig.manager.record_prefix_cache_stats(request_of("b", 10, num_preemptions=1), num_hits=0)
    rig.manager.record_prefix_cache_stats(request_of("c", skip_reading_prefix_cache=True), 0)
    rig.manager.get_computed_blocks(request_of("d"))
    assert rig.values() == [
        {"op": "kv.lookup", "req": "a", "tokens": 100, "hits": 64, "preempted": False},
        {"op": "kv.lookup", "req": "b", "tokens": 10, "hits": 0, "preempted": True},
    ]


def test_lookups_as_older_versions_count_them(
    layout: None, sink: ListSink, on: Settings, request_of: Make
) -> None:
    from vllm.v1.core.kv_cache_manager import KVCacheManager

    del KVCacheManager.record_prefix_cache_stats
    KVCacheManager.get_computed_blocks = lambda self, request: ([], 48)
    try:
        annotate.install(on)
        rig = Rig(sink)
        rig.manager.get_computed_blocks(request_of("a", 100))
        (lookup,) = rig.values()
        assert (lookup["tokens"], lookup["hits"]) == (100, 48)
    finally:
        annotate.uninstall()


def test_a_step_flushes_and_is_numbered(rig: Rig, request_of: Make) -> None:
    rig.scheduler.add_request(request_of("a", 20))
    rig.scheduler.add_request(request_of("b", 400))
    output = rig.scheduler.schedule()
    assert [e.kind for e in rig.sink.events()] == [
        "request",
        "request",
        "kv.alloc",
        "kv.alloc_failed",
        "sched.step",
    ]
    step = rig.values("sched.step")[0]
    assert step == {
        "op": "sched.step",
        "step": 1,
        "num_tokens": 1,
        "num_reqs": 1,
        "new": 1,
        "preempted": 0,
        "running": 1,
        "waiting": 1,
    }
    rig.scheduler.update_from_output(output)
    # The engine may sleep now, so nothing may wait for the next step.
    assert [e.kind for e in rig.sink.events()] == ["kv.free", "request"]


def test_preemptions_say_what_was_lost(rig: Rig, request_of: Make) -> None:
    victim = request_of("v", 48, num_computed_tokens=47)
    rig.manager.allocate_slots(victim, 48)
    rig.scheduler._preempt_request(victim, 0.0)
    assert rig.values("preempt") == [{"op": "preempt", "req": "v", "blocks": 3, "tokens": 47}]


def test_preemptions_of_the_oldest_version_are_told_at_the_step_s_end(
    layout: None, sink: ListSink, on: Settings, request_of: Make
) -> None:
    import vllm.v1.core.sched.scheduler as module

    del module.Scheduler._preempt_request
    annotate.install(on)
    targets = {s.name: s.target for s in annotate.status()}
    fallback = "vllm.v1.core.sched.scheduler:KVCacheManager.free"
    assert targets["Scheduler._preempt_request"] == fallback
    rig = Rig(sink)
    victim, done = request_of("v", 48, num_computed_tokens=47), request_of("done", 16)
    for request in (victim, done):
        rig.manager.allocate_slots(request, request.num_tokens)
    rig.events()
    rig.manager.free(done)  # finished: its status stays as it was
    rig.manager.free(victim)
    victim.status.name = "PREEMPTED"
    victim.num_computed_tokens = 0
    assert [op["op"] for op in rig.values()] == ["kv.free", "kv.free"]
    rig.scheduler.schedule()
    assert rig.values("preempt") == [{"op": "preempt", "req": "v", "blocks": 3, "tokens": 47}]
    rig.scheduler.schedule()
    assert rig.values("preempt") == []


def test_usage_that_no_hook_saw_is_said_at_the_step_s_end(rig: Rig) -> None:
    rig.pool.get_new_blocks(1)
    rig.events()
    rig.pool.free.pop()  # as an attention sink takes its blocks
    rig.scheduler.schedule()
    assert rig.values("kv.usage") == [{"op": "kv.usage", "pool": 0, "used": 2}]
    rig.scheduler.schedule()
    assert rig.values("kv.usage") == []


def test_worker_steps_are_numbered_like_the_scheduler_s(rig: Rig) -> None:
    from vllm.v1.worker.gpu_worker import Worker

    output = rig.scheduler.schedule()
    assert Worker().execute_model(output) == 0
    assert Worker().execute_model(scheduler_output=output) == 0
    # Nothing was run, so nothing chose a mode and there is no range to find launches in.
    assert rig.sink.ranges == []
    roles = [e.values["role"] for e in rig.sink.events("session")]
    assert roles == ["engine", "engine+worker"]
    steps = rig.values("step")
    assert [s["step"] for s in steps] == [1, 2]
    assert steps[0] == {
        "op": "step",
        "step": 1,
        "unpadded": 0,
        "reqs": 0,
        "prefill_tokens": 0,
        "decode_tokens": 0,
        "launches": 0,
    }


def test_kv_hooks_have_a_switch(layout: None, sink: ListSink) -> None:
    status = annotate.install(Settings(wanted=True, kv=False))
    off = {s.name for s in status if s.why == "kv hooks are off"}
    assert "BlockPool.get_new_blocks" in off
    assert "Scheduler.schedule" not in off
    rig = Rig(sink)
    rig.pool.get_new_blocks(1)
    assert rig.values() == []
