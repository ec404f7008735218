"""What was recorded, how, and what is missing: metadata.json for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from profilemate.insight.report.source import Source


@dataclass(frozen=True, slots=True)
class Part:
    """A titled list of facts: a name and a text each, the name may be empty."""

    title: str
    rows: Sequence[tuple[str, str]]
    attention: bool = False
    folded: bool = False


@dataclass(slots=True)
class About:
    """All parts, those first that a reader of the figures must know."""

    parts: list[Part] = field(default_factory=list)

    def add(self, title: str, rows: Sequence[tuple[str, str]], **how: bool) -> None:
        """Add a part if it has any facts."""
        if rows:
            self.parts.append(Part(title, list(rows), **how))


def about(source: Source) -> About:
    """The parts of a session."""
    meta = source.metadata
    found = About()
    found.add("What to keep in mind", [("", text) for text in _warnings(meta)], attention=True)
    found.add("Recording", _recording(source))
    found.add("Sources", [_source(s) for s in _list(meta, "sources")])
    found.add("Processes", [_process(p) for p in _list(meta, "processes")])
    hooks = _mapping(meta, "hooks")
    installed = _mapping(hooks, "installed")
    absent = {**_mapping(hooks, "skipped"), **_mapping(hooks, "waiting")}
    count = [("installed", f"{len(installed)} hooks")] if installed else []
    found.add("Hooks", count + [(n, f"not installed: {w}") for n, w in absent.items()])
    empty = _mapping(meta, "empty_files")
    found.add("Files without rows, and why", [(n, str(w)) for n, w in empty.items()])
    events = _mapping(meta, "events")
    found.add("Events read", [(n, f"{v:,}") for n, v in events.items()], folded=True)
    return found


def _warnings(meta: Mapping[str, Any]) -> list[str]:
    told = [str(t) for name in ("notes", "doubts") for t in _list(meta, name)]
    dropped = _mapping(meta, "dropped")
    lost = sum(_mapping(dropped, "lost_batches").values())
    if lost:
        told.append(f"{lost:,} batches of events are missing: counts are too low.")
    broken = (dropped.get("broken_messages") or 0) + (dropped.get("unfinished_messages") or 0)
    if broken:
        told.append(f"{broken:,} messages could not be read and are left out.")
    unknown = _mapping(dropped, "unknown_events")
    if unknown:
        told.append(f"Events of a newer profilemate are left out: {', '.join(unknown)}.")
    faults = sum(p.get("faults") or 0 for p in _list(meta, "processes"))
    if faults:
        told.append(f"profilemate's own hooks failed {faults:,} times.")
    return list(dict.fromkeys(told))


_DURATIONS = {"gpu": "of the GPU", "host": "of the host", "gpu and host": "of the GPU or the host"}


def _recording(source: Source) -> list[tuple[str, str]]:
    meta = source.metadata
    begin, end = source.window
    rows = [
        ("session", str(meta.get("session_id") or "unknown")),
        ("started", str(meta.get("start_time") or "not known")),
        ("window", f"{begin:.3f} s to {end:.3f} s, {end - begin:.3f} s long"),
    ]
    error = _mapping(meta, "clock").get("alignment_error_ms")
    rows += [("clock error", f"{error:.3f} ms")] if isinstance(error, float) else []
    durations = _mapping(meta, "durations").get("cuda_graph_timeline")
    rows += (
        [("replay durations", _DURATIONS.get(str(durations), str(durations)))] if durations else []
    )
    versions = _mapping(meta, "versions")
    rows += [(name.replace("_", " "), str(v)) for name, v in versions.items() if v]
    seen = _mapping(meta, "coverage")
    for name in ("launches", "kernels"):
        if seen.get(name):
            rows.append((f"{name} seen", f"{seen[name]:,}"))
    return rows


def _source(source: Mapping[str, Any]) -> tuple[str, str]:
    size = source.get("size") or 0
    text = f"{source.get('kind')}, {size / 1e6:,.1f} MB"
    return str(source.get("path")), f"{text}, {source['recorder']}" if source.get(
        "recorder"
    ) else text


def _process(process: Mapping[str, Any]) -> tuple[str, str]:
    name = f"{process.get('role') or 'unknown'} {process.get('pid')}"
    host = f" on {process['host']}" if process.get("host") else ""
    return name, f"{process.get('rank')}{host}, {process.get('events') or 0:,} events"


def _list(meta: Mapping[str, Any], name: str) -> list[Any]:
    value = meta.get(name)
    return value if isinstance(value, list) else []


def _mapping(meta: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = meta.get(name)
    return value if isinstance(value, dict) else {}
