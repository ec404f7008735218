"""Metrics of the recording as a whole."""

from __future__ import annotations

from collections.abc import Mapping

from profilemate.insight.figures import recorded
from profilemate.insight.metrics.family import Collector, Spec, metric
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
DURATION = metric(recorded.LENGTH, "session_duration_seconds", "gauge")
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

METRICS = (
    metric(recorded.ATTRIBUTED, "graph_launches_attributed_ratio", "gauge"),
    metric(recorded.KERNEL_TIME, "kernel_time_in_graphs_ratio", "gauge"),
)

SPECS = (
    *(INFO, START, DURATION.spec, CLOCK_ERROR, EVENTS, LOST),
    *(spec for spec, _ in COVERAGE.values()),
    *(m.spec for m in METRICS),
)


def collect(found: Collector, session: SavedSession) -> None:
    """Add the metrics of the recording."""
    said = session.metadata
    recorders = sorted({s.recorder for s in said.sources if s.recorder})
    versions = {f"{name}_version": v for name, v in said.versions.items()}
    facts = {"recorder": ", ".join(recorders) or None, "graph_durations": said.graph_durations}
    found.info(INFO, {**versions, **facts})
    if said.start is not None:
        found.add(START, said.start.timestamp())
    found.add_figures((DURATION,), session)
    found.add(CLOCK_ERROR, said.clock.alignment_error_ms, scale=1e3)
    for kind, count in said.events.items():
        found.add(EVENTS, count, {"kind": kind})
    _lost(found, said.dropped)
    for name, (spec, scale) in COVERAGE.items():
        found.add(spec, said.coverage.get(name), scale=scale)
    found.add_figures(METRICS, session)


def _lost(found: Collector, dropped: Dropped | None) -> None:
    if dropped is not None:
        found.add(LOST, dropped.broken_messages, {"reason": "broken"})
        found.add(LOST, dropped.unfinished_messages, {"reason": "unfinished"})
        found.add(LOST, dropped.lost, {"reason": "lost"})
