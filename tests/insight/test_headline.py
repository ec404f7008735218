"""The figures that people ask for first."""

from __future__ import annotations

from pathlib import Path

from saved_build import Rows, graph, usage, write_session

from profilemate.insight.headline import headline


def figures(folder: Path, tables: dict[str, Rows]) -> dict[str, str]:
    return {f.label: f.text for f in headline(write_session(folder, tables))}


def pair(before: int, after: int, times: int, mode: str = "FULL") -> dict[str, object]:
    return {
        "unpadded_tokens": before,
        "padded_tokens": after,
        "num_paddings": after - before,
        "runtime_mode": mode,
        "count": times,
    }


def test_which_sizes_ran_eagerly_and_which_are_padded_most(tmp_path: Path) -> None:
    pairs = [pair(3, 4, 10), pair(5, 8, 10), pair(7, 8, 2), pair(8, 8, 90)]
    pairs += [pair(513, 513, 1, "NONE"), pair(600, 600, 9, "NONE"), pair(2000, 2000, 1, "NONE")]
    found = figures(tmp_path / "s", {"cuda_graph_padding": pairs})
    assert found["eager"] == "11 steps, of 513 to 2,000 tokens, median 600"
    assert found["padding"].endswith("tokens, most of it at size 8 (32 of 42)")


def test_no_eager_step_and_no_padding_have_no_sizes(tmp_path: Path) -> None:
    found = figures(tmp_path / "s", {"cuda_graph_padding": [pair(8, 8, 3)]})
    assert "eager" not in found
    assert found["padding"] == "0 %, 0 of 24 tokens"
    found = figures(tmp_path / "t", {"cuda_graph_padding": [pair(7, 7, 3, "NONE")]})
    assert found["eager"] == "3 steps, of 7 tokens"


def test_what_replays_take(tmp_path: Path) -> None:
    spans = {8: 2.5, 1: 1.25, 256: 7.5}
    graphs = [graph(n, steps=n + 1, gpu_span_p50_ms=ms) for n, ms in spans.items()]
    graphs.append(graph(512, steps=1, gpu_span_p50_ms=None))
    found = figures(tmp_path / "s", {"cuda_graph_replay_latency": graphs})
    assert found["replays"] == (
        "1.250 to 7.500 ms, medians of 3 graphs on the GPU: FULL 1 to FULL 256"
    )
    found = figures(tmp_path / "t", {"cuda_graph_replay_latency": graphs[:1]})
    assert "replays" not in found  # the hottest graph says it


def test_how_long_evicted_content_lived(tmp_path: Path) -> None:
    lives = [(1.0, 0.5), (3.0, 2.5), (9.0, 0.25)]
    rows: list[dict[str, object]]
    rows = [{"timestamp_sec": 9, "lifetime_sec": a, "idle_sec": b} for a, b in lives]
    rows.append({"timestamp_sec": 9, "lifetime_sec": None, "idle_sec": None})
    tables: dict[str, Rows] = {"kv_cache_usage": usage((0, 1)), "kv_cache_evictions": rows}
    found = figures(tmp_path / "s", tables)
    assert found["evictions"] == (
        "4, 0 preemptions; lived 3.000 s, idle 0.500 s (medians of 3 whole lives)"
    )


def test_steps_without_a_token_are_told_apart(tmp_path: Path) -> None:
    rows = [
        {"runtime_mode": mode, "steps": n, "unpadded_tokens": tokens, "empty_steps": empty}
        for mode, n, tokens, empty in (
            ("FULL", 15, 40, 3),
            ("PIECEWISE", 0, None, 0),
            ("NONE", 2, 2, 0),
        )
    ]
    found = figures(tmp_path / "s", {"cuda_graph_coverage": rows})
    assert found["steps"] == "17, 42 tokens, 3 more without any token"
