"""Findings on the KV cache, on constructed sessions at both sides of each threshold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from saved_build import Rows, coverage, step, usage, write_session, write_tables

from profilemate.insight.findings import find
from profilemate.insight.findings.base import Finding, Verdict
from profilemate.insight.findings.thresholds import Thresholds


def judged(folder: Path, tables: Mapping[str, Rows], **metadata: Any) -> Verdict:
    return find(write_session(folder / "s", tables, **metadata))


def of(verdict: Verdict, prefix: str) -> list[Finding]:
    return [f for f in verdict.findings if f.rule.startswith(prefix)]


def one(verdict: Verdict, prefix: str) -> Finding:
    (finding,) = of(verdict, prefix)
    return finding


def why(verdict: Verdict, rule: str) -> str:
    (reason,) = [u.why for u in verdict.unjudged if u.rule == rule]
    return reason


@pytest.mark.parametrize(
    ("peak", "rule", "severity"),
    [
        (399, "kv-usage-low", "info"),
        (400, "kv-usage-fair", "info"),
        (599, "kv-usage-fair", "info"),
        (600, "kv-usage-good", "good"),
        (800, "kv-usage-good", "good"),
        (801, "kv-usage-high", "info"),
        (900, "kv-usage-high", "info"),
        (901, "kv-usage-full", "warning"),
    ],
)
def test_peak_usage_decides_by_the_bands(
    tmp_path: Path, peak: int, rule: str, severity: str
) -> None:
    # The mean is below 40 % in every case: a ramp and an idle tail must decide nothing.
    rows = usage((0.0, 10), (8.0, peak), (10.0, 20), (40.0, 0))
    finding = one(judged(tmp_path, {"kv_cache_usage": rows}), "kv-usage")
    assert (finding.rule, finding.severity) == (rule, severity)
    assert finding.evidence["peak_blocks"] == peak
    mean = 100 * (10 * 8 + peak * 2 + 20 * 30) / 40 / 1000
    assert finding.evidence["mean_pct"] == pytest.approx(mean, abs=0.01)


def test_an_idle_server_after_the_load_does_not_count_into_the_mean(tmp_path: Path) -> None:
    rows = usage((10.0, 700), (20.0, 0))
    finding = one(judged(tmp_path, {"kv_cache_usage": rows}), "kv-usage")
    assert finding.evidence["mean_pct"] == 70  # and not 70 % of a sixth of the recording
    assert finding.evidence["seconds"] == 10


def test_too_large_a_pool_gets_a_flag_and_no_value_that_vllm_may_refuse(tmp_path: Path) -> None:
    """One request of --max-model-len must fit, and what it takes is not recorded."""
    finding = one(judged(tmp_path, {"kv_cache_usage": usage((0, 1), (1, 200))}), "kv-usage")
    assert (finding.flag, finding.value) == ("--num-gpu-blocks-override", None)
    assert finding.evidence["blocks_for_target"] == 250  # 200 / 0.8


def test_no_smaller_pool_beside_evicted_content(tmp_path: Path) -> None:
    """Live blocks have room, and cached content none: two findings never say the opposite."""
    tables = {
        "kv_cache_usage": usage((0, 1), (60, 200)),
        "kv_cache_evictions": evictions(*[(30.0, 1.0, 9.0)] * 20),
    }
    verdict = judged(tmp_path, tables)
    low, early = one(verdict, "kv-usage"), one(verdict, "kv-evictions")
    assert (low.rule, low.flag) == ("kv-usage-low", None)
    assert (early.rule, early.flag) == ("kv-evictions-early", "--gpu-memory-utilization")


@pytest.mark.parametrize(
    ("seconds", "more", "rule"),
    [
        (0.09, {}, "kv-usage-peak"),
        (0.11, {}, "kv-usage-full"),
        (0.09, {"events": {"kv.alloc_failed": 1}}, "kv-usage-full"),
    ],
)
def test_a_peak_is_weighed_by_time_and_harm(
    tmp_path: Path, seconds: float, more: dict[str, Any], rule: str
) -> None:
    rows = usage((0.0, 500), (5.0, 936), (5.0 + seconds, 500), (10.0, 0))
    finding = one(judged(tmp_path, {"kv_cache_usage": rows}, **more), "kv-usage")
    assert finding.rule == rule
    assert (finding.flag is None) == (rule == "kv-usage-peak")


def test_waiting_requests_get_no_larger_batch_where_some_were_preempted(tmp_path: Path) -> None:
    steps = [step(i, waiting_requests=1, running_requests=4, kv_usage_pct=20.0) for i in range(20)]
    gone = [{"timestamp_sec": 1, "request_id": "r", "tokens_lost": 5}]
    tables: dict[str, Rows] = {"cuda_graph_steps": steps, "kv_preemptions": gone}
    verdict = judged(tmp_path, tables)
    assert [f.flag for f in of(verdict, "waiting")] == [None]


def test_no_batch_below_one_is_proposed(tmp_path: Path) -> None:
    gone = [{"timestamp_sec": 15, "request_id": "r", "tokens_lost": 5}]
    for requests, said in ((1, False), (2, True)):
        steps = [step(i, requests=requests) for i in range(20)]
        tables: dict[str, Rows] = {"cuda_graph_steps": steps, "kv_preemptions": gone}
        finding = one(judged(tmp_path / str(requests), tables), "preemptions")
        assert ("--max-num-seqs" in str(finding.why)) == said


def test_a_full_pool_is_critical_with_a_preemption_and_gets_no_size(tmp_path: Path) -> None:
    tables = {
        "kv_cache_usage": usage((0, 1), (1, 950)),
        "kv_preemptions": [{"timestamp_sec": 1, "request_id": "r", "tokens_lost": 5}],
    }
    finding = one(judged(tmp_path, tables), "kv-usage")
    assert finding.severity == "critical"
    assert finding.evidence["blocks_for_target"] is None, "demand beyond the pool was never seen"
    assert finding.flag == "--gpu-memory-utilization"


def test_a_pool_that_was_not_the_limit_gets_a_size(tmp_path: Path) -> None:
    finding = one(judged(tmp_path, {"kv_cache_usage": usage((0, 1), (1, 950))}), "kv-usage")
    assert finding.evidence["blocks_for_target"] == 1188  # 950 / 0.8, rounded up
    refused = judged(
        tmp_path / "2",
        {"kv_cache_usage": usage((0, 1), (1, 950))},
        events={"kv.alloc_failed": 3},
    )
    assert one(refused, "kv-usage").evidence["blocks_for_target"] is None


def test_thresholds_move_the_verdict(tmp_path: Path) -> None:
    session = write_session(tmp_path / "s", {"kv_cache_usage": usage((0, 1), (1, 350))})
    assert one(find(session), "kv-usage").rule == "kv-usage-low"
    limits = Thresholds.parse(["kv_usage_low=0.3"])
    assert one(find(session, limits), "kv-usage").rule == "kv-usage-fair"


def test_without_kv_events_nothing_is_said_of_the_cache(tmp_path: Path) -> None:
    files = ("kv_cache_usage.csv", "kv_cache_summary.txt")
    empty = dict.fromkeys(files, "the KV hooks were skipped")
    verdict = judged(tmp_path, {}, empty_files=empty, hooks={})
    assert not of(verdict, "kv-")
    assert not of(verdict, "preemptions")
    assert why(verdict, "kv-usage") == "the KV hooks were skipped"


# --------------------------------------------------------------------------- evictions


def evictions(*lives: tuple[float, float | None, float | None]) -> list[dict[str, object]]:
    return [
        {"timestamp_sec": at, "lifetime_sec": life, "idle_sec": idle} for at, life, idle in lives
    ]


SOME_USAGE = usage((0, 1), (60, 700))


@pytest.mark.parametrize(
    ("early", "rule"), [(9, "kv-evictions-healthy"), (10, "kv-evictions-early")]
)
def test_evictions_within_ten_seconds(tmp_path: Path, early: int, rule: str) -> None:
    lives = [(30.0, 9.999, 1.0)] * early + [(30.0, 10.0, 1.0)] * (20 - early)
    tables = {"kv_cache_usage": SOME_USAGE, "kv_cache_evictions": evictions(*lives)}
    finding = one(judged(tmp_path, tables), "kv-evictions")
    assert finding.rule == rule
    assert finding.evidence["early"] == early


def test_lives_that_the_recording_cut_are_long_and_early_evictions_say_nothing(
    tmp_path: Path,
) -> None:
    # In the first ten seconds every life is short: half a minute of them must not be "churn".
    lives: list[tuple[float, float | None, float | None]]
    lives = [(float(i % 9), 0.5, 0.5) for i in range(500)]
    lives += [(20.0, None, None)] * 20  # allocated before the recording: at least 20 s
    tables = {"kv_cache_usage": SOME_USAGE, "kv_cache_evictions": evictions(*lives)}
    finding = one(judged(tmp_path, tables), "kv-evictions")
    assert finding.rule == "kv-evictions-healthy"
    assert (finding.evidence["judged"], finding.evidence["early"]) == (20, 0)
    assert finding.evidence["median_life_sec"] is None, "longer than the recording can tell"


@pytest.mark.parametrize(("idle", "stale"), [(4.999, False), (5.0, True)])
def test_idle_before_eviction(tmp_path: Path, idle: float, stale: bool) -> None:
    tables = {
        "kv_cache_usage": SOME_USAGE,
        "kv_cache_evictions": evictions(*[(30.0, 12.0, idle)] * 20),
    }
    rules = {f.rule for f in of(judged(tmp_path, tables), "kv-evictions")}
    assert ("kv-evictions-stale" in rules) == stale


@pytest.mark.parametrize(("seconds", "is_judged"), [(10.0, False), (31.0, True)])
def test_a_recording_shorter_than_a_healthy_life_is_not_judged(
    tmp_path: Path, seconds: float, is_judged: bool
) -> None:
    lives = evictions(*[(min(30.0, seconds), 0.2, 0.1)] * 50)
    tables = {"kv_cache_usage": SOME_USAGE, "kv_cache_evictions": lives}
    verdict = judged(tmp_path, tables, window_sec=[0.0, seconds])
    assert bool(of(verdict, "kv-evictions")) == is_judged
    if not is_judged:
        assert "10.0 s long" in why(verdict, "kv-evictions")


@pytest.mark.parametrize(("number", "is_judged"), [(19, False), (20, True)])
def test_a_few_evictions_are_not_judged(tmp_path: Path, number: int, is_judged: bool) -> None:
    tables = {
        "kv_cache_usage": SOME_USAGE,
        "kv_cache_evictions": evictions(*[(30.0, 1.0, 1.0)] * number),
    }
    assert bool(of(judged(tmp_path, tables), "kv-evictions")) == is_judged


def test_the_blocks_that_a_life_takes_are_littles_law(tmp_path: Path) -> None:
    tables: dict[str, Rows] = {
        "kv_cache_usage": usage((0, 1), (50, 700)),
        "kv_cache_evictions": evictions(*[(30.0, 1.0, 1.0)] * 20),
        "kv_cache_summary": [{"Total allocations": 25_000}],
    }
    finding = one(judged(tmp_path, tables), "kv-evictions-early")
    assert finding.evidence["blocks_for_life"] == 5000  # 500 a second, 10 s each
    assert "takes about 5,000 blocks (there are 1,000)" in str(finding.why)
    tables["kv_cache_summary"] = [{"Total allocations": 2_500}]
    finding = one(judged(tmp_path / "few", tables), "kv-evictions-early")
    assert "about 500 blocks, fewer than the 1,000 there are" in str(finding.why)


def test_no_eviction_is_good(tmp_path: Path) -> None:
    verdict = judged(tmp_path, {"kv_cache_usage": SOME_USAGE})
    assert one(verdict, "kv-evictions").rule == "kv-evictions-none"


# --------------------------------------------------------------------------- requests


@pytest.mark.parametrize(("lost", "severity"), [(49, "warning"), (50, "critical")])
def test_preemptions(tmp_path: Path, lost: int, severity: str) -> None:
    tables: dict[str, Rows] = {
        "kv_cache_usage": SOME_USAGE,
        "kv_preemptions": [{"timestamp_sec": 2.5, "request_id": "r", "tokens_lost": lost}],
        "cuda_graph_coverage": coverage(10, unpadded_tokens=1000),
        "cuda_graph_steps": [step(1.0, requests=3), step(2.0, requests=7), step(3.0, requests=2)],
    }
    finding = one(judged(tmp_path, tables), "preemptions")
    assert finding.severity == severity
    assert finding.evidence["lost_pct"] == lost / 10
    assert finding.evidence["smallest_batch"] == 7, "the step before it, not any other"


def test_no_preemption_is_good(tmp_path: Path) -> None:
    verdict = judged(tmp_path, {"kv_cache_usage": SOME_USAGE})
    assert one(verdict, "preemptions").severity == "good"


def lookups(number: int, hits: int) -> list[dict[str, object]]:
    return [{"preempted": False, "tokens": 1000, "hit_tokens": hits} for _ in range(number)]


@pytest.mark.parametrize(
    ("number", "hits", "rule"),
    [
        (20, 99, "prefix-cache-low"),
        (20, 100, "prefix-cache-good"),
        (19, 100, ""),
    ],
)
def test_prefix_hits(tmp_path: Path, number: int, hits: int, rule: str) -> None:
    tables = {"kv_cache_usage": SOME_USAGE, "kv_prefix_cache": lookups(number, hits)}
    assert [f.rule for f in of(judged(tmp_path, tables), "prefix-")] == ([rule] if rule else [])


def test_caching_that_is_off_is_told_from_a_hook_that_is_not_there(tmp_path: Path) -> None:
    tables = {"kv_cache_usage": SOME_USAGE}
    off = judged(tmp_path / "off", tables, events={"request": 40})
    finding = one(off, "prefix-cache")
    assert (finding.rule, finding.flag) == ("prefix-cache-off", None)
    hooks = {"installed": {}, "skipped": {"KVCacheManager.lookup": "gone"}}
    unseen = judged(tmp_path / "unseen", tables, events={"request": 40}, hooks=hooks)
    assert not of(unseen, "prefix-cache")


# --------------------------------------------------------------------------- several engines


def test_each_engine_is_judged_and_its_further_ranks_are_not(tmp_path: Path) -> None:
    session = write_session(tmp_path / "s", {"kv_cache_usage": usage((0, 1), (1, 700))})
    full = {"kv_cache_usage": usage((0, 1), (1, 990))}
    write_tables(tmp_path / "s" / "ranks" / "dp1_pp0_tp0", full)
    write_tables(tmp_path / "s" / "ranks" / "dp0_pp0_tp1", full)
    found = {f.rank: f.rule for f in of(find(session), "kv-usage")}
    assert found == {"dp1_pp0_tp0": "kv-usage-full", None: "kv-usage-good"}


# --------------------------------------------------------------------------- waiting


def queues(waiting_steps: int, usage_pct: float | None) -> list[dict[str, object]]:
    return [
        step(
            i / 100,
            waiting_requests=3 if i < waiting_steps else 0,
            running_requests=40,
            kv_usage_pct=usage_pct,
        )
        for i in range(100)
    ]


@pytest.mark.parametrize(
    ("steps", "usage_pct", "rule", "value"),
    [
        (10, 20.0, "waiting-none", None),
        (11, 20.0, "waiting-with-room", "160"),  # 40 requests fill a fifth: 160 fill four
        (11, 78.0, "waiting-with-room", "41"),
        (11, 78.1, "waiting", None),  # 40.97 requests are no larger batch
        (11, None, "waiting", None),
    ],
)
def test_waiting(
    tmp_path: Path, steps: int, usage_pct: float | None, rule: str, value: str | None
) -> None:
    verdict = judged(tmp_path, {"cuda_graph_steps": queues(steps, usage_pct)})
    finding = one(verdict, "waiting")
    assert (finding.rule, finding.value) == (rule, value)


def test_a_session_without_the_schedulers_queues_is_not_judged(tmp_path: Path) -> None:
    verdict = judged(tmp_path, {"cuda_graph_steps": [step(i) for i in range(50)]})
    assert not of(verdict, "waiting")
    assert why(verdict, "waiting")
