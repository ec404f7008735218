"""Model executions: `Worker.execute_model`, which every worker class inherits or calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from profilemate.annotate.faults import shield
from profilemate.annotate.hook import Hook, Method, Original, Target
from profilemate.annotate.step import NO_FACTS, Facts
from profilemate.annotate.wrapping import COUNT, Arguments, compile_wrapper, observe
from profilemate.schema import KINDS

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter

_SAMPLE = KINDS["step.sample"].encode

WORKER = "vllm.v1.worker.gpu_worker:Worker"

_AROUND = """
{first}
if not (pm_emitter.active or pm_state.armed):
    return CALL
pm_begin(SELF, ARGUMENTS)
try:
    return CALL
finally:
    pm_end()
"""


def wrap_execute_model(original: Original, emitter: Emitter) -> Method:
    """execute_model: one step, numbered like the scheduler's.

    Scheduler and workers count their calls; the counters advance in lock-step, calls with 0
    tokens included, while the clock says nothing: with asynchronous scheduling step N+1 is
    scheduled before step N has run.
    """
    state = emitter.state
    facts_of = shield(original.hook, emitter.faults, facts)

    def begin(worker: Any, args: Arguments) -> None:
        engine = state.engines.find(worker, "worker").label
        emitter.step.begin(state.worker_step, facts_of(args[0]) or NO_FACTS, engine=engine)

    return _around(original, emitter, begin, COUNT.format(counter="worker_step"))


def wrap_dummy_batch(original: Original, emitter: Emitter) -> Method:
    """execute_dummy_batch: a data-parallel rank without requests keeps in step with the others.

    It launches graphs like any step, but no scheduler knows of it.
    """

    def begin(worker: Any, args: Arguments) -> None:
        engine = emitter.state.engines.find(worker, "worker").label
        emitter.step.begin(None, dummy=True, engine=engine)

    return _around(original, emitter, begin, "")


def wrap_sample_tokens(original: Original, emitter: Emitter) -> Method:
    """sample_tokens: the rest of a step, where execute_model returns before its logits are there.

    vLLM refuses to execute the next step before it, so it is that of the last one.
    """
    state = emitter.state

    def after(worker: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        emitter.add(_SAMPLE, start, end, (state.worker_step, emitter.step.engine))

    return observe(original, emitter, after, wants=())


def note_worker(emitter: Emitter, worker: Any) -> None:
    """Note that a worker runs here; the first time, the session says so."""
    parallel_config = getattr(worker, "parallel_config", None)
    if emitter.identity.saw_worker(getattr(worker, "rank", None), parallel_config):
        emitter.touch_session()
        emitter.flush()


def _around(
    original: Original, emitter: Emitter, begin: Callable[[Any, Arguments], None], first: str
) -> Method:
    """Wrap a method that is a step: `begin` and the step's end around it, `first` in any case."""
    state = emitter.state

    def advance(worker: Any) -> None:
        note_worker(emitter, worker)
        emitter.advance(state.worker_step)

    def enter(worker: Any, args: Arguments) -> None:
        note_worker(emitter, worker)
        begin(worker, args)

    def leave() -> None:
        emitter.step.end()
        # The GPU has its work and we have time. With a scheduler in this process everything goes
        # with its next batch instead.
        if not emitter.identity.has_engine:
            emitter.flush()

    faults, where = emitter.faults, original.hook
    return compile_wrapper(
        original,
        _AROUND.format(first=first),
        wants=("scheduler_output",),
        pm_emitter=emitter,
        pm_state=state,
        pm_advance=advance,
        pm_report=faults.report,
        pm_where=where,
        pm_begin=shield(where, faults, enter),
        pm_end=shield(where, faults, leave),
    )


def facts(output: Any) -> Facts:
    """Tokens scheduled, requests, and the tokens of those in prefill and of those in decode.

    A request is in prefill until its first output token, as vLLM's own `annotate_profile` counts:
    it is scheduled for the first time, or again without output yet (a chunk of a long prompt).
    What comes back after a preemption counts as decode there and here. vLLM 0.11 does not say how
    many output tokens a request has.
    """
    scheduled = output.num_scheduled_tokens
    tokens = output.total_num_scheduled_tokens
    cached = output.scheduled_cached_reqs
    outputs = getattr(cached, "num_output_tokens", None)
    if outputs is None:
        return tokens, len(scheduled), None, None
    prefill = sum([scheduled.get(new.req_id, 0) for new in output.scheduled_new_reqs])
    if 0 in outputs:  # asked first because it takes no loop of ours over hundreds of requests
        ids = [r for r, n in zip(cached.req_ids, outputs, strict=False) if n == 0]
        prefill += sum([scheduled.get(r, 0) for r in ids])
    return tokens, len(scheduled), prefill, tokens - prefill


HOOKS = (
    Hook(
        "Worker.execute_model",
        "engine",
        (Target(f"{WORKER}.execute_model", wrap_execute_model, "scheduler_output"),),
        ("step", "step.end"),
        "the step as the worker sees it; the recorder's GPU records are found through this range",
    ),
    Hook(
        "Worker.sample_tokens",
        "engine",
        (Target(f"{WORKER}.sample_tokens", wrap_sample_tokens),),
        ("step.sample",),
        "the sampler and the lm_head, which run after execute_model has returned",
    ),
    Hook(
        "Worker.execute_dummy_batch",
        "engine",
        (Target(f"{WORKER}.execute_dummy_batch", wrap_dummy_batch),),
        ("step", "step.end"),
        "steps without requests, which launch graphs too",
    ),
)
