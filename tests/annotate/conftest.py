"""Every test of this folder leaves the process as it found it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from graph_rig import Rig
from listsink import ListSink
from places import LAYOUTS

from profilemate import annotate
from profilemate.annotate import emit, extend, sinks
from profilemate.annotate.faults import Faults
from profilemate.annotate.settings import TORCH, Settings


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> ListSink:
    """The only sink that `install` finds."""
    sink = ListSink()

    def open_sinks(settings: Settings, env: object) -> tuple[list[emit.Sink], str]:
        return [sink], ""

    monkeypatch.setattr(sinks, "open_sinks", open_sinks)
    return sink


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """No vLLM or torch modules, no patches and no finders are left behind."""
    path, meta = list(sys.path), list(sys.meta_path)
    yield
    annotate.uninstall()
    os.environ.pop(TORCH, None)  # word for processes to come
    assert annotate.status() == []
    for name in [n for n in sys.modules if n.partition(".")[0] in ("vllm", "torch")]:
        del sys.modules[name]
    sys.path[:] = path
    wrapts = [f for f in sys.meta_path if type(f).__name__ == "ImportHookFinder"]
    sys.meta_path[:] = [*wrapts, *(f for f in meta if f not in wrapts)]


@pytest.fixture
def layout() -> None:
    """Makes `vllm` and `torch` importable: the stand-ins of `layouts/`."""
    sys.path.insert(0, str(LAYOUTS))


@pytest.fixture
def on() -> Settings:
    return Settings(wanted=True, reason="a test")


@pytest.fixture
def request_of() -> Callable[..., Any]:
    """Makes vLLM-like requests."""

    def make(name: str, tokens: int = 16, **more: Any) -> Any:
        status = SimpleNamespace(name="FINISHED_STOPPED")
        fields = {
            "request_id": name,
            "num_tokens": tokens,
            "num_prompt_tokens": tokens,
            "num_output_tokens": 3,
            "num_computed_tokens": tokens,
            "num_preemptions": 0,
            "status": status,
        }
        return SimpleNamespace(**{**fields, **more})

    return make


@pytest.fixture
def rig(layout: None, sink: ListSink, on: Settings) -> Rig:
    annotate.install(on)
    return Rig(sink)


@pytest.fixture
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No hooks of others, and none after it."""
    monkeypatch.setattr(extend, "_registered", {})
    monkeypatch.setattr(extend, "_loaded", set())
    monkeypatch.setattr(extend, "_faults", Faults())
    yield
    for name in [n for n in sys.modules if n.startswith("my_")]:
        del sys.modules[name]
