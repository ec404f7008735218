"""Captures of CUDA graphs, and whose each graph is.

Every capture of vLLM goes through `torch.cuda.CUDAGraph`'s own begin and end, so these say that
there is one and how long it took, at places that are not known yet too. Whose graph it is, the
class that holds it knows: right after, each of those looks for its own among the captured ones.
Between captures there is nothing to look for, and its hook costs a call.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from profilemate.annotate.faults import shield
from profilemate.annotate.graphs import Key
from profilemate.annotate.hook import Hook, Method, Original, Target
from profilemate.annotate.hooks.graph_key import key_of, mode_name
from profilemate.annotate.wrapping import Arguments, compile_wrapper, observe
from profilemate.schema.modes import FULL, PIECEWISE

if TYPE_CHECKING:
    from profilemate.annotate.emit import Emitter

GRAPH = "torch.cuda.graphs:CUDAGraph"
RUNNER_1 = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
RUNNER_2 = "vllm.v1.worker.gpu.model_runner:GPUModelRunner"

_BEGAN = "pm_began"

# vLLM tags what it compiles with the model it belongs to (`set_model_tag`). These are drafters,
# which run after the target model's step; so are tags that end in `_head`.
_DRAFTERS = ("draft_model", "extract_hidden_states", "dflash2_candidate_selector")


# --------------------------------------------------------------------------- every capture


# Captures are noted whether anybody records or not: a recording that begins later says them again.
_BEGIN = """
if pm_emitter.on:
    pm_began(SELF)
return CALL
"""


def wrap_capture_begin(original: Original, emitter: Emitter) -> Method:
    """CUDAGraph.capture_begin: the clock starts."""

    def began(graph: Any) -> None:
        setattr(graph, _BEGAN, monotonic_ns())

    began = shield(original.hook, emitter.faults, began)
    return compile_wrapper(original, _BEGIN, pm_emitter=emitter, pm_began=began)


def wrap_capture_end(original: Original, emitter: Emitter) -> Method:
    """CUDAGraph.capture_end: a graph that waits for its owner."""

    def after(graph: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        began = vars(graph).pop(_BEGAN, start)
        emitter.graphs.pending.append((graph, began, end))

    return observe(original, emitter, after, wants=(), gate="pm_emitter.on")


# --------------------------------------------------------------------------- its owner


_CLAIM = """
pm_result = CALL
if pm_pending:
    pm_claim(SELF)
return pm_result
"""


def _claiming(original: Original, emitter: Emitter, claim: Any) -> Method:
    """Wrap a method after which `claim(holder)` looks for its own among the captured graphs."""
    return compile_wrapper(
        original,
        _CLAIM,
        pm_pending=emitter.graphs.pending,
        pm_claim=shield(original.hook, emitter.faults, claim),
    )


def wrap_graph_wrapper(original: Original, emitter: Emitter) -> Method:
    """CUDAGraphWrapper.__call__: the whole model (FULL) or one of its pieces (PIECEWISE).

    Runs once per piece in every step, and inside a FULL wrapper's own capture; what tells a
    capture from a replay or a pass-through is that a graph of its own is pending.
    """

    def claim(wrapper: Any) -> None:
        """Claim the graphs of a wrapper's entries."""
        mode = wrapper.runtime_mode.name
        # Read from its own attributes: the wrapper answers for its model otherwise.
        for descriptor, entry in list(vars(wrapper)["concrete_cudagraph_entries"].items()):
            if entry.cudagraph is None:
                continue
            model, piece, pieces = _piece(wrapper) if mode == PIECEWISE else (None, None, None)
            emitter.graphs.claim(
                entry.cudagraph,
                key_of(mode, descriptor),
                wrapper,
                model=model,
                piece=piece,
                pieces=pieces,
                main=not _is_drafter(model),
            )

    return _claiming(original, emitter, claim)


def _piece(wrapper: Any) -> tuple[str | None, int | None, int | None]:
    """Model tag, number and count of a piece; Inductor's own partitions say none of them."""
    backend = vars(wrapper)["runnable"]
    return (
        getattr(getattr(backend, "vllm_backend", None), "prefix", None) or None,
        getattr(backend, "piecewise_compile_index", None),
        getattr(backend, "total_piecewise_compiles", None),
    )


