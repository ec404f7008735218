"""The torch sink: our messages as scopes in the trace of a torch profiler.

A message is the scope's name, the same text that NVTX gets; an instant is a scope that is closed at
once. torch 2.13 keeps names of 100,000 characters whole, and writes printable ASCII without quotes
and backslashes as it is, which our messages are.

torch records the thread that started its profiler, and others only if it was asked to. vLLM starts
it on the thread that runs the model, which in an engine of one process schedules too.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from profilemate.annotate.settings import Settings, recorder
from profilemate.annotate.sink import Scope, Sink

_FAST = "_RecordFunctionFast"
"""Private to torch, there since 2.1: 0.7 us a scope where `record_function` takes 8 (2.13)."""

_NOTHING = (None, None, None)


class TorchProfilerSink:
    """Scopes of torch, as cheap as it has them."""

    name = "torch profiler"
    scope: Scope = "torch"

    def __init__(self, new_scope: Callable[[str], Any]) -> None:
        self._new = new_scope
        self._threads = threading.local()

    def mark(self, text: str) -> None:
        """Record an instant."""
        with self._new(text):
            pass

    def push(self, text: str) -> None:
        """Open a range on this thread."""
        scope = self._new(text)
        scope.__enter__()
        try:
            self._threads.open.append(scope)
        except AttributeError:
            self._threads.open = [scope]

    def pop(self) -> None:
        """Close the last range of this thread."""
        self._threads.open.pop().__exit__(*_NOTHING)

    def flush(self) -> None:
        """Nothing to do: the profiler has it."""


def open_sink(settings: Settings, env: Mapping[str, str]) -> tuple[Sink | None, str]:
    """A sink for whatever torch profiler will run in this process.

    Under Nsight Systems there is none unless a torch profiler is configured or it is asked for, so
    that no step has to ask whether one runs.
    """
    if recorder(env) is not None and not settings.torch and settings.mode != "on":
        return None, "no torch profiler is configured"
    torch = sys.modules.get("torch")  # never imported for it; in an engine or a worker it is there
    fast = getattr(getattr(getattr(torch, "_C", None), "_profiler", None), _FAST, None)
    scope = fast or getattr(getattr(torch, "profiler", None), "record_function", None)
    if scope is None:
        return None, "torch is not loaded or has no profiler"
    return TorchProfilerSink(scope), ""
