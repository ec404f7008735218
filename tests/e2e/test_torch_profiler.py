"""The torch profiler's route: real profilers, started through vLLM and by the user's own code.

Witnesses that share nothing with profilemate: a plugin that asks the block pool itself, a count at
the executor, and vLLM's own annotations in the same traces.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import engine
import pandas as pd
import profiled
import pytest
from places import INSIDE, ROOT, WITNESS
from served import ORDERLY, profilemate

from profilemate import schema

pytestmark = pytest.mark.real

OPS = ("alloc", "touch", "free", "reset", "evict")
_ANNOTATION = re.compile(r"execute_context_\d+\((\d+)\)_generation_\d+\((\d+)\)")


@dataclass(frozen=True)
class Profiled:
    """A run under a torch profiler."""

    log: str
    trace: Path
    session: Path
    witness: list[dict[str, Any]]
    counted: dict[str, Any]

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.session / f"{name}.csv")

    @property
    def metadata(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.session / "metadata.json").read_text())
        return loaded


def events_of(trace: Path) -> list[dict[str, Any]]:
    """The events of a Kineto trace, by the standard library."""
    raw = trace.read_bytes()
    text = gzip.decompress(raw) if trace.suffix == ".gz" else raw
    events: list[dict[str, Any]] = json.loads(text)["traceEvents"]
    return sorted((e for e in events if "ts" in e), key=lambda e: float(e["ts"]))


def annotated(trace: Path) -> list[int]:
    """Tokens of every step that vLLM's own annotations tell."""
    names = [m for e in events_of(trace) if (m := _ANNOTATION.fullmatch(str(e.get("name"))))]
    return [int(m[1]) + int(m[2]) for m in names]


def parsed(folder: Path, trace: Path, log: Path, counted: dict[str, Any]) -> Profiled:
    session = folder / "session"
    profilemate("parse", trace, "-o", session)
    lines: list[dict[str, Any]] = []
    for seen in folder.glob("witness.*"):
        lines += [json.loads(line) for line in seen.read_text().splitlines()]
    text = log.read_text()
    assert "a fault of profilemate" not in text
    return Profiled(text, trace, session, lines, counted)


def beside(folder: Path) -> dict[str, str]:
    """Where the sidecars go that are written while a torch profiler runs."""
    return {"PROFILEMATE_SESSION": str(folder / "beside")}


def offline(
    folder: Path, python: Path, model: Path, installed: Path, how: str, *bounds: str, **env: str
) -> Profiled:
    """The engine in one process, with the plugin as the only door."""
    traces, result = folder / "traces", folder / "result.json"
    traces.mkdir()
    script = [str(INSIDE / "profiled.py"), "run", str(model), str(traces), str(result), how]
    run = engine.run_offline(
        python,
        [*script, *bounds],
        workdir=folder,
        env={"WITNESS_FILE": str(folder / "witness"), **beside(folder), **env},
        pythonpath=[installed, WITNESS],
    )
    (trace,) = traces.glob("*.pt.trace.json*")
    return parsed(folder, trace, run.log, json.loads(result.read_text()))


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory, vllm_python: Path, model: Path, installed: Path
) -> Profiled:
    return offline(tmp_path_factory.mktemp("started"), vllm_python, model, installed, "vllm")


@pytest.fixture(scope="module")
def users_own(
    tmp_path_factory: pytest.TempPathFactory, vllm_python: Path, model: Path, installed: Path
) -> Profiled:
    folder = tmp_path_factory.mktemp("user")
    return offline(folder, vllm_python, model, installed, "user", PROFILEMATE="on")


@pytest.fixture(params=["started", "users_own"])
def either(request: pytest.FixtureRequest) -> Profiled:
    found: Profiled = request.getfixturevalue(request.param)
    return found


def steps_inside(run: Profiled) -> dict[int, int]:
    """Number and tokens of each step in the window, by the count at the executor."""
    counted = run.counted
    numbers = range(counted["before"] + 1, counted["inside"] + 1)
    return {n: counted["tokens"][n - 1] for n in numbers}


def test_every_step_of_the_window_and_no_other_is_in_the_trace(either: Profiled) -> None:
    steps = either.table("cuda_graph_steps")
    expected = steps_inside(either)
    assert dict(zip(steps["step"], steps["unpadded_tokens"], strict=True)) == expected
    assert len(steps) == len(expected) > 20
    assert either.metadata["events"]["sched.step"] == len(expected)
    assert min(expected) > 1
    assert max(expected) < len(either.counted["tokens"])


