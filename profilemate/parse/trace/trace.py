"""What tables take: the event frames made of recordings, one per event kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from profilemate.parse.gpu.work import GpuWork
from profilemate.parse.recording.contract import SourceInfo
from profilemate.parse.trace.activity import ANNOTATIONS, GPU, LAUNCHES, typed_frame
from profilemate.parse.trace.event_columns import FRAME_NAMES, KV_COLUMNS, columns_of, empty_frame
from profilemate.parse.trace.kv_log import FrameLog, Log

__all__ = [
    "FRAME_NAMES",
    "KV_COLUMNS",
    "Frames",
    "Placement",
    "Trace",
    "columns_of",
    "empty_frame",
]


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


class Frames(MutableMapping[str, pd.DataFrame]):
    """Frames by name. `kv` is a log, of which a frame is made when one asks for it."""

    def __init__(self, frames: Mapping[str, pd.DataFrame], log: Log | None = None) -> None:
        self._frames = dict(frames)
        kv = self._frames.pop("kv", None)
        self.log: Log = log or FrameLog(empty_frame("kv") if kv is None else kv)

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self.log.frame() if name == "kv" else self._frames[name]

    def __setitem__(self, name: str, frame: pd.DataFrame) -> None:
        if name == "kv":
            self.log = FrameLog(frame)
        else:
            self._frames[name] = frame

    def __delitem__(self, name: str) -> None:
        del self._frames[name]

    def __iter__(self) -> Iterator[str]:
        yield "kv"
        yield from self._frames

    def __len__(self) -> int:
        return 1 + len(self._frames)

    def others(self) -> Mapping[str, pd.DataFrame]:
        """All but `kv`."""
        return self._frames


@dataclass(slots=True)
class Trace:
    """The decoded events of one or several recordings, on one clock.

    Attributes:
        sources: The recordings.
        frames: A frame for every name in `FRAME_NAMES`, empty where nothing was recorded; see
            `kv` for the largest one.
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
        sources_of: Recordings that hold messages of a process, the best first, by process.
        engine: The events of the engine that schedules for these processes, where they are not
            part of this trace: a trace of one rank has its own steps and the engine's KV cache.
        notes: What was found out when the recordings were put together, a sentence each.
        custom: A frame for every kind that somebody else's hook recorded, by its name without
            `custom.`: `ts`, `dur`, `pid`, `tid` and its fields; none is empty.
        derived: What is computed from the trace when it is first asked for, by name.
    """

    sources: list[SourceInfo]
    frames: MutableMapping[str, pd.DataFrame]
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
    engine: Trace | None = None
    notes: list[str] = field(default_factory=list)
    custom: dict[str, pd.DataFrame] = field(default_factory=dict)
    derived: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.frames, Frames):
            self.frames = Frames(self.frames)

    @property
    def kv(self) -> Log:
        """The block operations, for which there are slices: as a frame they may be gigabytes."""
        assert isinstance(self.frames, Frames)
        return self.frames.log

    def only(self, pids: set[int]) -> Trace:
        """The same trace, restricted to the events of some processes."""

        def mine(frame: pd.DataFrame) -> pd.DataFrame:
            return frame[frame["pid"].isin(pids)].reset_index(drop=True)

        assert isinstance(self.frames, Frames)
        log = self.kv.only(pids)
        frames = Frames({n: mine(f) for n, f in self.frames.others().items()}, log)
        custom = {n: mine(f) for n, f in self.custom.items() if f["pid"].isin(pids).any()}
        return Trace(
            self.sources,
            frames,
            self.start_unix_ns,
            self.window,
            ({"kv": len(log)} if len(log) else {})
            | {n: len(f) for n, f in frames.others().items() if len(f)}
            | {f"custom.{n}": len(f) for n, f in custom.items()},
            self.unknown,
            self.broken,
            {p: n for p, n in self.lost_batches.items() if p in pids},
            self.unfinished,
            self.clock_error_ns,
            mine(self.launches),
            mine(self.gpu),
            self.work.only(pids),
            mine(self.annotations),
            self.names,
            self.api_calls,
            self.placements,
            self.duplicates,
            self.aliases,
            self.sources_of,
            self.engine,
            self.notes,
            custom,
        )
