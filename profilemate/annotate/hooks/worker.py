"""Model executions: `Worker.execute_model`, which every worker class inherits or calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profilemate import schema
from profilemate.annotate.guard import Arguments, in_range, pick
from profilemate.annotate.patching import Hook, Method, Target
from profilemate.schema import Event

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter


def wrap_execute_model(original: Method, emitter: Emitter) -> Method:
    """execute_model: a range around the step, numbered like the scheduler's.

    Scheduler and workers count their calls; the counters advance in lock-step, calls with 0
    tokens included, while the clock says nothing: with asynchronous scheduling step N+1 is
    scheduled before step N has run.
    """
    get_output = pick(original, "scheduler_output")

    def begin(worker: Any, args: Arguments) -> str:
        parallel_config = getattr(worker, "parallel_config", None)
        if emitter.identity.saw_worker(getattr(worker, "rank", None), parallel_config):
            emitter.touch_session()
        emitter.flush()
        emitter.worker_step += 1
        output = get_output(args)
        values: dict[str, schema.Value] = {
            "step": emitter.worker_step,
            "unpadded": output.total_num_scheduled_tokens,
            "reqs": len(output.num_scheduled_tokens),
        }
        return schema.encode(Event("step", values))

    return in_range(original, emitter, begin)


HOOKS = (
    Hook(
        "Worker.execute_model",
        "engine",
        (Target("vllm.v1.worker.gpu_worker:Worker.execute_model", wrap_execute_model),),
        ("step",),
        "the step as the worker sees it; the recorder's GPU records are found through this range",
    ),
)
