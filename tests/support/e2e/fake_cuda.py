"""A stand-in for CUDA graphs: `torch.cuda.CUDAGraph` and what vLLM needs around it, on the CPU.

There is no GPU here. What stands in records the operators that run while a graph is captured and
runs them again, into the same tensors, when it is replayed: vLLM's own dispatchers, wrappers and
managers then do what they do on a GPU, and a replay gives right numbers. It proves which graph is
captured and launched when, and that hooks do not disturb it; it proves nothing about time, memory
or streams.

It counts for itself, knowing nothing of profilemate: see `Witness`.

`install` has to come before the first import of `vllm.compilation` or of a model runner.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclasses.dataclass
class Witness:
    """What one graph saw: where vLLM was when it was captured, and how often it was launched.

    Attributes:
        context: The mode and the batch descriptor of vLLM's forward context at the capture, None
            where there was none.
        operators: How many operators it holds.
        replays: How often it was launched.
    """

    context: tuple[str, Any] | None = None
    operators: int = 0
    replays: int = 0


WITNESSES: list[Witness] = []
"""One for each graph that was captured, in order; they outlive their graphs."""


class _Tape(TorchDispatchMode):  # type: ignore[misc] # torch is not where this is checked
    """Writes down every operator that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


class CUDAGraph:
    """Stands in for `torch.cuda.CUDAGraph`."""

    def __init__(self, keep_graph: bool = False) -> None:
        self._tape: _Tape | None = None
        self._pool: Any = None
        self.witness = Witness()

    def capture_begin(
        self, pool: Any = None, capture_error_mode: str = "global", **more: Any
    ) -> None:
        self._pool = pool
        self._tape = _Tape()
        self.witness = Witness(_forward_context())
        WITNESSES.append(self.witness)
        self._tape.__enter__()

    def capture_end(self) -> None:
        assert self._tape is not None
        self._tape.__exit__(None, None, None)
        self.witness.operators = len(self._tape.calls)

    def replay(self) -> None:
        assert self._tape is not None, "replayed without a capture"
        self.witness.replays += 1
        with torch.inference_mode():
            for func, args, kwargs, result in self._tape.calls:
                _again(func, args, kwargs, result)

    def reset(self) -> None:
        self._tape = None

    def pool(self) -> Any:
        return self._pool


def _again(func: Any, args: Any, kwargs: Any, result: Any) -> None:
    """Run an operator again and put what it returns where it put it the first time."""
    new = func(*args, **kwargs)
    given = {
        t.untyped_storage().data_ptr()
        for t in tree_leaves((args, kwargs))
        if isinstance(t, torch.Tensor)
    }
    for old, fresh in zip(tree_leaves(result), tree_leaves(new), strict=True):
        # A view or an in-place result is where it was already.
        if isinstance(old, torch.Tensor) and old.untyped_storage().data_ptr() not in given:
            old.copy_(fresh)


def _forward_context() -> tuple[str, Any] | None:
    module = sys.modules.get("vllm.forward_context")
    context = getattr(module, "_forward_context", None)
    if context is None or context.batch_descriptor is None:
        return None
    return context.cudagraph_runtime_mode.name, context.batch_descriptor


class _Capture:
    """Stands in for `torch.cuda.graph`."""

    def __init__(
        self, cuda_graph: CUDAGraph, pool: Any = None, stream: Any = None, **more: Any
    ) -> None:
        self._graph, self._pool = cuda_graph, pool

    def __enter__(self) -> None:
        self._graph.capture_begin(pool=self._pool)

    def __exit__(self, *error: object) -> None:
        self._graph.capture_end()


class Stream:
    """Stands in for streams and events: takes everything and does nothing."""

    device = torch.device("cpu")
    cuda_stream = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _nothing

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None: ...


def _nothing(*args: Any, **kwargs: Any) -> None: ...


