"""What the recorder saw of the GPU, as columns: graph launches, other API calls, GPU records.

Readers give batches of numpy arrays to an `ActivitySink`; no record ever becomes an object of its
own. A recording may hold ten million GPU records: whoever only wants sums per launch can take the
batches in a sink that folds them, and readers and tables stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from profilemate.parse.columns.arrays import Columns, Ints

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


class FoldedRecords(Protocol):
    """All GPU records of one recording, folded by the reader as they came."""

    def finish(self, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Ints]]:
        """Columns `gpu.work.WORK_COLUMNS` (all but `pid`) and the overlaps; to be called once.

        Args:
            names: The names by their numbers.
        """

    def records(self) -> Iterator[dict[str, Ints]]:
        """All records, in the order of the file, in batches with `GPU_COLUMNS` (all but `pid`)."""

    def __len__(self) -> int:
        """How many records there are."""


class ActivitySink(Protocol):
    """Takes what a reader finds, in any order and in as many batches as it likes."""

    def launches(self, batch: Columns) -> None:
        """Graph launches, with `LAUNCH_COLUMNS`."""

    def starts(self, batch: Columns) -> None:
        """Other calls that may have started GPU work, with `START_COLUMNS`."""

    def gpu(self, batch: Columns) -> None:
        """GPU records, with `GPU_COLUMNS`."""

    def folded(
        self, records: FoldedRecords, names: Sequence[str], process: Callable[[Ints], Ints]
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
