"""Scheduler steps, preemptions, requests: `vllm.v1.core.sched.scheduler.Scheduler`.

Subclasses (AsyncScheduler, a user's own) inherit the wrappers; those that override a method
call the base class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profilemate.annotate.faults import shield
from profilemate.annotate.hook import Hook, Method, Original, Target
from profilemate.annotate.wrapping import COUNT, Arguments, observe
from profilemate.schema import KINDS

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter
    from profilemate.annotate.engines import Engine

SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"

_STEP = KINDS["sched.step"].spell
_PREEMPT = KINDS["preempt"].encode
_REQUEST = KINDS["request"].encode
_USAGE = KINDS["kv.usage"].encode


def wrap_schedule(original: Original, emitter: Emitter) -> Method:
    """schedule: the step itself, and the moment at which everything buffered leaves."""
    state = emitter.state

    def advance(scheduler: Any) -> None:
        engine_of(emitter, scheduler)
        emitter.advance(state.scheduler_step)

    def after(scheduler: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        """Emit the step and whatever else shows only now, and send it all."""
        engine = engine_of(emitter, scheduler)
        preempted = getattr(result, "preempted_req_ids", None)
        values = (
            state.scheduler_step,
            result.total_num_scheduled_tokens,
            len(result.num_scheduled_tokens),
            len(result.scheduled_new_reqs),
            None if preempted is None else len(preempted),
            len(scheduler.running),
            _waiting(scheduler, engine),
            engine.label,
        )
        if state.given_back:
            emit_preempted(emitter, engine.label)
        emitter.add(_STEP, start, end, values)
        emit_changed_usage(emitter, end)
        emitter.flush()

    count = COUNT.format(counter="scheduler_step")
    return observe(
        original, emitter, after, wants=(), first=count, pm_state=state, pm_advance=advance
    )


def engine_of(emitter: Emitter, scheduler: Any) -> Engine:
    """The scheduler's engine; the first time, the session says so."""
    engines = emitter.state.engines
    engine = engines.known(scheduler, "scheduler")
    if engine is not None:
        return engine
    engine = engines.find(scheduler, "scheduler")
    emitter.identity.saw_engine(getattr(scheduler, "parallel_config", None))
    emitter.touch_session()
    return engine


def _waiting(scheduler: Any, engine: Engine) -> int:
    count = len(scheduler.waiting)
    for name in engine.queues:
        count += len(getattr(scheduler, name))
    return count


def wrap_init(original: Original, emitter: Emitter) -> Method:
    """Scheduler.__init__: an engine, its configuration, and the pools that are made in it."""

    def before(scheduler: Any, args: Arguments) -> set[int]:
        return {info.number for info in emitter.state.pools.values()}

    def after(
        scheduler: Any, start: int, end: int, result: Any, args: Arguments, note: Any
    ) -> None:
        engine = engine_of(emitter, scheduler).label
        for info in emitter.state.pools.values():
            if note is not None and info.number not in note:
                info.engine = engine
        emitter.state.find_owners()
        emitter.touch_session()
        emitter.flush()  # a run without any request leaves this word

    return observe(original, emitter, after, before, wants=(), gate="pm_emitter.on")


def emit_changed_usage(emitter: Emitter, now: int) -> None:
    """Say a usage that changed behind the hooks' back (attention sinks, copy-on-write)."""
    for info in emitter.state.pools.values():
        pool = info.pool()
        if pool is None:
            continue
        used = info.total - pool.get_num_free_blocks()
        if used != info.used:
            if info.used >= 0:  # -1: nothing was said yet
                emitter.add(_USAGE, now, now, (info.number, used, None))
            info.used = used


