"""`metadata.json` and the short summary: what was recorded, and what is missing, as facts.

Nothing is guessed silently: what was dropped, clipped or assumed while reading stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import profilemate
from profilemate.parse.recording.contract import SourceInfo
from profilemate.parse.session.coverage import coverage, doubts, durations
from profilemate.parse.session.lockstep import lockstep
from profilemate.parse.trace.ranks import Process, RankTrace
from profilemate.parse.trace.trace import Trace


def start_of(trace: Trace) -> datetime | None:
    """Local time of the trace's zero, or None where no recording says."""
    if trace.start_unix_ns is None:
        return None
    return datetime.fromtimestamp(trace.start_unix_ns / 1e9, UTC).astimezone()


def session_id(trace: Trace) -> str:
    """`session_<YYYYmmdd_HHMMSS>`; a recording without a clock is `session_unknown_start`."""
    start = start_of(trace)
    return "session_unknown_start" if start is None else f"session_{start:%Y%m%d_%H%M%S}"


def metadata(
    trace: Trace, ranks: Sequence[RankTrace], rows: Mapping[str, int], out: Path
) -> dict[str, Any]:
    """Everything section 3 of the CSV layout asks for, ready for JSON.

    Args:
        trace: The trace of the whole run.
        ranks: Its ranks.
        rows: How many rows each file of the lead rank has, by its name.
        out: The session directory.
    """
    start = start_of(trace)
    processes = [p for rank in ranks for p in rank.processes]
    hooks = _hooks(trace)
    found = coverage(trace)
    return {
        "session_id": session_id(trace),
        "start_time": None if start is None else start.isoformat(),
        "output_dir": str(out),
        "cuda_graph_tracking": _tracking("graphs", ("graph.capture", "graph.replay"), trace),
        "kv_cache_tracking": _tracking("kv", ("kv",), trace),
        "versions": _versions(processes),
        "sources": [_source(s) for s in trace.sources],
        "window_sec": [round(t / 1e9, 6) for t in trace.window],
        "clock": _clock(trace, ranks),
        "durations": {"cuda_graph_timeline": durations(trace)},
        "coverage": found,
        "doubts": doubts(trace, found),
        "processes": [_process(trace, rank, p) for rank in ranks for p in rank.processes],
        "hooks": hooks,
        "events": dict(sorted(trace.counts.items())),
        "dropped": {
            "unknown_events": dict(sorted(trace.unknown.items())),
            "broken_messages": trace.broken,
            "lost_batches": {str(p): n for p, n in sorted(trace.lost_batches.items())},
            "unfinished_messages": trace.unfinished,
        },
        "duplicates": {
            trace.sources[number].path.name: count for number, count in trace.duplicates.items()
        },
        "notes": [*(note for s in trace.sources for note in s.notes), *trace.notes],
        "empty_files": {
            file: _why_empty(file, trace, hooks) for file, count in rows.items() if not count
        },
    }


def _clock(trace: Trace, ranks: Sequence[RankTrace]) -> dict[str, Any]:
    """What time is in the tables, and how sure it is."""
    errors = [trace.clock_error_ns, *(p.error or 0 for p in trace.placements)]
    return {
        "source": "the recorder's, as seconds since the start of the recording",
        "alignment_error_ms": round(max(errors) / 1e6, 6),
        "recordings": [
            {
                "name": info.path.name,
                "by": placed.how,
                "offset_ms": _ms(placed.offset),
                "error_ms": _ms(placed.error),
            }
            for info, placed in zip(trace.sources, trace.placements, strict=False)
        ],
        "steps": lockstep(ranks),
    }


def _ms(ns: int | None) -> float | None:
    return None if ns is None else round(ns / 1e6, 6)


def _tracking(switch: str, frames: Sequence[str], trace: Trace) -> bool:
    if any(len(trace.kv if name == "kv" else trace.frames[name]) for name in frames):
        return True
    if switch == "graphs" and trace.frames["step"]["mode"].notna().any():
        return True
    hooks = trace.frames["hook"]
    prefix = "BlockPool." if switch == "kv" else "CUDAGraph"
    ours = hooks["name"].str.startswith(prefix).fillna(False)
    return bool((ours & (hooks["status"] == "installed")).any())


def _versions(processes: Sequence[Process]) -> dict[str, str | None]:
    found: dict[str, str | None] = {"profilemate": profilemate.__version__}
    for name in ("profilemate", "vllm", "torch", "nvtx", "python"):
        said = {str(p.session[name]) for p in processes if name in p.session}
        key = "profilemate_annotate" if name == "profilemate" else name
        found[key] = ", ".join(sorted(said)) or None
    return found


def _source(source: SourceInfo) -> dict[str, Any]:
    return {
        "path": str(source.path),
        "kind": source.kind,
        "size": source.size,
        "recorder": source.recorder,
        "window_ns": source.window,
        "notes": source.notes,
    }


def _process(trace: Trace, rank: RankTrace, process: Process) -> dict[str, Any]:
    return {
        "pid": trace.aliases.get(process.pid, process.pid),
        "role": process.role or None,
        "host": process.host,
        "rank": rank.rank.folder,
        "events": process.events,
        "faults": process.session.get("faults"),
    }


def _hooks(trace: Trace) -> dict[str, dict[str, str]]:
    """The last word of any process on each hook: installed in one of them counts as installed."""
    found: dict[str, dict[str, str]] = {"installed": {}, "skipped": {}, "waiting": {}}
    rank = {"waiting": 0, "skipped": 1, "installed": 2}
    best: dict[str, tuple[int, str, str]] = {}
    columns = ["name", "status", "target", "why"]
    for name, status, target, why in (
        trace.frames["hook"][columns].astype(object).fillna("").itertuples(index=False)
    ):
        key = (rank.get(status, 0), status, str(why if status != "installed" else target))
        best[name] = max(best.get(name, key), key)
    for name, (_, status, text) in best.items():
        found.setdefault(status, {})[name] = text
    return found


def _why_empty(file: str, trace: Trace, hooks: Mapping[str, Mapping[str, str]]) -> str:
    graphs = file.startswith("cuda_graph")
    if not trace.counts and not (graphs and len(trace.frames["step"])):
        return "the recording holds no profilemate events"
    if file == "cuda_graph_captures.csv" and len(trace.launches):
        return "no CUDA graph was captured while it was recorded: vLLM does that as it starts"
    if graphs:
        return "no CUDA graph was captured or replayed in the recording, or no hook saw it"
    if not hooks["installed"]:
        return "no hook was installed"
    kv_off = [n for n in hooks["skipped"] if n.startswith("BlockPool.")]
    if file.startswith("kv") and kv_off and not len(trace.kv):
        return f"the KV hooks were skipped: {hooks['skipped'][kv_off[0]]}"
    return "nothing of the kind happened in the recording"
