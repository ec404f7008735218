"""The recording window: which steps reach the sinks that do not record all the time.

A window is asked for in one of three ways. The first that applies decides:

1. `PROFILEMATE_STEPS=start:count`: exactly these steps, in every process and for every sink.
2. vLLM's own profiler, in the process of the scheduler, where none runs. `EngineCore.profile`
   tells of the start; the same configuration and the same count of iterations then say which steps
   the workers' profilers will record (`Plan`). Both sides count alike: a call of the workers by
   the engine keeps its place between two steps.
3. A profiler that runs in this process: a worker's, or one that the user's own code started.

Only the boundaries of steps are looked at. So what belongs to no step, such as the blocks that are
freed when a step's tokens arrive, goes with the step before it.
"""

from __future__ import annotations

import sys
from typing import Any

from profilemate.annotate.plan import Plan
from profilemate.annotate.settings import Steps
from profilemate.annotate.sink import Scope


def torch_is_profiling() -> bool:
    """Whether a torch profiler runs, on whatever thread; torch is not imported for it.

    One that waits for its turn in a schedule does not run yet. `emit_nvtx` and `emit_itt` are no
    profilers: what is given to torch as a scope would come out as an NVTX range once more.
    """
    profiler = sys.modules.get("torch.autograd.profiler")
    if getattr(profiler, "_is_profiler_enabled", False) is not True:
        return False
    binding = getattr(getattr(sys.modules["torch"], "_C", None), "_autograd", None)
    kind: Any = getattr(binding, "_profiler_type", lambda: None)()
    return getattr(kind, "name", "") not in ("NVTX", "ITT")


class Window:
    """Whether the next step is to be recorded, and by which sinks.

    Attributes:
        steps: The steps that `PROFILEMATE_STEPS` asks for; None: it does not.
        plan: With vLLM's profiler started and a scheduler here: what the workers record. Else None.
        running: A profiler of vLLM's that is not torch's (CUDA's, Proton's) runs here.

    Steps are numbered from 1, as `EngineState` counts them.
    """

    def __init__(self, steps: Steps | None = None) -> None:
        self.steps = steps
        self.reset()

    def reset(self) -> None:
        """Nobody records."""
        self.plan: Plan | None = None
        self.running = False
        self._open = self._profiling = False

    def changes_at(self, step: int) -> bool:
        """Whether the boundary before this step changes anything. Asked at every step."""
        profiling = torch_is_profiling()
        return (
            profiling is not self._profiling or self._is_open_at(step, profiling) is not self._open
        )

    def advance(self, step: int) -> None:
        """Pass the boundary before this step."""
        self._profiling = torch_is_profiling()
        self._open = self._is_open_at(step, self._profiling)

    def _is_open_at(self, step: int, profiling: bool) -> bool:
        if self.steps is not None:
            return self.steps.first <= step < self.steps.first + self.steps.number
        if self.plan is not None:
            return self.plan.first <= step <= self.plan.last
        return profiling or self.running

    def admits(self, scope: Scope) -> bool:
        """Whether a sink of this scope records now."""
        if scope == "always":
            return self._open or self.steps is None
        return self._open and (scope == "window" or self._profiling)
