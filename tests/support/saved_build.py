"""Session directories with known content: rows are given, other columns are None.

Constructed, not parsed: what a rule makes of a figure must not hang on how a table is built.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables import TABLES

Rows = Iterable[Mapping[str, object]]

HOOKS = (
    "BlockPool.get_new_blocks",
    "BlockPool._maybe_evict_cached_block",
    "KVCacheManager.lookup",
    "Scheduler._preempt_request",
)
"""Of an engine: without them a 0 counts nothing."""

METADATA: dict[str, Any] = {
    "session_id": "session_20261124_100000",
    "start_time": "2026-11-24T10:00:00+00:00",
    "cuda_graph_tracking": True,
    "kv_cache_tracking": True,
    "versions": {"vllm": "0.32.0", "torch": "2.13.0", "profilemate": "1"},
    "sources": [{"recorder": "Nsight Systems", "kind": "nsys sqlite export"}],
    "window_sec": [0.0, 60.0],
    "clock": {"alignment_error_ms": 0.1},
    "coverage": {"launches": None, "launches_with_gpu_records": None, "kernels": None},
    "processes": [{"host": "h", "role": "engine", "rank": "dp0_pp0_tp0", "faults": 0}],
    "hooks": {"installed": dict.fromkeys(HOOKS, "x"), "skipped": {}, "waiting": {}},
    "events": {"step": 100},
    "dropped": {
        "unknown_events": {},
        "broken_messages": 0,
        "lost_batches": {},
        "unfinished_messages": 0,
    },
    "empty_files": {},
}


LATER = ("running_requests", "waiting_requests", "scheduled_tokens", "kv_usage_pct")
"""Columns that sessions of another version have or have not: rules take them where they are."""


def write_session(
    folder: Path, tables: Mapping[str, Rows] | None = None, **metadata: object
) -> SavedSession:
    """Write a session and open it; `ranks/NAME` may be written into it by `write_tables`."""
    folder.mkdir(parents=True)
    write_tables(folder, tables or {})
    text = json.dumps({**METADATA, **metadata})
    (folder / "metadata.json").write_text(text, encoding="utf-8")
    return SavedSession.open(folder)


def write_tables(folder: Path, tables: Mapping[str, Rows]) -> None:
    """Write every table's file, those that are not given without rows."""
    folder.mkdir(parents=True, exist_ok=True)
    assert set(tables) <= set(TABLES), set(tables) - set(TABLES)
    for name, layout in TABLES.items():
        rows, columns = list(tables.get(name, ())), [c.name for c in layout.columns]
        if name == "kv_cache_summary":
            rows = _summary(tables, rows)
        for row in rows:
            columns += [c for c in row if c in LATER and c not in columns]
            assert set(row) <= set(columns), (name, set(row) - set(columns))
        with (folder / layout.file).open("w", newline="", encoding="utf-8") as file:
            if layout.heading:
                file.writelines(f"{k}: {v}\n" for row in rows for k, v in row.items())
                continue
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(
                [row.get(c) if row.get(c) is not None else "None" for c in columns] for row in rows
            )


def _summary(
    tables: Mapping[str, Rows], rows: list[Mapping[str, object]]
) -> list[Mapping[str, object]]:
    """The summary that parse writes beside these tables; what is given stays."""
    levels = list(tables.get("kv_cache_usage", ()))
    if not levels:
        return rows
    evicted = [row.get("lifetime_sec") for row in tables.get("kv_cache_evictions", ())]
    lives = [float(str(life)) for life in evicted if life is not None]
    found: dict[str, object] = {
        "Total blocks available": levels[0]["total_blocks"],
        "Peak blocks used": max(int(str(row["num_blocks"])) for row in levels),
        "Total evictions": len(evicted),
    }
    if lives:
        found["Avg block lifetime"] = f"{sum(lives) / len(lives):.3f}s"
    return [{**found, **(rows[0] if rows else {})}]


def usage(*levels: tuple[float, int], total: int = 1000) -> list[dict[str, object]]:
    """Rows of kv_cache_usage: (time in s, blocks in use)."""
    return [
        {
            "timestamp_sec": f"{at:.3f}",
            "usage_pct": f"{100 * used / total:.2f}",
            "num_blocks": used,
            "total_blocks": total,
        }
        for at, used in levels
    ]


def step(at: float, mode: str = "FULL", tokens: int = 8, **values: object) -> dict[str, object]:
    """A decode step; `values` are further columns or others' values."""
    return {
        "timestamp_sec": f"{at:.6f}",
        "runtime_mode": mode,
        "num_tokens": tokens,
        "unpadded_tokens": tokens,
        "padding_tokens": 0,
        "requests": tokens,
        "prefill_tokens": 0,
        "decode_tokens": tokens,
        "num_reqs": None,
        "uniform": False,
        "has_lora": False,
        "num_active_loras": 0,
        "dummy": False,
        "host_ms": 1.0,
        "pid": 1,
        **values,
    }


def coverage(full: int = 0, piecewise: int = 0, none: int = 0, **sums: object) -> Rows:
    """Rows of cuda_graph_coverage; `sums` are columns of the FULL row."""
    every = full + piecewise + none
    modes = {"FULL": full, "PIECEWISE": piecewise, "NONE": none}
    rows: list[dict[str, object]] = [
        {"runtime_mode": mode, "steps": n, "step_share": n / every if every else None}
        for mode, n in modes.items()
    ]
    rows[0] |= sums
    return rows


def graph(tokens: int, mode: str = "FULL", **values: object) -> dict[str, object]:
    """The key of a graph, with further columns."""
    key = {"runtime_mode": mode, "num_tokens": tokens, "num_reqs": None, "uniform": False}
    return {**key, "has_lora": False, **values}
