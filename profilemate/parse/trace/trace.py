"""What tables take: the event frames made of recordings, one per event kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

import pandas as pd

from profilemate.parse.gpu.work import GpuWork
from profilemate.parse.recording.contract import SourceInfo
from profilemate.parse.recording.places import Place
from profilemate.parse.trace.activity import ANNOTATIONS, GPU, LAUNCHES, typed_frame
from profilemate.parse.trace.event_columns import FRAME_NAMES, KV_COLUMNS, columns_of, empty_frame
from profilemate.parse.trace.kv_log import KvLog, empty_log

__all__ = [
    "FRAME_NAMES",
    "KV_COLUMNS",
    "Placement",
    "Trace",
    "columns_of",
    "empty_frame",
    "once_per_trace",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Placement:
    """How a recording was put on the trace's clock.

    Attributes:
        shift: What to add to its times, ns.
        how: By what, in words.
        offset: What that differs from what its wall clock says, ns; None without a wall clock.
        error: Largest difference that is left where it could be compared, None where it could not.
    """

    shift: int
    how: str
    offset: int | None = 0
    error: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Trace:
    """The decoded events of one or several recordings, on one clock.

    It is not changed after it was made: what differs is another trace (`dataclasses.replace`), so
    that what was computed of one (`once_per_trace`) stays true.

    Attributes:
        sources: The recordings.
        frames: A frame for every name in `FRAME_NAMES`, empty where nothing was recorded.
        kv: The block operations, a slice at a time: as a frame they may be gigabytes.
        start_unix_ns: Wall clock of `ts` 0, None where no recording says.
        window: First and last `ts` of the recordings, (0, 0) for an empty one.
        counts: Events read, by kind.
        unknown: Events of kinds that this version does not know, by kind.
        broken: Messages with our prefix that could not be read.
        lost_batches: Batches that are missing between the first and the last one of a process,
            by pid.
        unfinished: Long messages of which some part never came.
        clock_error_ns: How far the clock of a process, mapped onto the trace's, may be off; see
            `clock.ClockMap.error`.
        launches: Graph launches, with `activity.LAUNCHES`.
        gpu: GPU records, with `activity.GPU`; none where only `work` was asked for.
        work: The same records, folded per call; this is what tables are made of.
        annotations: Ranges of the engine's own, with `activity.ANNOTATIONS`; only of processes
            without steps of ours.
        names: Names by their number in `launches` and `gpu`.
        api_calls: API calls by name; None where no recording has an API trace.
        placements: How each recording was put on the trace's clock.
        duplicates: Messages left out because a better recording has them too, by recording.
        aliases: Pid of each process whose number in the frames is none, see `processes.ALIAS`.
        sources_of: Recordings that hold messages of a process, the best first, by process; of one
            without messages, those with its activity.
        places: Rank of each process that a recording names, by process.
        engine: The events of the engine that schedules for these processes, where they are not
            part of this trace: a trace of one rank has its own steps and the engine's KV cache.
        notes: What was found out when the recordings were put together, a sentence each.
        custom: A frame for every kind that somebody else's hook recorded, by its name without
            `custom.`: `ts`, `dur`, `pid`, `tid` and its fields; none is empty.
    """

    sources: list[SourceInfo]
    frames: Mapping[str, pd.DataFrame]
    kv: KvLog = field(default_factory=empty_log)
    start_unix_ns: int | None = None
    window: tuple[int, int] = (0, 0)
    counts: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    broken: int = 0
    lost_batches: dict[int, int] = field(default_factory=dict)
    unfinished: int = 0
    clock_error_ns: int = 0
    launches: pd.DataFrame = field(default_factory=lambda: typed_frame(LAUNCHES))
    gpu: pd.DataFrame = field(default_factory=lambda: typed_frame(GPU))
    work: GpuWork = field(default_factory=GpuWork)
    annotations: pd.DataFrame = field(default_factory=lambda: typed_frame(ANNOTATIONS))
    names: list[str] = field(default_factory=list)
    api_calls: dict[str, int] | None = None
    placements: list[Placement] = field(default_factory=list)
    duplicates: dict[int, int] = field(default_factory=dict)
    aliases: dict[int, int] = field(default_factory=dict)
    sources_of: dict[int, list[int]] = field(default_factory=dict)
    places: dict[int, Place] = field(default_factory=dict)
    engine: Trace | None = None
    notes: list[str] = field(default_factory=list)
    custom: dict[str, pd.DataFrame] = field(default_factory=dict)

    def only(self, pids: set[int]) -> Trace:
        """The same trace, restricted to the events of some processes."""

        def rows_of(frame: pd.DataFrame) -> pd.DataFrame:
            return frame[frame["pid"].isin(pids)].reset_index(drop=True)

        kv = self.kv.only(pids)
        frames = {n: rows_of(f) for n, f in self.frames.items()}
        custom = {n: rows_of(f) for n, f in self.custom.items() if f["pid"].isin(pids).any()}
        counts = {"kv": len(kv)} | {n: len(f) for n, f in frames.items()}
        counts |= {f"custom.{n}": len(f) for n, f in custom.items()}
        return replace(
            self,
            frames=frames,
            kv=kv,
            counts={name: count for name, count in counts.items() if count},
            lost_batches={p: n for p, n in self.lost_batches.items() if p in pids},
            launches=rows_of(self.launches),
            gpu=rows_of(self.gpu),
            work=self.work.only(pids),
            annotations=rows_of(self.annotations),
            custom=custom,
        )


def once_per_trace(compute: Callable[[Trace], T]) -> Callable[[Trace], T]:
    """A function of a trace that several tables ask for: it computes once for each trace.

    The answer is kept as long as the trace is there, and must not hold the trace itself.
    """
    answers: WeakKeyDictionary[Trace, T] = WeakKeyDictionary()

    @wraps(compute)
    def answer(trace: Trace) -> T:
        if trace not in answers:
            answers[trace] = compute(trace)
        return answers[trace]

    return answer
