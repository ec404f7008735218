"""What the recorder saw of the GPU, as columns: graph launches, other API calls, GPU records.

Readers give batches of numpy arrays to an `ActivitySink`; no record ever becomes an object of its
own. A recording may hold ten million GPU records: whoever only wants sums per launch can take the
batches in a sink that folds them, and readers and tables stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from profilemate.parse.fold import OVERLAP_COLUMNS, WORK_COLUMNS

if TYPE_CHECKING:
    from profilemate.parse.any_order import AnyOrder

Ints = np.ndarray[Any, np.dtype[np.int64]]
Columns = Mapping[str, Ints]
"""Arrays of the same length, by the name of their column."""

KERNEL, MEMCPY, MEMSET, GRAPH = 0, 1, 2, 3
"""Kinds of GPU records. `GRAPH` stands for all work of one graph launch (CUPTI's GRAPH_TRACE)."""

LAUNCH_COLUMNS: Mapping[str, str] = {
    "ts": "int64",  # begin of the call, ns
    "dur": "int64",  # ns
    "pid": "int64",
    "tid": "int64",
    "correlation": "int64",  # unique in its process; 0 where the recorder gives none
    "name": "int64",  # number of its name
}

GPU_COLUMNS: Mapping[str, str] = {
    "start": "int64",  # ns, on the recorder's one clock
    "end": "int64",
    "pid": "int64",  # process whose work it is; -1 where the recording cannot tell
    "device": "int64",
    "stream": "int64",
    "correlation": "int64",  # of the API call that started it, 0 for none
    "graph": "int64",  # id of the graph, 0 for none or where the release does not say
    "node": "int64",  # id of the graph's node, 0 for none or where the release does not say
    "kind": "int64",
    "name": "int64",
}

START_COLUMNS: Mapping[str, str] = {
    "ts": "int64",
    "pid": "int64",
    "tid": "int64",
    "correlation": "int64",
}
"""Of calls other than graph launches that started GPU work, whatever they are called."""

_GRAPH_LAUNCH = re.compile(r"(?:cuda|hip|cu)GraphLaunch(?:_ptsz)?(?:_v\d+)?(?:_ptsz)?")

STEP_PREFIXES = ("execute_", "step[")
"""How engines name the range of a step: vLLM since 0.12, SGLang."""

SCOPE_PREFIXES = ("gpu_model_runner: ", "capture_")
"""Other ranges of engines that tell what a process does."""

ANNOTATION_PREFIXES = (*STEP_PREFIXES, *SCOPE_PREFIXES)


def is_graph_launch(name: str) -> bool:
    """Whether a call of this name launches a graph.

    `cudaGraphLaunch`, `cuGraphLaunch`, `hipGraphLaunch`, also as nsys spells them, with `_ptsz`
    (per-thread default stream) and the API version: `cudaGraphLaunch_ptsz_v10000`.
    """
    return "GraphLaunch" in name and _GRAPH_LAUNCH.fullmatch(name) is not None


class ActivitySink(Protocol):
    """Takes what a reader finds, in any order and in as many batches as it likes."""

    def launches(self, batch: Columns) -> None:
        """Graph launches, with `LAUNCH_COLUMNS`."""

    def starts(self, batch: Columns) -> None:
        """Other calls that may have started GPU work, with `START_COLUMNS`."""

    def gpu(self, batch: Columns) -> None:
        """GPU records, with `GPU_COLUMNS`."""

    def folded(
        self, records: AnyOrder, names: Sequence[str], process: Callable[[Ints], Ints]
    ) -> None:
        """All GPU records of a recording, instead of batches of them.

        Args:
            records: The records.
            names: What the numbers of their names stand for.
            process: Tells their process by their correlation ids.
        """

    def names(self, names: Mapping[int, str]) -> None:
        """What numbers in the columns `name` of this recording stand for; in parts if it likes."""

    def until(self, ts: int) -> None:
        """Promise that no GPU record that begins before `ts` (ns, as they have it) will come.

        The names of those that came must be known. A reader need not promise anything.

        Raises:
            UnorderedError: The promise was broken, or does not help: read again without promises.
        """

    def calls(self, counts: Mapping[str, int]) -> None:
        """All API calls that were recorded, graph launches too, by name."""


# ------------------------------------------------------------------ what a trace keeps of it

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

_MATCHED = ("correlation", "sequence", "graph")  # of use until the launches are known
WORK = (*(n for n in WORK_COLUMNS if n not in _MATCHED), "launch", "host_ts", "host_tid")
"""Columns of the rows of `Trace.work`, in order of `id`: integers in as few bytes as they need.

`launch`, `host_ts` and `host_tid` are as in `GPU`.
"""

OVERLAPS = OVERLAP_COLUMNS
"""Columns of the overlaps of `Trace.work`."""

ANNOTATIONS: Mapping[str, str] = {
    "ts": "int64",
    "dur": "int64",
    "pid": "int64",
    "tid": "int64",
    "text": "object",
}
"""Columns of the frame `Trace.annotations`, in order of `ts`."""


def none_of(columns: Iterable[str]) -> dict[str, Ints]:
    """Columns of integers without an element."""
    return {name: np.empty(0, dtype=np.int64) for name in columns}
