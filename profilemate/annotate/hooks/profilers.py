"""vLLM's own profiler: when it is configured, started, and really runs.

`/start_profile`, `/stop_profile`, `LLM.start_profile` and `LLM.stop_profile` all end in
`EngineCore.profile`, which calls `Worker.profile` in every worker. Only workers have a profiler.
It may start later than it was ordered to and end by itself, both in the middle of `execute_model`
(`WorkerProfiler.step`).

Whatever is buffered has to reach the profiler's trace before the profiler ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profilemate.annotate import configured
from profilemate.annotate.hook import Hook, Method, Original, Target
from profilemate.annotate.hooks.worker import WORKER, note_worker
from profilemate.annotate.plan import Plan
from profilemate.annotate.wrapping import Arguments, observe

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter

CONFIG = "vllm.config:VllmConfig.__post_init__"
CORE = "vllm.v1.engine.core:EngineCore.profile"
GPU = f"{WORKER}.profile"
CPU = "vllm.v1.worker.cpu_worker:CPUWorker.profile"
PROFILERS = (
    "vllm.profiler.wrapper:WorkerProfiler",
    "vllm.profiler.gpu_profiler:WorkerProfiler",  # vLLM 0.12
)

_ON = "pm_emitter.on"


def wrap_config(original: Original, emitter: Emitter) -> Method:
    """VllmConfig.__post_init__: leave word for the processes that this one will start."""

    def after(config: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        configured.note(config)

    return observe(original, emitter, after, gate=_ON)


def wrap_core(original: Original, emitter: Emitter) -> Method:
    """EngineCore.profile: in the scheduler's process, the steps that workers will record."""

    def before(core: Any, args: Arguments) -> None:
        scheduler = getattr(core, "scheduler", None)
        emitter.identity.saw_engine(getattr(scheduler, "parallel_config", None))
        if not args[0]:
            emitter.flush()
            emitter.window.plan = None

    def after(core: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        window, step = emitter.window, emitter.state.scheduler_step
        is_start, delay, limit = args
        # vLLM ignores a start while it is started already.
        if is_start and (window.plan is None or window.plan.last <= step):
            config = getattr(getattr(core, "vllm_config", None), "profiler_config", None)
            window.plan = Plan.after(step, config, delay=delay, limit=limit)
        if emitter.watching:
            emitter.advance(step + 1)

    wants = ("is_start", "delay_iterations", "max_iterations")
    return observe(original, emitter, after, before, wants=wants, gate=_ON)


def wrap_worker(original: Original, emitter: Emitter) -> Method:
    """Worker.profile: the profiler of this process."""

    def before(worker: Any, args: Arguments) -> None:
        note_worker(emitter, worker)
        if not args[0]:
            emitter.flush()

    def after(worker: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        emitter.state.armed = bool(args[0])
        if emitter.watching:
            emitter.advance(emitter.state.worker_step + 1)

    return observe(original, emitter, after, before, wants=("is_start",), gate=_ON)


def wrap_call_start(original: Original, emitter: Emitter) -> Method:
    """WorkerProfiler._call_start: it runs now, unless that failed. torch's can be asked.

    CUDA's may be where Nsight Systems begins to record (`--capture-range=cudaProfilerApi`).
    """

    def after(profiler: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        if not type(profiler).__name__.startswith("Torch"):
            emitter.window.running = bool(profiler._running)
            emitter.send_preamble()

    return observe(original, emitter, after, gate=_ON)


def wrap_call_stop(original: Original, emitter: Emitter) -> Method:
    """WorkerProfiler._call_stop: it ends, by order or because it has enough."""

    def before(profiler: Any, args: Arguments) -> None:
        emitter.flush()

    def after(profiler: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        emitter.window.running = False

    return observe(original, emitter, after, before, gate=_ON)


def _hook(name: str, paths: tuple[str, ...], wrap: Any, why: str, parameters: str = "") -> Hook:
    targets = tuple(Target(path, wrap, parameters) for path in paths)
    return Hook(name, "engine", targets, (), why)


_PROFILE = "is_start=True, profile_prefix=None, delay_iterations=None, max_iterations=None"


HOOKS = (
    _hook("VllmConfig.__post_init__", (CONFIG,), wrap_config, "a torch profiler is configured"),
    _hook("EngineCore.profile", (CORE,), wrap_core, "steps that workers will profile", _PROFILE),
    _hook("Worker.profile", (GPU,), wrap_worker, "a profiler starts or ends", _PROFILE),
    _hook("CPUWorker.profile", (CPU,), wrap_worker, "the same, up to vLLM 0.30", _PROFILE),
    _hook(
        "WorkerProfiler._call_start",
        tuple(f"{path}._call_start" for path in PROFILERS),
        wrap_call_start,
        "a profiler other than torch's runs",
    ),
    _hook(
        "WorkerProfiler._call_stop",
        tuple(f"{path}._call_stop" for path in PROFILERS),
        wrap_call_stop,
        "what is buffered has to leave before a profiler ends",
    ),
)
