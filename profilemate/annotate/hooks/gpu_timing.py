"""GPU time of a step's graphs, without a recorder: `PROFILEMATE_GPU_TIMING=1`.

A CUDA event is recorded before the first launch of the model's graphs in a step and one after the
last. Recording is asynchronous, like a launch. Both are read in a later step, once the second has
happened: nothing is ever waited for. What no later step follows is not read.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from profilemate.annotate.faults import shield
from profilemate.annotate.graphs import MAIN
from profilemate.annotate.hook import Hook, Method, Original, Target
from profilemate.annotate.wrapping import compile_wrapper
from profilemate.schema import KINDS

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter

_GPU = KINDS["step.gpu"].encode

MAX_PENDING = 1024
"""Steps whose events have not happened yet; more are not timed, a GPU is not that far behind."""

_REPLAY = f"""
if not (pm_emitter.active and pm_emitter.step.running and getattr(SELF, {MAIN!r}, False)):
    return CALL
pm_before()
try:
    return CALL
finally:
    pm_after()
"""


class GpuTimer:
    """The events of the steps that are under way, and those that are free."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter, self._state, self._step = emitter, emitter.state, emitter.step
        self._free: list[Any] = []  # events that may be recorded again
        # Step, event before its first launch, event after its last.
        self._pending: deque[tuple[int, Any, Any]] = deque()
        self._number = 0  # the step that is timed
        self._pair: tuple[Any, Any] | None = None  # its events; None: it is not timed

    def before(self) -> None:
        """A launch of the running step is about to be made."""
        number = self._state.worker_step
        if self._step.dummy or number == self._number:
            return
        self._close()
        self._read()
        self._number = number
        if len(self._pending) < MAX_PENDING:
            self._pair = self._event(), self._event()
            self._pair[0].record()

    def after(self) -> None:
        """It was made; recorded again, an event forgets the time before."""
        if self._pair is not None and not self._step.dummy:
            self._pair[1].record()

    def _close(self) -> None:
        if self._pair is not None:
            self._pending.append((self._number, *self._pair))
            self._pair = None

    def _read(self) -> None:
        """Say the times of steps whose last event has happened."""
        while self._pending and self._pending[0][2].query():
            number, start, end = self._pending.popleft()
            took = round(start.elapsed_time(end) * 1e6)
            self._free += (start, end)
            self._emitter.add(_GPU, 0, 0, (number, took))

    def _event(self) -> Any:
        if self._free:
            return self._free.pop()
        return sys.modules["torch"].cuda.Event(enable_timing=True)


def wrap_replay(original: Original, emitter: Emitter) -> Method:
    """CUDAGraph.replay: an event before the first of a step, and after each."""
    timer = GpuTimer(emitter)
    faults, where = emitter.faults, original.hook
    return compile_wrapper(
        original,
        _REPLAY,
        pm_emitter=emitter,
        pm_before=shield(where, faults, timer.before),
        pm_after=shield(where, faults, timer.after),
    )


HOOKS = (
    Hook(
        "CUDAGraph.replay, timed",
        "graphs",
        (Target("torch.cuda.graphs:CUDAGraph.replay", wrap_replay),),
        ("step.gpu",),
        "GPU time where nothing records the GPU",
    ),
)
"""Not in the table of hooks that are always there: they are asked for."""
