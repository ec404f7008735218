"""The figures of the report page against the session's files, read by the csv module."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import report_sessions
from places import RECORDING
from report_sessions import drawing, drawn, page_of, rows

from profilemate.insight.report.base import Drawing
from profilemate.insight.report.charts import CHARTS
from profilemate.parse.pipeline import parse_session
from profilemate.parse.tables import TABLES


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real recording's session."""
    return parse_session([RECORDING], tmp_path_factory.mktemp("bundled") / "session").path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up session with GPU times on three ranks."""
    return report_sessions.make(tmp_path_factory.mktemp("made") / "session")


def column(table: list[dict[str, str]], name: str) -> list[float]:
    return [math.nan if r[name] == "None" else float(r[name]) for r in table]


def grid_total(chart: Drawing, name: str) -> float:
    return float(sum(v for v in chart.grid.data[name] if v is not None))


@pytest.mark.parametrize("which", ["bundled", "made"])
def test_kv_usage(which: str, request: pytest.FixtureRequest) -> None:
    session: Path = request.getfixturevalue(which)
    chart = drawing(session, "kv_cache_usage")
    table = rows(session, "kv_cache_usage.csv")
    points = list(zip(column(table, "timestamp_sec"), column(table, "usage_pct"), strict=True))
    line = list(zip(*chart.data["usage"].values(), strict=True))
    assert line[:-1] == points  # few enough to be drawn as they are
    assert line[-1][1] == points[-1][1], "the last value holds to the end"
    evictions = rows(session, "kv_cache_evictions.csv")
    preemptions = rows(session, "kv_preemptions.csv")
    assert sum(chart.data["evictions"]["n"]) == len(evictions) > 0
    assert chart.data["preemptions"]["t"] == column(preemptions, "timestamp_sec") != []
    assert grid_total(chart, "evictions") == len(evictions)
    assert grid_total(chart, "preemptions") == len(preemptions)
    assert max(v for v in chart.grid.data["high"] if v is not None) == max(u for _, u in points)
    assert f"{max(u for _, u in points):.2f} %" in chart.says


@pytest.mark.parametrize("which", ["bundled", "made"])
def test_prefix_cache(which: str, request: pytest.FixtureRequest) -> None:
    session: Path = request.getfixturevalue(which)
    chart = drawing(session, "kv_prefix_cache")
    counted = [r for r in rows(session, "kv_prefix_cache.csv") if r["preempted"] == "False"]
    assert grid_total(chart, "lookups") == len(counted)
    assert grid_total(chart, "asked") == sum(column(counted, "tokens"))
    assert grid_total(chart, "hit") == sum(column(counted, "hit_tokens"))
    last = rows(session, "kv_prefix_cache.csv")[-1]
    assert grid_total(chart, "asked") == float(last["running_queries"]), "as vLLM counts"
    assert f"{float(last['running_hits']):,.0f} of" in chart.says


@pytest.mark.parametrize("which", ["bundled", "made"])
def test_lifetimes(which: str, request: pytest.FixtureRequest) -> None:
    session: Path = request.getfixturevalue(which)
    chart = drawing(session, "kv_block_lifetimes")
    table = rows(session, "kv_block_lifetimes.csv")
    ends = {"evicted": "evicted", "reused": "reused, nothing cached"}
    for what in ("lifetime", "idle"):
        known = [r for r in table if r[f"{what}_sec"] != "None" and r["ended_by"] != "open"]
        told: Counter[str] = Counter()
        bars = [
            dict(zip(chart.data[what], r, strict=True))
            for r in zip(*chart.data[what].values(), strict=True)
        ]
        for bar in bars:
            inside = [
                r
                for r in known
                if bar["from"] * (1 - 1e-9) <= float(r[f"{what}_sec"]) < bar["to"] * (1 - 1e-9)
                and ends[r["ended_by"]] == bar["end"]
            ]
            assert bar["n"] == len(inside) == bar["y1"] - bar["y0"]
            told[bar["end"]] += bar["n"]
        assert told == Counter(ends[r["ended_by"]] for r in known)


@pytest.mark.parametrize("which", ["bundled", "made"])
def test_coverage(which: str, request: pytest.FixtureRequest) -> None:
    session: Path = request.getfixturevalue(which)
    chart = drawing(session, "cuda_graph_coverage")
    for row in rows(session, "cuda_graph_coverage.csv"):
        assert grid_total(chart, row["runtime_mode"]) == int(row["steps"])
    tops: dict[float, float] = defaultdict(float)
    for begin, top in zip(chart.data["shares"]["from"], chart.data["shares"]["y1"], strict=True):
        tops[begin] = max(tops[begin], top)
    assert set(tops.values()) == {100.0}, "the shares of an interval add up"


def test_graph_usage(made: Path) -> None:
    chart = drawing(made, "cuda_graph_usage")
    usage = rows(made, "cuda_graph_usage.csv")
    latency = rows(made, "cuda_graph_replay_latency.csv")
    steps = [r for r in rows(made, "cuda_graph_steps.csv") if r["dummy"] == "False"]
    grid = chart.grid.data
    assert len(grid["label"]) == len(usage) == len(set(grid["label"]))
    assert len(chart.data["graphs"]["label"]) == min(30, len(usage))
    by_name = {
        f"{r['runtime_mode']} {r['num_tokens']}": r for r in usage
    }  # in this session these tell graphs apart
    assert set(by_name) == set(grid["label"])
    gpu = {f"{r['runtime_mode']} {r['num_tokens']}": r["gpu_time_share"] for r in latency}
    padding: Counter[str] = Counter()
    for step in steps:
        if step["runtime_mode"] != "NONE":
            padding[f"{step['runtime_mode']} {step['num_tokens']}"] += int(step["padding_tokens"])
    for i, name in enumerate(grid["label"]):
        assert grid["steps"][i] == int(by_name[name]["replay_count"])
        assert grid["steps_pct"][i] == pytest.approx(100 * grid["steps"][i] / len(steps), abs=1e-4)
        assert grid["gpu_pct"][i] == pytest.approx(100 * float(gpu[name]), abs=1e-4)
        assert grid["padding"][i] == padding[name]
    assert sum(grid["padding_pct"]) == pytest.approx(100, abs=0.01)


def test_latency(made: Path) -> None:
    chart = drawing(made, "cuda_graph_replay_latency")
    table = {
        f"{r['runtime_mode']} {r['num_tokens']}": r
        for r in rows(made, "cuda_graph_replay_latency.csv")
    }
    grid = chart.grid.data
    assert set(grid["label"]) == set(table)
    names = [n for n in grid if n.endswith("_ms")]
    assert {n.removesuffix("_p50_ms") for n in names if "p50" in n} == {
        "launch",
        "delay",
        "gpu_span",
    }
    for i, label in enumerate(grid["label"]):
        for name in names:
            assert grid[name][i] == float(table[label][name]), (label, name)


def test_padding(made: Path) -> None:
    chart = drawing(made, "cuda_graph_padding")
    table = [r for r in rows(made, "cuda_graph_padding.csv") if r["runtime_mode"] != "NONE"]
    captured = {int(r["num_tokens"]) for r in rows(made, "cuda_graph_captures.csv")}
    assert len(chart.data["pairs"]["n"]) == len(table)
    assert set(chart.data["captured"]["size"]) == captured
    sizes = dict(
        zip(chart.grid.data["size"], zip(*chart.grid.data.values(), strict=True), strict=True)
    )
    assert set(sizes) == captured | {int(r["padded_tokens"]) for r in table}
    waste: Counter[int] = Counter()
    for r in table:
        waste[int(r["padded_tokens"])] += int(r["num_paddings"]) * int(r["count"])
    assert dict(zip(chart.grid.data["size"], chart.grid.data["waste"], strict=True)) == {
        size: waste[size] for size in sizes
    }
    assert f"{sum(waste.values()):,} of the" in chart.says


def test_ranks(made: Path) -> None:
    chart = drawing(made, "ranks")
    grid = chart.grid.data
    folders = sorted(p.name for p in (made / "ranks").iterdir())
    assert grid["label"] == ["dp0_pp0_tp0", *folders]
    for i, place in enumerate([made, *(made / "ranks" / f for f in folders)]):
        steps = [r for r in rows(place, "cuda_graph_steps.csv") if r["unpadded_tokens"] != "0"]
        host = sorted(column(steps, "host_ms"))
        assert grid["steps"][i] == len(steps)
        for name, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)):
            nearest = host[math.ceil(len(host) * percent / 100) - 1]
            assert grid[f"host_{name}_ms"][i] == nearest
    assert grid["evictions"][1:] == [None, None], "workers have no cache of their own"


def test_ranks_csv_is_used_where_there_is_one(made: Path, tmp_path: Path) -> None:
    session = tmp_path / "s"
    shutil.copytree(made, session)
    names = [column.name for column in TABLES["ranks"].columns]
    said = (
        {"rank": "dp0_pp0_tp0", "role": "engine", "host": "a"},
        {"rank": "dp0_pp0_tp0", "role": "worker", "host": "a", "replay_ratio": "0.9"},
        {"rank": "dp0_pp0_tp1", "role": "worker", "host": "b", "replay_ratio": "1.1"},
    )
    lines = [names, *([row.get(name, "None") for name in names] for row in said)]
    text = "".join(f"{','.join(line)}\n" for line in lines)
    (session / "ranks.csv").write_text(text)
    grid = drawing(session, "ranks").grid.data
    assert grid["replay_ratio"] == [0.9, 1.1, None]
    assert grid["host"] == ["a", "b", None]


def test_what_cannot_be_drawn_says_why(bundled: Path, tmp_path: Path) -> None:
    found = drawn(bundled)
    told = json.loads((bundled / "metadata.json").read_text())["empty_files"]
    for name in ("cuda_graph_usage", "cuda_graph_replay_latency", "cuda_graph_padding"):
        why = found[name]
        assert isinstance(why, str)
        assert told["cuda_graph_usage.csv"] in why
    assert found["ranks"] == "The session has one rank."
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "metadata.json").write_text('{"session_id": "bare"}')
    assert all(isinstance(why, str) and why for why in drawn(bare).values())
    text = page_of(bare, tmp_path / "bare.html").read_text()
    assert text.count("Not drawn:") == len(CHARTS)


def test_a_recording_of_plain_vllm(tmp_path: Path) -> None:
    """GPU times and no descriptors: what is known is drawn, and it is said what is not."""
    traces = report_sessions.real_traces()
    trace = traces / "vllm_rtx3090_gptoss20b_full_and_piecewise.pt.trace.json.gz"
    session = parse_session([trace], tmp_path / "s").path
    usage = drawing(session, "cuda_graph_usage")
    assert len(usage.grid.data["label"]) == len(rows(session, "cuda_graph_usage.csv"))
    assert any("padding" in note and "not known" in note for note in usage.notes)
    assert drawing(session, "cuda_graph_replay_latency").columns == 3
    assert isinstance(drawn(session)["cuda_graph_padding"], str)
