"""Which steps vLLM's profiler will record, by its configuration: pure arithmetic."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DELAY, LIMIT = "VLLM_PROFILER_DELAY_ITERS", "VLLM_PROFILER_MAX_ITERS"
"""vLLM 0.12 has no configuration of its profiler but these."""

_NO_LIMIT = 1 << 62
"""Steps; more than a process ever runs."""


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
        first, count = step + max(delay, 1), limit or _NO_LIMIT
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
