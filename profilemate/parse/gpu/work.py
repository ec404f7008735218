"""GPU records folded to a row for each API call: what columns a row has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from profilemate.parse.columns.arrays import Columns, Ints

WORK_COLUMNS = (
    "start",  # of the first record
    "end",  # of the last one
    "pid",
    "device",  # of the first record
    "stream",  # of the first record
    "correlation",
    "records",
    "kernels",
    "kernel_ns",  # sum of their durations
    "busy",  # union of the records on `device` that are in no overlap
    "graph",  # largest id of a graph
    "sequence",  # of the kernels, see `kernel_sequences`; 0 for none
    "graph_records",  # records that say they are of a graph
    "graph_kernels",
    "graph_kernel_ns",
    "whole",  # records that stand for a whole graph
    "id",
)
"""Columns of the rows: one for every (process, correlation id); two in rare cases."""

OVERLAP_COLUMNS = ("start", "end", "pid", "device", "row")
"""Columns of the overlaps; `row` is the `id` of the row that a record counts in."""

_MATCHED = ("correlation", "sequence", "graph")  # of use until the launches are known

WORK = (*(n for n in WORK_COLUMNS if n not in _MATCHED), "launch", "host_ts", "host_tid")
"""Columns of the rows of `Trace.work`, in order of `id`: integers in as few bytes as they need.

`launch`, `host_ts` and `host_tid` are as in `trace.activity.GPU`.
"""


def none_of(columns: Iterable[str]) -> dict[str, Ints]:
    """Columns of integers without an element."""
    return {name: np.empty(0, dtype=np.int64) for name in columns}


@dataclass(frozen=True, slots=True)
class GpuWork:
    """All GPU records, folded.

    Attributes:
        rows: Columns with an element per call that started some, named as `WORK`.
        overlaps: Those of records that ran beside those of other calls, `OVERLAP_COLUMNS`.
    """

    rows: Columns = field(default_factory=lambda: none_of(WORK))
    overlaps: Columns = field(default_factory=lambda: none_of(OVERLAP_COLUMNS))

    def only(self, pids: set[int]) -> GpuWork:
        """The same, restricted to the work of some processes."""
        wanted = sorted(pids)

        def chosen(columns: Columns) -> Columns:
            kept = np.isin(columns["pid"], wanted)
            return {name: values[kept] for name, values in columns.items()}

        return GpuWork(chosen(self.rows), chosen(self.overlaps))
