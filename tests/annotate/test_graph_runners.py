"""Graphs of every runner and age: the second runner, breakable, micro-batch and encoder graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from graph_rig import FULL_4, Rig, output_of, without_ago
from listsink import ListSink

from profilemate import annotate
from profilemate.annotate.hooks.graph_key import key_of
from profilemate.annotate.settings import Settings

Make = Callable[..., Any]


def test_the_second_runner_s_graphs(rig: Rig) -> None:
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    runner = GPUModelRunner()
    runner.profile_cudagraph_memory()
    runner.capture_model()
    phases = Counter((c["owner"], c["phase"]) for c in rig.events("graph.capture"))
    assert phases == {
        (owner, phase): 2
        for owner in ("ModelCudaGraphManager", "DecodeSpeculatorCudaGraphManager")
        for phase in ("profile", "real")
    }
    rig.worker.model_runner = runner
    rig.step(1, 1, 1)
    rig.step(5, new=1)
    runner.drafter.run_fullgraph(next(iter(runner.drafter.graphs)))
    full, eager, drafter = rig.ranges()
    assert without_ago(full) == {
        "step": 1,
        **FULL_4,
        "unpadded": 3,
        "reqs": 3,
        "prefill_tokens": 0,
        "decode_tokens": 3,
        "launches": 1,
    }
    assert (eager.values["mode"], eager.values["num_tokens"]) == ("NONE", 5)
    assert (drafter.values["owner"], drafter.values["step"]) == (
        "DecodeSpeculatorCudaGraphManager",
        2,
    )


def test_breakable_graphs_are_as_many_as_their_stretches(rig: Rig) -> None:
    from vllm.compilation.breakable_cudagraph import BreakableCUDAGraphWrapper
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor, set_forward_context

    def stretch() -> None: ...
    def eager() -> None: ...

    target = BreakableCUDAGraphWrapper([stretch, eager, stretch, eager, stretch])
    drafter = BreakableCUDAGraphWrapper([stretch])
    with set_forward_context(CUDAGraphMode.PIECEWISE, BatchDescriptor(4)):
        target()
        drafter()
    captures = rig.events("graph.capture")
    assert [(c["owner"], c["piece"], c["pieces"]) for c in captures] == [
        ("BreakableCUDAGraphWrapper", 0, 3),
        ("BreakableCUDAGraphWrapper", 1, 3),
        ("BreakableCUDAGraphWrapper", 2, 3),
        ("BreakableCUDAGraphWrapper", 0, 1),
    ]
    rig.runner.model = target
    rig.step(3)
    (step,) = rig.ranges()
    assert step.values["launches"] == 3  # the drafter's have the same key
    assert [e["seen"] for e in rig.events("step.end")] == [3]
    with set_forward_context(CUDAGraphMode.PIECEWISE, BatchDescriptor(4)):
        drafter()
    assert [e.kind for e in rig.ranges()] == ["graph.replay"]


def test_micro_batch_and_encoder_graphs(rig: Rig) -> None:
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor, set_forward_context
    from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager
    from vllm.v1.worker.gpu_ubatch_wrapper import UBatchWrapper

    ubatches, encoder = UBatchWrapper(), EncoderCudaGraphManager()
    with set_forward_context(CUDAGraphMode.FULL, BatchDescriptor(4, 4, True)):
        ubatches._capture_ubatches([SimpleNamespace(num_tokens=2)] * 2, None)
    encoder._capture_budget_graph(64)
    encoder._capture_budget_graph(64, path="global", axis_keys=("tall",))
    first, second, third = rig.events("graph.capture")
    assert {**FULL_4, "owner": "UBatchWrapper", "phase": "real"}.items() <= first.items()
    for capture, further in ((second, None), (third, "path:global,axes:('tall',)")):
        assert capture["owner"] == "EncoderCudaGraphManager"
        assert (capture["mode"], capture["num_tokens"]) == ("FULL", 64)
        assert capture.get("descriptor") == further
    encoder.budget_graphs["default"][64].graph.replay()
    (replay,) = rig.ranges()
    assert (replay.values["model"], replay.values["num_tokens"]) == ("encoder", 64)


def test_encoder_graphs_as_older_versions_keep_them(rig: Rig) -> None:
    from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

    class Flat(dict[Any, Any]):
        """Up to vLLM 0.22 the graphs are kept by budget alone."""

        def setdefault(self, path: str, default: Any = None) -> Any:
            return self

    encoder = EncoderCudaGraphManager()
    encoder.budget_graphs = Flat()
    encoder._capture_budget_graph(32)
    (capture,) = rig.events("graph.capture")
    assert (capture["num_tokens"], "descriptor" in capture) == (32, False)


def test_the_oldest_dispatcher(layout: None, sink: ListSink, on: Settings) -> None:
    import vllm.v1.worker.gpu_model_runner as module
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor
    from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher

    del module.GPUModelRunner._determine_batch_execution_and_padding
    annotate.install(on)
    targets = {s.name: s.target for s in annotate.status()}
    assert targets["dispatch"] == "vllm.v1.worker.gpu_model_runner:CudagraphDispatcher.dispatch"
    rig = Rig(sink)
    known = BatchDescriptor(4)
    dispatcher = CudagraphDispatcher({known: CUDAGraphMode.FULL})

    def execute_model(output: Any) -> None:
        padded = 4 if output.total_num_scheduled_tokens <= 4 else 9
        dispatcher.dispatch(BatchDescriptor(padded))
        dispatcher.dispatch(BatchDescriptor(1))  # a drafter of that version

    rig.runner.execute_model = execute_model
    old = output_of(1, 1, 1)
    del old.scheduled_cached_reqs.num_output_tokens
    rig.worker.execute_model(old)
    rig.step(9)
    first, second = rig.ranges()
    assert (first.values["mode"], first.values["num_tokens"]) == ("FULL", 4)
    assert "prefill_tokens" not in first.values
    assert first.values["unpadded"] == 3
    assert (second.values["mode"], second.values["num_tokens"]) == ("NONE", 9)


@pytest.mark.parametrize(
    ("mode", "descriptor", "expected"),
    [
        ("FULL", 8, ("FULL", 8, None, None, None, None, None)),
        ("FULL", "namedtuple", ("FULL", 8, None, True, None, None, None)),
        ("FULL", "lora", ("FULL", 8, 4, True, True, 2, None)),
    ],
)
def test_descriptors_of_all_ages(mode: str, descriptor: Any, expected: tuple[Any, ...]) -> None:
    from collections import namedtuple
    from dataclasses import make_dataclass

    old = namedtuple("old", "num_tokens uniform_decode", defaults=(False,))
    new = make_dataclass(
        "BatchDescriptor",
        ["num_tokens", "num_reqs", "uniform", "has_lora", "num_active_loras"],
        frozen=True,
    )
    made = {"namedtuple": old(8, True), "lora": new(8, 4, True, True, 2)}
    assert key_of(mode, made.get(descriptor, descriptor)) == expected


def test_the_second_runner_s_descriptor_and_the_pieces_it_runs(layout: None) -> None:
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor
    from vllm.v1.worker.gpu.cudagraph_utils import BatchExecutionDescriptor

    def chosen(mode: CUDAGraphMode, *args: Any, **more: Any) -> Any:
        return BatchExecutionDescriptor(mode, *args, **more)

    piecewise = chosen(CUDAGraphMode.PIECEWISE, 8, None)
    # What the pieces are captured with and what the step is dispatched to are the same key.
    assert key_of("PIECEWISE", piecewise, False) == key_of("PIECEWISE", BatchDescriptor(8))
    assert key_of("PIECEWISE", piecewise, True) == key_of(
        "PIECEWISE", BatchDescriptor(8, has_lora=True)
    )
    full = chosen(CUDAGraphMode.FULL, 8, 4, 2, max_query_len=16, num_active_loras=3, num_ubatches=2)
    assert key_of("FULL", full) == (
        *("FULL", 8, 4, True, True, 3),
        "max_query_len:16,num_ubatches:2",
    )
    odd = chosen(CUDAGraphMode.FULL, 9, 4, 2)
    assert key_of("FULL", odd) == ("FULL", 9, 4, True, False, None, "uniform_token_count:2")
