"""The whole line: an annotated vLLM, a real Nsight Systems, the tables - against vLLM's own words.

Witnesses, none of which shares code with profilemate: vLLM's Prometheus counters and histograms of
the same run, and a plugin that asks the pool itself after every operation.
"""

from __future__ import annotations

import subprocess
from typing import Any

import pandas as pd
import pytest
from served import Recorded, equal_but_for_times, profilemate

pytestmark = pytest.mark.real

OPS = ("alloc", "touch", "free", "reset", "evict")


def ids(text: object) -> list[int]:
    """Block ids of a CSV cell."""
    if pd.isna(text) or str(text) == "None":  # type: ignore[call-overload]
        return []
    found: list[int] = []
    for part in str(text).split(","):
        first, _, last = part.partition("-")
        a, b = int(first), int(last or first)
        found += range(a, b + 1) if a <= b else range(a, b - 1, -1)
    return found


def witness_ops(recorded: Recorded) -> list[dict[str, Any]]:
    """The witness's operations; evictions of one call together, as we tell them."""
    merged: list[dict[str, Any]] = []
    for line in recorded.witness:
        if line["op"] not in OPS:
            continue
        if line["op"] == "evict" and merged and merged[-1]["op"] == "evict":
            merged[-1]["ids"] = merged[-1]["ids"] + line["ids"]
        else:
            merged.append(dict(line))
    return merged


def test_no_fault_of_ours_and_both_processes_spoke(recorded: Recorded) -> None:
    assert "a fault of profilemate" not in recorded.log
    metadata = recorded.metadata
    assert {p["role"] for p in metadata["processes"]} == {"engine", "worker"}
    assert {p["faults"] for p in metadata["processes"]} == {0}
    assert metadata["versions"]["vllm"] == "0.32.0"
    assert metadata["dropped"] == {
        "unknown_events": {},
        "broken_messages": 0,
        "lost_batches": {},
        "unfinished_messages": 0,
    }
    assert "BlockPool.get_new_blocks" in metadata["hooks"]["installed"]
    assert metadata["kv_cache_tracking"] is True


def test_every_block_operation_is_there_in_order(recorded: Recorded) -> None:
    events = recorded.table("kv_block_events")
    ours = events[events["op"].isin(OPS)]
    theirs = witness_ops(recorded)
    assert [*ours["op"]] == [w["op"] for w in theirs]
    assert [ids(t) for t in ours["blocks"]] == [w.get("ids", []) for w in theirs]
    freed = ours[ours["op"] == "free"]["changed_blocks"]
    assert [ids(t) for t in freed] == [w["freed"] for w in theirs if w["op"] == "free"]
    revived = ours[ours["op"] == "touch"]["changed_blocks"]
    assert [ids(t) for t in revived] == [w["revived"] for w in theirs if w["op"] == "touch"]
    assert {"evict", "free", "touch", "alloc"} == set(ours["op"])


def test_usage_after_every_operation_is_get_usage(recorded: Recorded) -> None:
    events = recorded.table("kv_block_events")
    ours = events[events["op"].isin(OPS)]
    theirs = witness_ops(recorded)
    # An eviction is inside an allocation, which we tell with the usage after the whole call.
    pairs = [
        (f"{pct:.2f}", used, w)
        for pct, used, w in zip(ours["usage_pct"], ours["used_blocks"], theirs, strict=True)
        if w["op"] != "evict"
    ]
    for pct, used, w in pairs:
        assert pct == f"{100 * w['usage']:.2f}"
        assert used == w["total"] - w["free"]
    assert len({pct for pct, _, _ in pairs}) > 20


def test_the_usage_table_is_the_witness_s_step_by_step(recorded: Recorded) -> None:
    expected: list[tuple[str, int, int]] = []
    last: dict[str, Any] | None = None

    def close_step() -> None:
        if last is not None:
            row = (f"{100 * last['usage']:.2f}", last["total"] - last["free"], last["total"])
            if not expected or expected[-1][1] != row[1]:
                expected.append(row)

    for line in recorded.witness:
        if line["op"] == "schedule":
            close_step()
            last = None
        else:
            last = line
    close_step()
    usage = recorded.table("kv_cache_usage")
    rows = zip(usage["usage_pct"], usage["num_blocks"], usage["total_blocks"], strict=True)
    assert [(f"{p:.2f}", n, t) for p, n, t in rows] == expected
    assert usage["timestamp_sec"].is_monotonic_increasing


def test_evictions_and_lifetimes_equal_vllm_s_collector(recorded: Recorded) -> None:
    lives = recorded.table("kv_block_lifetimes")
    counted = lives[lives["counted_by_vllm"]]
    m = recorded.metrics
    assert len(counted) == m["vllm:kv_block_lifetime_seconds_count"] > 0
    assert len(counted) == m["vllm:kv_block_idle_before_evict_seconds_count"]
    # We tell when a call began, vLLM when it came to the block inside it: a life can differ by how
    # long the calls took that began and ended it (a touch, for idle), and by rounding to 1 us.
    events = recorded.table("kv_block_events")
    calls = events[events["op"].isin(["alloc", "touch"])]
    inside = (calls["duration_ms"] / 1e3 * calls["num_blocks"]).sum()
    slack = 2 * inside + len(counted) * 2e-6
    lifetime = m["vllm:kv_block_lifetime_seconds_sum"]
    idle = m["vllm:kv_block_idle_before_evict_seconds_sum"]
    assert abs(counted["lifetime_sec"].sum() - lifetime) <= slack
    assert abs(counted["idle_sec"].sum() - idle) <= slack
    assert slack < 0.02 * lifetime
    # What left the prefix cache, as against blocks that were only used again:
    evictions = recorded.table("kv_cache_evictions")
    truly = sum(len(w["ids"]) for w in witness_ops(recorded) if w["op"] == "evict")
    assert len(evictions) == (lives["ended_by"] == "evicted").sum() == truly > 0
    assert truly < len(counted)