def _is_drafter(model: str | None) -> bool:
    return model is not None and (model in _DRAFTERS or model.endswith("_head"))


def wrap_breakable(original: Original, emitter: Emitter) -> Method:
    """BreakableCUDAGraphWrapper._capture: one graph for each stretch between eager operations.

    vLLM puts one around the target model first and may put another around a drafter, on graphs
    with the same descriptors.
    """
    target_model: list[int] = []  # id() of the runnable that came first, once there is one

    def claim(wrapper: Any) -> None:
        """Claim the stretches of a wrapper's entries."""
        runnable = vars(wrapper)["runnable"]
        if not target_model:
            target_model.append(id(runnable))
        context = sys.modules["vllm.forward_context"].get_forward_context()
        mode = mode_name(context.cudagraph_runtime_mode)
        for entry in list(wrapper.entries.values()):
            segments = getattr(entry.capture, "segments", ())
            # A stretch is kept as the bound `replay` of its graph, an eager operation as itself.
            graphs = [g for s in segments if hasattr(g := getattr(s, "__self__", None), "replay")]
            for piece, graph in enumerate(graphs):
                emitter.graphs.claim(
                    graph,
                    key_of(mode, entry.batch_descriptor),
                    wrapper,
                    model=getattr(runnable, "__qualname__", type(runnable).__name__),
                    piece=piece,
                    pieces=len(graphs),
                    main=id(runnable) == target_model[0],
                )

    return _claiming(original, emitter, claim)


def wrap_manager(original: Original, emitter: Emitter) -> Method:
    """CudaGraphManager.capture: the FULL graphs of the second model runner, all at once.

    Its subclasses for the target model and for drafters call it. Up to vLLM 0.16 a graph is known
    by its number of tokens and the drafter has a class of its own.
    """

    def claim(manager: Any) -> None:
        main = type(manager).__name__ in ("CudaGraphManager", "ModelCudaGraphManager")
        for descriptor, graph in list(manager.graphs.items()):
            emitter.graphs.claim(graph, key_of(FULL, descriptor), manager, main=main)

    return _claiming(original, emitter, claim)


def wrap_ubatches(original: Original, emitter: Emitter) -> Method:
    """UBatchWrapper._capture_ubatches: two micro-batches in one graph."""

    def claim(wrapper: Any) -> None:
        context = sys.modules["vllm.forward_context"].get_forward_context()
        key = key_of(FULL, context.batch_descriptor)
        for held in list(wrapper.cudagraphs.values()):
            emitter.graphs.claim(held.cudagraph, key, wrapper, main=True)

    return _claiming(original, emitter, claim)


def wrap_encoder(original: Original, emitter: Emitter) -> Method:
    """EncoderCudaGraphManager._capture_budget_graph: an encoder's graph for a number of tokens."""

    def claim(manager: Any) -> None:
        for budget, path, held in _budgets(manager.budget_graphs):
            tokens, axes = budget if isinstance(budget, tuple) else (budget, ())
            further = [f"path:{path}"] if path not in (None, "default") else []
            further += [f"axes:{axes}"] if axes else []
            key: Key = (FULL, tokens, None, None, None, None, ",".join(further) or None)
            emitter.graphs.claim(held.graph, key, manager, model="encoder")

    return _claiming(original, emitter, claim)


def _budgets(graphs: dict[Any, Any]) -> Iterator[tuple[Any, str | None, Any]]:
    """(budget, path, graph): by budget up to vLLM 0.22, by path and then budget since 0.25."""
    for key, value in list(graphs.items()):
        if isinstance(value, dict):
            yield from ((budget, key, held) for budget, held in list(value.items()))
        else:
            yield key, None, value


# --------------------------------------------------------------------------- why


_PHASE = """
if not pm_emitter.on:
    return CALL
pm_emitter.graphs.phase = 'profile'
try:
    return CALL
finally:
    pm_settle()
    pm_emitter.graphs.phase = 'real'
"""


