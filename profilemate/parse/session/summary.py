"""The short answer: a handful of figures out of the tables, for the terminal and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from profilemate.parse.session.coverage import kernel_time_in_graphs
from profilemate.parse.session.metadata import Metadata
from profilemate.parse.tables.kv_requests import hit_rate, looked_up, lookups
from profilemate.parse.trace.trace import Trace

Rows = list[tuple[str, str]]


@dataclass(slots=True)
class Figures:
    """What the answer needs of the tables, noted as each goes by: they are not kept.

    Attributes:
        rows: Rows of each table.
        replays: Replays of all graphs.
        pool: The figures of the KV cache; None without an operation on a pool of the GPU's.
        tokens: Tokens that were looked up in the prefix cache, and those that were found.
        reused: Lives of blocks that ended by being allocated again.
    """

    rows: dict[str, int] = field(default_factory=dict)
    replays: int = 0
    pool: pd.Series | None = None
    tokens: tuple[int, int] = (0, 0)
    reused: int = 0

    def note(self, name: str, table: pd.DataFrame) -> None:
        """Take what is needed of a table, or of a part of one."""
        self.rows[name] = self.rows.get(name, 0) + len(table)
        if name == "cuda_graph_usage":
            self.replays = int(table["replay_count"].sum())
        elif name == "kv_cache_summary" and len(table):
            self.pool = table.iloc[0]
        elif name == "kv_prefix_cache":
            asked, found = looked_up(lookups(table))
            self.tokens = self.tokens[0] + asked, self.tokens[1] + found
        elif name == "kv_block_lifetimes":
            self.reused += int((table["ended_by"] == "reused").sum())


def summarise(trace: Trace, figures: Figures, metadata: Metadata) -> dict[str, Any]:
    """Figures of one rank, None where the recording cannot tell."""
    steps = trace.frames["sched.step"]
    first, last = trace.window
    return {
        "session_id": metadata.session_id,
        "start_time": metadata.start_time,
        "recorded_sec": round((last - first) / 1e9, 3),
        "vllm": metadata.versions["vllm"],
        "recorder": ", ".join({str(s.by): 0 for s in metadata.sources}),
        "processes": [p.role for p in metadata.processes],
        "steps": {
            "scheduled": len(steps),
            "executed": _executed(trace.frames["step"]),
            "tokens": int(steps["num_tokens"].sum()),
            "busiest_step_requests": None if steps.empty else int(steps["num_reqs"].max()),
        },
        "kv_cache": _kv_cache(trace, figures),
        "cuda_graphs": {
            "captured": figures.rows["cuda_graph_captures"],
            "replayed": figures.rows["cuda_graph_usage"],
            "replays": figures.replays,
        },
        "coverage": dict(metadata.coverage),
    }


def _executed(steps: pd.DataFrame) -> int:
    """Model steps, of which those without a number are the ones we found by other means."""
    dummy = steps["dummy"].fillna(False).astype(bool)
    numbered = steps["step"].notna()
    return int(steps["step"].nunique()) + int((~numbered & ~dummy).sum())


def _kv_cache(trace: Trace, figures: Figures) -> dict[str, Any] | None:
    summary = figures.pool
    if summary is None:
        return None
    asked, hit = figures.tokens
    rate = hit_rate(asked, hit)
    blocks = _known(summary, "Total blocks available")
    total = blocks if blocks and blocks > 0 else None  # a pool has some: none is not known
    return {
        "total_blocks": total,
        "peak_blocks": _known(summary, "Peak blocks used"),
        "peak_usage_pct": None if total is None else _percent(summary),
        "allocations": _known(summary, "Total allocations"),
        "evictions": _known(summary, "Total evictions"),
        "avg_lifetime_sec": _seconds(summary, "Avg block lifetime"),
        "avg_idle_sec": _seconds(summary, "Avg idle before eviction"),
        "reused_without_eviction": figures.reused,
        "prefix_query_tokens": asked,
        "prefix_hit_tokens": hit,
        "prefix_hit_rate": None if rate is None else round(rate, 4),
        "preemptions": figures.rows["kv_preemptions"],
        "failed_allocations": len(trace.frames["kv.alloc_failed"]),
    }


def _known(row: pd.Series, name: str) -> int | None:
    return None if name not in row or pd.isna(row[name]) else int(row[name])


def _percent(row: pd.Series) -> float | None:
    name = "Peak usage"
    return None if name not in row or pd.isna(row[name]) else round(100 * float(row[name]), 2)


def _seconds(row: pd.Series, name: str) -> float | None:
    ns = _known(row, name)
    return None if ns is None else round(ns / 1e9, 3)


def facts(summary: Mapping[str, Any]) -> Rows:
    """What was recorded, as lines for the terminal."""
    processes = summary["processes"]
    roles = {role: processes.count(role) for role in processes}
    return [
        ("recorded", f"{summary['recorded_sec']:g} s by {summary['recorder']}"),
        ("started", summary["start_time"] or "not known"),
        ("vLLM", summary["vllm"] or "not known"),
        ("processes", ", ".join(f"{n} {role or 'unknown'}" for role, n in roles.items()) or "none"),
    ]


def sections(summary: Mapping[str, Any]) -> list[tuple[str, Rows]]:
    """The figures, as titled lines for the terminal."""
    found: list[tuple[str, Rows]] = []
    steps = summary["steps"]
    if steps["scheduled"] or steps["executed"]:
        reqs = steps["busiest_step_requests"]
        text = f"{steps['executed']} executed"
        rows = [("steps", text)]
        if steps["scheduled"]:
            rows = [("steps", f"{steps['scheduled']} scheduled, {text}")]
            rows.append(("tokens", f"{steps['tokens']} scheduled"))
        rows += [("largest batch", f"{reqs} requests")] if reqs is not None else []
        found.append(("Engine", rows))
    if summary["kv_cache"] is not None:
        found.append(("KV cache", _kv_rows(summary["kv_cache"])))
    graphs = summary["cuda_graphs"]
    rows = []
    if graphs["captured"] or graphs["replayed"]:
        text = f"{graphs['replays']} replays of {graphs['replayed']} graphs"
        rows = [("captured", str(graphs["captured"])), ("replayed", text)]
    rows += _coverage_rows(summary["coverage"])
    return [*found, ("CUDA graphs", rows)] if rows else found


def _coverage_rows(coverage: Mapping[str, Any]) -> Rows:
    """How much was seen and attributed; nothing of what the recording cannot tell."""
    rows: Rows = []
    if coverage["launches"] is not None and (coverage["launches"] or coverage["kernels"]):
        inside = f"{coverage['launches_in_steps']} in {coverage['steps']} steps"
        rows.append(("launches", f"{coverage['launches']}, {inside}"))
    if coverage["kernels_in_graphs"] is not None:
        text = f"{coverage['kernels_in_graphs']} of {coverage['kernels']} in graphs"
        rows.append(("kernels", text))
        part, whole = coverage["kernel_time_in_graphs_us"], coverage["kernel_time_us"]
        part_of_all = kernel_time_in_graphs(coverage)
        share = "" if part_of_all is None else f" ({100 * part_of_all:.1f} %)"
        rows.append(("kernel time", f"{part / 1e3:.3f} of {whole / 1e3:.3f} ms in graphs{share}"))
    elif coverage["kernels"] is not None:
        text = f"{coverage['kernels']} in {coverage['kernel_time_us'] / 1e3:.3f} ms"
        rows.append(("kernels", f"{text}, in graphs not known"))
    if coverage["graph_span_us"]:
        rows.append(("GPU span", f"{coverage['graph_span_us'] / 1e3:.3f} ms, summed over launches"))
    return rows


def _kv_rows(kv: Mapping[str, Any]) -> Rows:
    peak = kv["peak_usage_pct"]
    rows = [
        (
            "peak usage",
            f"{kv['peak_blocks']} of {kv['total_blocks'] or 'an unknown number of'} blocks"
            + ("" if peak is None else f" ({peak:.2f} %)"),
        ),
        ("allocated", f"{kv['allocations']} blocks"),
        ("evicted", f"{kv['evictions']} blocks of cached content"),
    ]
    if kv["avg_lifetime_sec"] is not None:
        idle = kv["avg_idle_sec"]
        text = f"lived {kv['avg_lifetime_sec']:.3f} s on average"
        rows.append(("", text if idle is None else f"{text}, idle for the last {idle:.3f} s"))
    if kv["prefix_hit_rate"] is not None:
        text = f"{kv['prefix_hit_tokens']} of {kv['prefix_query_tokens']} tokens"
        rows.append(("prefix hits", f"{text} ({100 * kv['prefix_hit_rate']:.2f} %)"))
    rows.append(("preempted", f"{kv['preemptions']} times"))
    return rows
