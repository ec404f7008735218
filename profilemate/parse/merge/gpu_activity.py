"""What recordings hold besides messages: GPU work and API calls, put on one clock, attributed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
import pandas as pd

from profilemate.parse.columns.allocator import give_back
from profilemate.parse.columns.arrays import Ints, groups
from profilemate.parse.events.messages import Messages
from profilemate.parse.gpu.collected import Collected
from profilemate.parse.gpu.launches import match
from profilemate.parse.gpu.work import GpuWork
from profilemate.parse.ingest.read_one import Read
from profilemate.parse.merge.duplicates import OneActivity, one_activity, strangers
from profilemate.parse.merge.process_identity import Processes
from profilemate.parse.recording.contract import Marker, SourceInfo
from profilemate.parse.trace.activity import ANNOTATIONS, GPU, LAUNCHES, typed_frame

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


def joined_reads(reads: Sequence[Read]) -> tuple[Messages, Activity]:
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


@dataclass(frozen=True, slots=True)
class AttributedActivity:
    """Activity on the trace's clock, each call and GPU record once, records with their launches.

    Attributes:
        launches, gpu, work, annotations, names, api_calls: See `Trace`.
        notes: What was left out, a sentence each.
    """

    launches: pd.DataFrame
    gpu: pd.DataFrame
    work: GpuWork
    annotations: pd.DataFrame
    names: list[str]
    api_calls: dict[str, int] | None
    notes: list[str]


def attribute(
    activity: Activity, shift: Ints, processes: Processes, infos: Sequence[SourceInfo]
) -> AttributedActivity:
    """Put activity on the trace's clock, and GPU records to their launches.

    Args:
        activity: The activity of the recordings; its columns are used up.
        shift: What to add to the times of each recording, ns.
        processes: The processes of the trace; those without messages whose number another process
            has too get one of their own.
        infos: The recordings.
    """
    processes.name_apart_by_place(callers_of(activity), infos)
    for kind, names in _TIMES.items():
        columns = activity.columns[kind]
        for name in names:
            columns[name] = columns[name] + shift[columns["recording"]]
        for number in np.unique(columns["recording"]).tolist():
            keys = processes.keys(number, columns["pid"])
            columns["pid"] = np.where(columns["recording"] == number, keys, columns["pid"])
    for recording, pid in strangers(activity.columns, processes.key):
        key = processes.name_apart(recording, pid)
        for columns in activity.columns.values():
            of_stranger = (columns["recording"] == recording) & (columns["pid"] == pid)
            columns["pid"] = np.where(of_stranger, key, columns["pid"])
    once = one_activity(activity.columns, infos)
    give_back()
    matched = match(once.columns)
    return AttributedActivity(
        launches=typed_frame(LAUNCHES, matched.launches),
        gpu=typed_frame(GPU, matched.gpu),
        work=matched.work,
        annotations=_annotations(activity.ranges, shift, processes, once),
        names=activity.names,
        api_calls=None if activity.api_calls is None else dict(activity.api_calls),
        notes=once.notes,
    )


def callers_of(activity: Activity) -> dict[int, set[int]]:
    """The processes with API calls or ranges in each recording, as that recording calls them."""
    found: dict[int, set[int]] = {}
    for kind in ("launches", "starts"):
        columns = activity.columns[kind]
        for recording, rows in groups(columns["recording"]):
            found.setdefault(recording, set()).update(np.unique(columns["pid"][rows]).tolist())
    for recording, marker in activity.ranges:
        found.setdefault(recording, set()).add(marker.pid)
    return {recording: pids - {-1} for recording, pids in found.items()}


def _annotations(
    ranges: Sequence[tuple[int, Marker]], shift: Ints, processes: Processes, once: OneActivity
) -> pd.DataFrame:
    """The frame `Trace.annotations`.

    Args:
        ranges: Annotations of the engine's own, with the number of their recording, on its clock.
        shift: What to add to the times of each recording, ns.
        processes: The processes of the trace.
        once: Which recording's activity of each process counts.
    """
    placed = sorted(
        ((m.ts + int(shift[number]), number, m) for number, m in ranges),
        key=lambda item: (item[0], -(item[2].dur or 0), item[2].text),
    )
    pids = [processes.key.get((number, m.pid), m.pid) for _, number, m in placed]
    counts = once.ranges([(pid, number) for pid, (_, number, _) in zip(pids, placed, strict=True)])
    placed, pids = list(compress(placed, counts)), list(compress(pids, counts))
    return typed_frame(
        ANNOTATIONS,
        {
            "ts": np.array([ts for ts, _, _ in placed], dtype=np.int64),
            "dur": np.array([-1 if m.dur is None else m.dur for *_, m in placed], dtype=np.int64),
            "pid": np.array(pids, dtype=np.int64),
            "tid": np.array([m.tid for *_, m in placed], dtype=np.int64),
            "text": np.array([m.text for *_, m in placed], dtype=object),
        },
    )
