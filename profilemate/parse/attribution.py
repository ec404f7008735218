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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse import activity
from profilemate.parse.activity import Columns, Ints
from profilemate.parse.allocator import give_back
from profilemate.parse.fold import Hashes, chain, compact
from profilemate.parse.trace import GpuWork, Trace, frame_of
from profilemate.parse.unions import Folded, fold, fold_work

_TOGETHER = 1 << 17  # rows that are looked up at once
FAR = (1 << 63) - 1
"""End of a range of which the end is not known."""


def numbered(*columns: npt.NDArray[Any]) -> Ints:
    """A small number for every distinct row of some columns."""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        if len(column) and (column == column[0]).all():
            continue  # it tells nothing apart
        values, part = np.unique(column, return_inverse=True)
        code = np.unique(code * len(values) + part, return_inverse=True)[1]
    return code


def range_ends(lane: Ints, begin: Ints, dur: Ints) -> Ints:
    """When ranges end; one whose end was not seen (`dur` below 0) goes on until the next one."""
    order = np.lexsort((begin, lane))
    follows = np.full(len(order), FAR, dtype=np.int64)
    same = np.flatnonzero(lane[order[1:]] == lane[order[:-1]])
    follows[order[same]] = begin[order[same + 1]] - 1
    return np.where(dur < 0, follows, begin + dur)


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


@dataclass(frozen=True, slots=True)
class Matched:
    """What `match` finds.

    Attributes:
        launches: The frame `Trace.launches`.
        work: `Trace.work`.
        gpu: The frame `Trace.gpu`, without a row where the records themselves were not kept.
    """

    launches: pd.DataFrame
    work: GpuWork
    gpu: pd.DataFrame


@dataclass(frozen=True, slots=True)
class _Calls:
    """The calls that started work: those of graphs, sorted and with their roots, and the others."""

    host: Columns
    root: Ints
    number: Ints
    starts: Columns

    def launch(self, work: Columns) -> Ints:
        """The `id` of the graph launch that each record or row belongs to, -1 for none."""
        found: Ints = self.number[_by_correlation(self.host, work, self.root)]
        return found  # -1 took the last element, which is -1

    def caller(self, work: Columns, launch: Ints, launches: Columns) -> dict[str, Ints]:
        """Begin and thread of the call that started each."""
        by = _by_correlation(self.starts, work, np.arange(len(self.starts["ts"])))
        called = np.flatnonzero((launch < 0) & (by >= 0))
        by = by[called]
        found = {}
        for name, column in (("host_ts", "ts"), ("host_tid", "tid")):
            values = np.append(launches[column], -1)[launch]  # -1 took the last element
            values[called] = self.starts[column][by]
            found[name] = compact(values)
        return found


def match(columns: Mapping[str, Columns]) -> Matched:
    """Give GPU work to the calls that started it, by correlation id.

    A launch call inside another one on the same thread (the driver's inside the runtime's) is the
    same launch, whichever of the two the GPU's records name.

    Args:
        columns: Columns of `launches`, `starts`, `work`, `overlaps` and `gpu`, with the number of
            the recording; of `gpu`, none may have been kept.
    """
    calls, frame = _roots(columns["launches"], columns["starts"])
    give_back()
    work, overlaps = columns["work"], columns["overlaps"]
    launch = calls.launch(work)
    count = len(frame["ts"])
    folded = fold_work(launch, count, work, overlaps)
    mine = np.flatnonzero(launch >= 0)
    sums = {name: np.zeros(count, dtype=np.int64) for name in ("kernels", "kernel_ns")}
    for name, values in sums.items():
        np.add.at(values, launch[mine], work[name][mine])
    graph_id = np.zeros(count, dtype=np.int64)
    np.maximum.at(graph_id, launch[mine], work["graph"][mine])
    frame |= {
        "id": np.arange(count),
        "records": folded.count,
        **sums,
        "first": folded.first,
        "last": folded.last,
        "busy": folded.busy,
        "graph_id": graph_id,
        "graph": np.where(
            graph_id > 0, graph_id.astype(np.uint64), _sequences(launch, count, work)
        ),
    }
    rows = {**work, "launch": launch, **calls.caller(work, launch, frame)}
    rows = {name: compact(rows[name]) for name in activity.WORK}
    give_back()
    gpu = columns["gpu"]
    of_record = calls.launch(gpu)
    records = {**gpu, "launch": of_record, **calls.caller(gpu, of_record, frame)}
    return Matched(
        frame_of(activity.LAUNCHES, frame),
        GpuWork(rows, {name: overlaps[name] for name in activity.OVERLAPS}),
        frame_of(activity.GPU, records),
    )


