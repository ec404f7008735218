"""The probe reads what `install` finds."""

from __future__ import annotations

import importlib
from pathlib import Path

from listsink import ListSink
from places import LAYOUTS

from profilemate import annotate
from profilemate.annotate import probe
from profilemate.annotate.hook import Hook, Target
from profilemate.annotate.hooks import HOOKS
from profilemate.annotate.settings import Settings


def hook(*paths: str) -> Hook:
    targets = tuple(Target(path, lambda original, emitter: original.method) for path in paths)
    return Hook("a", "graphs", targets, (), "a test")


def test_it_says_of_every_hook_what_install_does(
    layout: None, sink: ListSink, on: Settings
) -> None:
    annotate.install(on)
    for file in (LAYOUTS / "vllm").rglob("*.py"):
        name = ".".join(file.relative_to(LAYOUTS).with_suffix("").parts)
        importlib.import_module(name.removesuffix(".__init__"))
    importlib.import_module("torch.cuda.graphs")
    found = {s.name: (s.state, s.target) for s in probe.probe(HOOKS, LAYOUTS / "vllm")}
    for status in annotate.status():
        if status.state == "waiting":  # its module does not exist
            assert found[status.name][0] == "skipped"
        else:
            assert found[status.name] == (status.state, status.target)


def test_names_are_followed_to_where_they_come_from(tmp_path: Path) -> None:
    vllm = tmp_path / "vllm"
    vllm.mkdir()
    (vllm / "base.py").write_text(
        "class Base:\n    def inherited(self): ...\ndef function(): ...\n"
    )
    (vllm / "user.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from vllm.base import Base as B, function\n"
        "from vllm.nowhere import Lost\n"
        "if TYPE_CHECKING:\n    from vllm.base import Base\n"
        "class C(B):\n    def own(self): ...\n"
    )

    def state(path: str) -> tuple[str, str]:
        (status,) = probe.probe([hook(path)], vllm)
        return status.state, status.why

    assert state("vllm.user:C.own")[0] == "installed"
    assert state("vllm.user:C.inherited")[0] == "installed"
    assert state("vllm.user:B.inherited")[0] == "installed"
    assert state("vllm.user:function")[0] == "installed"
    assert state("vllm.user:other") == ("skipped", "vllm.user has no other")
    assert state("vllm.user:Base.inherited") == ("skipped", "vllm.user has no class Base")
    assert state("vllm.user:Lost.any") == ("skipped", "vllm.user has no class Lost")
    assert state("vllm.user:C.other") == ("skipped", "C has no other")
    assert state("vllm.gone:C.own") == ("skipped", "there is no vllm.gone")
    assert state("torch.cuda.graphs:CUDAGraph.replay") == (
        "waiting",
        "there is no torch to look at",
    )


def test_candidates_are_tried_in_their_order() -> None:
    paths = ("vllm.v1.worker.gpu_worker:Worker.gone", "vllm.v1.worker.gpu_worker:Worker.rank")
    (status,) = probe.probe([hook(*paths)], LAYOUTS / "vllm")
    assert (status.state, status.why) == ("skipped", "Worker has no gone; Worker has no rank")
