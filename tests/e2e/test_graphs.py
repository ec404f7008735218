"""CUDA graphs in vLLM's own code, with stand-in graphs, against what others counted.

The witnesses share nothing with profilemate: the stand-in for `torch.cuda.CUDAGraph` counts its own
captures and replays, and vLLM makes its own table of steps (`--cudagraph-metrics`).
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import statistics
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import engine
import pytest
from graph_engine import REQUESTS, SIZES
from places import INSIDE, ROOT
from served import tool
from told import Said, check_part, key, launches, replays, said

from profilemate import schema

pytestmark = pytest.mark.real

MODES = ("NONE", "PIECEWISE", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE")
# --- whole engines --------------------------------------------------------------------------------


class Engines:
    """Runs of a whole engine, each made when it is first asked for."""

    def __init__(self, folder: Path, python: Path, model: Path) -> None:
        self._folder, self._python, self._model = folder, python, model
        self._results: dict[tuple[str, str], dict[str, Any]] = {}

    def run(self, mode: str, hooks: str) -> dict[str, Any]:
        if (mode, hooks) not in self._results:
            folder = self._folder / f"{mode}-{hooks}"
            folder.mkdir()
            result = folder / "result.json"
            engine.run_offline(
                self._python,
                [str(INSIDE / "graph_engine.py"), str(self._model), mode, hooks, str(result)],
                workdir=folder,
                pythonpath=[ROOT],
                env=engine.NO_DOOR,
            )
            self._results[mode, hooks] = json.loads(result.read_text(encoding="ascii"))
        return self._results[mode, hooks]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, vllm_python: Path, model: Path) -> Engines:
    return Engines(tmp_path_factory.mktemp("graphs"), vllm_python, model)


@pytest.fixture(scope="module", params=MODES)
def hooked(request: pytest.FixtureRequest, engines: Engines) -> tuple[dict[str, Any], Said]:
    """One run with hooks in each mode; in one of them with a range for every launch."""
    how = "launches" if request.param == "PIECEWISE" else "on"
    result = engines.run(request.param, how)
    return {**result, "mode": request.param}, said(result["messages"])


def test_hooks_change_no_token(hooked: tuple[dict[str, Any], Said], engines: Engines) -> None:
    result, _ = hooked
    assert result["tokens"] == engines.run(result["mode"], "off")["tokens"]
    every = [r for phase in REQUESTS for r in phase]
    assert [len(tokens) for tokens in result["tokens"]] == [r.max_tokens for r in every]


def test_every_capture_of_an_engine_is_told(hooked: tuple[dict[str, Any], Said]) -> None:
    result, found = hooked
    captures = found.of("graph.capture")
    assert [key(c) for c in captures] == [key(g) for g in result["graphs"]]
    assert {c["phase"] for c in captures} <= {"real"}
    expected = {"NONE": 0, "PIECEWISE": 12, "FULL_DECODE_ONLY": 4, "FULL_AND_PIECEWISE": 16}
    assert len(captures) == expected[result["mode"]]
    pieces = Counter((c["num_tokens"], c["piece"], c["pieces"]) for c in captures if "piece" in c)
    if "PIECEWISE" in result["mode"]:
        assert pieces == {(size, i, 3): 1 for size in SIZES for i in range(3)}


def test_every_launch_of_an_engine_is_counted(hooked: tuple[dict[str, Any], Said]) -> None:
    result, found = hooked
    counted = launches(found)
    assert counted == replays(result["graphs"])
    assert (counted.total() > 0) == (result["mode"] != "NONE")
    expected = {s["step"]: s["launches"] for s in found.of("step") if s.get("launches")}
    assert {e["step"]: e["seen"] for e in found.of("step.end")} == expected


def test_steps_are_vllm_s_own_table_row_for_row(hooked: tuple[dict[str, Any], Said]) -> None:
    result, found = hooked
    steps = [s for s in found.of("step") if s["unpadded"]]
    ours = Counter(
        (s["unpadded"], s["num_tokens"], s["num_tokens"] - s["unpadded"], s["mode"]) for s in steps
    )
    theirs = {(int(a), int(b), int(c), mode): int(n) for a, b, c, mode, n in result["table"]}
    assert ours == theirs
    assert {s["mode"] for s in steps} == {
        "NONE": {"NONE"},
        "PIECEWISE": {"NONE", "PIECEWISE"},
        "FULL_DECODE_ONLY": {"NONE", "FULL"},
        "FULL_AND_PIECEWISE": {"NONE", "PIECEWISE", "FULL"},
    }[result["mode"]]


def test_steps_are_numbered_and_split_like_the_scheduler_s(
    hooked: tuple[dict[str, Any], Said],
) -> None:
    _, found = hooked
    scheduled = {s["step"]: (s["num_tokens"], s["num_reqs"]) for s in found.of("sched.step")}
    steps = {s["step"]: (s["unpadded"], s["reqs"]) for s in found.of("step")}
    assert steps == scheduled
    assert sorted(steps) == list(range(1, len(steps) + 1))
    for step in found.of("step"):
        assert step["prefill_tokens"] + step["decode_tokens"] == step["unpadded"]
    # Prompts are prefilled once, one token for each character.
    prompts = sum(len(r.prompt) for phase in REQUESTS for r in phase)
    assert sum(s["prefill_tokens"] for s in found.of("step")) == prompts


def test_a_step_is_one_range_unless_more_are_asked_for(
    hooked: tuple[dict[str, Any], Said],
) -> None:
    result, found = hooked
    ranged = {e.kind for e in found.ranges}
    assert ranged == ({"step", "graph.replay"} if result["mode"] == "PIECEWISE" else {"step"})


def test_what_a_recorder_gets_is_the_same(
    engines: Engines, tmp_path: Path, vllm_python: Path, model: Path
) -> None:
    nsys, result = tool("PROFILEMATE_TEST_NSYS_2023"), tmp_path / "result.json"
    run = engine.run_offline(
        vllm_python,
        [str(INSIDE / "graph_engine.py"), str(model), MODES[-1], "recorded", str(result)],
        workdir=tmp_path,
        nsys=nsys,
        pythonpath=[ROOT],
        env=engine.NO_DOOR,
    )
    assert run.report is not None
    export = [nsys, "export", "--type", "sqlite", "-o", tmp_path / "r.sqlite", run.report]
    subprocess.run([str(part) for part in export], check=True, capture_output=True)
    query = """
        SELECT coalesce(text, value), start, end FROM NVTX_EVENTS
        LEFT JOIN StringIds ON textId = id WHERE coalesce(text, value) LIKE 'pm1.%' ORDER BY start
    """
    with contextlib.closing(sqlite3.connect(tmp_path / "r.sqlite")) as database:
        rows = database.execute(query).fetchall()
    calls = []
    for text, _, end in rows:
        calls += [["mark", text]] if end is None else [["push", text], ["pop", ""]]
    found = said(calls)
    witness = json.loads(result.read_text(encoding="ascii"))
    assert witness["tokens"] == engines.run(MODES[-1], "off")["tokens"]
    assert [key(c) for c in found.of("graph.capture")] == [key(g) for g in witness["graphs"]]
    assert launches(found) == replays(witness["graphs"])
    # A range begins when the mode is known: execute_model began `ago` before, and ends after it.
    whole = {e["step"]: e["dur"] for e in found.of("step.end")}
    outside = []
    for text, start, end in rows:
        message = schema.decode(text)
        assert message is not None
        step: dict[str, Any] = message.events[0].values if message.events else {}
        if message.seq is None and step["step"] in whole:
            outside.append(whole[step["step"]] - (end - start + step["ago"]))
    assert len(outside) == len(whole) > 10
    # What lies outside is the recorder's own time, and whatever else this machine does just then.
    assert min(outside) > -100_000
    assert statistics.median(outside) < 1_000_000


# --- vLLM's other paths, one class at a time ------------------------------------------------------

PARTS = ("full", "piecewise", "ubatch", "manager", "encoder")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, vllm_python: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("parts")
    found: dict[str, Any] = {}
    # What breaks a graph is decided when vLLM is imported: a process of its own.
    for number, names in enumerate((PARTS, ("breakable",))):
        result = folder / f"{number}.json"
        script = [str(INSIDE / "graph_parts.py"), str(result), *names]
        engine.run_offline(
            vllm_python, script, workdir=folder, pythonpath=[ROOT], env=engine.NO_DOOR
        )
        found |= json.loads(result.read_text(encoding="ascii"))
    return found


@pytest.mark.parametrize(
    ("part", "owners", "graphs"),
    [
        ("full", {"CUDAGraphWrapper"}, 3),
        ("piecewise", {"CUDAGraphWrapper"}, 6),
        ("ubatch", {"UBatchWrapper"}, 1),
        ("manager", {"CudaGraphManager"}, 3),
        ("breakable", {"CudaGraphManager", "BreakableCUDAGraphWrapper"}, 9),
        ("encoder", {"EncoderCudaGraphManager"}, 2),
    ],
)
def test_every_path_is_captured_and_launched_as_the_stand_in_says(
    parts: dict[str, Any], part: str, owners: set[str], graphs: int
) -> None:
    check_part(parts[part], owners, graphs)


@pytest.mark.parametrize("part", ["manager", "breakable"])
def test_steps_of_the_second_runner(parts: dict[str, Any], part: str) -> None:
    found = said(parts[part]["messages"])
    steps = found.of("step")
    mixed = {"manager": ("NONE", 0), "breakable": ("PIECEWISE", 2)}[part]
    assert [(s["mode"], s["unpadded"], s["num_tokens"], s["launches"]) for s in steps] == [
        ("FULL", 3, 4, 1),
        ("FULL", 2, 2, 1),
        (mixed[0], 4, 4, mixed[1]),
        ("NONE", 7, 7, 0),
        ("FULL", 3, 4, 1),
    ]
    expected = [s["launches"] for s in steps if s["launches"]]
    assert [e["seen"] for e in found.of("step.end")] == expected