def test_vllm_s_own_annotations_agree(started: Profiled) -> None:
    assert annotated(started.trace) == list(steps_inside(started).values())


def test_every_block_operation_of_the_window_is_in_the_trace(either: Profiled) -> None:
    check_block_operations(either)


def check_block_operations(run: Profiled) -> None:
    began, ended = run.counted["ns"]
    theirs: list[dict[str, Any]] = []
    for line in run.witness:
        if line["op"] not in OPS or not began <= line["ns"] <= ended:
            continue
        if line["op"] == "evict" and theirs and theirs[-1]["op"] == "evict":
            theirs[-1]["ids"] = theirs[-1]["ids"] + line["ids"]
        else:
            theirs.append(dict(line))
    events = run.table("kv_block_events")
    ours = events[events["op"].isin(OPS)]
    assert [*ours["op"]] == [w["op"] for w in theirs]
    assert [*ours["num_blocks"]] == [len(w.get("ids", ())) for w in theirs]
    used = [w["total"] - w["free"] for w in theirs if w["op"] != "evict"]
    assert [*ours[ours["op"] != "evict"]["used_blocks"]] == used
    assert {"evict", "free", "touch", "alloc"} == set(ours["op"])


def test_arrivals_and_ends_are_in_the_trace(either: Profiled) -> None:
    requests = sum(map(len, profiled.WITHIN))
    assert either.metadata["events"]["request"] == 2 * requests
    assert either.metadata["dropped"]["lost_batches"] == {}
    assert {p["role"] for p in either.metadata["processes"]} == {"engine+worker"}


def test_delay_and_limit_are_vllm_s(
    tmp_path: Path, vllm_python: Path, model: Path, installed: Path
) -> None:
    run = offline(tmp_path, vllm_python, model, installed, "vllm", "3", "4")
    first = run.counted["before"] + 3
    steps = run.table("cuda_graph_steps")
    assert [*steps["step"]] == list(range(first, first + 4))
    assert [*steps["unpadded_tokens"]] == run.counted["tokens"][first - 1 : first + 3]
    assert annotated(run.trace) == [*steps["unpadded_tokens"]]
    # The profiler starts inside its first step, when that is scheduled already.
    assert run.metadata["events"]["sched.step"] == 3


def test_steps_on_request(tmp_path: Path, vllm_python: Path, model: Path, installed: Path) -> None:
    wanted = {"PROFILEMATE": "on", "PROFILEMATE_STEPS": "35:5"}
    run = offline(tmp_path, vllm_python, model, installed, "user", **wanted)
    assert run.counted["before"] < 34
    steps = run.table("cuda_graph_steps")
    assert [*steps["step"]] == [35, 36, 37, 38, 39]
    assert [*steps["unpadded_tokens"]] == run.counted["tokens"][34:39]
    assert run.metadata["events"]["sched.step"] == 5


def test_hooks_go_in_when_vllm_s_configuration_has_a_torch_profiler(
    tmp_path: Path, vllm_python: Path, model: Path, installed: Path
) -> None:
    script = [str(INSIDE / "profiled.py"), "configured", str(model)]
    run = engine.run_offline(
        vllm_python, script, workdir=tmp_path, env=beside(tmp_path), pythonpath=[installed]
    )
    (line,) = [x for x in run.log.read_text().splitlines() if x.startswith("RESULT ")]
    without, with_ = json.loads(line.removeprefix("RESULT "))
    assert without == [0, 0, None]
    assert with_[0] > with_[1] > 3
    assert with_[2] == "1"


# --------------------------------------------------------------------------- the sink alone

