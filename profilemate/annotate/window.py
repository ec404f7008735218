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

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profilemate.annotate.settings import Steps

if TYPE_CHECKING:
    from profilemate.annotate.emit import Scope

DELAY, LIMIT = "VLLM_PROFILER_DELAY_ITERS", "VLLM_PROFILER_MAX_ITERS"
"""vLLM 0.12 has no configuration of its profiler but these."""

_RECORDING = 1 << 62


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps that the workers' profilers record: `first` to `last`, both included."""

    first: int
    last: int

    @classmethod
    def after(
        cls,
        step: int,
        config: Any,
        *,
        delay: int | None = None,
        limit: int | None = None,
        env: Mapping[str, str] = os.environ,
    ) -> Plan:
        """What a profiler records that is started when `step` steps have been scheduled.

        As `vllm/profiler/wrapper.py` counts: it starts inside the step number `delay`, before the
        model runs, and ends inside the one after `limit` recorded ones, before its model runs.
        With a schedule, torch's profiler waits and warms up in between; its own start takes the
        first of these iterations. It then records `active_iterations` steps, once.

        After `limit` steps vLLM up to 0.28 ignores another start until it was stopped; here it
        opens a window all the same, in which no worker records.

        Args:
            step: Number of the last step that was scheduled.
            config: vLLM's ProfilerConfig, None where there is none.
            delay: Iterations to wait, from the request that started it.
            limit: Iterations to record, from the request that started it; 0 for no limit.
            env: The environment, for vLLM 0.12.
        """
        if delay is None:
            delay = _integer(getattr(config, "delay_iterations", env.get(DELAY)))
        if limit is None:
            limit = _integer(getattr(config, "max_iterations", env.get(LIMIT)))
        first, count = step + max(delay, 1), limit or _RECORDING
        if getattr(config, "profiler", None) == "torch":
            idle = _integer(getattr(config, "wait_iterations", 0))
            idle += _integer(getattr(config, "warmup_iterations", 0))
            if idle:
                first += idle - 1
                count = min(count, _integer(getattr(config, "active_iterations", count)))
        return cls(first, first + count - 1)


def _integer(value: Any) -> int:
    try:
        return int(value or 0)
    except (TypeError, ValueError):
        return 0


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
        steps: The steps that `PROFILEMATE_STEPS` asks for.
        plan: With vLLM's profiler started and a scheduler here: what the workers record.
        running: A profiler of vLLM's that is not torch's (CUDA's, Proton's) runs here.
    """

    def __init__(self, steps: Steps | None = None) -> None:
        self.steps = steps
        self.reset()

    def reset(self) -> None:
        """Nobody records."""
        self.plan: Plan | None = None
        self.running = False
        self._open = self._profiling = False

    def moves(self, step: int) -> bool:
        """Whether the boundary before this step changes anything. Asked at every step."""
        profiling = torch_is_profiling()
        return profiling is not self._profiling or self._holds(step, profiling) is not self._open

    def move(self, step: int) -> None:
        """Pass the boundary before this step."""
        self._profiling = torch_is_profiling()
        self._open = self._holds(step, self._profiling)

    def _holds(self, step: int, profiling: bool) -> bool:
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
