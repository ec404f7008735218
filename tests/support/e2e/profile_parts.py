"""A version's own WorkerProfiler and EngineCore.profile: which steps are recorded, which planned.

    python profile_parts.py RESULT

Run by vLLM's own interpreter. Of each delay and limit the result has the steps in which a profiler
of this version ran, and the steps that our hook in EngineCore expects.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

STEPS = 12
BEFORE = 5
BOUNDS = [(delay, limit) for delay in range(4) for limit in range(4)]


def profiler_class() -> Any:
    """The version's WorkerProfiler with nothing to start, None before vLLM 0.12."""
    for name in ("vllm.profiler.wrapper", "vllm.profiler.gpu_profiler"):
        if importlib.util.find_spec(name):
            base = importlib.import_module(name).WorkerProfiler
            nothing = {"_start": lambda self: None, "_stop": lambda self: None}
            return type("Own", (base,), nothing)
    return None


def made(kind: Any, delay: int, limit: int) -> tuple[Any, Any]:
    """A profiler with these bounds, and the configuration that says so (None in vLLM 0.12)."""
    bounds = {"delay_iterations": delay, "max_iterations": limit}
    config = SimpleNamespace(profiler="other", **bounds)
    if kind.__mro__[1].__module__.endswith("wrapper"):
        return kind(config), config
    os.environ["VLLM_PROFILER_DELAY_ITERS"] = str(delay)
    os.environ["VLLM_PROFILER_MAX_ITERS"] = str(limit)
    return kind(), None


def one(kind: Any, delay: int, limit: int) -> dict[str, Any]:
    """Start it through EngineCore.profile and let steps pass."""
    from profilemate.annotate import current

    emitter = current.emitter
    assert emitter is not None
    window: Any = emitter.window
    window.plan, emitter.state.scheduler_step = None, BEFORE
    profiler, config = made(kind, delay, limit)

    def profile(is_start: bool = True, *_: Any, **__: Any) -> None:
        profiler.start() if is_start else profiler.stop()

    core_class: Any = importlib.import_module("vllm.v1.engine.core").EngineCore
    core = object.__new__(core_class)
    core.model_executor = SimpleNamespace(profile=profile)
    core.scheduler = SimpleNamespace(parallel_config=None)
    core.vllm_config = SimpleNamespace(profiler_config=config)
    core.profile(True)
    plan = window.plan
    assert plan is not None
    steps = range(BEFORE + 1, BEFORE + STEPS + 1)
    ran, told = [], []
    for number in steps:
        profiler.step()
        ran += [number] if profiler._running else []
        told += [number] if window.running else []
    core.profile(False)
    assert window.plan is None
    assert not window.running
    planned = [n for n in steps if plan.first <= n <= plan.last]
    return {"bounds": [delay, limit], "ran": ran, "told": told, "planned": planned}


def main(result: str) -> None:
    """See the top of this file."""
    from graph_engine import hooks

    with hooks():
        from profilemate import annotate

        kind = profiler_class()
        rows = [] if kind is None else [one(kind, *bounds) for bounds in BOUNDS]
        importlib.import_module("vllm.v1.engine.core")
        states = {s.name: [s.state, s.why] for s in annotate.status()}
    found = {
        "version": importlib.import_module("vllm.version").__version__,
        "rows": rows,
        "hooks": states,
    }
    Path(result).write_text(json.dumps(found), encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1])
