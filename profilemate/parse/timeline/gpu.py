"""The tracks of a GPU: replays of graphs, the work of each step, and every record on request."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.recording.activity import GRAPH, KERNEL, MEMCPY, MEMSET
from profilemate.parse.tables.base import nullable
from profilemate.parse.timeline import steps as steps_
from profilemate.parse.timeline.scope import Events, Scope, column, slices
from profilemate.parse.timeline.tracks import Batch, Flows, Track, Words
from profilemate.parse.timeline.worker import launch_args, launch_flow, launch_names
from profilemate.parse.trace.steps_on_gpu import step_gpu

RECORDS = ("kernel", "memcpy", "memset", "graph")
"""Categories of GPU records, by `activity`'s numbers."""


def gpus(scope: Scope, group: Track, pid: int, kind: Ints) -> Iterator[Batch]:
    """Tracks of every GPU that a process worked on.

    Args:
        scope: The timeline.
        group: The process's.
        pid: The process, -1 for work of which the recording does not say whose it is.
        kind: What each row of `step` did.
    """
    work = scope.trace.work
    # A call's records on another device than its first one are among the overlaps.
    devices = np.unique(
        np.concatenate([c["device"][c["pid"] == pid] for c in (work.rows, work.overlaps)])
    )
    for device in devices.tolist():
        name = f"GPU {device}" if device >= 0 else "GPU"
        line = scope.tracks.make("group", name, group, pid=pid)
        if device == devices[0]:
            yield from _steps(scope, line, pid, kind)
        yield from _replays(scope, line, pid, device)
        if scope.kernels:
            gpu = scope.trace.gpu
            here = (column(gpu, "pid") == pid) & (column(gpu, "device") == device)
            yield from _records(scope, line, np.flatnonzero(here))


def _steps(scope: Scope, group: Track, pid: int, kind: Ints) -> Iterator[Batch]:
    """From the first to the last record that a step's calls started, on graphs or eagerly."""
    steps, work = scope.trace.frames["step"], step_gpu(scope.trace)
    rows = np.flatnonzero((column(steps, "pid") == pid) & (work.count > 0))
    if not len(rows):
        return
    track = scope.tracks.make(
        "slices",
        "Steps",
        group,
        about="From the first to the last GPU record that the step's calls started, on graphs or "
        "eagerly.",
        pid=pid,
    )
    args = {"step": steps["step"], "gpu_records": work.count, "gpu_busy_ns": work.busy}
    names, categories = steps_.step_names(steps, kind), steps_.category(kind)
    events = Events(work.first, work.span, names, categories, args)
    yield from slices(scope, track, events, rows)


def _replays(scope: Scope, group: Track, pid: int, device: int) -> Iterator[Batch]:
    """What each graph launch of a process did on a device, a track per stream."""
    launches = scope.trace.launches
    on_device, stream = _places(scope)
    seen = launches["records"].to_numpy(np.int64) > 0
    rows = np.flatnonzero((column(launches, "pid") == pid) & seen & (on_device == device))
    if not len(rows):
        return
    first, last = column(launches, "first"), column(launches, "last")
    args = launch_args(scope)
    flows = Flows.single(launch_flow(column(launches, "id")))
    categories = Words.same("replay", len(launches))
    events = Events(first, last - first, launch_names(scope), categories, args, flows)
    for number in np.unique(stream[rows]).tolist():
        track = scope.tracks.make(
            "slices",
            f"Graph replays, stream {number}",
            group,
            about="From the first to the last GPU record of each graph launch.",
            pid=pid,
        )
        yield from slices(scope, track, events, rows[stream[rows] == number])


def _places(scope: Scope) -> tuple[Ints, Ints]:
    """Device and stream of the first GPU record of each launch, -1 for none."""
    launches, work = scope.trace.launches, scope.trace.work.rows
    device = np.full(len(launches), -1, dtype=np.int64)
    stream = device.copy()
    rows = np.flatnonzero(work["launch"] >= 0)
    at = np.searchsorted(column(launches, "id"), work["launch"][rows])
    first = work["start"][rows] == column(launches, "first")[at]
    device[at[first]] = work["device"][rows[first]]
    stream[at[first]] = work["stream"][rows[first]]
    return device, stream


def _records(scope: Scope, group: Track, rows: Ints) -> Iterator[Batch]:
    gpu = scope.trace.gpu
    start, stream = column(gpu, "start"), column(gpu, "stream")
    args = _record_args(gpu)
    names = Words([name or "unknown" for name in scope.trace.names] or [""], column(gpu, "name"))
    categories = Words(RECORDS, column(gpu, "kind"))
    names = _named(names, categories)
    events = Events(start, column(gpu, "end") - start, names, categories, args)
    for number in np.unique(stream[rows]).tolist():
        track = scope.tracks.make(
            "slices", f"Kernels, stream {number}", group, about="Every GPU record of the stream."
        )
        yield from slices(scope, track, events, rows[stream[rows] == number])


def _named(names: Words, kinds: Words) -> Words:
    """Copies and sets, which have no name, are called after their kind."""
    texts = [*names.texts, *RECORDS]
    nameless = np.array([text in ("", "unknown") for text in names.texts])[names.codes]
    return Words(texts, np.where(nameless, len(names.texts) + kinds.codes, names.codes))


def _record_args(gpu: pd.DataFrame) -> dict[str, object]:
    args: dict[str, object] = {"correlation": gpu["correlation"]}
    for name, nothing in (("graph", 0), ("node", 0), ("launch", -1)):
        values = column(gpu, name)
        args[f"{name}_id" if name != "launch" else name] = nullable(values, values != nothing)
    return args


assert (KERNEL, MEMCPY, MEMSET, GRAPH) == (0, 1, 2, 3)
