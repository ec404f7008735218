"""Metrics of the recording as a whole, and what its metadata says of what could be counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from profilemate.insight.metrics.family import Collector, Spec
from profilemate.parse.session.metadata_parts import Dropped
from profilemate.parse.session.saved import SavedSession

INFO = Spec(
    "profilemate_session", "info", "The recording: versions of what ran, and what recorded it."
)
START = Spec(
    "profilemate_session_start_time_seconds",
    "gauge",
    "Unix time at which the recording started.",
)
DURATION = Spec(
    "profilemate_session_duration_seconds",
    "gauge",
    "Length of the recorded window.",
)
CLOCK_ERROR = Spec(
    "profilemate_clock_alignment_error_seconds",
    "gauge",
    "How far the clocks of the recording, laid on each other, may be off.",
)
EVENTS = Spec("profilemate_events", "counter", "Events read from the recording, by kind.")
LOST = Spec(
    "profilemate_lost_messages",
    "counter",
    "Messages of the recording that are lost or cannot be read, by what is wrong with them.",
)

COVERAGE: Mapping[str, tuple[Spec, float]] = {
    "launches": (
        Spec(
            "profilemate_graph_launches_seen",
            "counter",
            "CUDA graph launches in the recording, also those outside of any model step.",
        ),
        1,
    ),
    "launches_with_gpu_records": (
        Spec(
            "profilemate_graph_launches_attributed",
            "counter",
            "CUDA graph launches to which GPU records were attributed.",
        ),
        1,
    ),
    "kernels": (
        Spec("profilemate_kernels", "counter", "GPU kernels in the recording."),
        1,
    ),
    "kernels_in_graphs": (
        Spec(
            "profilemate_kernels_in_graphs", "counter", "GPU kernels that ran as part of a graph."
        ),
        1,
    ),
    "kernel_time_us": (
        Spec("profilemate_kernel_seconds", "counter", "Sum of the durations of all GPU kernels."),
        1e6,
    ),
    "kernel_time_in_graphs_us": (
        Spec(
            "profilemate_kernel_in_graphs_seconds",
            "counter",
            "Sum of the durations of the GPU kernels that ran as part of a graph.",
        ),
        1e6,
    ),
    "graph_span_us": (
        Spec(
            "profilemate_graph_launch_span_seconds",
            "counter",
            "Sum over graph launches of the time from their first GPU record to their last.",
        ),
        1e6,
    ),
}

RATIOS = (
    (
        Spec(
            "profilemate_graph_launches_attributed_ratio",
            "gauge",
            "Share of the CUDA graph launches to which GPU records were attributed.",
        ),
        "launches_with_gpu_records",
        "launches",
    ),
    (
        Spec(
            "profilemate_kernel_time_in_graphs_ratio",
            "gauge",
            "Share of the kernel time that ran as part of a graph.",
        ),
        "kernel_time_in_graphs_us",
        "kernel_time_us",
    ),
)


SPECS = (
    *(INFO, START, DURATION, CLOCK_ERROR, EVENTS, LOST),
    *(spec for spec, _ in COVERAGE.values()),
    *(spec for spec, *_ in RATIOS),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the session's metadata says of one rank."""

    session: SavedSession
    rank: str

    def counts(self, role: str, *hooks: str) -> bool:
        """Whether no event means that there was none: its hook is in, in a process of that role."""
        said = self.session.metadata
        roles = [str(p.role) for p in said.processes if p.rank == self.rank]
        return any(h in said.hooks.installed for h in hooks) and any(role in r for r in roles)


def collect(found: Collector, session: SavedSession) -> None:
    """Add the metrics of the recording."""
    said = session.metadata
    recorders = sorted({s.recorder for s in said.sources if s.recorder})
    versions = {f"{name}_version": v for name, v in said.versions.items()}
    facts = {"recorder": ", ".join(recorders) or None, "graph_durations": said.graph_durations}
    found.info(INFO, {**versions, **facts})
    if said.start is not None:
        found.add(START, said.start.timestamp())
    if said.window_sec is not None:
        found.add(DURATION, said.window_sec[1] - said.window_sec[0])
    found.add(CLOCK_ERROR, said.clock.alignment_error_ms, scale=1e3)
    for kind, count in said.events.items():
        found.add(EVENTS, count, {"kind": kind})
    _lost(found, said.dropped)
    for name, (spec, scale) in COVERAGE.items():
        found.add(spec, said.coverage.get(name), scale=scale)
    for spec, part, whole in RATIOS:
        some, every = said.coverage.get(part), said.coverage.get(whole)
        if every and some is not None:
            found.add(spec, some / every)


def _lost(found: Collector, dropped: Dropped | None) -> None:
    if dropped is not None:
        found.add(LOST, dropped.broken_messages, {"reason": "broken"})
        found.add(LOST, dropped.unfinished_messages, {"reason": "unfinished"})
        found.add(LOST, dropped.lost, {"reason": "lost"})
