"""Findings on CUDA graphs, on constructed sessions at both sides of each threshold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from saved_build import Rows, coverage, graph, step, write_session

from profilemate.insight.findings import find
from profilemate.insight.findings.base import Finding, Verdict, one_value_each


def judged(folder: Path, tables: Mapping[str, Rows], **metadata: Any) -> Verdict:
    return find(write_session(folder / "s", tables, **metadata))


def rules(verdict: Verdict, *known: str) -> list[str]:
    return [f.rule for f in verdict.findings if f.rule in known]


def one(verdict: Verdict, prefix: str) -> Finding:
    (finding,) = [f for f in verdict.findings if f.rule.startswith(prefix)]
    return finding


def unjudged(verdict: Verdict) -> dict[str, str]:
    return {u.rule: u.why for u in verdict.unjudged}


COVERAGE = ("graphs-none", "graphs-some", "graphs-most")


@pytest.mark.parametrize(
    ("steps", "rule"),
    [
        ((0, 0, 10), "graphs-none"),
        ((1, 0, 9), "graphs-some"),
        ((500, 399, 101), "graphs-some"),
        ((500, 400, 100), "graphs-most"),
    ],
)
def test_coverage(tmp_path: Path, steps: tuple[int, int, int], rule: str) -> None:
    verdict = judged(tmp_path, {"cuda_graph_coverage": coverage(*steps)})
    assert rules(verdict, *COVERAGE) == [rule]
    assert one(verdict, "graphs-").evidence["steps_on_graphs"] == steps[0] + steps[1]


def test_few_steps_and_unknown_modes_are_not_judged(tmp_path: Path) -> None:
    few = judged(tmp_path / "few", {"cuda_graph_coverage": coverage(9)})
    assert "10 are needed" in unjudged(few)["graph-coverage"]
    rows = [{"runtime_mode": None, "steps": 500}]
    unknown = judged(tmp_path / "unknown", {"cuda_graph_coverage": rows})
    assert "graph-coverage" in unjudged(unknown)


# --------------------------------------------------------------------------- eager decode


def decode(graphs: int, eager: int, size: int) -> list[dict[str, object]]:
    steps = [step(i / 100, tokens=8) for i in range(graphs)]
    return steps + [step(50 + i / 100, "NONE", size) for i in range(eager)]


@pytest.mark.parametrize(("eager", "rule"), [(2, "eager-decode-none"), (3, "eager-decode")])
def test_eager_decode(tmp_path: Path, eager: int, rule: str) -> None:
    tables = {"cuda_graph_steps": decode(200 - eager, eager, 600)}
    assert one(judged(tmp_path, tables), "eager-decode").rule == rule


def test_sizes_above_the_list_are_proposed_and_the_list_is_kept(tmp_path: Path) -> None:
    tables = {
        "cuda_graph_steps": decode(50, 30, 600) + decode(0, 20, 700),
        "cuda_graph_captures": [graph(8), graph(512)],
    }
    finding = one(judged(tmp_path, tables), "eager-decode")
    assert json.loads(finding.value or "") == {"cudagraph_capture_sizes": [8, 512, 600, 700]}


def test_eager_decode_inside_the_list_has_another_reason(tmp_path: Path) -> None:
    tables = {
        "cuda_graph_steps": decode(50, 30, 300),
        "cuda_graph_captures": [graph(8), graph(512)],
    }
    finding = one(judged(tmp_path, tables), "eager-decode")
    assert finding.value is None
    assert "something else keeps them off" in finding.detail


def test_eager_prefill_is_no_fault(tmp_path: Path) -> None:
    prefill = [step(i / 10, "NONE", 4000, prefill_tokens=4000, decode_tokens=0) for i in range(100)]
    tables = {"cuda_graph_steps": decode(50, 0, 8) + prefill}
    assert one(judged(tmp_path, tables), "eager-decode").severity == "good"


# --------------------------------------------------------------------------- padding


def padding(*rows: tuple[int, int, int], mode: str = "FULL") -> list[dict[str, object]]:
    return [
        {
            "unpadded_tokens": before,
            "padded_tokens": after,
            "num_paddings": after - before,
            "runtime_mode": mode,
            "count": times,
        }
        for before, after, times in rows
    ]


@pytest.mark.parametrize(
    ("unpadded", "rule"),
    [(95, "padding-good"), (94, "padding-some"), (81, "padding-some"), (80, "padding-high")],
)
def test_padding(tmp_path: Path, unpadded: int, rule: str) -> None:
    eager = padding((5000, 5000, 1000), mode="NONE")  # must not dilute it
    tables = {"cuda_graph_padding": padding((unpadded, 100, 50)) + eager}
    finding = one(judged(tmp_path, tables), "padding")
    assert finding.rule == rule
    assert finding.evidence["padding_pct"] == 100 - unpadded


def test_a_better_list_is_proposed_with_what_it_would_have_cost(tmp_path: Path) -> None:
    tables = {
        "cuda_graph_padding": padding((33, 64, 100), (65, 128, 100), (1, 1, 10)),
        "cuda_graph_captures": [graph(s) for s in (1, 64, 128, 256)],
    }
    finding = one(judged(tmp_path, tables), "padding")
    assert finding.rule == "padding-high"
    sizes = json.loads(finding.value or "")["cudagraph_capture_sizes"]
    assert 256 in sizes, "the largest stays"
    assert sizes == [33, 65, 256]
    # By hand: ten steps of 1 token run with 33, the others fit.
    assert finding.evidence["proposed_pct"] == pytest.approx(100 * 320 / (9810 + 320), abs=0.01)


def test_no_list_is_proposed_where_the_list_does_not_explain_the_padding(tmp_path: Path) -> None:
    # A data-parallel rank with 3 tokens runs with the 64 of another rank.
    tables = {
        "cuda_graph_padding": padding((3, 64, 100)),
        "cuda_graph_captures": [graph(s) for s in (4, 64)],
    }
    finding = one(judged(tmp_path, tables), "padding")
    assert finding.rule == "padding-high"
    assert finding.flag is None
    assert "do not explain it" in finding.detail


def test_sizes_are_multiples_of_a_requests_tokens(tmp_path: Path) -> None:
    graphs = [graph(s, num_reqs=s // 4, uniform=True) for s in (4, 64, 128)]
    tables = {
        "cuda_graph_padding": padding((33, 64, 50), (70, 128, 50)),
        "cuda_graph_captures": graphs,
    }
    value = one(judged(tmp_path, tables), "padding").value
    assert json.loads(value or "")["cudagraph_capture_sizes"] == [36, 72, 128]


def test_unknown_tokens_are_not_judged(tmp_path: Path) -> None:
    rows = [{"unpadded_tokens": None, "padded_tokens": None, "runtime_mode": "FULL", "count": 50}]
    verdict = judged(tmp_path, {"cuda_graph_padding": rows})
    assert "before padding" in unjudged(verdict)["padding"]


# --------------------------------------------------------------------------- use of graphs


def replays(*steps: int, descriptor: str | None = None) -> list[dict[str, object]]:
    return [graph(i + 1, steps=n, descriptor=descriptor) for i, n in enumerate(steps)]


@pytest.mark.parametrize(
    ("steps", "rule"),
    [
        ((50, 25, 25), "workload-uniform"),
        ((49, 26, 25), "workload-mixed"),
        ((20, 20, 20, 20, 20), "workload-mixed"),
        ((200, 200, 200, 200, 200, 5), "workload-diverse"),
    ],
)
def test_workload(tmp_path: Path, steps: tuple[int, ...], rule: str) -> None:
    verdict = judged(tmp_path, {"cuda_graph_replay_latency": replays(*steps)})
    assert one(verdict, "workload").rule == rule


def test_as_many_equally_hot_graphs_are_as_diverse(tmp_path: Path) -> None:
    verdict = judged(tmp_path, {"cuda_graph_replay_latency": replays(25, 25, 25, 25)})
    evidence = one(verdict, "workload").evidence
    assert evidence["effective_graphs"] == pytest.approx(4)
    assert evidence["graphs_for_90_pct"] == 4


def test_graphs_told_apart_by_their_kernels_say_nothing_of_sizes(tmp_path: Path) -> None:
    rows = replays(500, descriptor="kernels:5c8ac6bd")
    verdict = judged(tmp_path, {"cuda_graph_replay_latency": rows})
    assert "by their kernels" in unjudged(verdict)["workload"]


@pytest.mark.parametrize(("milliseconds", "severity"), [(10_000, "info"), (10_001, "warning")])
def test_graphs_captured_in_vain(tmp_path: Path, milliseconds: int, severity: str) -> None:
    tables = {
        "cuda_graph_captures": [graph(s, m) for m in ("FULL", "PIECEWISE") for s in (1, 2, 4, 8)],
        "cuda_graph_usage": [graph(2, replay_count=70), graph(4, "PIECEWISE", replay_count=30)],
        "cuda_graph_coverage": coverage(
            70,
            30,
            graphs_replayed=2,
            graphs_never_replayed=6,
            never_replayed_capture_ms=milliseconds,
        ),
    }
    finding = one(judged(tmp_path, tables), "captures-unused")
    assert finding.severity == severity
    assert finding.evidence["never_replayed"] == 6
    # A size that either mode replays stays, and so does the largest.
    assert json.loads(finding.value or "") == {"cudagraph_capture_sizes": [2, 4, 8]}


def test_a_mode_that_nothing_replays_is_left_out(tmp_path: Path) -> None:
    tables = {
        "cuda_graph_captures": [graph(s, m) for m in ("FULL", "PIECEWISE") for s in (1, 2)],
        "cuda_graph_usage": [graph(1, replay_count=70), graph(2, replay_count=30)],
        "cuda_graph_coverage": coverage(100, graphs_replayed=2, graphs_never_replayed=2),
    }
    finding = one(judged(tmp_path, tables), "captures-unused")
    assert json.loads(finding.value or "") == {"cudagraph_mode": "FULL_DECODE_ONLY"}


def test_every_graph_used_is_good(tmp_path: Path) -> None:
    tables = {
        "cuda_graph_captures": [graph(1)],
        "cuda_graph_coverage": coverage(100, graphs_replayed=1, graphs_never_replayed=0),
    }
    assert one(judged(tmp_path, tables), "captures-used").severity == "good"


@pytest.mark.parametrize(("captured", "rule"), [(1.0, "captures-before"), (1.001, "captures-late")])
def test_captures_while_serving(tmp_path: Path, captured: float, rule: str) -> None:
    steps = [step(0.2, dummy=True), step(0.5, unpadded_tokens=0), step(1.0), step(2.0)]
    tables = {
        "cuda_graph_captures": [
            graph(1, capture_time_sec=0.1),
            graph(2, capture_time_sec=captured),
        ],
        "cuda_graph_steps": steps,
    }
    verdict = judged(tmp_path, tables)
    assert rules(verdict, "captures-before", "captures-late") == [rule]


# --------------------------------------------------------------------------- time


@pytest.mark.parametrize(("bound", "rule"), [(2, "launches-cheap"), (3, "launch-bound")])
def test_launches_against_the_gpu(tmp_path: Path, bound: int, rule: str) -> None:
    steps = [step(i, launch_ms=0.5, graph_gpu_busy_ms=0.5) for i in range(20 - bound)]
    steps += [step(50 + i, launch_ms=0.501, graph_gpu_busy_ms=0.5) for i in range(bound)]
    verdict = judged(tmp_path, {"cuda_graph_steps": steps})
    assert rules(verdict, "launches-cheap", "launch-bound") == [rule]


def test_torchs_profiler_makes_a_slow_host_a_note(tmp_path: Path) -> None:
    steps = [step(i / 100, launch_ms=2, graph_gpu_busy_ms=1, gpu_busy_ms=1) for i in range(20)]
    sources = [{"kind": "torch profiler trace"}]
    verdict = judged(tmp_path, {"cuda_graph_steps": steps}, sources=sources)
    for rule in ("launch-bound", "host-bound"):
        finding = one(verdict, rule)
        assert finding.severity == "info"
        assert "torch's profiler" in finding.detail


@pytest.mark.parametrize(("busy", "rule"), [(4.99, "host-bound"), (5.0, "gpu-busy")])
def test_the_gpu_between_decode_steps(tmp_path: Path, busy: float, rule: str) -> None:
    steps = [step(i / 100, gpu_busy_ms=busy) for i in range(20)]  # a step every 10 ms
    # Pauses of a quiet server, and prefill, must not count as the host's fault.
    steps += [step(100.0 + 50 * i, gpu_busy_ms=0.1, prefill_tokens=5) for i in range(15)]
    verdict = judged(tmp_path, {"cuda_graph_steps": steps})
    assert rules(verdict, "host-bound", "gpu-busy") == [rule]


@pytest.mark.parametrize(
    ("p99", "steps", "rule"),
    [(1.99, 200, "replays-even"), (2.0, 200, "replays-uneven"), (9.0, 199, "")],
)
def test_jitter(tmp_path: Path, p99: float, steps: int, rule: str) -> None:
    rows = [
        graph(8, steps=999, gpu_steps=200, gpu_span_p50_ms=1.0, gpu_span_p99_ms=1.01)
        if rule
        else graph(8, steps=10, gpu_steps=10, gpu_span_p50_ms=1.0, gpu_span_p99_ms=1.0),
        graph(16, steps=steps, gpu_steps=steps, gpu_span_p50_ms=1.0, gpu_span_p99_ms=p99),
    ]
    verdict = judged(tmp_path, {"cuda_graph_replay_latency": rows})
    assert rules(verdict, "replays-even", "replays-uneven") == ([rule] if rule else [])


def test_pure_decode_on_pieces_is_not_decode_on_full_graphs(tmp_path: Path) -> None:
    def steps(pieces: int) -> list[dict[str, object]]:
        modes = ["PIECEWISE"] * pieces + ["FULL"] * (100 - pieces)
        return [
            step(i, mode, 8, num_tokens=8, prefill_tokens=0, decode_tokens=8)
            for i, mode in enumerate(modes)
        ]

    for pieces, rule in ((1, "eager-decode-none"), (2, "decode-piecewise")):
        session = write_session(tmp_path / str(pieces), {"cuda_graph_steps": steps(pieces)})
        (found,) = (f for f in find(session).findings if "decode" in f.rule)
        assert (found.rule, found.evidence["piecewise"]) == (rule, pieces)


def test_one_flag_has_one_value() -> None:
    def proposing(flag: str, value: str | None, rule: str) -> Finding:
        return Finding(rule, "info", "t", "d.", {}, "s", flag, value, "w")

    found = one_value_each(
        [
            proposing("--a", "1", "first"),
            proposing("--a", "2", "second"),
            proposing("--a", "1", "third"),
            proposing("--b", "2", "fourth"),
            proposing("--a", None, "fifth"),
        ]
    )
    told = [(f.rule, f.flag, f.value) for f in found]
    assert told == [
        ("first", "--a", "1"),
        ("second", None, None),
        ("third", "--a", "1"),
        ("fourth", "--b", "2"),
        ("fifth", "--a", None),
    ]
    assert "first comes first" in found[1].detail
