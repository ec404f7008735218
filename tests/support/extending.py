"""What the tests of hooks of others share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from places import ROOT

PAGE = ROOT / "docs" / "extending.md"
Make = Callable[..., Any]


def add(make: Make, *names: str) -> Any:
    from vllm.v1.core.sched.scheduler import Scheduler

    scheduler = Scheduler()
    for name in names:
        scheduler.add_request(make(name))
    return scheduler
