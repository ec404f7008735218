"""GPU records to the API calls that started them, by correlation id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.allocator import give_back
from profilemate.parse.columns.arrays import Columns, Hashes, Ints, compact, numbered
from profilemate.parse.columns.intervals import last_begun
from profilemate.parse.gpu.interval_unions import fold_work
from profilemate.parse.gpu.kernel_sequences import chain
from profilemate.parse.gpu.work import OVERLAP_COLUMNS, WORK, GpuWork
from profilemate.parse.recording.activity import LAUNCH_COLUMNS

_TOGETHER = 1 << 17  # rows that are looked up at once


@dataclass(frozen=True, slots=True)
class Matched:
    """What `match` finds.

    Attributes:
        launches: Columns of `Trace.launches`, an element per launch.
        work: `Trace.work`.
        gpu: Columns of `Trace.gpu`, without an element where the records were not kept.
    """

    launches: Columns
    work: GpuWork
    gpu: Columns


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
    rows = {name: compact(rows[name]) for name in WORK}
    give_back()
    gpu = columns["gpu"]
    of_record = calls.launch(gpu)
    records = {**gpu, "launch": of_record, **calls.caller(gpu, of_record, frame)}
    return Matched(
        frame,
        GpuWork(rows, {name: overlaps[name] for name in OVERLAP_COLUMNS}),
        records,
    )


def _roots(launches: Columns, starts: Columns) -> tuple[_Calls, dict[str, npt.NDArray[Any]]]:
    """The calls, and the columns of those graph launches that lie in no other one."""
    lane = numbered(launches["recording"], launches["pid"], launches["tid"])
    order = np.lexsort((-launches["dur"], launches["ts"], lane))
    host = {name: values[order] for name, values in launches.items()}
    lane, ts, dur = lane[order], host["ts"], host["dur"]
    outer = last_begun(lane, ts, ts + dur, lane, ts, own=True)
    nested = (outer >= 0) & (ts + dur <= (ts + dur)[outer])
    root = np.where(nested, outer, np.arange(len(ts)))
    while not np.array_equal(root, root[root]):
        root = root[root]
    kept = np.flatnonzero(root == np.arange(len(root)))
    kept = kept[np.argsort(ts[kept], kind="stable")]
    number = np.full(len(root) + 1, -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    frame = {name: host[name][kept] for name in LAUNCH_COLUMNS}
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
