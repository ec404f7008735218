"""The CUDA graph tables of an engine with stand-in graphs, recorded by a real Nsight Systems.

Witnesses: the stand-in for `torch.cuda.CUDAGraph`, which counts its own captures and replays, and
vLLM's own `--cudagraph-metrics` table. There is no GPU, so durations are the host's.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import engine
import pandas as pd
import pytest
import seed_lines
from places import INSIDE, ROOT
from served import equal_but_for_times, profilemate, tool
from told import Key, key

pytestmark = pytest.mark.real

GRAPH = ["runtime_mode", "num_tokens", "num_reqs", "uniform", "has_lora"]


@pytest.fixture(scope="module", params=["PIECEWISE", "FULL_AND_PIECEWISE"])
def parsed(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    vllm_python: Path,
    model: Path,
) -> tuple[Path, dict[str, Any]]:
    """The session of a recorded engine, and what the witnesses counted."""
    folder = tmp_path_factory.mktemp("graph-tables")
    nsys, result = tool("PROFILEMATE_TEST_NSYS_2023"), folder / "result.json"
    run = engine.run_offline(
        vllm_python,
        [str(INSIDE / "graph_engine.py"), str(model), request.param, "recorded", str(result)],
        workdir=folder,
        nsys=nsys,
        pythonpath=[ROOT],
        env=engine.NO_DOOR,
    )
    assert run.report is not None
    session = folder / "session"
    profilemate("parse", run.report, "-o", session, "--nsys", nsys, "--cache", folder / "c")
    return session, json.loads(result.read_text(encoding="ascii"))


def table(session: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(session / f"{name}.csv")


def keys(frame: pd.DataFrame) -> list[Key]:
    """The graph keys of a table, spelled as the witnesses have them."""
    rows = frame[GRAPH].astype(object).where(frame[GRAPH].notna(), None)
    return [
        (mode, int(tokens), None if reqs is None else int(reqs), uniform, lora)
        for mode, tokens, reqs, uniform, lora in rows.itertuples(index=False)
    ]


def test_the_live_session_has_the_same_tables(parsed: tuple[Path, dict[str, Any]]) -> None:
    session, _ = parsed
    (live,) = (session.parent / "live").glob("session_*")
    profilemate("parse", live)
    equal_but_for_times(live, session)
    facts = json.loads((live / "metadata.json").read_text())
    assert facts["durations"] == {"cuda_graph_timeline": "host"}
    timeline = table(live, "cuda_graph_timeline")
    assert (timeline["duration_ms"] > 0).all()
    assert len(timeline) > 10


def test_the_seed_s_lines_about_graphs(parsed: tuple[Path, dict[str, Any]]) -> None:
    (live,) = (parsed[0].parent / "live").glob("session_*")
    profilemate("parse", live)
    usage = table(live, "cuda_graph_usage")
    captures = table(live, "cuda_graph_captures")
    assert len(usage) > 2
    said = seed_lines.shell(live, "wc -l cuda_graph_captures.csv")
    assert said == f"{len(captures) + 1} cuda_graph_captures.csv\n"
    most = seed_lines.shell(live, seed_lines.MOST_USED).splitlines()[0]
    assert int(most.split(",")[5]) == usage["replay_count"].max()
    total = seed_lines.shell(live, seed_lines.TOTAL_REPLAYS)
    assert total == f"Total CUDA graph replays: {usage['replay_count'].sum()}\n"
    sizes = seed_lines.shell(live, seed_lines.SIZES).split()
    assert dict(zip(sizes[1::2], map(int, sizes[::2]), strict=True)) == {
        **usage["num_tokens"].astype(str).value_counts().to_dict(),
        "num_tokens": 1,
    }
    top = seed_lines.python(live, seed_lines.TOP_GRAPHS)
    assert top.startswith("Top 10 CUDA Graphs:")
    assert str(usage["replay_count"].max()) in top


def test_captures_are_the_stand_in_s_in_order(parsed: tuple[Path, dict[str, Any]]) -> None:
    session, witness = parsed
    expected = list(dict.fromkeys(key(graph) for graph in witness["graphs"]))
    assert keys(table(session, "cuda_graph_captures")) == expected


def test_usage_counts_steps_not_pieces(parsed: tuple[Path, dict[str, Any]]) -> None:
    session, witness = parsed
    usage = table(session, "cuda_graph_usage")
    launches: Counter[Key] = Counter()
    pieces: Counter[Key] = Counter()
    for graph in witness["graphs"]:
        launches[key(graph)] += graph["replays"]
        pieces[key(graph)] += 1
    expected = {k: n // pieces[k] for k, n in launches.items() if n}
    assert dict(zip(keys(usage), usage["replay_count"], strict=True)) == expected
    assert usage["replay_count"].is_monotonic_decreasing
    timeline = table(session, "cuda_graph_timeline")
    assert len(timeline) == usage["replay_count"].sum() > 10
    assert timeline["timestamp_sec"].is_monotonic_increasing
    assert (timeline["duration_ms"] > 0).all()


def test_padding_is_vllm_s_own_table_row_for_row(parsed: tuple[Path, dict[str, Any]]) -> None:
    session, witness = parsed
    padding = table(session, "cuda_graph_padding")
    columns = ["unpadded_tokens", "padded_tokens", "num_paddings", "runtime_mode", "count"]
    assert list(padding.columns) == columns
    ours = {tuple(row[:-1]): row[-1] for row in padding.itertuples(index=False)}
    theirs = {(int(a), int(b), int(c), mode): int(n) for a, b, c, mode, n in witness["table"]}
    assert ours == theirs


def test_launches_expected_of_the_steps_are_the_stand_in_s(
    parsed: tuple[Path, dict[str, Any]],
) -> None:
    session, witness = parsed
    steps = table(session, "cuda_graph_steps")
    steps = steps[steps["expected_launches"] > 0]
    expected: Counter[Key] = Counter()
    for graph, count in zip(keys(steps), steps["expected_launches"], strict=True):
        expected[graph] += int(count)
    replays: Counter[Key] = Counter()
    for graph in witness["graphs"]:
        replays[key(graph)] += graph["replays"]
    assert expected == +replays
    latency = table(session, "cuda_graph_replay_latency")
    assert dict(zip(keys(latency), latency["launches"], strict=True)) == +replays
    # What only GPU records can tell is not made up.
    assert latency["gpu_span_mean_ms"].isna().all()


def test_the_seed_s_shell_and_pandas_lines_work(parsed: tuple[Path, dict[str, Any]]) -> None:
    session, _ = parsed
    graphs = pd.read_csv(session / "cuda_graph_usage.csv")
    top = graphs.nlargest(10, "replay_count")
    assert top["replay_count"].iloc[0] == graphs["replay_count"].max()