def test_reuse_gaps_equal_vllm_s_collector(recorded: Recorded) -> None:
    # vLLM keeps the last four accesses of a block and counts the gaps between them.
    lives = recorded.table("kv_block_lifetimes")
    accesses = lives[lives["counted_by_vllm"]]["accesses"].clip(upper=4)
    gaps = (accesses - 1).clip(lower=0).sum()
    assert gaps == recorded.metrics["vllm:kv_block_reuse_gap_seconds_count"] > 0


def test_preemptions_equal_vllm_s_counter(recorded: Recorded) -> None:
    preemptions = recorded.table("kv_preemptions")
    assert len(preemptions) == recorded.metrics["vllm:num_preemptions_total"] > 0
    assert (preemptions["blocks_freed"] > 0).all()
    assert (preemptions["tokens_lost"] > 0).all()


def test_prefix_cache_queries_and_hits_equal_vllm_s_counters(recorded: Recorded) -> None:
    lookups = recorded.table("kv_prefix_cache")
    counted = lookups[~lookups["preempted"]]
    m = recorded.metrics
    assert counted["tokens"].sum() == m["vllm:prefix_cache_queries_total"] > 0
    assert counted["hit_tokens"].sum() == m["vllm:prefix_cache_hits_total"] > 0
    assert lookups["running_queries"].iloc[-1] == m["vllm:prefix_cache_queries_total"]
    assert lookups["running_hits"].iloc[-1] == m["vllm:prefix_cache_hits_total"]
    assert lookups["preempted"].sum() == m["vllm:num_preemptions_total"]


def test_allocations_and_frees_balance(recorded: Recorded) -> None:
    events = recorded.table("kv_block_events")
    taken = events[events["op"].isin(["alloc", "touch"])]["num_changed"].sum()
    given = events[events["op"] == "free"]["num_changed"].sum()
    last = recorded.witness[-1]
    assert taken - given == last["total"] - last["free"] == 0
    summary = dict(
        line.split(": ", 1)
        for line in (recorded.session / "kv_cache_summary.txt").read_text().splitlines()
        if ": " in line
    )
    allocated = sum(len(w["ids"]) for w in recorded.witness if w["op"] == "alloc")
    freed = sum(len(w["freed"]) for w in recorded.witness if w["op"] == "free")
    assert int(summary["Total allocations"]) == allocated
    assert int(summary["Total deallocations"]) == freed
    assert int(summary["Total blocks available"]) == last["total"]
    peak = max(w["total"] - w["free"] for w in recorded.witness)
    assert int(summary["Peak blocks used"]) == peak


def test_every_request_arrived_and_finished_and_owns_its_blocks(recorded: Recorded) -> None:
    events = recorded.table("kv_block_events")
    owners = events[events["op"].isin(["alloc", "free", "cache"])]["request_id"]
    assert owners.notna().all()
    counts = recorded.metadata["events"]
    assert counts["request"] == 2 * 44
    assert owners.nunique() == 44


def test_steps_of_scheduler_and_worker_run_in_lock_step(recorded: Recorded) -> None:
    counts = recorded.metadata["events"]
    scheduled = sum(w["op"] == "schedule" for w in recorded.witness)
    assert counts["sched.step"] == counts["step"] == scheduled > 100


def test_the_recorder_s_own_text_agrees(recorded: Recorded) -> None:
    # The report as nsys itself prints it: one range for every step that runs the model.
    text = recorded.report.with_suffix(".txt")
    command = [recorded.nsys, "export", "--type", "text", "-o", text, recorded.report]
    subprocess.run([str(c) for c in command], capture_output=True, check=True)
    lines = text.read_text(errors="replace").splitlines()
    executed = [w for w in recorded.witness if w["op"] == "schedule" and w["tokens"]]
    assert sum('"pm1.step ' in line for line in lines) == len(executed)
    assert len(executed) < recorded.metadata["events"]["step"]
    batches = sum('"pm1.batch ' in line for line in lines)
    assert batches >= recorded.metadata["events"]["sched.step"]


def test_the_live_session_of_the_same_run_has_the_same_tables(recorded: Recorded) -> None:
    if not recorded.live.exists():  # the plugin makes none unless it is asked to
        assert "live session" not in recorded.log
        return
    (session,) = recorded.live.glob("session_*")
    profilemate("parse", session)
    equal_but_for_times(session, recorded.session)


def test_the_summary_is_short_and_says_what_matters(recorded: Recorded) -> None:
    assert len(recorded.stdout.splitlines()) < 40
    m = recorded.metrics
    for figure in (m["vllm:num_preemptions_total"], len(recorded.table("kv_cache_evictions"))):
        assert f"{figure:.0f}" in recorded.stdout
    assert str(recorded.session) in recorded.stdout


def test_a_second_parse_uses_the_export_and_gives_the_same_bytes(
    recorded: Recorded, tmp_path_factory: pytest.TempPathFactory
) -> None:
    again = tmp_path_factory.mktemp("again") / "session"
    cache = recorded.report.parent / "cache"
    # No nsys at all: only the cached export can answer.
    (export,) = (p for p in cache.iterdir() if p.name.endswith((".sqlite", "_pqtdir")))
    profilemate(
        "parse",
        export,
        "-o",
        again,
        "--quiet",
    )
    for file in recorded.session.iterdir():
        if file.suffix in (".csv", ".txt"):
            # ranks.csv names the recording, which is the export now.
            said = file.read_text().replace(recorded.report.name, export.name)
            assert (again / file.name).read_text() == said, file.name
