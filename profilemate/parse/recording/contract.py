"""What readers give: a `Recording`, which is facts about a file, and the markers in it.

`decode` makes a `Trace` of it. Nothing here needs pandas, whose start takes as long as a reader
needs for half a gigabyte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

from profilemate.parse.recording.activity import ActivitySink
from profilemate.parse.recording.places import Place


class Marker(NamedTuple):
    """One message of ours as the recorder stored it.

    `ts` is in ns since the recording's own zero; `dur` is None for an instant and for a range
    that the recording does not see the end of.
    """

    ts: int
    dur: int | None
    pid: int
    tid: int
    text: str


class SourceKind(StrEnum):
    """What a recording is. The values are the words for it, in sentences and in metadata.json."""

    NSYS_REPORT = "nsys report"
    NSYS_SQLITE = "nsys sqlite export"
    NSYS_PARQUET = "nsys parquet export"
    TORCH = "torch profiler trace"
    TORCH_WITHOUT_STEPS = (
        "torch profiler trace without model steps (a front end or another program)"
    )
    SIDECAR = "profilemate sidecar"

    @property
    def by_torch(self) -> bool:
        """Whether torch's profiler wrote it."""
        return self in (SourceKind.TORCH, SourceKind.TORCH_WITHOUT_STEPS)

    @classmethod
    def named(cls, words: str | None) -> SourceKind | None:
        """The kind that is called so, None for what another version may have known."""
        return next((kind for kind in cls if kind == words), None)


class Silence(str):
    """A note that says that a recording holds no messages of ours.

    It is a type of its own because it is no loss where another recording has the messages of the
    same processes: see `merge.sources`.
    """

    __slots__ = ()


@dataclass(slots=True)
class SourceInfo:
    """Facts about one recording, for `metadata.json` and for the clock.

    Attributes:
        kind: What it is.
        size: Bytes on disk.
        recorder: Program and version that wrote it, where the file says so.
        start_unix_ns: Wall clock of the recording's zero, None where the file does not say.
        window: First and last time stamp of anything recorded, ns since the recording's zero.
        begin: Where the recording began, ns since its zero: not 0 where the zero is a moment long
            before, as in Kineto's traces.
        notes: What was dropped, clipped, guessed or is missing, a sentence each.
        place: The rank it is of, by vLLM's name of the file or else by what its recorder says.
        labels: Of a file that was merged from several: the text that it has for each process.
        untimed: GPU records whose times could not be collected: they are left out.
    """

    path: Path
    kind: SourceKind
    size: int
    recorder: str | None = None
    start_unix_ns: int | None = None
    window: tuple[int, int] | None = None
    begin: int = 0
    notes: list[str] = field(default_factory=list)
    place: Place | None = None
    labels: dict[int, str] = field(default_factory=dict)
    untimed: int = 0


class Recording(Protocol):
    """An opened recording.

    Each of its three streams may be read once and need not be in order of time: `markers` first,
    to its end, then the others, if anybody wants them.
    """

    @property
    def info(self) -> SourceInfo:
        """Facts about the file; complete once `markers` has been read to its end."""

    def markers(self) -> Iterator[Marker]:
        """Every message with our prefix, in any NVTX domain."""

    def annotations(self) -> Iterator[Marker]:
        """Ranges of others that begin with one of `activity.ANNOTATION_PREFIXES`."""

    def activity(self, sink: ActivitySink) -> None:
        """Give the sink every graph launch and every GPU record, and count all API calls."""
