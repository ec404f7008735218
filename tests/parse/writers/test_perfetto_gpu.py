"""GPU activity in the `.pftrace`, against its builder or a second reading of the recording."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from gpu_build import GpuExport
from kineto_witness import look, ns
from perfetto_files import written
from recorded import real_traces

from profilemate.parse.pipeline import read_trace
from profilemate.parse.session.timeline_file import Options


@pytest.mark.parametrize("marked", [True, False], ids=["ours", "not ours"])
@pytest.mark.parametrize("mode", ["node", "graph"])
def test_a_gpu_run(mode: str, marked: bool, tmp_path: Path) -> None:
    build = GpuExport(mode=mode, marked=marked)
    trace = read_trace([build.write(tmp_path / "run.sqlite")])
    _, found = written(trace, tmp_path / "t.pftrace", Options(kernels=True))
    steps, calls = found.slices("Model steps"), found.slices("Graph launches")
    replays = found.slices("Graph replays, stream 7")
    ago = 7 if marked else 0  # our message says that the step began before its range
    expected_steps = [(s["begin"] - ago, s["end"]) for s in build.steps]
    assert [(s.ts, s.end) for s in steps] == expected_steps
    assert [c.ts for c in calls] == [x["ts"] for x in build.launches]
    assert [c.args["correlation"] for c in calls] == [x["correlation"] for x in build.launches]
    records: dict[int, list[dict[str, int]]] = {}
    for record in build.records:
        records.setdefault(record["correlation"], []).append(record)
    assert len(replays) == len(build.launches)
    owner = {flow: step for step in steps for flow in step.flows}
    launched = {c.flows[0]: c for c in calls}
    for replay in replays:
        mine = records[replay.args["correlation"]]
        assert replay.ts == min(r["start"] for r in mine)
        assert replay.end == max(r["end"] for r in mine)
        assert replay.args["gpu_records"] == len(mine)
        (flow,) = replay.flows
        assert launched[flow].args["correlation"] == replay.args["correlation"]
        launch = next(x for x in build.launches if x["correlation"] == replay.args["correlation"])
        step = build.steps[launch["step"]]
        assert owner[flow].ts == step["begin"] - ago < launched[flow].ts < replay.ts
        if marked:
            assert replay.name == f"{step['mode']} {step['size']}"
            assert replay.args["piece"] == launch["graph"][2]
    kernels = found.slices("Kernels, stream 7")
    expected = sorted((r["start"], r["end"], r["kind"], r["correlation"]) for r in build.records)
    assert sorted((k.ts, k.end, k.category, k.args["correlation"]) for k in kernels) == expected
    assert len(found.at("Kernels, stream 7")) > 1 or mode == "graph", "some overlap"
    for line in found.at("Kernels, stream 7"):
        assert all(a.end <= b.ts for a, b in pairwise(line.slices))
    on_gpu = found.slices("GPU 0 / Steps")
    assert sum(s.args["gpu_records"] for s in on_gpu) == len(build.records)


REAL = (
    "vllm_rtx3090_gptoss20b_full_and_piecewise.pt.trace.json.gz",
    "vllm_mi300x_mixed_piecewise.json.gz",
    "vllm_b200_eager_prefill.json.gz",
    "training_v100_two_graphs_old_kineto.json.gz",
)


@pytest.mark.parametrize("name", REAL)
def test_real_gpu_recordings(name: str, tmp_path: Path) -> None:
    witness, trace = look(real_traces() / name), read_trace([real_traces() / name])
    _, found = written(trace, tmp_path / "t.pftrace", Options(kernels=True))
    zero = trace.sources[0].begin
    kernels = [k for k in found.paths() if "Kernels, stream" in k]
    shown = Counter(s.category for path in kernels for s in found.slices(path))
    assert sum(shown.values()) == len(trace.gpu)
    assert len(found.slices("Graph launches")) == len(witness.launches)
    expected = {}
    for launch in witness.launches:
        records = witness.records(launch)
        first, last = min(ns(r["ts"]) for r in records), max(stop_of(r) for r in records)
        expected[launch["args"]["correlation"]] = (first - zero, last - zero, len(records))
    replays = [s for p in found.paths() if "Graph replays" in p for s in found.slices(p)]
    assert {
        r.args["correlation"]: (r.ts, r.end, r.args["gpu_records"]) for r in replays
    } == expected
    owner = {flow: step for step in found.slices("Model steps") for flow in step.flows}
    if len(trace.frames["step"]):
        assert all(owner[r.flows[0]].ts <= r.ts for r in replays)


def stop_of(record: dict[str, str]) -> int:
    return ns(record["ts"]) + ns(record["dur"])


def test_a_recording_of_others_without_any_step(tmp_path: Path) -> None:
    trace = read_trace([real_traces() / "nsys_h100_2gpu_no_graphs.sqlite"])
    _, found = written(trace, tmp_path / "t.pftrace", Options(kernels=True))
    assert {p.partition(" / ")[2] for p in found.paths()} == {
        "GPU 0 / Kernels, stream 7",
        "GPU 1 / Kernels, stream 15",
    }
    assert sum(len(line.slices) for line in found.lines) == len(trace.gpu) == 4368
