"""How vLLM runs each step: the one call in which it decides on mode, graph and padding.

Every step goes through it, eager ones too, and so do warm-ups, captures and dummy batches; which it
is, `Step` knows. Its place and its result differ more between versions than anything else that is
hooked, so each has a reader of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profilemate.annotate.hook import Hook, Method, Original, Target
from profilemate.annotate.hooks.graph_key import key_of, mode_name
from profilemate.annotate.wrapping import Arguments, observe

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter

# Outside a step, the answer is a warm-up's or a capture's.
_RUNNING = "pm_emitter.step.running"

RUNNER_1 = "vllm.v1.worker.gpu_model_runner"
RUNNER_2 = "vllm.v1.worker.gpu.model_runner"


# --------------------------------------------------------------------------- the first runner


def wrap_determine(original: Original, emitter: Emitter) -> Method:
    """_determine_batch_execution_and_padding: (mode, descriptor, ...), since vLLM 0.12."""

    def after(runner: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        key = key_of(mode_name(result[0]), result[1])
        emitter.step.dispatched(key, args[0])

    return observe(original, emitter, after, wants=("num_tokens",), gate=_RUNNING)


def wrap_dispatcher(original: Original, emitter: Emitter) -> Method:
    """CudagraphDispatcher.dispatch in vLLM 0.11: (mode, descriptor, or None for an eager step).

    The caller has padded already, so the step's tokens are those that were scheduled.
    """

    def after(_self: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        descriptor = args[0] if result[1] is None else result[1]
        emitter.step.dispatched(key_of(mode_name(result[0]), descriptor), None)

    return observe(original, emitter, after, wants=("batch_descriptor",), gate=_RUNNING)


# --------------------------------------------------------------------------- the second runner


def _serves_lora(manager: Any) -> bool:
    config = getattr(manager, "vllm_config", None)
    return getattr(config, "lora_config", None) is not None


def wrap_dispatch_and_sync(original: Original, emitter: Emitter) -> Method:
    """dispatch_cg_and_sync_dp: the descriptor that all data-parallel ranks agreed on.

    A function, wrapped where the runner has it: drafters have names of their own for it.
    """

    def after(manager: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        descriptor = result[0]
        mode = mode_name(descriptor.cg_mode)
        key = key_of(mode, descriptor, _serves_lora(manager))
        emitter.step.dispatched(key, args[0])

    return observe(original, emitter, after, wants=("num_tokens",), gate=_RUNNING)


def wrap_manager_dispatch(original: Original, emitter: Emitter) -> Method:
    """ModelCudaGraphManager.dispatch in vLLM 0.19: final unless there are data-parallel ranks."""

    def after(manager: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        parallel = getattr(manager.vllm_config, "parallel_config", None)
        if getattr(parallel, "data_parallel_size", 1) == 1:
            key = key_of(mode_name(result.cg_mode), result, _serves_lora(manager))
            emitter.step.dispatched(key, args[0])

    return observe(original, emitter, after, wants=("num_tokens",), gate=_RUNNING)


def wrap_padding(original: Original, emitter: Emitter) -> Method:
    """get_cudagraph_and_dp_padding, vLLM 0.12 to 0.16: (mode or use it, padded tokens, ...)."""

    def after(_self: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        emitter.step.dispatched(key_of(mode_name(result[0]), int(result[1])), None)

    return observe(original, emitter, after, wants=(), gate=_RUNNING)


_AGREED = "cudagraph_manager, num_reqs, num_tokens"
_CHOSEN = "num_reqs, num_tokens"
_SYNCED = "cudagraph_manager, desired_batch_desc, num_tokens"

HOOKS = (
    Hook(
        "dispatch",
        "graphs",
        (
            Target(
                f"{RUNNER_1}:GPUModelRunner._determine_batch_execution_and_padding",
                wrap_determine,
                "num_tokens, num_reqs",
            ),
            Target(f"{RUNNER_1}:CudagraphDispatcher.dispatch", wrap_dispatcher, "batch_descriptor"),
        ),
        ("step",),
        "mode, descriptor and padding of every step of the first model runner",
    ),
    Hook(
        "dispatch (V2)",
        "graphs",
        (
            Target(f"{RUNNER_2}:dispatch_cg_and_sync_dp", wrap_dispatch_and_sync, _AGREED),
            Target(f"{RUNNER_2}:ModelCudaGraphManager.dispatch", wrap_manager_dispatch, _CHOSEN),
            Target(f"{RUNNER_2}:get_cudagraph_and_dp_padding", wrap_padding),
            Target(f"{RUNNER_2}:GPUModelRunner.get_cudagraph_and_dp_padding", wrap_padding),
        ),
        ("step",),
        "the same of the second model runner",
    ),
    Hook(
        "dispatch (V2, ranks agreed)",
        "graphs",
        (Target(f"{RUNNER_2}:sync_cudagraph_and_dp_padding", wrap_dispatch_and_sync, _SYNCED),),
        ("step",),
        "the same in vLLM 0.19, where data-parallel ranks agree afterwards",
    ),
)
