"""The hooks on other versions of vLLM: their own code, over the environment of one of them.

Only the Python files of a version are fetched (`scripts/check_targets`); what needs its compiled
code or a GPU is out of reach, its scheduler, block pool and graph classes are not. The oldest, one
in the middle and the newest are tried; `PROFILEMATE_TEST_VLLM_VERSIONS=all` tries every one, a
list like `0.25.1,0.28.0` some.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine
import pytest
from places import INSIDE, ROOT
from told import Said, check_part, said

from profilemate.annotate import probe
from profilemate.annotate.hooks import HOOKS

pytestmark = pytest.mark.real


EVERY = ["0.11.0", "0.12.0", "0.14.1", "0.16.0", "0.19.1", "0.22.1"]
EVERY += ["0.25.1", "0.28.0", "0.30.0", "0.32.0", "0.33.0"]
SOME = ("0.11.0", "0.19.1", "0.33.0")

# Hooks that not every version has a place for: first and last of `EVERY` that have.
BETWEEN = {
    "BlockPool.evict_blocks": ("0.14.1", None),
    "BlockPool.unpin_blocks": ("0.30.0", None),
    "BlockPool.cache_partial_block": ("0.25.1", None),
    "BlockPool.move_block_hashes": ("0.28.0", None),
    "KVCacheManager.pop_blocks_for_free": ("0.25.1", None),
    "Worker.sample_tokens": ("0.12.0", None),
    "dispatch (V2)": ("0.12.0", None),
    "dispatch (V2, ranks agreed)": ("0.19.1", "0.19.1"),
    "BreakableCUDAGraphWrapper._capture": ("0.22.1", None),
    "CudaGraphManager.capture": ("0.12.0", None),
    "EagleCudaGraphManager.capture": ("0.12.0", "0.16.0"),
    "EncoderCudaGraphManager._capture_budget_graph": ("0.19.1", None),
    "GPUModelRunner.profile_cudagraph_memory": ("0.19.1", None),
    "GPUModelRunner.profile_cudagraph_memory (V2)": ("0.19.1", None),
    "GPUModelRunner.capture_model (V2)": ("0.12.0", None),
    "WorkerProfiler._call_start": ("0.12.0", None),
    "WorkerProfiler._call_stop": ("0.12.0", None),
}

# Parts of `graph_parts.py`: who owns the graphs, how many, and since when a CPU can run them.
PARTS = {
    "full": ({"CUDAGraphWrapper"}, 3, "0.11.0"),
    "piecewise": ({"CUDAGraphWrapper"}, 6, "0.12.0"),
    "ubatch": ({"UBatchWrapper"}, 1, "0.11.0"),
    "manager": ({"CudaGraphManager"}, 3, "0.19.1"),
    "encoder": ({"EncoderCudaGraphManager"}, 2, "0.25.1"),
    "breakable": ({"CudaGraphManager", "BreakableCUDAGraphWrapper"}, 9, "0.25.1"),
}


def chosen() -> list[str]:
    asked = os.environ.get("PROFILEMATE_TEST_VLLM_VERSIONS", "")
    return EVERY if asked == "all" else asked.split(",") if asked else list(SOME)


@dataclass
class Version:
    """A version, and what its own code did with our hooks in it."""

    name: str
    sources: Path
    torch: Path
    blocks: dict[str, Any]
    graphs: dict[str, Any]
    profiler: dict[str, Any]

    @property
    def said(self) -> Said:
        """What our messages say of the blocks."""
        return said(self.blocks["messages"])

    def has(self, first: str, last: str | None = None) -> bool:
        """Whether it is one of these."""
        place = EVERY.index(self.name)
        return EVERY.index(first) <= place <= EVERY.index(last or EVERY[-1])


@pytest.fixture(scope="module", params=chosen())
def version(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    vllm_python: Path,
    model: Path,
) -> Version:
    name: str = request.param
    check_targets = [
        sys.executable,
        str(ROOT / "scripts" / "env" / "check_targets.py"),
        "--path",
        name,
    ]
    done = subprocess.run(check_targets, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    overlay = [Path(p) for p in done.stdout.strip().split(os.pathsep)]
    folder = tmp_path_factory.mktemp(f"vllm-{name}")
    graphs: dict[str, Any] = {}

    def run(script: str, *arguments: str) -> Any:
        result = folder / f"{script}-{len(list(folder.iterdir()))}.json"
        before, after = ([str(model)], []) if script == "kv_parts" else ([], list(arguments))
        command = [str(INSIDE / f"{script}.py"), *before, str(result), *after]
        engine.run_offline(
            vllm_python, command, workdir=folder, pythonpath=[*overlay, ROOT], env=engine.NO_DOOR
        )
        return json.loads(result.read_text(encoding="ascii"))

    blocks, profiler = run("kv_parts"), run("profile_parts")
    graphs = run("graph_parts", *(p for p in PARTS if p != "breakable"))
    # What breaks a graph is decided when vLLM is imported: a process of its own.
    graphs |= {"breakable": run("graph_parts", "breakable")["breakable"]}
    site = next((vllm_python.parent.parent / "lib").glob("python3*/site-packages"))
    return Version(name, overlay[0], site / "torch", blocks, graphs, profiler)


def test_it_is_this_version_that_ran(version: Version) -> None:
    assert version.blocks["version"].startswith(version.name)
    assert version.graphs["version"].startswith(version.name)


def test_every_hook_has_its_place_or_a_reason(version: Version) -> None:
    found = {s.name: s for s in probe.probe(HOOKS, version.sources / "vllm", version.torch)}
    expected = {h.name: version.has(*BETWEEN.get(h.name, (EVERY[0],))) for h in HOOKS}
    assert {name: s.state == "installed" for name, s in found.items()} == expected
    assert all(s.target or s.why for s in found.values())
    # What was really installed is what the source promised; other modules were not imported.
    for really in (part["hooks"] for part in (version.blocks, version.graphs, version.profiler)):
        states = {name: state for name, (state, _) in really.items() if state != "waiting"}
        assert states == {name: found[name].state for name in states}
        assert "installed" in states.values()


def test_our_messages_add_up_to_the_pool_s_own_state(version: Version) -> None:
    compared = 0
    for length, state in version.blocks["states"]:
        references: Counter[int] = Counter()
        cached: set[int] = set()
        used = 0
        for event in said(version.blocks["messages"][:length]).events:
            values: dict[str, Any] = event.values
            ids = values.get("ids", ())
            if event.kind in ("kv.alloc", "kv.touch"):
                references.update(ids)
            elif event.kind == "kv.free":
                references.subtract(ids)
                gone = [i for i in ids if references[i] == 0]
                assert values.get("freed", ids) == tuple(gone)
            elif event.kind == "kv.cache":
                cached.update(ids)
            elif event.kind == "kv.evict":
                cached.difference_update(ids)
            elif event.kind == "kv.move":
                cached.difference_update(values["src"])
                cached.update(values["dst"])
            elif event.kind == "kv.reset":
                cached.clear()
            used = values.get("used", used)
        assert {str(i): n for i, n in references.items() if n} == state["references"]
        assert sorted(cached) == sorted(state["cached"])
        assert used == 12 - state["free"]
        compared += 1
    assert compared == len(version.blocks["states"]) == 9


def test_steps_and_preemptions_are_the_scheduler_s_own(version: Version) -> None:
    steps = version.said.of("sched.step")
    assert [(s["num_tokens"], s["num_reqs"]) for s in steps] == [
        (s["tokens"], s["requests"]) for s in version.blocks["steps"]
    ]
    assert [s["step"] for s in steps] == list(range(1, len(steps) + 1))
    victims = [p["req"] for p in version.said.of("preempt")]
    told = [s["preempted"] for s in version.blocks["steps"]]
    # vLLM 0.11 does not say who was preempted; in this set-up it is the same one in all versions.
    assert victims == (["grows 3"] if told[0] is None else [r for one in told for r in one])
    assert [p["blocks"] for p in version.said.of("preempt")] == [3]


def test_lookups_are_as_many_as_vllm_counts(version: Version) -> None:
    lookups = version.said.of("kv.lookup")
    ours = {
        "queries": sum(e["tokens"] for e in lookups),
        "hits": sum(e["hits"] for e in lookups),
    }
    assert ours == version.blocks["lookups"]
    assert ours["hits"] == 4 * 32  # two requests found two blocks each


def test_every_kind_of_block_event_occurs(version: Version) -> None:
    kinds = {e.kind for e in version.said.events if e.kind.startswith("kv.")}
    expected = {"alloc", "free", "touch", "cache", "evict", "reset", "lookup", "pool"}
    expected |= {"alloc_failed"} | ({"move"} if version.has("0.28.0") else set())
    assert kinds == {f"kv.{kind}" for kind in expected}
    causes = {e["cause"] for e in version.said.of("kv.evict")}
    assert causes == ({"alloc", "connector"} if version.has("0.14.1") else {"alloc"})
    partial = any(e.get("partial") for e in version.said.of("kv.cache"))
    assert partial == version.has("0.25.1")
    assert [len(e["revived"]) for e in version.said.of("kv.touch") if "revived" in e] == [0]


def test_a_profiler_records_the_steps_that_the_scheduler_s_process_expects(
    version: Version,
) -> None:
    rows = version.profiler["rows"]
    assert version.profiler["version"].startswith(version.name)
    assert version.profiler["hooks"]["EngineCore.profile"][0] == "installed"
    if not version.has("0.12.0"):
        assert rows == []  # neither a delay nor a limit
        return
    assert len(rows) == 16
    for row in rows:
        assert row["planned"] == row["ran"] == row["told"], row
    assert len({len(row["ran"]) for row in rows}) == 6


@pytest.mark.parametrize("part", PARTS)
def test_graphs_are_captured_and_launched_as_the_stand_in_says(version: Version, part: str) -> None:
    owners, graphs, since = PARTS[part]
    result = version.graphs[part]
    if "missing" in result:
        assert not version.has(since), result["missing"]
        return
    assert version.has(since)
    found = check_part(result, owners, graphs)
    if part == "manager":
        steps = [(s["mode"], s["unpadded"], s["num_tokens"]) for s in found.of("step")]
        assert steps[:3] == [("FULL", 3, 4), ("FULL", 2, 2), ("NONE", 4, 4)]
