"""The witness of exported metrics: the same figures taken from the CSV files by the csv module."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

Labels = frozenset[tuple[str, str]]
Samples = dict[tuple[str, Labels], float]

KEY = ["runtime_mode", "num_tokens", "num_reqs", "uniform", "has_lora"]
WHOLE_KEY = [*KEY, "num_active_loras", "descriptor"]


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def labels(pairs: Iterable[tuple[str, str]]) -> Labels:
    return frozenset((k, v) for k, v in pairs if v not in ("None", ""))


def lead(folder: Path) -> str:
    """The rank whose tables lie in the session directory itself: the first row of ranks.csv."""
    with (folder / "ranks.csv").open(newline="") as file:
        return next(csv.DictReader(file))["rank"]


def counted(folder: Path, session: str, rank: str) -> Samples:
    """Figures of one rank; sums and counts are counted anew, row by row."""
    common = [("session", session), ("rank", rank)]
    found: Samples = {}

    def put(name: str, text: str | float, *further: tuple[str, str], scale: float = 1) -> None:
        if text != "None":
            key = (f"profilemate_{name}", labels([*common, *further]))
            found[key] = found.get(key, 0) + float(text) / scale

    for row in rows(folder, "cuda_graph_replay_latency"):
        graph = [(k, row[k]) for k in WHOLE_KEY]
        put("cuda_graph_replays_total", row["steps"], *graph)
        for quantile, column in (("0.5", "p50"), ("0.9", "p90"), ("0.99", "p99"), ("1", "max")):
            text = row[f"gpu_span_{column}_ms"]
            name = "cuda_graph_replay_gpu_span_seconds"
            put(name, text, *graph, ("quantile", quantile), scale=1e3)
        put(f"{name}_sum", row["gpu_span_total_ms"], *graph, scale=1e3)
        if row["gpu_span_total_ms"] != "None":
            put(f"{name}_count", row["gpu_steps"], *graph)
    for row in rows(folder, "cuda_graph_steps"):
        if row["dummy"] == "True":
            continue
        mode = ("runtime_mode", {"None": "unknown"}.get(row["runtime_mode"], row["runtime_mode"]))
        if row["unpadded_tokens"] != "0":
            put("steps_total", 1, mode)
            put("step_tokens_total", row["unpadded_tokens"], mode)
            put("padded_step_tokens_total", row["num_tokens"], mode)
            put("padding_tokens_total", row["padding_tokens"], mode)
    for row in rows(folder, "kv_block_events"):
        if row["op"] == "alloc":
            put("kv_block_allocations_total", row["num_blocks"])
        elif row["op"] == "free":
            put("kv_block_deallocations_total", row["num_changed"])
    for _ in rows(folder, "kv_cache_evictions"):
        put("kv_block_evictions_total", 1)
    for row in rows(folder, "kv_preemptions"):
        put("preemptions_total", 1)
        put("preempted_tokens_total", row["tokens_lost"])
    for row in rows(folder, "kv_prefix_cache"):
        preempted = ("preempted", row["preempted"])
        put("prefix_cache_lookups_total", 1, preempted)
        put("prefix_cache_queries_total", row["tokens"], preempted)
        put("prefix_cache_hits_total", row["hit_tokens"], preempted)
    for row in rows(folder, "kv_block_lifetimes"):
        how = [("ended_by", row["ended_by"]), ("counted_by_vllm", row["counted_by_vllm"])]
        for column, name in (
            ("lifetime_sec", "kv_block_lifetime_seconds"),
            ("idle_sec", "kv_block_idle_seconds"),
        ):
            if row[column] == "None":
                continue
            put(f"{name}_sum", row[column], *how)
            put(f"{name}_count", 1, *how)
            for bound in ("0.01", "0.1", "1.0", "+Inf"):
                inside = float(row[column]) <= float(bound.replace("+Inf", "inf"))
                put(f"{name}_bucket", int(inside), *how, ("le", bound))
    usage = rows(folder, "kv_cache_usage")
    if usage:
        # A step's usage is its last operation's: the peak within a step is not in this file.
        events = [int(r["used_blocks"]) for r in rows(folder, "kv_block_events")]
        put("kv_cache_blocks_peak", max(events))
        put("kv_cache_blocks", usage[0]["total_blocks"])
    return found


def session_id(folder: Path) -> str:
    return str(json.loads((folder / "metadata.json").read_text())["session_id"])
