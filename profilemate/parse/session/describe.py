"""How a trace becomes `metadata.json`: what was recorded, and what is missing, as facts.

Nothing is guessed silently: what was dropped, clipped or assumed while reading stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import profilemate
from profilemate.parse.recording.contract import SourceInfo
from profilemate.parse.session.coverage import coverage, doubts, durations, impossible
from profilemate.parse.session.lockstep import lockstep
from profilemate.parse.session.metadata import Metadata
from profilemate.parse.session.metadata_parts import Clock, Dropped, Hooks, Placed, Process, Source
from profilemate.parse.session.self_reports import settings_of, several_engines, unseen_kinds
from profilemate.parse.session.warnings import warnings_of
from profilemate.parse.trace.ranks import Process as ProcessOfRank
from profilemate.parse.trace.ranks import RankTrace
from profilemate.parse.trace.trace import Trace
from profilemate.schema.hooks import Feed, feed_of


def start_of(trace: Trace) -> datetime | None:
    """Local time of the trace's zero, or None where no recording says."""
    if trace.start_unix_ns is None:
        return None
    return datetime.fromtimestamp(trace.start_unix_ns / 1e9, UTC).astimezone()


def session_id(trace: Trace) -> str:
    """`session_<YYYYmmdd_HHMMSS>`; a recording without a clock is `session_unknown_start`."""
    start = start_of(trace)
    return "session_unknown_start" if start is None else f"session_{start:%Y%m%d_%H%M%S}"


def describe(
    trace: Trace, ranks: Sequence[RankTrace], rows: Mapping[str, int], out: Path
) -> Metadata:
    """Everything section 3 of the CSV layout asks for, and the warnings.

    Args:
        trace: The trace of the whole run.
        ranks: Its ranks.
        rows: How many rows each file of the lead rank has, by its name.
        out: The session directory.
    """
    start = start_of(trace)
    processes = tuple(_process(trace, rank, p) for rank in ranks for p in rank.processes)
    hooks, clock, dropped = _hooks(trace), _clock(trace, ranks), _dropped(trace)
    found = coverage(trace)
    notes = (*(str(note) for s in trace.sources for note in s.notes), *trace.notes)
    notes += tuple(several_engines(trace))
    told = [*doubts(trace, found), *impossible(trace, ranks)]
    faults = sum(process.faults or 0 for process in processes)
    return Metadata(
        session_id=session_id(trace),
        start_time=None if start is None else start.isoformat(),
        output_dir=str(out),
        cuda_graph_tracking=_graphs_tracked(trace),
        kv_cache_tracking=bool(len(trace.kv)) or _installed(Feed.KV_BLOCKS, trace),
        versions=_versions([p for rank in ranks for p in rank.processes]),
        sources=tuple(map(_source, trace.sources)),
        window_sec=(round(trace.window[0] / 1e9, 6), round(trace.window[1] / 1e9, 6)),
        clock=clock,
        graph_durations=durations(trace),
        coverage=found,
        doubts=tuple(doubt.text for doubt in told),
        processes=processes,
        hooks=hooks,
        config=settings_of(trace, ranks),
        unseen=unseen_kinds(trace, ranks),
        events=dict(sorted(trace.counts.items())),
        dropped=dropped,
        duplicates={
            trace.sources[number].path.name: count for number, count in trace.duplicates.items()
        },
        notes=notes,
        empty_files={
            file: _why_empty(file, trace, hooks) for file, count in rows.items() if not count
        },
        warnings=warnings_of(notes, told, clock, dropped, faults),
    )


def _clock(trace: Trace, ranks: Sequence[RankTrace]) -> Clock:
    errors = [trace.clock_error_ns, *(p.error or 0 for p in trace.placements)]
    return Clock(
        source="the recorder's, as seconds since the start of the recording",
        alignment_error_ms=round(max(errors) / 1e6, 6),
        recordings=tuple(
            Placed(info.path.name, placed.how, _ms(placed.offset), _ms(placed.error))
            for info, placed in zip(trace.sources, trace.placements, strict=False)
        ),
        steps=lockstep(ranks),
    )


