"""CUDA graphs and steps on the stand-in layout; vLLM's own classes are driven in tests/e2e."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from listsink import ListSink

from profilemate import annotate, schema
from profilemate.annotate.emit import Emitter
from profilemate.annotate.hooks.cuda_graph_replays import wrap_replay
from profilemate.annotate.hooks.graph_key import key_of
from profilemate.annotate.settings import Settings
from profilemate.schema import Event

Make = Callable[..., Any]


class Rig:
    """A worker of the stand-in layout with hooks in it, and what they said."""

    def __init__(self, sink: ListSink) -> None:
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner
        from vllm.v1.worker.gpu_worker import Worker

        self.sink = sink
        self.runner = GPUModelRunner()
        self.worker = Worker(self.runner)

    def step(self, *tokens: int, new: int = 0, outputs: int = 1) -> None:
        """One scheduled step of requests with so many tokens; the first `new` are new ones."""
        self.worker.execute_model(output_of(*tokens, new=new, outputs=outputs))

    def ranges(self) -> list[Event]:
        """The ranges since the last call, all closed."""
        assert self.sink.depth == 0
        texts, self.sink.ranges = self.sink.ranges, []
        return [message.events[0] for text in texts if (message := schema.decode(text))]

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """The buffered events since the last call."""
        assert annotate._emitter is not None
        annotate._emitter.flush()
        assert annotate._emitter.faults.count == 0
        found = self.sink.events(*kinds)
        self.sink.messages.clear()
        return [e.values for e in found]


def output_of(*tokens: int, new: int = 0, outputs: int = 1) -> Any:
    ids = [f"r{i}" for i in range(len(tokens))]
    cached = ids[new:]
    return SimpleNamespace(
        num_scheduled_tokens=dict(zip(ids, tokens, strict=True)),
        total_num_scheduled_tokens=sum(tokens),
        scheduled_new_reqs=[SimpleNamespace(req_id=r) for r in ids[:new]],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=cached, num_output_tokens=[outputs] * len(cached)
        ),
    )


def without_ago(event: Event) -> dict[str, Any]:
    values = dict(event.values)
    assert values.pop("ago") >= 0  # type: ignore[operator]
    return values


@pytest.fixture
def rig(layout: None, sink: ListSink, on: Settings) -> Rig:
    annotate.install(on)
    return Rig(sink)


FULL_4 = {"mode": "FULL", "num_tokens": 4, "num_reqs": 4, "uniform": True, "has_lora": False}
FULL_2 = {"mode": "FULL", "num_tokens": 2, "num_reqs": 2, "uniform": True, "has_lora": False}
PIECEWISE_4 = {"mode": "PIECEWISE", "num_tokens": 4, "uniform": False, "has_lora": False}


def test_every_captured_graph_is_told_once_and_whose_it_is(rig: Rig) -> None:
    rig.runner.capture_model()
    # capture_model has flushed them already: nothing waits for the first request.
    captures = [e.values for e in rig.sink.events("graph.capture")]
    assert all(c.pop("ago") >= c.pop("dur") >= 0 for c in captures)  # type: ignore[operator]
    assert [(c["mode"], c["num_tokens"], c.get("model"), c.get("piece")) for c in captures] == [
        ("PIECEWISE", 4, "backbone", 0),
        ("PIECEWISE", 4, "backbone", 1),
        ("PIECEWISE", 4, "backbone", 2),
        ("PIECEWISE", 4, "eagle_head", 0),
        ("PIECEWISE", 2, "backbone", 0),
        ("PIECEWISE", 2, "backbone", 1),
        ("PIECEWISE", 2, "backbone", 2),
        ("PIECEWISE", 2, "eagle_head", 0),
        ("FULL", 4, None, None),
        ("FULL", 2, None, None),
    ]
    assert captures[1] == {
        **PIECEWISE_4,
        "owner": "CUDAGraphWrapper",
        "model": "backbone",
        "piece": 1,
        "pieces": 3,
        "phase": "real",
    }
    assert captures[8] == {**FULL_4, "owner": "CUDAGraphWrapper", "phase": "real"}
    assert rig.ranges() == []  # warm-ups and captures are no steps


def test_captures_that_are_thrown_away_say_so_and_count_for_nothing(rig: Rig) -> None:
    rig.runner.profile_cudagraph_memory()
    rig.step(1, 1, 1)  # captures in a step, as if there had been no capture_model
    first, second = rig.events("graph.capture")
    assert (first["phase"], second["phase"]) == ("profile", "real")
    rig.step(1, 1, 1)
    before, after = rig.ranges()
    assert (before.values["launches"], after.values["launches"]) == (0, 1)


def test_a_step_is_one_range_that_carries_everything(rig: Rig) -> None:
    rig.runner.capture_model()
    rig.events()
    rig.step(1, 1, 1)
    (step,) = rig.ranges()
    assert step.kind == "step"
    assert without_ago(step) == {
        "step": 1,
        **FULL_4,
        "unpadded": 3,
        "reqs": 3,
        "prefill_tokens": 0,
        "decode_tokens": 3,
        "launches": 1,
    }
    assert next(iter(step.values)) == "ago"
    (end,) = rig.events("step.end")
    assert end.pop("dur") > 0
    del end["ago"]
    assert end == {"step": 1, "seen": 1}


def test_a_piecewise_step_counts_its_pieces_and_has_no_range_for_each(rig: Rig) -> None:
    rig.runner.capture_model()
    rig.events()
    rig.step(3)
    (step,) = rig.ranges()
    assert step.values["mode"] == "PIECEWISE"
    assert step.values["launches"] == 3
    assert "num_reqs" not in step.values
    assert [e["seen"] for e in rig.events("step.end")] == [3]


def test_a_missing_launch_shows(rig: Rig) -> None:
    rig.runner.capture_model()
    rig.events()
    rig.runner.pieces[1].concrete_cudagraph_entries.clear()  # captures again instead
    rig.step(3)
    assert rig.ranges()[0].values["launches"] == 3
    assert [e["seen"] for e in rig.events("step.end")] == [2]
    rig.step(3)
    assert rig.ranges()[0].values["launches"] == 3
    assert [e["seen"] for e in rig.events("step.end")] == [3]


def test_an_eager_step_and_one_without_tokens(rig: Rig) -> None:
    rig.runner.capture_model()
    rig.events()
    rig.step(5, 1, new=1)
    rig.worker.execute_model(scheduler_output=output_of())
    rig.step(1)
    first, last = rig.ranges()
    assert without_ago(first) == {
        "step": 1,
        "mode": "NONE",
        "num_tokens": 6,
        "uniform": False,
        "has_lora": False,
        "unpadded": 6,
        "reqs": 2,
        "prefill_tokens": 5,
        "decode_tokens": 1,
        "launches": 0,
    }
    assert last.values["step"] == 3
    (empty,) = rig.events("step")
    assert (empty["step"], empty["unpadded"], empty["launches"]) == (2, 0, 0)
    assert "mode" not in empty


def test_launches_outside_the_step_s_own_say_whose_they_are(rig: Rig) -> None:
    from vllm.forward_context import BatchDescriptor

    rig.runner.capture_model()
    rig.events()
    rig.step(1, 1)
    rig.runner.sample_tokens(BatchDescriptor(2))
    rig.runner.encoder.replay()
    step, drafter, unknown = rig.ranges()
    assert step.kind == "step"
    assert drafter.kind == unknown.kind == "graph.replay"
    assert drafter.values == {
        **PIECEWISE_4,
        "num_tokens": 2,
        "owner": "CUDAGraphWrapper",
        "model": "eagle_head",
        "piece": 0,
        "pieces": 1,
        "step": 1,
    }
    assert unknown.values == {"step": 1}
    assert rig.runner.encoder.replays == 1


def test_a_foreign_launch_inside_a_step_has_a_range_in_it(rig: Rig) -> None:
    rig.runner.capture_model()
    rig.events()
    forward = rig.runner._forward

    def with_encoder(x: int) -> Any:
        rig.runner.encoder.replay()
        return forward(x)

    rig.runner.model.runnable = with_encoder
    rig.step(3)
    assert [e.kind for e in rig.ranges()] == ["step", "graph.replay"]
    assert [e["seen"] for e in rig.events("step.end")] == [3]


def test_every_launch_has_a_range_on_request(layout: None, sink: ListSink) -> None:
    annotate.install(Settings(wanted=True, launches=True))
    rig = Rig(sink)
    rig.runner.capture_model()
    rig.events()
    rig.step(3)
    step, *launches = rig.ranges()
    assert (step.kind, step.values["launches"]) == ("step", 3)
    assert [(e.kind, e.values["piece"], e.values["step"]) for e in launches] == [
        ("graph.replay", 0, 1),
        ("graph.replay", 1, 1),
        ("graph.replay", 2, 1),
    ]
    assert [e["seen"] for e in rig.events("step.end")] == [3]


def test_dummy_batches_are_marked_and_not_numbered(rig: Rig) -> None:
    rig.runner.capture_model()
    rig.events()
    rig.step(1)
    rig.worker.execute_dummy_batch()
    rig.step(1)
    first, dummy, second = rig.ranges()
    assert (first.values["step"], second.values["step"]) == (1, 2)
    assert without_ago(dummy) == {**FULL_2, "launches": 1, "dummy": True}
    ends = rig.events("step.end")
    assert [(e.get("step"), e["seen"], e.get("dummy")) for e in ends] == [
        (1, 1, None),
        (None, 1, True),
        (2, 1, None),
    ]


def test_a_step_that_raises_closes_its_range(rig: Rig) -> None:
    def broken(x: int) -> None:
        raise RuntimeError("out of memory")

    rig.runner.model.runnable = broken
    with pytest.raises(RuntimeError):
        rig.step(3)
    assert len(rig.ranges()) == 1
    rig.runner.encoder.replay()
    (launch,) = rig.ranges()
    assert launch.kind == "graph.replay"


def test_steps_whose_mode_nobody_tells_still_have_a_range(rig: Rig) -> None:
    def execute_model(scheduler_output: Any) -> None:
        rig.runner.encoder.replay()

    rig.runner.execute_model = execute_model
    rig.step(3)
    rig.step(3)
    launch, step, launch_2 = rig.ranges()
    assert (launch.kind, step.kind, launch_2.kind) == ("graph.replay", "step", "graph.replay")
    assert without_ago(step)["step"] == 2
    assert "mode" not in step.values
    del rig.runner.execute_model
    rig.step(1)
    rig.step(1)
    assert [s.values.get("mode") for s in rig.ranges()] == [None, "FULL"]


def test_with_the_graph_hooks_off_steps_are_ranges_all_the_same(
    layout: None, sink: ListSink
) -> None:
    annotate.install(Settings(wanted=True, graphs=False))
    rig = Rig(sink)
    rig.runner.capture_model()
    rig.step(1)
    (step,) = rig.ranges()
    assert without_ago(step) == {
        "step": 1,
        "unpadded": 1,
        "reqs": 1,
        "prefill_tokens": 0,
        "decode_tokens": 1,
    }
    assert rig.events("graph.capture", "step.end") == []


def test_nothing_is_looked_at_when_nobody_records(rig: Rig) -> None:
    assert annotate._emitter is not None
    emitter = annotate._emitter
    emitter.on = emitter.active = emitter.watching = False
    rig.runner.capture_model()
    rig.step(1)
    rig.runner.encoder.replay()
    assert rig.sink.ranges == rig.sink.messages == []
    graph = next(iter(rig.runner.model.concrete_cudagraph_entries.values())).cudagraph
    assert set(vars(graph)) == {"replays"}
    assert graph.replays in (0, 1)


def test_nothing_of_ours_keeps_a_graph_alive(rig: Rig) -> None:
    rig.runner.capture_model()
    rig.step(1)
    entries = rig.runner.model.concrete_cudagraph_entries
    graphs = [weakref.ref(e.cudagraph) for e in entries.values()]
    entries.clear()
    gc.collect()
    assert [g() for g in graphs] == [None, None]


def test_a_capture_that_no_owner_claims_is_told_without_one(rig: Rig) -> None:
    import torch

    def unknown_place() -> int:
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            pass
        return 0

    rig.runner._dummy_run = lambda *args: unknown_place()
    rig.runner.capture_model()
    captures = rig.events("graph.capture")
    assert len(captures) == 8
    assert {frozenset(c) for c in captures} == {frozenset({"ago", "dur", "phase"})}


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


def test_prefill_is_what_has_no_output_yet(rig: Rig) -> None:
    rig.step(10, 1, 1, new=1)
    rig.step(10, 7, 5, new=1, outputs=0)  # chunks of prompts that began earlier
    splits = [(s.values["prefill_tokens"], s.values["decode_tokens"]) for s in rig.ranges()]
    assert splits == [(10, 2), (22, 0)]


def test_a_step_that_we_cannot_read_is_still_a_step(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    output = output_of(1)
    del output.scheduled_cached_reqs
    rig.worker.execute_model(output)
    (step,) = rig.ranges()
    assert (step.values["step"], step.values["unpadded"]) == (1, 1)
    assert "reqs" not in step.values
    assert annotate._emitter is not None
    assert annotate._emitter.faults.count == 1
    assert "scheduled_cached_reqs" in capsys.readouterr().err


def test_functions_are_wrapped_in_the_module_that_calls_them(
    layout: None, sink: ListSink, on: Settings
) -> None:
    from vllm.v1.worker.gpu import dp_utils, model_runner

    original = dp_utils.dispatch_cg_and_sync_dp
    annotate.install(on)
    assert model_runner.dispatch_cg_and_sync_dp is not original
    assert dp_utils.dispatch_cg_and_sync_dp is original
    annotate.uninstall()
    assert model_runner.dispatch_cg_and_sync_dp is original


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


def test_a_launch_that_raises_closes_its_range(sink: ListSink) -> None:
    class Graph:
        def replay(self) -> None:
            raise KeyError("lost device")

    emitter = Emitter(lambda: ([sink], ""))
    with pytest.raises(KeyError, match="lost device"):
        wrap_replay(Graph.replay, emitter)(Graph())
    assert [r.partition(" ")[0] for r in sink.ranges] == ["pm1.graph.replay"]
    assert sink.depth == 0
    assert emitter.faults.count == 0


def test_a_launch_whose_label_fails_is_launched_all_the_same() -> None:
    def broken() -> tuple[list[Any], str]:
        raise ValueError("no sink")

    launched: list[int] = []

    class Graph:
        def replay(self) -> None:
            launched.append(1)

    emitter = Emitter(broken)
    wrap_replay(Graph.replay, emitter)(Graph())
    assert launched == [1]
    assert emitter.faults.count == 1
