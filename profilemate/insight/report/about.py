"""What was recorded, how, and what is missing: metadata.json for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from profilemate.insight.report.source import Source
from profilemate.parse.session.metadata_parts import Process
from profilemate.parse.session.metadata_parts import Source as SourceOfSession


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
    told = [("", warning.text) for warning in source.session.warnings]
    found.add("What to keep in mind", told, attention=True)
    found.add("Recording", _recording(source))
    found.add("Sources", [_source(s) for s in meta.sources])
    found.add("Processes", [_process(p) for p in meta.processes])
    absent = {**meta.hooks.skipped, **meta.hooks.waiting}
    installed = len(meta.hooks.installed)
    count = [("installed", f"{installed} hooks")] if installed else []
    found.add("Hooks", count + [(n, f"not installed: {w}") for n, w in absent.items()])
    found.add("Files without rows, and why", list(meta.empty_files.items()))
    found.add("Events read", [(n, f"{v:,}") for n, v in meta.events.items()], folded=True)
    return found


_PLACES = {"gpu": "the GPU", "CUDA events": "CUDA events", "host": "the host"}


def _durations(places: str) -> str:
    """Where times of graphs are from, as coverage puts it, for people."""
    return "of " + " or ".join(_PLACES.get(place, place) for place in places.split(" and "))


def _recording(source: Source) -> list[tuple[str, str]]:
    meta = source.metadata
    begin, end = source.window
    rows = [
        ("session", meta.session_id or "unknown"),
        ("started", meta.start_time or "not known"),
        ("window", f"{begin:.3f} s to {end:.3f} s, {end - begin:.3f} s long"),
    ]
    error = meta.clock.alignment_error_ms
    rows += [] if error is None else [("clock error", f"{error:.3f} ms")]
    durations = meta.graph_durations
    rows += [("replay durations", _durations(durations))] if durations else []
    rows += [(name.replace("_", " "), v) for name, v in meta.versions.items() if v]
    for name in ("launches", "kernels"):
        if seen := meta.coverage.get(name):
            rows.append((f"{name} seen", f"{seen:,}"))
    return rows


def _source(source: SourceOfSession) -> tuple[str, str]:
    text = f"{source.words}, {(source.size or 0) / 1e6:,.1f} MB"
    return str(source.path), f"{text}, {source.recorder}" if source.recorder else text


def _process(process: Process) -> tuple[str, str]:
    host = f" on {process.host}" if process.host else ""
    name = f"{process.role or 'unknown'} {process.pid}"
    return name, f"{process.rank}{host}, {process.events or 0:,} events"