def _roots(launches: Columns, starts: Columns) -> tuple[_Calls, dict[str, npt.NDArray[Any]]]:
    """The calls, and the columns of those graph launches that lie in no other one."""
    lane = numbered(launches["recording"], launches["pid"], launches["tid"])
    order = np.lexsort((-launches["dur"], launches["ts"], lane))
    host = {name: values[order] for name, values in launches.items()}
    lane, ts, dur = lane[order], host["ts"], host["dur"]
    outer = _candidates(lane, ts, ts + dur, lane, ts, own=True)
    nested = (outer >= 0) & (ts + dur <= (ts + dur)[outer])
    root = np.where(nested, outer, np.arange(len(ts)))
    while not np.array_equal(root, root[root]):
        root = root[root]
    kept = np.flatnonzero(root == np.arange(len(root)))
    kept = kept[np.argsort(ts[kept], kind="stable")]
    number = np.full(len(root) + 1, -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    frame = {name: host[name][kept] for name in activity.LAUNCH_COLUMNS}
    return _Calls(host, root, number, starts), frame


def _by_correlation(host: Columns, gpu: Columns, root: Ints) -> Ints:
    """The call of each GPU record or row, by (recording, process, correlation id); -1 for none."""
    found = np.full(len(gpu["correlation"]), -1, dtype=np.int64)
    named = np.flatnonzero(host["correlation"] != 0)
    process = numbered(host["recording"][named], host["pid"][named])
    for number in range(int(process.max()) + 1 if len(process) else 0):
        mine = named[process == number] if process.any() else named
        known = host["correlation"][mine]
        if (known[1:] < known[:-1]).any():
            order = np.argsort(known, kind="stable")
            mine, known = mine[order], known[order]
        recording, pid = host["recording"][mine[0]], host["pid"][mine[0]]
        theirs = np.flatnonzero((gpu["recording"] == recording) & (gpu["pid"] == pid))
        for some in np.split(theirs, range(_TOGETHER, len(theirs), _TOGETHER)):
            wanted = gpu["correlation"][some]
            at = np.searchsorted(known, wanted, side="right") - 1  # of two calls, the later one
            hit = (at >= 0) & (known[at] == wanted)
            found[some[hit]] = root[mine[at[hit]]]
    return found


def _sequences(launch: Ints, launches: int, work: Columns) -> Hashes:
    """A number for the sequence of kernels of each launch, from those of its rows."""
    kept = np.flatnonzero((launch >= 0) & (work["kernels"] > 0))
    kept = kept[np.lexsort((work["start"][kept], launch[kept]))]
    result = np.zeros(launches, dtype=np.uint64)
    chain(
        result,
        launch[kept],
        work["sequence"][kept].astype(np.uint64),
        work["kernels"][kept].astype(np.int64),
    )
    return result


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
    lane = numbered(
        *(np.concatenate([ranges[c].to_numpy(np.int64), calls[c]]) for c in ("pid", "tid"))
    )
    count = len(ranges)
    end = range_ends(lane[:count], begin, dur)
    return inside(lane[:count], begin, end, lane[count:], calls["ts"])


def work_of(trace: Trace, group: Ints, groups: int) -> Work:
    """Fold launches and their GPU records by group; `group` is -1 for a launch in none."""
    launches = trace.launches
    mine = np.flatnonzero(group >= 0)
    host = np.zeros(groups, dtype=np.int64)
    np.add.at(host, group[mine], launches["dur"].to_numpy(np.int64)[mine])
    seen = mine[launches["records"].to_numpy(np.int64)[mine] > 0]
    called = np.full(groups, FAR, dtype=np.int64)
    np.minimum.at(called, group[seen], launches["ts"].to_numpy(np.int64)[seen])
    called[called == FAR] = 0
    work, overlaps = trace.work.rows, trace.work.overlaps
    launch = work["launch"]
    # A trace of some processes has not all launches: their ids rise, with gaps.
    at = np.searchsorted(launches["id"].to_numpy(np.int64), launch)
    of_row = np.append(group, -1)[np.where(launch >= 0, at, -1)]
    count = np.bincount(group[mine], minlength=groups).astype(np.int64)
    return Work(count, host, called, fold_work(of_row, groups, work, overlaps))


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
        steps = trace.frames["step"]
        work, overlaps = trace.work.rows, trace.work.overlaps
        host = np.flatnonzero(work["host_ts"] >= 0)
        calls = {"pid": work["pid"], "tid": work["host_tid"], "ts": work["host_ts"]}
        step = np.full(len(work["pid"]), -1, dtype=np.int64)
        step[host] = _lie_in(steps, {name: c[host] for name, c in calls.items()})
        trace.derived["step_gpu"] = fold_work(step, len(steps), work, overlaps)
    found: Folded = trace.derived["step_gpu"]
    return found


def gpu_time(trace: Trace) -> int:
    """Time in which the GPUs did anything at all: the union of all records, per device, ns."""
    work, overlaps = trace.work.rows, trace.work.overlaps
    device = numbered(overlaps["pid"], overlaps["device"])
    groups = int(device.max()) + 1 if len(device) else 0
    mixed = fold(device, groups, overlaps["start"], overlaps["end"]).busy
    return int(work["busy"].sum() + mixed.sum())