def install() -> None:
    """Put the stand-ins where vLLM looks for the real ones."""
    cuda: Any = torch.cuda
    graphs: Any = importlib.import_module("torch.cuda.graphs")
    cuda.CUDAGraph = graphs.CUDAGraph = CUDAGraph
    cuda.graph = graphs.graph = _Capture
    cuda.Stream = cuda.Event = Stream
    # Two functions: Dynamo keeps a table by them.
    cuda.current_stream = lambda *args: Stream()
    cuda.stream = lambda *args: Stream()
    cuda.set_stream = _nothing
    cuda.graph_pool_handle = lambda: (0, 1)
    accelerator: Any = torch.accelerator
    accelerator.synchronize = accelerator.empty_cache = _nothing
    accelerator.get_memory_info = lambda *args: (1 << 30, 2 << 30)
    platform: Any = type(importlib.import_module("vllm.platforms").current_platform)
    platform.graph_pool_handle = lambda self: (0, 1)
    platform.get_static_graph_wrapper_cls = classmethod(
        lambda cls: "vllm.compilation.cuda_graph.CUDAGraphWrapper"
    )
    # A C++ operator that builds for the CPU lack. In vllm.utils itself up to vLLM 0.11.
    utils: Any = importlib.import_module("vllm.utils")
    with contextlib.suppress(ImportError):
        utils = importlib.import_module("vllm.utils.torch_utils")
    utils.weak_ref_tensor = utils.weak_ref_tensors = lambda tensors: tensors


def force_cudagraphs_on_cpu(mode: str, sizes: Sequence[int]) -> None:
    """Let a CPU engine capture and use graphs as one on a GPU does (written for vLLM 0.32).

    The CPU platform clears the CUDA graph settings and its worker captures nothing; both are put
    right with lines of the GPU's own.
    """
    config = importlib.import_module("vllm.config")
    platform: Any = type(importlib.import_module("vllm.platforms").current_platform)
    check = platform.check_and_update_config.__func__

    def check_and_update_config(cls: Any, vllm_config: Any) -> None:
        check(cls, vllm_config)
        configure(vllm_config.compilation_config, mode, sizes, config)

    platform.check_and_update_config = classmethod(check_and_update_config)
    support = importlib.import_module("vllm.v1.attention.backend").AttentionCGSupport
    attention: Any = importlib.import_module("vllm.v1.attention.backends.cpu_attn")
    attention.CPUAttentionMetadataBuilder._cudagraph_support = support.ALWAYS
    runner: Any = importlib.import_module("vllm.v1.worker.gpu_model_runner")
    runner.graph_capture = lambda device: contextlib.nullcontext()
    runner.lock_workspace = _nothing
    _let_the_cpu_worker_capture(config.CUDAGraphMode.FULL)


def configure(compilation: Any, mode: str, sizes: Sequence[int], config: Any) -> None:
    """Set what the CPU platform clears, without the passes that only a GPU build has."""
    compilation.cudagraph_mode = config.CUDAGraphMode[mode]
    compilation.cudagraph_capture_sizes = list(sizes)
    compilation.max_cudagraph_capture_size = max(sizes)
    compilation.post_init_cudagraph_sizes()
    piecewise = compilation.cudagraph_mode.has_piecewise_cudagraphs()
    compilation.mode = (
        config.CompilationMode.VLLM_COMPILE if piecewise else config.CompilationMode.NONE
    )
    if piecewise:
        compilation.backend, compilation.compile_sizes = "eager", []
        no_passes(compilation)


def no_passes(compilation: Any) -> None:
    """Switch the fusion passes off."""
    passes = compilation.pass_config
    for field in dataclasses.fields(passes):
        if isinstance(getattr(passes, field.name), bool):
            object.__setattr__(passes, field.name, False)


def _let_the_cpu_worker_capture(full: Any) -> None:
    wrapper = importlib.import_module("vllm.compilation.cuda_graph").CUDAGraphWrapper
    runner: Any = importlib.import_module("vllm.v1.worker.cpu_model_runner").CPUModelRunner
    worker: Any = importlib.import_module("vllm.v1.worker.cpu_worker").CPUWorker
    load, warm_up = runner.load_model, worker.compile_or_warm_up_model

    def load_model(self: Any, *args: Any, **kwargs: Any) -> None:
        load(self, *args, **kwargs)
        if self.compilation_config.cudagraph_mode.has_full_cudagraphs():
            self.model = wrapper(self.model, self.vllm_config, runtime_mode=full)

    def compile_or_warm_up_model(self: Any) -> Any:
        result = warm_up(self)
        self.model_runner.capture_model()
        return result

    runner.load_model = load_model
    worker.compile_or_warm_up_model = compile_or_warm_up_model
