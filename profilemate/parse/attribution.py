"""Whose GPU work is whose: GPU records to launches, launches to steps and replays.

GPU work belongs to the launch whose correlation id it carries, in the same process of the same
recording: never by time, since it may start long after its host range has ended (CUPTI's
documentation of `CUpti_ActivityKernel.correlationId`). A launch belongs to the step whose range,
on the same process and thread, it begins in: on the host a call is where it is.

Definitions, all in ns:
* GPU span: end of the last record less begin of the first.
* GPU busy: length of the union of the records' intervals, so overlapping ones count once.
* GPU idle: span less busy.
* GPU delay: begin of the first record less begin of the launch call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse import activity
from profilemate.parse.activity import Columns, Ints
from profilemate.parse.trace import Trace

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
FAR = (1 << 63) - 1
"""End of a range of which the end is not known."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Folded:
    """Intervals folded by group: one element per group.

    Attributes:
        count: Intervals.
        first: Smallest start, 0 for an empty group.
        last: Largest end, 0 for an empty group.
        busy: Length of the union.
    """

    count: Ints
    first: Ints
    last: Ints
    busy: Ints

    @property
    def span(self) -> Ints:
        """From the first start to the last end."""
        return self.last - self.first


def numbered(*columns: npt.NDArray[Any]) -> Ints:
    """A small number for every distinct row of some columns."""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        values, part = np.unique(column, return_inverse=True)
        code = np.unique(code * len(values) + part, return_inverse=True)[1]
    return code


def fold(group: Ints, groups: int, start: Ints, end: Ints) -> Folded:
    """Fold intervals by group; those of group -1 are left out."""
    kept = np.flatnonzero(group >= 0)
    order = kept[np.lexsort((end[kept], start[kept], group[kept]))]
    group, start, end = group[order], start[order], end[order]
    count = np.bincount(group, minlength=groups).astype(np.int64)
    first, last, busy = (np.zeros(groups, dtype=np.int64) for _ in range(3))
    if not len(order):
        return Folded(count, first, last, busy)
    opens = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    first[group[opens]] = start[opens]
    last[group[opens]] = np.maximum.reduceat(end, opens)
    # The largest end so far in the group: by rank, which leaves room for the group in 64 bits.
    ends, rank = np.unique(end, return_inverse=True)
    so_far = np.maximum.accumulate(group * len(ends) + rank) - group * len(ends)
    before = np.concatenate([[0], ends[so_far[:-1]]])
    before[opens] = start[opens]
    np.add.at(busy, group, np.maximum(0, end - np.maximum(start, before)))
    return Folded(count, first, last, busy)


def inside(lane: Ints, begin: Ints, end: Ints, point_lane: Ints, point: Ints) -> Ints:
    """The innermost range that each point lies in, as its number, -1 for none.

    Ranges of a lane (a thread) lie inside or outside each other, as push/pop ranges do. Begin and
    end belong to a range.
    """
    if not len(begin):
        return np.full(len(point), -1, dtype=np.int64)
    parent = _candidates(lane, begin, end, lane, begin, own=True)
    found = _candidates(lane, begin, end, point_lane, point, own=False)
    while (over := np.flatnonzero((found >= 0) & (point > end[found]))).size:
        found[over] = parent[found[over]]
    return found


def _candidates(
    lane: Ints, begin: Ints, end: Ints, point_lane: Ints, point: Ints, *, own: bool
) -> Ints:
    """The range of the same lane that began last before each point, -1 for none."""
    count = len(begin)
    lanes = np.concatenate([lane, point_lane])
    times = np.concatenate([begin, point])
    number = np.concatenate([np.arange(count), np.arange(len(point))])
    is_point = np.arange(len(times)) >= count
    if own:  # the points are the ranges: each comes just before the range that it stands for
        order = np.lexsort((~is_point, number, -np.concatenate([end, end]), times, lanes))
    else:  # at the same instant the longest range comes first, and the point last
        longest = np.concatenate([-end, np.zeros(len(point), dtype=np.int64)])
        order = np.lexsort((longest, is_point, times, lanes))
    is_range = order < count
    position = np.where(is_range, np.arange(len(order)), -1)
    latest = np.maximum.accumulate(position) if len(order) else position
    at_range = np.where(latest >= 0, order[np.maximum(latest, 0)], -1)
    same = (at_range >= 0) & (lanes[np.maximum(at_range, 0)] == lanes[order])
    result = np.full(len(point), -1, dtype=np.int64)
    points = order[~is_range] - count
    result[points] = np.where(same, at_range, -1)[~is_range]
    return result


# ------------------------------------------------------------------ GPU records to launches