SINK = """
import json, sys, threading
from profilemate.annotate.settings import Settings
from profilemate.annotate.sinks.torch_profiler import TorchProfilerSink, open_sink
from profilemate.annotate.window import torch_is_profiling
assert not torch_is_profiling()
import torch, torch.profiler
fast, why = open_sink(Settings(wanted=True), {})
slow = TorchProfilerSink(torch.profiler.record_function)
texts = json.load(open(sys.argv[1]))
asked = [torch_is_profiling()]
threaded = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
for number, options in enumerate(({}, {"experimental_config": threaded})):
    with torch.profiler.profile(**options) as running:
        asked.append(torch_is_profiling())
        for sink in (fast, slow):
            for text in texts:
                sink.push(text)
                sink.mark(text)
                sink.pop()
        def elsewhere():
            asked.append(torch_is_profiling())
            fast.mark("pm1.elsewhere")
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    running.export_chrome_trace(f"{sys.argv[2]}.{number}")
asked.append(torch_is_profiling())
print(json.dumps([type(fast._new("x")).__name__, asked]), flush=True)
"""


def test_both_scopes_of_torch_keep_our_text_to_the_last_character(
    tmp_path: Path, vllm_python: Path
) -> None:
    safe = "".join(c for c in map(chr, range(32, 127)) if c not in '"\\')
    texts = [f"pm1.a {safe}", "pm1.b " + "x" * schema.MAX_MESSAGE, "pm1.c " + "y" * 100_000]
    (tmp_path / "texts").write_text(json.dumps(texts))
    command = [str(part) for part in (vllm_python, "-c", SINK, tmp_path / "texts", tmp_path / "t")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    kind, asked = json.loads(done.stdout.splitlines()[-1])
    assert "Fast" in kind
    # Before, then twice while one runs, on this thread and on another, and afterwards.
    assert asked == [False, True, True, True, True, False]
    for number, elsewhere in enumerate((False, True)):
        events = events_of(tmp_path / f"t.{number}")
        names = [e["name"] for e in events if str(e["name"]).startswith(schema.PREFIX)]
        assert names.count("pm1.elsewhere") == elsewhere
        ours = [name for name in names if name != "pm1.elsewhere"]
        assert ours == [text for _ in range(2) for text in texts for _ in range(2)]


# --------------------------------------------------------------------------- graphs


def test_steps_and_launches_have_the_text_that_nvtx_gets(
    tmp_path: Path, vllm_python: Path, model: Path
) -> None:
    """Stand-in graphs, a real torch profiler, and beside it a sink that gets what NVTX gets."""
    result, trace = tmp_path / "result.json", tmp_path / "result.json.trace"
    script = [str(INSIDE / "graph_engine.py"), str(model), "FULL_AND_PIECEWISE", "profiled"]
    engine.run_offline(
        vllm_python,
        [*script, str(result)],
        workdir=tmp_path,
        pythonpath=[ROOT],
        env=engine.NO_DOOR,
        timeout=400,
    )
    found = json.loads(result.read_text(encoding="ascii"))
    window = found["messages"][found["started"] :]
    scopes = [e for e in events_of(trace) if str(e["name"]).startswith(schema.PREFIX)]
    whole = [e["name"] for e in scopes if not e["name"].startswith("pm1.batch")]
    assert whole == [text for call, text in window if call == "push"]
    assert Counter(text.split(" ")[0] for text in whole).keys() == {"pm1.step", "pm1.graph.replay"}

    # Batches have numbers of their own; what they carry is the same but for the first, which says
    # what came before.
    def carried(texts: list[str]) -> list[str]:
        return [text.partition(" | ")[2] for text in texts]

    batches = [e["name"] for e in scopes if e["name"].startswith("pm1.batch")]
    marks = [text for call, text in window if call == "mark"]
    assert carried(batches)[-len(marks) + 1 :] == carried(marks)[1:]
    opening = [m for text in batches[:2] if (m := schema.decode(text))]
    told = [e.values for m in opening for e in m.events if e.kind == "graph.capture"]
    assert len(told) == 8
    assert sum(t["again"] for t in told) == len(found["graphs"]) == 16  # type: ignore[misc]
    # A launch lies inside its step, and both last as long as what they mark.
    ends = [(float(e["ts"]), float(e["ts"]) + float(e["dur"]), e["name"]) for e in scopes]
    steps = [e for e in ends if e[2].startswith("pm1.step")]
    launches = [e for e in ends if e[2].startswith("pm1.graph.replay")]
    assert all(any(a <= x and y <= b for a, b, _ in steps) for x, y, _ in launches)
    session = tmp_path / "session"
    profilemate("parse", trace, "-o", session)
    steps_table = pd.read_csv(session / "cuda_graph_steps.csv")
    assert steps_table["expected_launches"].sum() == len(launches) > 20
    captures = pd.read_csv(session / "cuda_graph_captures.csv")
    assert len(captures) == 8
    assert (captures["capture_time_sec"] < 0).all()


# --------------------------------------------------------------------------- the server


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, vllm_python: Path, model: Path, installed: Path
) -> Profiled:
    """Three processes; the profiler is started and stopped by the endpoints."""
    folder = tmp_path_factory.mktemp("served")
    traces = folder / "traces"
    traces.mkdir()
    server = engine.Server(
        vllm_python,
        model,
        folder,
        env={"WITNESS_FILE": str(folder / "witness"), **beside(folder)},
        pythonpath=[installed, WITNESS],
        extra_args=(*ORDERLY, "--profiler-config", json.dumps(profiled.config(str(traces)))),
    )
    with server:
        engine.workload(server, profiled.BEFORE)
        assert server.get("/start_profile", {})[0] == 200
        began = time.monotonic_ns()
        engine.workload(server, profiled.WITHIN)
        ended = time.monotonic_ns()
        assert server.get("/stop_profile", {})[0] == 200
        engine.workload(server, profiled.AFTER)
    (trace,) = traces.glob("*rank0*.pt.trace.json*")
    return parsed(folder, trace, folder / "server.log", {"ns": (began, ended)})