def _ms(ns: int | None) -> float | None:
    return None if ns is None else round(ns / 1e6, 6)


def _dropped(trace: Trace) -> Dropped:
    return Dropped(
        unknown_events=dict(sorted(trace.unknown.items())),
        broken_messages=trace.broken,
        lost_batches={str(p): n for p, n in sorted(trace.lost_batches.items())},
        unfinished_messages=trace.unfinished,
    )


def _graphs_tracked(trace: Trace) -> bool:
    """Whether a CUDA graph would have been seen: one was, or what sees them was there."""
    frames = trace.frames
    if len(frames["graph.capture"]) or len(frames["graph.replay"]):
        return True
    return bool(frames["step"]["mode"].notna().any()) or _installed(Feed.GRAPHS, trace)


def _installed(feed: Feed, trace: Trace) -> bool:
    """Whether a hook that tells of this was installed in any process."""
    hooks = trace.frames["hook"]
    names = hooks["name"][hooks["status"] == "installed"].dropna()
    return any(feed_of(str(name)) is feed for name in names.unique())


def _versions(processes: Sequence[ProcessOfRank]) -> dict[str, str | None]:
    found: dict[str, str | None] = {"profilemate": profilemate.__version__}
    for name in ("profilemate", "vllm", "torch", "nvtx", "python"):
        said = {str(p.session[name]) for p in processes if name in p.session}
        key = "profilemate_annotate" if name == "profilemate" else name
        found[key] = ", ".join(sorted(said)) or None
    return found


def _source(source: SourceInfo) -> Source:
    return Source(
        path=str(source.path),
        words=str(source.kind),
        size=source.size,
        recorder=source.recorder,
        window_ns=source.window,
        notes=tuple(map(str, source.notes)),
    )


def _process(trace: Trace, rank: RankTrace, process: ProcessOfRank) -> Process:
    faults = process.session.get("faults")
    return Process(
        pid=trace.aliases.get(process.pid, process.pid),
        role=process.role or None,
        host=process.host,
        rank=rank.rank.folder,
        events=process.events,
        faults=faults if isinstance(faults, int) else None,
    )


def _hooks(trace: Trace) -> Hooks:
    """The last word of any process on each hook: installed in one of them counts as installed."""
    found: dict[str, dict[str, str]] = {"installed": {}, "skipped": {}, "waiting": {}}
    rank = {"waiting": 0, "skipped": 1, "off": 1, "failed": 1, "installed": 2}
    best: dict[str, tuple[int, str, str]] = {}
    columns = ["name", "status", "target", "why"]
    for name, status, target, why in (
        trace.frames["hook"][columns].astype(object).fillna("").itertuples(index=False)
    ):
        key = (rank.get(status, 0), status, str(why if status != "installed" else target))
        best[name] = max(best.get(name, key), key)
    for name, (_, status, text) in best.items():
        place = "skipped" if status in ("off", "failed") else status
        found.setdefault(place, {})[name] = text
    return Hooks(found["installed"], found["skipped"], found["waiting"])


def _why_empty(file: str, trace: Trace, hooks: Hooks) -> str:
    graphs = file.startswith("cuda_graph")
    if not trace.counts and not (graphs and len(trace.frames["step"])):
        return "the recording holds no profilemate events"
    if file == "cuda_graph_captures.csv" and len(trace.launches):
        vllm = len(trace.frames["step"]) or trace.counts
        why = ": vLLM does that as it starts" if vllm else ""
        return f"no CUDA graph was captured while it was recorded{why}"
    if graphs:
        return "no CUDA graph was captured or replayed in the recording, or no hook saw it"
    if not hooks.installed:
        return "no hook was installed"
    kv_off = [why for name, why in hooks.skipped.items() if feed_of(name) is Feed.KV_BLOCKS]
    if file.startswith("kv") and kv_off and not len(trace.kv):
        return f"the KV hooks were skipped: {kv_off[0]}"
    return "nothing of the kind happened in the recording"
