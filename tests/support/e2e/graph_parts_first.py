"""Paths of the first model runner: FULL, PIECEWISE, micro-batches."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from fake_cuda import no_passes
from graph_parts_common import SIZES, NotHereError, Toy, make_config, module, runs_as, same


def full() -> None:
    """CudagraphDispatcher and CUDAGraphWrapper around the whole model."""
    wrapper = module("vllm.compilation.cuda_graph").CUDAGraphWrapper
    mode = module("vllm.config").CUDAGraphMode
    config = make_config("FULL_DECODE_ONLY")
    dispatcher = module("vllm.v1.cudagraph_dispatcher").CudagraphDispatcher(config)
    dispatcher.initialize_cudagraph_keys(config.compilation_config.cudagraph_mode, 1)
    model = wrapper(Toy(), config, mode.FULL)
    buffer = torch.zeros(8, 8)
    for descriptor in sorted(_full_keys(dispatcher, mode), key=lambda d: -d.num_tokens):
        with runs_as(config, mode.NONE, descriptor):
            model(buffer[: descriptor.num_tokens])
        with runs_as(config, mode.FULL, descriptor):
            model(buffer[: descriptor.num_tokens])
    for tokens, uniform in ((1, True), (3, True), (3, True), (3, False), (7, True)):
        buffer.normal_()
        chosen, descriptor = _dispatch(dispatcher, tokens, uniform)
        with runs_as(config, chosen, descriptor):
            out = model(buffer[: descriptor.num_tokens])
        same(out, model.runnable(buffer[: descriptor.num_tokens]))


def _full_keys(dispatcher: Any, mode: Any) -> Any:
    if hasattr(dispatcher, "get_capture_descs"):
        return dict(dispatcher.get_capture_descs())[mode.FULL]
    return dispatcher.cudagraph_keys[mode.FULL]


def _dispatch(dispatcher: Any, tokens: int, uniform: bool) -> tuple[Any, Any]:
    """Ask vLLM's dispatcher; its arguments changed four times."""
    parameters = inspect.signature(dispatcher.dispatch).parameters
    if "batch_descriptor" in parameters:  # vLLM 0.11: the caller pads
        descriptor = module("vllm.forward_context").BatchDescriptor
        padded = next((s for s in SIZES if s >= tokens), tokens)
        mode, found = dispatcher.dispatch(descriptor(padded, uniform_decode=uniform))
        return mode, found or descriptor(tokens)
    more = {}
    if parameters["has_lora"].default is inspect.Parameter.empty:
        more["has_lora"] = False
    result: tuple[Any, Any] = dispatcher.dispatch(tokens, uniform_decode=uniform, **more)
    return result


def piecewise() -> None:
    """A compiled model that vLLM splits at an operator: three pieces a step."""
    config_module = module("vllm.config")
    if not hasattr(config_module, "CompilationMode"):
        raise NotHereError("this version sets the compilation level in another way")
    mode = config_module.CUDAGraphMode
    descriptor = module("vllm.forward_context").BatchDescriptor
    config = make_config("PIECEWISE")
    compilation = config.compilation_config
    compilation.mode = config_module.CompilationMode.VLLM_COMPILE
    compilation.backend = "eager"
    compilation.splitting_ops = ["standin::attention"]
    compilation.use_inductor_graph_partition = False
    compilation.compile_sizes = []
    no_passes(compilation)
    with _splitting_operator():
        model = _compiled(config, config_module)
        buffer = torch.zeros(8, 8)

        def run(tokens: int, how: Any) -> torch.Tensor:
            with runs_as(config, how, descriptor(num_tokens=tokens)):
                out: torch.Tensor = model(buffer[:tokens])
            return out

        run(4, mode.NONE)
        for tokens in (4, 2):
            run(tokens, mode.PIECEWISE)
        for tokens in (2, 2, 4):
            buffer.normal_()
            same(run(tokens, mode.PIECEWISE), run(tokens, mode.NONE))


@contextlib.contextmanager
def _splitting_operator() -> Iterator[None]:
    library = torch.library.Library("standin", "FRAGMENT")
    library.define("attention(Tensor q, Tensor(a!) out) -> ()")

    def attention(q: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(q * 2)

    library.impl("attention", attention, "CPU")
    torch.library.register_fake("standin::attention", lambda q, out: None, lib=library)
    yield
    del library


def _compiled(config: Any, config_module: Any) -> Any:
    decorators = module("vllm.compilation.decorators")
    with config_module.set_current_vllm_config(config):

        @decorators.support_torch_compile(dynamic_arg_dims={"x": 0})
        class Model(torch.nn.Module):  # type: ignore[misc] # as above
            def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
                super().__init__()
                self.a = torch.nn.Linear(8, 8)
                self.b = torch.nn.Linear(8, 8)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                for linear in (self.a, self.b):
                    x = linear(x) + 1
                    out = torch.empty_like(x)
                    torch.ops.standin.attention(x, out)
                    x = out + x
                return x

        return Model(vllm_config=config)


def ubatch() -> None:
    """UBatchWrapper: micro-batches. Capturing needs threads on a device, replaying does not."""
    ub = module("vllm.v1.worker.gpu_ubatch_wrapper")
    mode = module("vllm.config").CUDAGraphMode
    descriptor = module("vllm.forward_context").BatchDescriptor
    config = make_config("FULL_DECODE_ONLY", (4,))
    ub.DPMetadata = SimpleNamespace(make=lambda *args, **kwargs: object())
    wrapper = object.__new__(ub.UBatchWrapper)
    vars(wrapper).update(
        vllm_config=config, cudagraphs={}, cudagraph_wrapper=None, is_debugging_mode=False
    )
    wrapper._make_ubatch_metadata = lambda *args, **kwargs: None

    def capture(self: Any, ubatch_metadata: Any, model: Any) -> None:
        # Stands in for the threads; everything around it is vLLM's.
        graph: Any = torch.cuda.CUDAGraph()
        self.cudagraphs[4] = ub.CUDAGraphMetaData(
            cudagraph=graph, ubatch_metadata=None, outputs=torch.zeros(4, 8)
        )
        graph.capture_begin()
        self.cudagraphs[4].outputs += 1
        graph.capture_end()

    slices = [
        SimpleNamespace(num_tokens=2, token_slice=slice(0, 2)),
        SimpleNamespace(num_tokens=2, token_slice=slice(2, 4)),
    ]
    with runs_as(config, mode.FULL, descriptor(num_tokens=4)):
        context = module("vllm.forward_context")._forward_context
        context.ubatch_slices, context.dp_metadata = slices, object()
        with _instead(ub.UBatchWrapper, "_capture_ubatches", capture) as hooked:
            hooked(wrapper, [], None)
        for count in (2, 3):
            out = wrapper(
                input_ids=None,
                positions=torch.zeros(4),
                intermediate_tensors=None,
                inputs_embeds=None,
            )
            same(out, torch.full((4, 8), float(count)))


@contextlib.contextmanager
def _instead(owner: Any, name: str, function: Any) -> Iterator[Callable[..., Any]]:
    """Give the hook on a method another method to call: the wrapper, but not what it wraps."""
    from profilemate.annotate import current
    from profilemate.annotate.hook import Original
    from profilemate.annotate.hooks.cuda_graph_captures import wrap_ubatches

    original = vars(owner)[name]
    assert hasattr(original, "__wrapped__"), f"{name} is not hooked"
    assert current.emitter is not None
    yield wrap_ubatches(Original(function, name, name), current.emitter)