@pytest.fixture(scope="module")
def merged(served: Profiled) -> Profiled:
    """The worker's trace, the front end's, and the sidecars of both processes, as one session."""
    folder = served.session.parent
    profilemate("parse", served.trace.parent, folder / "beside", "-o", folder / "merged")
    return replace(served, session=folder / "merged")


def test_trace_and_sidecars_are_one_session(served: Profiled, merged: Profiled) -> None:
    steps, alone = merged.table("cuda_graph_steps"), served.table("cuda_graph_steps")
    assert [*steps["step"]] == [*alone["step"]]
    assert [*steps["scheduled_tokens"]] == [*alone["unpadded_tokens"]]
    assert steps["kv_blocks_used"].notna().all()
    facts = merged.metadata
    assert sorted(p["role"] for p in facts["processes"]) == ["engine", "worker"]
    assert {s["recorder"] for s in facts["sources"]} > {"profilemate sidecar"}
    assert facts["dropped"]["lost_batches"] == {}
    assert facts["events"]["step"] == len(alone), "what trace and sidecar both have counts once"
    clock = facts["clock"]
    # The front end says nothing of ours, and the worker's own trace is what all are laid upon.
    ways = {r["name"]: r["by"].partition(",")[0] for r in clock["recordings"]}
    beside = {name for name in ways if ".pt.trace" not in name}
    assert len(beside) == 2
    assert {ways[name] for name in beside} == {"monotonic clock"}
    # How large it is depends on the machine: tests/parse/test_decode_clock.py has busy ones.
    assert clock["alignment_error_ms"] >= max(p["error_ms"] or 0 for p in clock["recordings"])


def test_every_block_operation_of_the_server_s_window(merged: Profiled) -> None:
    check_block_operations(merged)


def test_the_worker_s_trace_has_every_step_with_the_scheduler_s_number(served: Profiled) -> None:
    steps = served.table("cuda_graph_steps")
    scheduled = [line["tokens"] for line in served.witness if line["op"] == "schedule"]
    numbers = [*steps["step"]]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert 1 < numbers[0] < numbers[-1] < len(scheduled)
    assert [*steps["unpadded_tokens"]] == scheduled[numbers[0] - 1 : numbers[-1]]
    assert [t for t in annotated(served.trace) if t] == [t for t in steps["unpadded_tokens"] if t]
    assert len(numbers) > 20
    assert [p["role"] for p in served.metadata["processes"]] == ["worker"]
    assert "Worker.execute_model" in served.metadata["hooks"]["installed"]


def test_a_message_of_ours_is_a_scope_with_its_whole_text(served: Profiled) -> None:
    ours = [e for e in events_of(served.trace) if str(e["name"]).startswith(schema.PREFIX)]
    assert {e["ph"] for e in ours} == {"X"}
    messages = [schema.decode(e["name"]) for e in ours]
    kinds = {event.kind for m in messages if m for event in m.events}
    assert {"session", "hook", "step"} <= kinds
    assert len({e["tid"] for e in ours}) == 1
