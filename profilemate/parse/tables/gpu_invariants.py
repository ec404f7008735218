"""What cannot be in the times and sizes of steps, calls and GPU records."""

from __future__ import annotations

import numpy as np

from profilemate.parse.columns.arrays import Ints, numbered
from profilemate.parse.tables.base import flags, numbers
from profilemate.parse.tables.step_rows import on_graphs
from profilemate.parse.tables.violations import Violations, seconds
from profilemate.parse.trace.steps_on_gpu import gpu_time, step_work
from profilemate.parse.trace.trace import Trace

TICK_NS = 1000
"""Older recorders have whole microseconds: what is less apart may be in any order."""


def check_padding(trace: Trace, found: Violations) -> None:
    """Padding adds tokens, it takes none away."""
    steps = trace.frames["step"]
    fewer = flags(steps["num_tokens"] < steps["unpadded"]) & on_graphs(steps["mode"])
    wrong = np.flatnonzero(fewer)
    if len(wrong):
        row = steps.iloc[int(wrong[0])]
        example = f"{row['unpadded']} tokens to run on a graph of {row['num_tokens']}"
        found.add("padding-negative", len(wrong), example)


def check_events(trace: Trace, found: Violations) -> None:
    """What a process did took some time, and no more than the recording."""
    length = trace.window[1] - trace.window[0]
    for name, frame in (*trace.frames.items(), ("graph launch", trace.launches)):
        _durations(found, name, frame["ts"].to_numpy(np.int64), numbers(frame["dur"], 0), length)
    for part in trace.kv.slices(("ts", "dur")):
        _durations(found, "block operation", part.ints("ts"), part.ints("dur", 0), length)


def _durations(found: Violations, what: str, ts: Ints, dur: Ints, length: int) -> None:
    """Durations (ns) that are negative, or longer than the recording."""
    for name, wrong in (("duration-negative", dur < 0), ("longer-than-recording", dur > length)):
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            example = f"{what} at {seconds(int(ts[at]))} lasts {seconds(int(dur[at]))}"
            found.add(name, int(wrong.sum()), example)


def check_work(trace: Trace, found: Violations) -> None:
    """GPU work begins after its call, takes some time, and waits for its stream."""
    work = trace.work.rows
    start, end = work["start"].astype(np.int64), work["end"].astype(np.int64)
    dur = np.where(work["kernel_ns"] < 0, work["kernel_ns"], end - start)
    _durations(found, "GPU work", start, dur, trace.window[1] - trace.window[0])
    called = work["host_ts"].astype(np.int64)
    early = (called >= 0) & (start < called - TICK_NS)
    if early.any():
        at = int(np.flatnonzero(early)[0])
        by = seconds(int(called[at] - start[at]))
        example = f"at {seconds(int(start[at]))}, {by} before its call"
        found.add("gpu-before-call", int(early.sum()), example)
    _streams(trace, found)


def _streams(trace: Trace, found: Violations) -> None:
    """Work of one stream runs in its order.

    A kernel may begin before the one ahead of it has ended (programmatic dependent launch), but it
    does not end before that one does. Branches of a graph run beside each other, whichever stream
    is named.
    """
    work = trace.work.rows
    eager = (work["launch"] < 0) & (work["graph_records"] == 0) & (work["whole"] == 0)
    rows = np.flatnonzero(eager & (work["records"] == 1) & (work["pid"] >= 0))
    if not len(rows):
        return
    start, end = (work[name][rows].astype(np.int64) for name in ("start", "end"))
    stream = numbered(*(work[n][rows].astype(np.int64) for n in ("pid", "device", "stream")))
    order = np.lexsort((-end, start, stream))
    start, end, stream = start[order], end[order], stream[order]
    wrong = np.zeros(len(rows), dtype=bool)
    opens = np.flatnonzero(np.append(True, stream[1:] != stream[:-1]))
    for first, last in zip(opens, np.append(opens[1:], len(rows)), strict=True):
        ahead = np.maximum.accumulate(end[first:last])[:-1]
        within = end[first + 1 : last] <= ahead
        wrong[first + 1 : last] = within & (end - start > TICK_NS)[first + 1 : last]
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        row = order[at]
        place = f"device {work['device'][rows[row]]}, stream {work['stream'][rows[row]]}"
        example = f"at {seconds(int(start[at]))} on {place}"
        found.add("gpu-records-overlap", int(wrong.sum()), example)


def check_shares(trace: Trace, found: Violations) -> None:
    """The graphs of steps take no more GPU time than there was."""
    part, every = int(step_work(trace).gpu.busy.sum()), gpu_time(trace)
    if part > every:
        found.add("gpu-share-above-one", 1, f"{seconds(part)} of {seconds(every)}")