def wrap_update_from_output(original: Original, emitter: Emitter) -> Method:
    """update_from_output: the last thing before an engine without work goes to sleep."""

    def after(scheduler: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        if not scheduler.running:
            emitter.flush()
            if emitter.watching:
                emitter.advance(emitter.state.scheduler_step + 1)  # a window may end here

    return observe(original, emitter, after, wants=())


def wrap_preempt(original: Original, emitter: Emitter) -> Method:
    """_preempt_request: what a preemption gives back and throws away."""

    def before(scheduler: Any, args: Arguments) -> tuple[int, int]:
        free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
        return free, args[0].num_computed_tokens

    def after(
        scheduler: Any, start: int, end: int, result: Any, args: Arguments, note: Any
    ) -> None:
        free, computed = note
        blocks = scheduler.kv_cache_manager.block_pool.get_num_free_blocks() - free
        engine = engine_of(emitter, scheduler).label
        emitter.add(_PREEMPT, start, end, (args[0].request_id, blocks, computed, engine))

    return observe(original, emitter, after, before, wants=("request",))


def wrap_given_back(original: Original, emitter: Emitter) -> Method:
    """KVCacheManager.free in vLLM 0.11, where preemption is a few lines inside schedule.

    Whether the request was preempted or is finished shows only afterwards: `emit_preempted`.
    """
    state = emitter.state

    def before(manager: Any, args: Arguments) -> tuple[int, int]:
        return manager.block_pool.get_num_free_blocks(), args[0].num_computed_tokens

    def after(manager: Any, start: int, end: int, result: Any, args: Arguments, note: Any) -> None:
        free, computed = note
        blocks = manager.block_pool.get_num_free_blocks() - free
        state.given_back.append((args[0], start, end, blocks, computed))

    return observe(original, emitter, after, before, wants=("request",))


def emit_preempted(emitter: Emitter, engine: int | None) -> None:
    """Emit which of the requests that gave their blocks back were preempted in this step."""
    state = emitter.state
    given_back, state.given_back = state.given_back, []
    for request, start, end, blocks, computed in given_back:
        if request.status.name == "PREEMPTED":
            emitter.add(_PREEMPT, start, end, (request.request_id, blocks, computed, engine))


_ARRIVE = """
if pm_emitter.watching and not pm_emitter.active:
    pm_advance()
"""


def wrap_add_request(original: Original, emitter: Emitter) -> Method:
    """add_request: a request arrives at the scheduler.

    If the next step is to be recorded, so is who waits for it.
    """

    def advance() -> None:
        emitter.advance(emitter.state.scheduler_step + 1)

    def after(scheduler: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        r = args[0]
        engine = engine_of(emitter, scheduler).label
        values = (r.request_id, "arrived", r.num_prompt_tokens, None, None, engine)
        emitter.add(_REQUEST, start, end, values)

    pm_advance = shield(original.hook, emitter.faults, advance)
    return observe(
        original, emitter, after, wants=("request",), first=_ARRIVE, pm_advance=pm_advance
    )


def wrap_free_request(original: Original, emitter: Emitter) -> Method:
    """_free_request: a request is finished, for whatever reason."""

    def after(scheduler: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        r = args[0]
        numbers = (r.num_prompt_tokens, r.num_output_tokens)
        engine = engine_of(emitter, scheduler).label
        values = (r.request_id, "finished", *numbers, r.status.name, engine)
        emitter.add(_REQUEST, start, end, values)

    return observe(original, emitter, after, wants=("request",))


def _hook(
    place: str, wrap: Any, group: Any, emits: tuple[str, ...], why: str, *older: Target
) -> Hook:
    method, _, parameters = place.rstrip(")").partition("(")
    targets = (Target(f"{SCHEDULER}.{method}", wrap, parameters), *older)
    return Hook(f"Scheduler.{method}", group, targets, emits, why)


HOOKS = (
    _hook("__init__()", wrap_init, "engine", ("config", "kv.pool"), "whose pools are whose"),
    _hook("schedule()", wrap_schedule, "engine", ("sched.step", "kv.usage"), "the step"),
    _hook("update_from_output()", wrap_update_from_output, "engine", (), "before it sleeps"),
    _hook(
        "_preempt_request(request)",
        wrap_preempt,
        "kv",
        ("preempt",),
        "preemptions",
        Target("vllm.v1.core.sched.scheduler:KVCacheManager.free", wrap_given_back, "request"),
    ),
    _hook("add_request(request)", wrap_add_request, "engine", ("request",), "arrivals"),
    _hook("_free_request(request)", wrap_free_request, "engine", ("request",), "ends"),
)
