"""Columns of the frames in which a trace holds graph launches, GPU records and annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from profilemate.parse.recording.activity import GPU_COLUMNS, LAUNCH_COLUMNS

LAUNCHES: Mapping[str, str] = {
    **LAUNCH_COLUMNS,
    "id": "int64",  # number of the launch in the whole trace
    "records": "int64",  # GPU records that belong to it
    "kernels": "int64",  # those that are kernels
    "kernel_ns": "int64",  # sum of their durations
    "first": "int64",  # start of its first GPU record; 0 where there is none
    "last": "int64",  # end of its last
    "busy": "int64",  # union of its records' intervals, ns
    "graph": "uint64",  # which graph it launched: equal numbers, equal graphs
    "graph_id": "int64",  # CUPTI's id of the graph, 0 where the recording does not say
}
"""Columns of the frame `Trace.launches`, in order of `ts`."""

GPU: Mapping[str, str] = {
    **GPU_COLUMNS,
    "launch": "int64",  # `id` of the graph launch it belongs to, -1 for none
    "host_ts": "int64",  # begin of the call that started it, -1 where that was not recorded
    "host_tid": "int64",  # thread of that call
}
"""Columns of the frame `Trace.gpu`."""

ANNOTATIONS: Mapping[str, str] = {
    "ts": "int64",
    "dur": "int64",
    "pid": "int64",
    "tid": "int64",
    "text": "object",
}
"""Columns of the frame `Trace.annotations`, in order of `ts`."""


def typed_frame(columns: Mapping[str, str], data: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """A frame with these columns; without data an empty one."""
    given = data or {}
    return pd.DataFrame({c: np.asarray(given.get(c, ()), dtype=t) for c, t in columns.items()})
