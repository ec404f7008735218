"""The NVTX sink against stand-ins for nvtx and torch, and against the nvtx that is installed.

That a real Nsight Systems records what it emits is shown in tests/e2e.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from profilemate.annotate.settings import Settings
from profilemate.annotate.sinks import nvtx as module
from profilemate.annotate.sinks import open_sinks

ATTACHED = {"NVTX_INJECTION64_PATH": "/nsys/libToolsInjection64.so"}


def open_(env: dict[str, str] = ATTACHED) -> tuple[Any, str]:
    return module.open_sink(Settings(), env)


def forget(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] in names]:
        monkeypatch.delitem(sys.modules, name)


def test_without_a_tool_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, "nvtx")
    sinks, why = open_sinks(Settings(), {})
    assert sinks == []
    assert "does not follow this process" in why
    assert "nvtx" not in sys.modules


def test_the_installed_nvtx_gives_the_fast_sink_and_keeps_no_message() -> None:
    sink, _ = open_()
    assert isinstance(sink, module.DomainSink)
    registered = type(sink._domain).get_registered_string
    before = registered.cache_info().currsize
    for i in range(50):
        sink.mark(f"pm1.batch t={i} seq={i}")
        sink.push(f"pm1.step step={i}")
        sink.pop()
    assert registered.cache_info().currsize <= before + 2


def test_other_internals_fall_back_to_the_public_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    fake: Any = ModuleType("nvtx")
    fake.enabled = lambda: True
    fake.get_domain = lambda name: SimpleNamespace(handle=1)
    fake.mark = lambda *args: calls.append(args)
    fake.push_range = lambda *args: calls.append(args)
    fake.pop_range = lambda domain: calls.append(domain)
    forget(monkeypatch, "nvtx")
    monkeypatch.setitem(sys.modules, "nvtx", fake)
    sink, _ = open_()
    assert isinstance(sink, module.PublicSink)
    sink.mark("pm1.batch t=1")
    sink.push("pm1.step step=1")
    sink.pop()
    assert calls == [
        ("pm1.batch t=1", module.COLOURS["batch"], "profilemate", "batch"),
        ("pm1.step step=1", module.COLOURS["step"], "profilemate", "step"),
        "profilemate",
    ]


def dummy_nvtx(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = ModuleType("nvtx")
    fake.enabled = lambda: True
    fake.get_domain = lambda name: object()
    forget(monkeypatch, "nvtx")
    monkeypatch.setitem(sys.modules, "nvtx", fake)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.2.15")


def test_a_dummy_domain_falls_back_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    dummy_nvtx(monkeypatch)
    marks: list[str] = []
    binding = SimpleNamespace(markA=marks.append, rangePushA=marks.append, rangePop=lambda: 0)
    torch = SimpleNamespace(_C=SimpleNamespace(_nvtx=binding))
    monkeypatch.setitem(sys.modules, "torch", torch)
    sink, _ = open_()
    assert sink.name == "nvtx (torch)"
    sink.mark("pm1.batch t=1")
    sink.push("pm1.step step=1")
    sink.pop()
    assert marks == ["pm1.batch t=1", "pm1.step step=1"]


def test_when_neither_can_record_it_says_what_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dummy_nvtx(monkeypatch)
    forget(monkeypatch, "torch")
    sink, why = open_()
    assert sink is None
    assert "nvtx 0.2.15 hands out a dummy domain" in why
    assert "torch" in why
    assert "nvtx==0.2.11" in why


def test_a_missing_or_disabled_nvtx_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, "nvtx", "torch")
    monkeypatch.setitem(sys.modules, "nvtx", None)
    assert "cannot be imported" in open_()[1]
    fake: Any = ModuleType("nvtx")
    fake.enabled = lambda: False
    monkeypatch.setitem(sys.modules, "nvtx", fake)
    assert "NVTX_DISABLE" in open_()[1]


def test_colours_can_be_told_apart() -> None:
    assert len(set(module.COLOURS.values())) == len(module.COLOURS)