def match(
    launches: Columns, starts: Columns, gpu: Columns, names: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames `Trace.launches` and `Trace.gpu`.

    A launch call inside another one on the same thread (the driver's inside the runtime's) is the
    same launch, whichever of the two the GPU's records name.
    """
    lane = numbered(launches["recording"], launches["pid"], launches["tid"])
    order = np.lexsort((-launches["dur"], launches["ts"], lane))
    host = {name: values[order] for name, values in launches.items()}
    lane, ts, dur = lane[order], host["ts"], host["dur"]
    outer = _candidates(lane, ts, ts + dur, lane, ts, own=True)
    nested = (outer >= 0) & (ts + dur <= (ts + dur)[outer])
    root = np.where(nested, outer, np.arange(len(ts)))
    while not np.array_equal(root, root[root]):
        root = root[root]
    launch = _by_correlation(host, gpu, root)

    kept = np.flatnonzero(root == np.arange(len(root)))
    kept = kept[np.argsort(ts[kept], kind="stable")]
    number = np.full(len(root) + 1, -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    launch = number[launch]  # -1 takes the last element, which is -1
    frame = {name: host[name][kept] for name in activity.LAUNCH_COLUMNS}
    folded = fold(launch, len(kept), gpu["start"], gpu["end"])
    kernel = np.where(gpu["kind"] == activity.KERNEL, launch, -1)
    mine = kernel >= 0
    kernel_ns = np.zeros(len(kept), dtype=np.int64)
    np.add.at(kernel_ns, kernel[mine], (gpu["end"] - gpu["start"])[mine])
    graph_id = np.zeros(len(kept), dtype=np.int64)
    np.maximum.at(graph_id, launch[launch >= 0], gpu["graph"][launch >= 0])
    frame |= {
        "id": np.arange(len(kept)),
        "records": folded.count,
        "kernels": np.bincount(kernel[mine], minlength=len(kept)).astype(np.int64),
        "kernel_ns": kernel_ns,
        "first": folded.first,
        "last": folded.last,
        "busy": folded.busy,
        "graph_id": graph_id,
    }
    hashes = _sequences(kernel, len(kept), gpu, names)
    frame["graph"] = np.where(graph_id > 0, graph_id.astype(np.uint64), hashes)
    records = {**gpu, "launch": launch}
    by = _by_correlation(starts, gpu, np.arange(len(starts["ts"])))
    for name, column in (("host_ts", "ts"), ("host_tid", "tid")):
        called = np.where(by >= 0, np.append(starts[column], -1)[by], -1)
        records[name] = np.where(launch >= 0, np.append(frame[column], -1)[launch], called)
    return activity.frame(activity.LAUNCHES, frame), activity.frame(activity.GPU, records)


def _by_correlation(host: Columns, gpu: Columns, root: Ints) -> Ints:
    """The launch of each GPU record, by (recording, process, correlation id); -1 for none."""
    named = np.flatnonzero(host["correlation"] != 0)
    count = len(named)
    key = numbered(
        *(
            np.concatenate([host[name][named], gpu[name]])
            for name in ("recording", "pid", "correlation")
        )
    )
    mine, theirs = key[:count], key[count:]
    of_key = np.full(int(key.max()) + 1 if len(key) else 0, -1, dtype=np.int64)
    of_key[mine] = root[named]
    return np.where(gpu["correlation"] != 0, of_key[theirs], -1)


def _sequences(launch: Ints, launches: int, gpu: Columns, names: Sequence[str]) -> Hashes:
    """A number for the sequence of kernels of each launch: equal for equal names in equal order.

    In order of the graph's nodes where they are known: parallel branches of a graph may run in
    another order each time.
    """
    hashed = np.array(
        [int.from_bytes(blake2b(n.encode(), digest_size=8).digest()) for n in names] or [0],
        dtype=np.uint64,
    )
    kept = np.flatnonzero(launch >= 0)
    kept = kept[
        np.lexsort((gpu["name"][kept], gpu["start"][kept], gpu["node"][kept], launch[kept]))
    ]
    result = np.zeros(launches, dtype=np.uint64)
    if len(kept):
        mix_by_group(result, launch[kept], hashed[gpu["name"][kept]])
    return result


def mix_by_group(result: Hashes, group: Ints, values: Hashes) -> None:
    """Mix values into one number per group; the order within a group, which is sorted, counts."""
    opens = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    length = np.diff(np.append(opens, len(group)))
    place = np.arange(len(group)) - np.repeat(opens, length)
    powers = np.full(int(length.max()), _MULTIPLIER, dtype=np.uint64)
    powers = np.multiply.accumulate(powers)
    result[group[opens]] = np.add.reduceat(values * powers[place], opens)


# ------------------------------------------------------------------ launches to steps


@dataclass(frozen=True, slots=True)
class Owners:
    """Row of the frames `step` and `graph.replay` that each launch lies in, -1 for none."""

    step: Ints
    replay: Ints


@dataclass(frozen=True, slots=True)
class Work:
    """What groups of launches did: one element per group, ns.

    Attributes:
        launches: Launch calls.
        host: Sum of their durations.
        called: Begin of the first of them that has GPU records, 0 for none.
        gpu: Their GPU records.
    """

    launches: Ints
    host: Ints
    called: Ints
    gpu: Folded


def owners(trace: Trace) -> Owners:
    """Find out in which step and in which replay each launch of a trace lies."""
    if "owners" not in trace.derived:
        calls = {name: trace.launches[name].to_numpy(np.int64) for name in ("pid", "tid", "ts")}
        trace.derived["owners"] = Owners(
            _lie_in(trace.frames["step"], calls), _lie_in(trace.frames["graph.replay"], calls)
        )
    found: Owners = trace.derived["owners"]
    return found


def _lie_in(ranges: pd.DataFrame, calls: Columns) -> Ints:
    """The row of a frame that each call lies in, by process, thread and time on the host."""
    begin = ranges["ts"].to_numpy(dtype=np.int64)
    dur = ranges["dur"].to_numpy(dtype=np.int64, na_value=-1)
    # A range that the recording saw no end of goes on until the next one.
    end = np.where(dur < 0, FAR, begin + dur)
    lane = numbered(
        *(np.concatenate([ranges[c].to_numpy(np.int64), calls[c]]) for c in ("pid", "tid"))
    )
    count = len(ranges)
    return inside(lane[:count], begin, end, lane[count:], calls["ts"])


def work_of(trace: Trace, group: Ints, groups: int) -> Work:
    """Fold launches and their GPU records by group; `group` is -1 for a launch in none."""
    launches, gpu = trace.launches, trace.gpu
    mine = np.flatnonzero(group >= 0)
    host = np.zeros(groups, dtype=np.int64)
    np.add.at(host, group[mine], launches["dur"].to_numpy(np.int64)[mine])
    seen = mine[launches["records"].to_numpy(np.int64)[mine] > 0]
    called = np.full(groups, FAR, dtype=np.int64)
    np.minimum.at(called, group[seen], launches["ts"].to_numpy(np.int64)[seen])
    called[called == FAR] = 0
    launch = gpu["launch"].to_numpy(np.int64)
    # A trace of some processes has not all launches: their ids rise, with gaps.
    at = np.searchsorted(launches["id"].to_numpy(np.int64), launch)
    of_record = np.append(group, -1)[np.where(launch >= 0, at, -1)]
    start, end = gpu["start"].to_numpy(np.int64), gpu["end"].to_numpy(np.int64)
    count = np.bincount(group[mine], minlength=groups).astype(np.int64)
    return Work(count, host, called, fold(of_record, groups, start, end))


def step_work(trace: Trace) -> Work:
    """The graph launches of every row of the frame `step`, and their GPU records."""
    if "step_work" not in trace.derived:
        steps = len(trace.frames["step"])
        trace.derived["step_work"] = work_of(trace, owners(trace).step, steps)
    found: Work = trace.derived["step_work"]
    return found


def step_gpu(trace: Trace) -> Folded:
    """All GPU records that the rows of the frame `step` started, eager ones too."""
    if "step_gpu" not in trace.derived:
        gpu, steps = trace.gpu, trace.frames["step"]
        host = gpu[gpu["host_ts"] >= 0]
        calls = {"pid": host["pid"], "tid": host["host_tid"], "ts": host["host_ts"]}
        step = _lie_in(steps, {name: c.to_numpy(np.int64) for name, c in calls.items()})
        start, end = host["start"].to_numpy(np.int64), host["end"].to_numpy(np.int64)
        trace.derived["step_gpu"] = fold(step, len(steps), start, end)
    found: Folded = trace.derived["step_gpu"]
    return found


def gpu_time(trace: Trace) -> int:
    """Time in which the GPUs did anything at all: the union of all records, per device, ns."""
    gpu = trace.gpu
    device = numbered(gpu["pid"].to_numpy(np.int64), gpu["device"].to_numpy(np.int64))
    start, end = gpu["start"].to_numpy(np.int64), gpu["end"].to_numpy(np.int64)
    return int(fold(device, int(device.max()) + 1 if len(device) else 0, start, end).busy.sum())
