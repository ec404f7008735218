"""CUDA graphs and steps on the stand-in layout; vLLM's own classes are driven in tests/e2e."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from graph_rig import FULL_2, FULL_4, PIECEWISE_4, Rig, output_of, without_ago
from listsink import ListSink

from profilemate import annotate
from profilemate.annotate import current
from profilemate.annotate.emit import Emitter
from profilemate.annotate.hook import Original
from profilemate.annotate.hooks.cuda_graph_replays import wrap_replay
from profilemate.annotate.settings import Settings

Make = Callable[..., Any]


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
    assert current.emitter is not None
    emitter = current.emitter
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
    assert current.emitter is not None
    assert current.emitter.faults.count == 1
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


def test_a_launch_that_raises_closes_its_range(sink: ListSink) -> None:
    class Graph:
        def replay(self) -> None:
            raise KeyError("lost device")

    emitter = Emitter(lambda: ([sink], ""))
    with pytest.raises(KeyError, match="lost device"):
        wrap_replay(Original(Graph.replay, "CUDAGraph.replay", "replay"), emitter)(Graph())
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
    wrap_replay(Original(Graph.replay, "CUDAGraph.replay", "replay"), emitter)(Graph())
    assert launched == [1]
    assert emitter.faults.count == 1