def wrap_profile_memory(original: Original, emitter: Emitter) -> Method:
    """profile_cudagraph_memory: graphs are captured to be measured and thrown away."""
    settle = shield(original.hook, emitter.faults, emitter.graphs.emit_unclaimed)
    return compile_wrapper(original, _PHASE, pm_emitter=emitter, pm_settle=settle)


def wrap_capture_model(original: Original, emitter: Emitter) -> Method:
    """capture_model: afterwards the captures are emitted, before the first request comes."""

    def after(runner: Any, start: int, end: int, result: Any, args: Arguments, _: Any) -> None:
        emitter.graphs.emit_unclaimed()
        emitter.flush()

    return observe(original, emitter, after, wants=(), gate="pm_emitter.on")


def _hook(name: str, targets: tuple[str, ...], wrap: Any, emits: tuple[str, ...], why: str) -> Hook:
    return Hook(name, "graphs", tuple(Target(t, wrap) for t in targets), emits, why)


_CAPTURE = ("graph.capture",)

HOOKS = (
    _hook(
        "CUDAGraph.capture_begin",
        (f"{GRAPH}.capture_begin",),
        wrap_capture_begin,
        (),
        "when a capture began, wherever it is",
    ),
    _hook(
        "CUDAGraph.capture_end",
        (f"{GRAPH}.capture_end",),
        wrap_capture_end,
        _CAPTURE,
        "that there was one, at places that no other hook knows too",
    ),
    _hook(
        "CUDAGraphWrapper.__call__",
        ("vllm.compilation.cuda_graph:CUDAGraphWrapper.__call__",),
        wrap_graph_wrapper,
        _CAPTURE,
        "FULL graphs of the first model runner, PIECEWISE ones of both",
    ),
    _hook(
        "BreakableCUDAGraphWrapper._capture",
        ("vllm.compilation.breakable_cudagraph:BreakableCUDAGraphWrapper._capture",),
        wrap_breakable,
        _CAPTURE,
        "piecewise graphs without torch.compile",
    ),
    _hook(
        "CudaGraphManager.capture",
        ("vllm.v1.worker.gpu.cudagraph_utils:CudaGraphManager.capture",),
        wrap_manager,
        _CAPTURE,
        "FULL graphs of the second model runner and its drafters",
    ),
    _hook(
        "EagleCudaGraphManager.capture",
        ("vllm.v1.worker.gpu.spec_decode.eagle_cudagraph:EagleCudaGraphManager.capture",),
        wrap_manager,
        _CAPTURE,
        "the second model runner's drafter up to vLLM 0.16",
    ),
    _hook(
        "UBatchWrapper._capture_ubatches",
        ("vllm.v1.worker.gpu_ubatch_wrapper:UBatchWrapper._capture_ubatches",),
        wrap_ubatches,
        _CAPTURE,
        "micro-batched graphs of the first model runner",
    ),
    _hook(
        "EncoderCudaGraphManager._capture_budget_graph",
        ("vllm.v1.worker.encoder_cudagraph:EncoderCudaGraphManager._capture_budget_graph",),
        wrap_encoder,
        _CAPTURE,
        "graphs of multi-modal encoders",
    ),
    _hook(
        "GPUModelRunner.profile_cudagraph_memory",
        (f"{RUNNER_1}.profile_cudagraph_memory",),
        wrap_profile_memory,
        (),
        "captures that are measured and thrown away",
    ),
    _hook(
        "GPUModelRunner.profile_cudagraph_memory (V2)",
        (f"{RUNNER_2}.profile_cudagraph_memory",),
        wrap_profile_memory,
        (),
        "the same in the second model runner",
    ),
    _hook(
        "GPUModelRunner.capture_model",
        (f"{RUNNER_1}.capture_model",),
        wrap_capture_model,
        (),
        "the end of the captures: the moment to emit them",
    ),
    _hook(
        "GPUModelRunner.capture_model (V2)",
        (f"{RUNNER_2}.capture_model",),
        wrap_capture_model,
        (),
        "the same in the second model runner",
    ),
)
