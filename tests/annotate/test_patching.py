from __future__ import annotations

import os
import subprocess
import sys

import pytest
from listsink import ListSink
from places import LAYOUTS, ROOT

from profilemate import annotate
from profilemate.annotate.emit import Emitter
from profilemate.annotate.hook import Hook, HookStatus, Method, Original, Target
from profilemate.annotate.hooks import HOOKS
from profilemate.annotate.patcher import Patcher
from profilemate.annotate.settings import Settings
from profilemate.schema import KINDS


def pool_class() -> type:
    from vllm.v1.core.block_pool import BlockPool

    return BlockPool  # type: ignore[no-any-return]


def wrapped() -> bool:
    return hasattr(pool_class().__dict__["get_new_blocks"], "__wrapped__")


ORDERS = {
    "install, import": ("install", "import"),
    "import, install": ("import", "install"),
    "install twice, import": ("install", "install", "import"),
    "import, install twice": ("import", "install", "install"),
    "import, install, uninstall, install": ("import", "install", "uninstall", "install"),
    "install, uninstall, install, import": ("install", "uninstall", "install", "import"),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_hooks_go_in_once_in_any_order(
    layout: None, sink: ListSink, on: Settings, order: tuple[str, ...]
) -> None:
    for action in order:
        if action == "install":
            annotate.install(on)
        elif action == "uninstall":
            annotate.uninstall()
        else:
            pool_class()
    method = pool_class().__dict__["get_new_blocks"]
    assert hasattr(method, "__wrapped__")
    assert not hasattr(method.__wrapped__, "__wrapped__")
    states = {s.name: s.state for s in annotate.status()}
    assert states["BlockPool.get_new_blocks"] == "installed"


def test_uninstall_restores_every_method(layout: None, sink: ListSink, on: Settings) -> None:
    before = dict(vars(pool_class()))
    annotate.install(on)
    assert wrapped()
    annotate.uninstall()
    assert dict(vars(pool_class())) == before
    assert annotate.status() == []


def test_uninstall_before_the_import_leaves_vllm_alone(
    layout: None, sink: ListSink, on: Settings
) -> None:
    annotate.install(on)
    annotate.uninstall()
    assert not wrapped()


def test_a_wrapper_under_somebody_else_s_only_hands_on(
    layout: None, sink: ListSink, on: Settings
) -> None:
    pool = pool_class()
    annotate.install(on)
    ours = pool.__dict__["get_new_blocks"]

    def theirs(self: object, num_blocks: int) -> object:
        return ours(self, num_blocks)

    pool.get_new_blocks = theirs  # type: ignore[attr-defined]
    annotate.uninstall()
    assert pool.__dict__["get_new_blocks"] is theirs
    sink.messages.clear()
    assert len(pool(5).get_new_blocks(2)) == 2
    assert sink.messages == []


def test_nothing_is_imported_for_it(layout: None, sink: ListSink, on: Settings) -> None:
    annotate.install(on)
    assert [n for n in sys.modules if n.partition(".")[0] == "vllm"] == []
    states = annotate.status()
    assert {s.state for s in states} == {"waiting"}
    assert all("not imported here" in s.why for s in states)


def test_what_is_missing_is_skipped_with_the_reason(
    layout: None, sink: ListSink, on: Settings
) -> None:
    import vllm.v1.core.block_pool as module

    del module.BlockPool.evict_blocks
    annotate.install(on)
    import vllm.v1.core.kv_cache_manager  # noqa: F401

    why = {s.name: (s.state, s.why) for s in annotate.status()}
    assert why["BlockPool.evict_blocks"] == ("skipped", "BlockPool has no evict_blocks")
    assert why["BlockPool.unpin_blocks"] == ("skipped", "BlockPool has no unpin_blocks")
    assert why["BlockPool.touch"] == ("installed", "")


def test_the_first_target_that_exists_is_taken(layout: None) -> None:
    emitter = Emitter(lambda: ([], ""))

    def wrap(original: Original, emitter: Emitter) -> Method:
        return original.method

    paths = (
        "vllm.v1.core.block_pool:NewPool.take",
        "vllm.v1.core.sched.scheduler:Scheduler.take",
        "vllm.v1.core.block_pool:BlockPool.get_new_blocks",
    )
    hook = Hook("take", "kv", tuple(Target(p, wrap) for p in paths), (), "a test")
    patcher = Patcher(emitter)
    patcher.install([hook])
    pool_class()
    assert patcher.status == [HookStatus("take", "installed", paths[2])]
    patcher.uninstall()


def test_a_fault_while_wrapping_does_not_break_vllm_s_import(
    layout: None, capsys: pytest.CaptureFixture[str]
) -> None:
    emitter = Emitter(lambda: ([], ""))

    def wrap(original: Original, emitter: Emitter) -> Method:
        raise RuntimeError("cannot wrap")

    target = Target("vllm.v1.core.block_pool:BlockPool.touch", wrap)
    patcher = Patcher(emitter)
    patcher.install([Hook("touch", "kv", (target,), (), "a test")])
    assert not hasattr(pool_class().__dict__["touch"], "__wrapped__")
    (status,) = patcher.status
    assert status.state == "failed"
    assert "cannot wrap" in status.why
    assert "cannot wrap" in capsys.readouterr().err
    patcher.uninstall()


def test_the_hook_table_is_in_order() -> None:
    names = [hook.name for hook in HOOKS]
    assert len(set(names)) == len(names)
    for hook in HOOKS:
        assert hook.why
        assert hook.targets
        assert set(hook.emits) <= set(KINDS), hook.name
        for target in hook.targets:
            assert target.module.partition(".")[0] in ("vllm", "torch")
            assert target.attribute
            assert "." not in target.owner


def test_a_forked_child_has_its_own_numbers_and_its_parent_s_patches() -> None:
    code = """
import os, sys
from profilemate import annotate
from profilemate.annotate import sinks
from profilemate.annotate.settings import Settings

class Sink:
    name, scope = "pipe", "always"
    def mark(self, text):
        os.write(1, (text.split(" | ")[0] + "\\n").encode())
    def push(self, text): pass
    def pop(self): pass
    def flush(self): pass

sinks.open_sinks = lambda settings, env: ([Sink()], "")
annotate.install(Settings(wanted=True))
from vllm.v1.core.sched.scheduler import Scheduler
scheduler = Scheduler()
scheduler.schedule()
scheduler.kv_cache_manager.block_pool.get_new_blocks(1)  # buffered: the child must not send it
pid = os.fork()
if pid == 0:
    scheduler.schedule()
    os._exit(0)
os.waitpid(pid, 0)
scheduler.schedule()
"""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{LAYOUTS}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    numbers = [line.split("seq=")[1] for line in done.stdout.splitlines()]
    # The scheduler's own beginning, its step, the child's first one, another of the parent's.
    assert numbers == ["1", "2", "1", "3"]
    assert done.stderr == ""
