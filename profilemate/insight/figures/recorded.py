"""Figures of the recording itself: how long it is, and how much of it has a GPU side."""

from __future__ import annotations

from profilemate.insight.figures.base import Figure
from profilemate.insight.reading import NoData, window
from profilemate.parse.session.coverage import kernel_time_in_graphs
from profilemate.parse.session.saved import SavedSession


def _length(session: SavedSession) -> float:
    times = window(session)
    if times is None:
        raise NoData("metadata.json does not say when the recording began and ended")
    return times[1] - times[0]


def _attributed(session: SavedSession) -> float:
    coverage = session.metadata.coverage
    launches, matched = coverage.get("launches"), coverage.get("launches_with_gpu_records")
    if not launches or matched is None:
        raise NoData("graph launches were not recorded, or the GPU was not")
    return 100 * matched / launches


def _kernel_time(session: SavedSession) -> float:
    share = kernel_time_in_graphs(session.metadata.coverage)
    if share is None:
        raise NoData("the recording does not say which kernels ran as part of a graph")
    return 100 * share


LENGTH = Figure("recorded_sec", "recorded", "s", "Length of the recorded window.", _length)
ATTRIBUTED = Figure(
    "launches_attributed_pct",
    "launches with GPU records",
    "%",
    "Share of the CUDA graph launches to which GPU records were attributed.",
    _attributed,
    "higher",
    ("cuda_graph_usage",),
)
KERNEL_TIME = Figure(
    "kernel_time_in_graphs_pct",
    "kernel time in graphs",
    "%",
    "Share of the kernel time that ran as part of a graph.",
    _kernel_time,
    "higher",
    ("cuda_graph_coverage",),
)

FIGURES = (LENGTH, ATTRIBUTED, KERNEL_TIME)
