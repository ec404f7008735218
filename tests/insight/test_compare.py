"""Two constructed sessions side by side; the real ones are in test_findings_real."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saved_build import METADATA, Rows, coverage, graph, step, usage, write_session

from profilemate.errors import InputError
from profilemate.insight.compare import as_json, compare
from profilemate.insight.compare.conditions import parse_condition
from profilemate.insight.compare.metrics import METRICS
from profilemate.parse.session.saved import SavedSession


def durations(seed: int, n: int, median: float) -> list[float]:
    rng = np.random.default_rng(seed)
    return [round(float(x), 6) for x in median * np.exp(0.1 * rng.normal(size=n))]


def session(
    folder: Path,
    graphs: Mapping[int, Iterable[float]],
    column: str = "graph_gpu_ms",
    **metadata: Any,
) -> SavedSession:
    steps = [
        step(i / 100, tokens=tokens) | {column: ms}
        for tokens, series in graphs.items()
        for i, ms in enumerate(series)
    ]
    return write_session(folder, {"cuda_graph_steps": steps}, **metadata)


def test_graphs_slower_faster_same_few_and_alone(tmp_path: Path) -> None:
    a = session(
        tmp_path / "a",
        {
            8: durations(1, 100, 1.0),
            16: durations(2, 100, 2.0),
            32: durations(3, 100, 3.0),
            64: durations(4, 7, 4.0),
            128: durations(5, 50, 5.0),
        },
    )
    b = session(
        tmp_path / "b",
        {
            8: durations(11, 90, 1.2),
            16: durations(12, 90, 1.6),
            32: durations(13, 90, 3.0),
            64: durations(14, 90, 8.0),
            256: durations(15, 50, 5.0),
        },
    )
    rows = {r.graph: r for r in compare(a, b).graphs.rows}
    assert {name: row.outcome for name, row in rows.items()} == {
        "FULL 8": "slower",
        "FULL 16": "faster",
        "FULL 32": "same",
        "FULL 64": "few",
        "FULL 128": "only A",
        "FULL 256": "only B",
    }
    change = rows["FULL 8"].change
    assert change == pytest.approx(0.2, abs=0.05)
    assert rows["FULL 64"].p is None
    assert rows["FULL 128"].p50[1] is None


def test_the_median_is_the_tables_median(tmp_path: Path) -> None:
    a = session(tmp_path / "a", {8: [4.0, 1.0, 3.0, 2.0]})
    row = compare(a, a).graphs.rows[0]
    assert row.p50 == (2.0, 2.0), "nearest rank, as in cuda_graph_replay_latency.csv"
    assert row.p99 == (4.0, 4.0)


def test_another_mix_of_batches_does_not_move_the_replay_latency(tmp_path: Path) -> None:
    small, large = durations(1, 100, 1.0), durations(2, 100, 10.0)
    a = session(tmp_path / "a", {8: small, 512: large[:10]})
    b = session(tmp_path / "b", {8: small[:10], 512: large})
    metrics = {r.metric.name: r for r in compare(a, b).metrics}
    assert abs(metrics["replay_p50"].relative or 0) < 0.06, "B runs ten times as many large ones"


def test_the_hosts_time_is_compared_where_the_gpus_is_missing_and_said(tmp_path: Path) -> None:
    a = session(tmp_path / "a", {8: durations(1, 20, 1.0)})
    b = session(tmp_path / "b", {8: durations(2, 20, 1.0)}, column="launch_ms")
    found = compare(a, b)
    assert found.graphs.duration == "host_ms"
    assert any("host_ms" in text for text in found.caveats)


def test_eager_and_dummy_steps_are_no_replays(tmp_path: Path) -> None:
    steps = [step(i, graph_gpu_ms=1.0) for i in range(10)]
    others = [step(i, "NONE", graph_gpu_ms=9.0) for i in range(10)]
    others += [step(i, dummy=True, graph_gpu_ms=9.0) for i in range(10)]
    a = write_session(tmp_path / "a", {"cuda_graph_steps": steps + others})
    (row,) = compare(a, a).graphs.rows
    assert row.steps == (10, 10)
    assert row.p99 == (1.0, 1.0)


# --------------------------------------------------------------------------- figures


def tables(scale: int) -> dict[str, Rows]:
    """Every figure is known by hand, and grows with `scale`."""
    return {
        "cuda_graph_steps": [
            step(0.0, graph_gpu_ms=scale, launch_ms=1, host_ms=4 * scale, unpadded_tokens=10),
            step(1.0, "NONE", graph_gpu_ms=None, host_ms=4 * scale, unpadded_tokens=30 * scale),
        ],
        "cuda_graph_coverage": [
            {
                "runtime_mode": "FULL",
                "steps": 10 * scale,
                "gpu_graph_share": 0.3 * scale,
                "unpadded_tokens": 90,
                "graphs_never_replayed": 2 * scale,
            },
            {"runtime_mode": "NONE", "steps": 5, "unpadded_tokens": 7},
        ],
        "cuda_graph_padding": [
            {"runtime_mode": mode, "unpadded_tokens": before, "padded_tokens": 10, "count": count}
            for mode, before, count in (("FULL", 10 - scale, 3), ("FULL", None, 4), ("NONE", 10, 5))
        ],
        "cuda_graph_captures": [graph(8 * n) for n in range(5 * scale)],
        "kv_cache_usage": usage((0, 100 * scale), (1, 0), (2, 0)),
        "kv_cache_evictions": [{"timestamp_sec": 1, "lifetime_sec": 3 * scale}] * scale,
        "kv_prefix_cache": [
            {"preempted": False, "tokens": 60, "hit_tokens": 15 * scale},
            {"preempted": True, "tokens": 70, "hit_tokens": 70},
            {"preempted": False, "tokens": 40, "hit_tokens": 5 * scale},
        ],
        "kv_preemptions": [{"request_id": "r", "tokens_lost": 8}] * scale,
    }


def test_every_figure_by_hand(tmp_path: Path) -> None:
    a, b = (write_session(tmp_path / str(n), tables(n)) for n in (1, 2))
    rows = {r.metric.name: (r.a, r.b) for r in compare(a, b).metrics}
    known = {
        "replay_p50": (1, 2),
        "replay_p90": (1, 2),
        "replay_p99": (1, 2),
        "replay_mean": (1, 2),
        "step_host_p50": (4, 8),
        "tokens_per_sec": (40 / 1.004, 70 / 1.008),
        "graph_steps_pct": (1000 / 15, 2000 / 25),
        "graph_tokens_pct": (9000 / 97, 9000 / 97),
        "graph_gpu_pct": (30, 60),
        "eager_decode_pct": (50, 50),
        "padding_pct": (10, 20),
        "graphs_captured": (5, 10),
        "graphs_unused": (2, 4),
        "kv_peak_pct": (10, 20),
        "kv_mean_pct": (5, 10),
        "kv_evictions": (1, 2),
        "kv_life_sec": (3, 6),
        "prefix_hit_pct": (20, 40),
        "preemptions": (1, 2),
        "tokens_lost": (8, 16),
        "steps": (15, 25),
        "tokens": (97, 97),
    }
    assert set(rows) == set(known)
    for name, pair in rows.items():
        assert pair == pytest.approx(known[name]), name
    assert set(METRICS) - set(rows) == {"graphs_slower", "graphs_faster"}, "too few steps to say"


def test_what_was_not_recorded_is_none_and_not_nought(tmp_path: Path) -> None:
    a = write_session(tmp_path / "a", {"kv_cache_usage": usage((0, 1), (1, 2))})
    b = write_session(tmp_path / "b", {"cuda_graph_coverage": coverage(5)}, hooks={})
    rows = {r.metric.name: (r.a, r.b) for r in compare(a, b).metrics}
    assert "replay_p50" not in rows
    known = {n: rows[n] for n in ("kv_evictions", "preemptions", "steps")}
    assert known == {"kv_evictions": (0, None), "preemptions": (0, None), "steps": (None, 5)}


# --------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("text", "a", "b", "holds"),
    [
        ("replay_p50>5%", 1.0, 1.051, True),
        ("replay_p50>5%", 1.0, 1.05, False),
        ("replay_p50 > 5 %", 1.0, 1.06, True),
        ("replay_p50<-5%", 1.0, 0.94, True),
        ("replay_p50<-5%", 1.0, 0.96, False),
        ("padding_pct>+2", 10.0, 12.1, True),
        ("padding_pct>+2", 10.0, 12.0, False),
        ("prefix_hit_pct<-2", 10.0, 7.9, True),
        ("preemptions>0", 5.0, 1.0, True),
        ("preemptions>0", None, 0.0, False),
        ("preemptions>10%", 0.0, 1.0, True),
        ("preemptions>10%", 0.0, 0.0, False),
        ("kv_peak_pct>90.5", 0.0, 90.6, True),
    ],
)
def test_conditions(text: str, a: float | None, b: float | None, holds: bool) -> None:
    assert parse_condition(text).holds(a, b) is holds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("replay_p5>5%", "Did you mean replay_p50?"),
        ("zzz>5%", "compare --metrics"),
        ("replay_p50=5%", "is no condition"),
        ("replay_p50>=5", "is no condition"),
        ("replay_p50>five", "is no condition"),
        ("replay_p50", "is no condition"),
        ("", "is no condition"),
    ],
)
def test_a_condition_that_is_none(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        parse_condition(text)
    assert said in str(error.value)


def test_a_figure_that_is_missing_is_no_pass(tmp_path: Path) -> None:
    a = write_session(tmp_path / "a", {"cuda_graph_coverage": coverage(5)})
    found = compare(a, a)
    with pytest.raises(InputError, match="cannot be judged"):
        found.check([parse_condition("kv_peak_pct>90")])
    assert found.check([parse_condition("steps<9")])[0].text == "steps<9"


# --------------------------------------------------------------------------- caveats


def test_two_sessions_of_one_setting_have_no_caveat(tmp_path: Path) -> None:
    series = {8: durations(1, 20, 1.0)}
    assert compare(session(tmp_path / "a", series), session(tmp_path / "b", series)).caveats == []


def test_flags_that_differ_come_before_everything_else(tmp_path: Path) -> None:
    series = {8: durations(1, 20, 1.0)}
    base = {"max_num_seqs": 64, "gpu_memory_utilization": 0.9, "async_scheduling": True}
    changed = {**base, "max_num_seqs": 32, "speculative_method": "ngram"}
    a = session(tmp_path / "a", series, config=base)
    b = session(tmp_path / "b", series, config=changed, sources=[{"recorder": "torch profiler"}])
    assert compare(a, b).caveats[:2] == [
        "vLLM's max_num_seqs differs: 64 in A, 32 in B",
        "vLLM's speculative_method differs: none in A, ngram in B",
    ]
    assert "Recorders differ" in compare(a, b).caveats[2]
    without = session(tmp_path / "c", series)
    assert compare(a, without).caveats == ["vLLM's configuration was recorded in A only"]


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"versions": {**METADATA["versions"], "vllm": "0.33.0"}}, "0.32.0 in A, 0.33.0 in B"),
        ({"processes": [{"host": "other", "rank": "dp0_pp0_tp0"}]}, "Machines differ"),
        ({"sources": [{"recorder": "torch profiler"}]}, "Recorders differ"),
        ({"kv_cache_tracking": False}, "recorded in A only"),
        ({"window_sec": [0, 80]}, "A is 60.0 s long, B 80.0 s"),
        ({"dropped": {"lost_batches": {"1": 2}}}, "B: 2 batches of events are missing"),
        ({"coverage": {"launches_with_gpu_records": 9}}, "in B only"),
    ],
)
def test_what_differs_is_said_first(tmp_path: Path, metadata: dict[str, Any], said: str) -> None:
    series = {8: durations(1, 20, 1.0)}
    a, b = session(tmp_path / "a", series), session(tmp_path / "b", series, **metadata)
    caveats = compare(a, b).caveats
    assert len(caveats) == 1
    assert said in caveats[0]


def test_the_comparison_is_spelled_for_machines(tmp_path: Path) -> None:
    a, b = (write_session(tmp_path / str(n), tables(n)) for n in (1, 2))
    failed = [parse_condition("preemptions>0")]
    spelled = json.loads(json.dumps(as_json(compare(a, b), failed), allow_nan=False))
    assert spelled["metrics"]["preemptions"] == {
        "a": 1,
        "b": 2,
        "change": 1,
        "relative": 1,
        "unit": "",
        "better": "lower",
    }
    assert spelled["failed"] == ["preemptions>0"]
    assert spelled["graphs"]["rows"][0]["graph"] == "FULL 8"
