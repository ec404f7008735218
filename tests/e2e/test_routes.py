"""Three ways to record, one answer: nsys, the torch profiler with the sidecar, the live session.

The engine runs in one process, where the schedule of a workload is always the same: so the tables
of three runs are equal but for times, and all equal vLLM's own counters.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine
import pandas as pd
import pytest
from places import DOOR, INSIDE
from served import profilemate, tool

from profilemate.parse.tables import TABLES

pytestmark = pytest.mark.real

COMPARED = (
    "cuda_graph_steps",
    "cuda_graph_padding",
    "kv_block_events",
    "kv_block_lifetimes",
    "kv_cache_usage",
    "kv_prefix_cache",
    "kv_preemptions",
)
TIMES = ("seconds", "fine_seconds", "milliseconds", "fine_milliseconds")
# Which process it was, and what an API trace says, which only some recorders have.
OTHER = ("pid", "launches")


@dataclass(frozen=True)
class Route:
    """A recorded run: its session, and what vLLM counted."""

    session: Path
    counted: dict[str, float]

    @property
    def metadata(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.session / "metadata.json").read_text())
        return loaded

    def table(self, name: str) -> pd.DataFrame:
        """A table without times; requests are numbered in order of appearance."""
        frame = pd.read_csv(self.session / f"{name}.csv", dtype=str, keep_default_na=False)
        out = [c.name for c in TABLES[name].columns if c.spelling in TIMES or c.name in OTHER]
        frame = frame.drop(columns=out)
        for column in [c for c in frame.columns if "request_id" in c]:
            frame[column] = pd.factorize(frame[column])[0]
        return frame


def run(folder: Path, python: Path, script: list[str], nsys: Path | None = None) -> Path | None:
    """Run the engine; the report, if there is one."""
    result = engine.run_offline(
        python,
        script,
        workdir=folder,
        nsys=nsys,
        env={"PROFILEMATE_DIR": str(folder / "live")},
        pythonpath=[DOOR],
    )
    assert "a fault of profilemate" not in result.log.read_text()
    return result.report


def counted(path: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads(path.read_text())["metrics"]
    return found


def live_session(folder: Path) -> Path:
    """The session that the run left, its tables written anew by hand."""
    (session,) = (p for p in (folder / "live").iterdir() if p.name.startswith("session_"))
    profilemate("parse", session)
    return session


@pytest.fixture(scope="module")
def routes(
    tmp_path_factory: pytest.TempPathFactory, vllm_python: Path, model: Path
) -> dict[str, Route]:
    found: dict[str, Route] = {}
    folder = tmp_path_factory.mktemp("by-nsys")
    nsys = tool("PROFILEMATE_TEST_NSYS_2023")
    report = run(folder, vllm_python, engine.offline_args(model, folder / "counted"), nsys)
    assert report is not None
    options = ("--nsys", nsys, "--cache", folder / "cache")
    profilemate("parse", report, "-o", folder / "session", *options)
    found["nsys"] = Route(folder / "session", counted(folder / "counted"))

    folder = tmp_path_factory.mktemp("live-only")
    run(folder, vllm_python, engine.offline_args(model, folder / "counted"))
    found["live"] = Route(live_session(folder), counted(folder / "counted"))

    folder = tmp_path_factory.mktemp("by-torch")
    traces, result = folder / "traces", folder / "counted"
    traces.mkdir()
    run(folder, vllm_python, [str(INSIDE / "routed.py"), str(model), str(traces), str(result)])
    (trace,) = traces.glob("*.pt.trace.json*")
    profilemate("parse", trace, "-o", folder / "alone")
    found["torch"] = Route(folder / "alone", counted(result))
    profilemate("parse", traces, live_session(folder), "-o", folder / "both")
    found["torch and sidecar"] = Route(folder / "both", counted(result))
    return found


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("route", ["live", "torch", "torch and sidecar"])
def test_the_tables_are_those_of_nsys(routes: dict[str, Route], route: str, name: str) -> None:
    expected = routes["nsys"].table(name)
    pd.testing.assert_frame_equal(routes[route].table(name), expected)
    assert len(expected) > 5


def test_each_route_equals_vllm_s_counters(routes: dict[str, Route]) -> None:
    for name, route in routes.items():
        lives, lookups, preemptions = (
            pd.read_csv(route.session / f"{table}.csv")
            for table in ("kv_block_lifetimes", "kv_prefix_cache", "kv_preemptions")
        )
        m = route.counted
        assert lives["counted_by_vllm"].sum() == m["vllm:kv_block_lifetime_seconds_count"], name
        assert len(preemptions) == m["vllm:num_preemptions_total"] > 0, name
        fresh = lookups[~lookups["preempted"]]
        assert fresh["tokens"].sum() == m["vllm:prefix_cache_queries_total"], name
        assert fresh["hit_tokens"].sum() == m["vllm:prefix_cache_hits_total"], name


def test_what_two_recorders_heard_counts_once_and_on_one_clock(routes: dict[str, Route]) -> None:
    both = routes["torch and sidecar"].metadata
    steps = len(pd.read_csv(routes["torch"].session / "cuda_graph_steps.csv"))
    assert sum(both["duplicates"].values()) >= 2 * steps  # a batch and a range each
    assert both["dropped"]["lost_batches"] == {}
    (process,) = both["processes"]
    assert process["role"] == "engine+worker"
    placed = {r["name"]: r for r in both["clock"]["recordings"]}
    errors = [r["error_ms"] for r in placed.values() if r["error_ms"] is not None]
    assert len(errors) == len(placed) - 1
    assert max(errors) < 1
    assert both["clock"]["steps"]["compared"] == steps
    assert both["clock"]["steps"]["early"] == 0
