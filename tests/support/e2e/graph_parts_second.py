"""Paths of the second model runner: its manager, with and without breakable graphs."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from graph_parts_common import NotHereError, Toy, make_config, module, runs_as, same


def manager() -> None:
    """CudaGraphManager: FULL graphs, through the real worker and the runner's own dispatch."""
    _manager("FULL_DECODE_ONLY")


def breakable() -> None:
    """The same with piecewise graphs that break at a decorated function, without compiling."""
    os.environ["VLLM_USE_BREAKABLE_CUDAGRAPH"] = "1"
    _manager("FULL_AND_PIECEWISE")


def _manager(mode_name: str) -> None:
    cu = module("vllm.v1.worker.gpu.cudagraph_utils")
    if not hasattr(cu.CudaGraphManager, "run_fullgraph"):
        raise NotHereError("this version's manager has other methods")
    mode = module("vllm.config").CUDAGraphMode
    piecewise = mode_name == "FULL_AND_PIECEWISE"
    if piecewise and not hasattr(cu.CudaGraphManager, "run_pw_graph"):
        raise NotHereError("this version's manager has no breakable graphs")
    cu.get_pp_group = lambda: SimpleNamespace(is_first_rank=True, is_last_rank=True)
    cu.graph_capture = lambda device: contextlib.nullcontext()
    config = make_config(mode_name)
    manager = cu.CudaGraphManager(
        config, torch.device("cpu"), config.compilation_config.cudagraph_mode, decode_query_len=1
    )
    net = _Net(manager, config, piecewise)
    if piecewise:
        manager.init_breakable_cg_runner(net)
    manager.capture(net.forward_factory(cu))
    run_batches(manager, net, mode, _worker_steps(manager, config))


class _Net(Toy):
    """A toy with a place where piecewise graphs break, and static buffers around it."""

    def __init__(self, manager: Any, config: Any, breaks: bool) -> None:
        super().__init__()
        self.manager, self.config = manager, config
        self.buffer, self.out = torch.zeros(8, 8), torch.zeros(8, 8)
        self._attention: Callable[..., Any] | None = None
        if breaks:
            bc = module("vllm.compilation.breakable_cudagraph")
            self._attention = bc.eager_break_during_capture(lambda q, out: out.copy_(q * 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.linear(x))
        if self._attention is not None:
            out = torch.empty_like(hidden)
            self._attention(hidden, out)
            hidden = out
        return hidden + 1

    def run(self, mode: Any, tokens: int) -> None:
        """One forward pass in this mode, other than FULL."""
        descriptor = module("vllm.forward_context").BatchDescriptor(num_tokens=tokens)
        x = self.buffer[:tokens]
        with runs_as(self.config, mode, descriptor):
            pieces = mode.name == "PIECEWISE"
            out = self.manager.run_pw_graph(self, {"x": x}) if pieces else self(x)
            self.out[:tokens] = out

    def forward_factory(self, cu: Any) -> Callable[..., Any]:
        """What `CudaGraphManager.capture` asks for, in all four shapes it had since 0.19."""
        wants_state = "AttentionState" in str(
            inspect.signature(inspect.unwrap(cu.CudaGraphManager.capture))
        )
        state = cu.AttentionState(None, {}) if wants_state and hasattr(cu, "AttentionState") else {}

        def create_forward_fn(desc: Any, warmup: bool = False) -> Any:
            def forward_fn(mode: Any) -> None:
                self.run(mode, desc.num_tokens)

            return (forward_fn, state) if wants_state else forward_fn

        return create_forward_fn


BATCHES = ((3, 3), (2, 2), (1, 4), (1, 7), (3, 3))
"""(requests, tokens)"""


def run_batches(manager: Any, net: _Net, mode: Any, steps: Callable[..., Any]) -> None:
    """Run batches as the runner does, each as a step of the worker's."""

    def execute(dispatch: Callable[..., Any], requests: int, tokens: int) -> None:
        net.buffer.normal_()
        desc = dispatch(requests, tokens, 1 if requests == tokens else None)
        if desc.cg_mode == mode.FULL:
            manager.run_fullgraph(desc)
        else:
            net.run(desc.cg_mode, desc.num_tokens)
        same(net.out[: desc.num_tokens], net(net.buffer[: desc.num_tokens]))

    for requests, tokens in BATCHES:
        steps(execute, requests, tokens)


def _worker_steps(manager: Any, config: Any) -> Callable[..., Any]:
    """`Worker.execute_model` around a runner that only dispatches, with vLLM's own function."""
    gpu_worker = module("vllm.v1.worker.gpu_worker")
    gpu_worker.get_pp_group = lambda: SimpleNamespace(is_first_rank=True, is_last_rank=True)
    runner_module = module("vllm.v1.worker.gpu.model_runner")
    worker = object.__new__(gpu_worker.Worker)
    vars(worker).update(
        rank=0,
        parallel_config=config.parallel_config,
        vllm_config=config,
        profiler=None,
        use_v2_model_runner=True,
        _pp_send_work=[],
    )

    def dispatch(requests: int, tokens: int, uniform: int | None) -> Any:
        if hasattr(runner_module, "dispatch_cg_and_sync_dp"):
            return runner_module.dispatch_cg_and_sync_dp(manager, requests, tokens, uniform, 1, 0)[
                0
            ]
        # vLLM 0.19 has it in a subclass that needs a whole model to be made.
        return runner_module.ModelCudaGraphManager.dispatch(manager, requests, tokens, uniform)

    def step(execute: Callable[..., Any], requests: int, tokens: int) -> None:
        ids = [f"r{i}" for i in range(requests)]
        each = dict.fromkeys(ids, tokens // requests)
        each[ids[-1]] += tokens - sum(each.values())
        output = SimpleNamespace(
            num_scheduled_tokens=each,
            total_num_scheduled_tokens=tokens,
            scheduled_new_reqs=[],
            scheduled_cached_reqs=SimpleNamespace(req_ids=ids, num_output_tokens=[1] * requests),
        )

        def execute_model(scheduler_output: Any, intermediate_tensors: Any = None) -> None:
            execute(dispatch, requests, tokens)

        worker.model_runner = SimpleNamespace(execute_model=execute_model, is_pooling_model=False)
        worker.execute_model(output)

    return step
