"""From recordings to what a trace knows of the GPU: read, put on one clock, attributed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np

from profilemate.parse.columns.allocator import give_back
from profilemate.parse.columns.arrays import Ints
from profilemate.parse.events.messages import Messages
from profilemate.parse.gpu.collected import Collected
from profilemate.parse.gpu.launches import match
from profilemate.parse.ingest.read_one import Read
from profilemate.parse.merge.duplicates import one_activity, strangers
from profilemate.parse.merge.process_identity import Processes
from profilemate.parse.merge.unmarked_steps import add_steps
from profilemate.parse.recording.contract import Marker, SourceInfo
from profilemate.parse.trace.activity import ANNOTATIONS, GPU, LAUNCHES, typed_frame
from profilemate.parse.trace.trace import Trace

_TIMES = {
    "launches": ("ts",),
    "starts": ("ts",),
    "gpu": ("start", "end"),
    "work": ("start", "end"),
    "overlaps": ("start", "end"),
}


@dataclass(slots=True)
class Activity:
    """What recordings hold besides messages, each on its own clock.

    Attributes:
        columns: Columns of each kind in `collected.Collected.columns`, with the number of the
            recording.
        names: Names by their number in the columns `name`.
        api_calls: API calls by name; None where no recording has an API trace.
        ranges: The engine's own annotations, with the number of their recording.
    """

    columns: dict[str, dict[str, Ints]]
    names: list[str]
    api_calls: Counter[str] | None
    ranges: list[tuple[int, Marker]] = field(default_factory=list)

    @property
    def recordings(self) -> set[int]:
        """Numbers of the recordings with calls or GPU records."""
        return {int(n) for c in self.columns.values() for n in np.unique(c["recording"])}


def gather_up(reads: Sequence[Read]) -> tuple[Messages, Activity]:
    """Everything that was read, each recording with its number, on its own clock."""
    if len(reads) == 1:
        messages, collected = reads[0].messages, reads[0].activity
    else:
        messages, collected = Messages(reads[0].messages.kv.budget if reads else None), Collected()
        for number, one in enumerate(reads):
            messages.take(number, one.messages)
            collected.take(number, one.activity)
    ranges = [(number, marker) for number, one in enumerate(reads) for marker in one.ranges]
    columns = {kind: collected.columns(kind) for kind in _TIMES}
    give_back()
    return messages, Activity(columns, collected.every_name, collected.api_calls, ranges)


def add_activity(
    trace: Trace, found: Activity, shift: Ints, processes: Processes, infos: Sequence[SourceInfo]
) -> None:
    """Put activity on the trace's clock and into it.

    Args:
        trace: The decoded messages.
        found: The activity of its recordings.
        shift: What to add to the times of each recording, ns.
        processes: The processes of the trace.
        infos: The recordings.
    """
    for kind, names in _TIMES.items():
        columns = found.columns[kind]
        for name in names:
            columns[name] = columns[name] + shift[columns["recording"]]
        for number in np.unique(columns["recording"]).tolist():
            mine = columns["recording"] == number
            columns["pid"] = np.where(mine, processes.keys(number, columns["pid"]), columns["pid"])
    _separate(trace, found, processes)
    trace.names = found.names
    trace.api_calls = None if found.api_calls is None else dict(found.api_calls)
    kept = one_activity(found.columns, infos)
    trace.notes += kept.notes
    give_back()
    matched = match(kept.columns)
    trace.launches, trace.work = typed_frame(LAUNCHES, matched.launches), matched.work
    trace.gpu = typed_frame(GPU, matched.gpu)
    ranges = sorted(
        ((m.ts + int(shift[number]), number, m) for number, m in found.ranges),
        key=lambda item: (item[0], -(item[2].dur or 0), item[2].text),
    )
    pids = [processes.key.get((number, m.pid), m.pid) for _, number, m in ranges]
    counts = kept.ranges([(pid, number) for pid, (_, number, _) in zip(pids, ranges, strict=True)])
    ranges, pids = list(compress(ranges, counts)), list(compress(pids, counts))
    trace.annotations = typed_frame(
        ANNOTATIONS,
        {
            "ts": np.array([ts for ts, _, _ in ranges], dtype=np.int64),
            "dur": np.array([-1 if m.dur is None else m.dur for *_, m in ranges], dtype=np.int64),
            "pid": np.array(pids, dtype=np.int64),
            "tid": np.array([m.tid for *_, m in ranges], dtype=np.int64),
            "text": np.array([m.text for *_, m in ranges], dtype=object),
        },
    )
    add_steps(trace)


def _separate(trace: Trace, found: Activity, processes: Processes) -> None:
    """Give processes without messages whose number another process has one of their own."""
    for recording, pid in strangers(found.columns, processes.key):
        number = processes.name_apart(recording, pid)
        trace.aliases[number] = pid
        for columns in found.columns.values():
            mine = (columns["recording"] == recording) & (columns["pid"] == pid)
            columns["pid"] = np.where(mine, number, columns["pid"])
