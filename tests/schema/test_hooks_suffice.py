"""What a process says of its hooks tells which of its events can be believed to be all there."""

from __future__ import annotations

import pytest

from profilemate.annotate.hooks import HOOKS
from profilemate.annotate.hooks.gpu_timing import HOOKS as GPU_TIMING
from profilemate.schema import KINDS
from profilemate.schema.hooks import ENGINE_KINDS, ESSENTIAL, SUFFICIENT, HookReport, unseen

NAMES = {hook.name for hook in (*HOOKS, *GPU_TIMING)}


def test_every_kind_that_hooks_give_says_which_suffice() -> None:
    given = {kind for hook in (*HOOKS, *GPU_TIMING) for kind in hook.emits}
    assert given - {"kv.pool", "config"} == set(SUFFICIENT)
    assert set(SUFFICIENT) <= set(KINDS)
    assert {name for names in SUFFICIENT.values() for name in names} <= NAMES
    assert NAMES >= ESSENTIAL
    for hook in (*HOOKS, *GPU_TIMING):
        for kind in set(hook.emits) & set(SUFFICIENT):
            assert hook.name in SUFFICIENT[kind], f"{hook.name} gives {kind}"
    assert {"kv.alloc", "preempt", "sched.step"} < set(ENGINE_KINDS)
    assert not set(ENGINE_KINDS) & {"step", "graph.capture"}


@pytest.mark.parametrize("kind", SUFFICIENT)
def test_one_hook_in_trouble_is_enough_to_doubt(kind: str) -> None:
    fine = {name: HookReport("installed") for name in NAMES}
    assert unseen(kind, fine) is None
    for name in SUFFICIENT[kind]:
        for report, word in (
            (HookReport("failed", "it could not be wrapped"), "could not be wrapped"),
            (HookReport("off", "kv hooks are off"), "are off"),
            (HookReport("installed", "KeyError: 1", 212), "failed 212 times (KeyError: 1)"),
        ):
            told = unseen(kind, {**fine, name: report})
            assert told is not None
            assert name in told
            assert word in told
    others = NAMES - {*SUFFICIENT[kind]}
    broken = {name: HookReport("failed", "x") for name in others}
    assert unseen(kind, {**fine, **broken}) is None


def test_what_this_vllm_does_not_have_is_no_failure_unless_every_vllm_has_it() -> None:
    gone = HookReport("skipped", "BlockPool has no such method")
    assert unseen("kv.move", {"BlockPool.move_block_hashes": gone}) is None
    told = unseen("kv.alloc", {"BlockPool.get_new_blocks": gone})
    assert told == "the hook BlockPool.get_new_blocks found no place (BlockPool has no such method)"
    waiting = HookReport("waiting", "not imported here")
    assert unseen("kv.alloc", {"BlockPool.get_new_blocks": waiting}) is None
    assert unseen("kv.alloc", {}) is None
    assert unseen("session", {}) is None
