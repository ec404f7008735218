"""The shapes of a timeline: tracks, and batches of slices, instants or samples on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Ints

TrackKind = Literal["group", "slices", "instants", "counter"]


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One line of the timeline, or a group of lines.

    Attributes:
        number: Unique in its timeline, from 1.
        name: What a person reads. Lanes of one track share it: a viewer shows them as one.
        kind: What is on it.
        parent: The group it belongs to.
        rank: Its place among its siblings.
        unit: Of a counter, for instance `blocks`.
        share: Counters of a group with the same word share one scale.
        about: A sentence for whoever asks what this is.
        lane: 0, or the number of a further lane for slices that cross those of the lanes before.
        pid: Process that the events are of, where they are of one.
    """

    number: int
    name: str
    kind: TrackKind
    parent: Track | None = None
    rank: int = 0
    unit: str = ""
    share: str = ""
    about: str = ""
    lane: int = 0
    pid: int | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """Its name, after those of its groups."""
        return (*(self.parent.path if self.parent else ()), self.name)


class Tracks:
    """Makes tracks, each with a number of its own and a rank in order of making."""

    def __init__(self) -> None:
        self._numbers: Iterator[int] = count(1)

    def make(self, kind: TrackKind, name: str, parent: Track | None = None, **more: Any) -> Track:
        """A new track, shown after all that were made before it."""
        number = next(self._numbers)
        return Track(number, name, kind, parent, **{"rank": number, **more})

    def lane(self, track: Track, lane: int) -> Track:
        """A further lane of a track."""
        return Track(
            next(self._numbers),
            track.name,
            track.kind,
            track.parent,
            track.rank,
            about=track.about,
            lane=lane,
            pid=track.pid,
        )


@dataclass(frozen=True, slots=True)
class Words:
    """A text for each of n events.

    Attributes:
        texts: The distinct texts.
        codes: The text of each event, as an index into `texts`; length n.
    """

    texts: Sequence[str]
    codes: Ints

    @classmethod
    def same(cls, text: str, length: int) -> Words:
        """The same text for every event."""
        return cls([text], np.zeros(length, dtype=np.int64))

    @classmethod
    def spelled(cls, spell: Callable[..., str], *columns: Ints) -> Words:
        """A text made of the integers in some columns, spelled once for each distinct row."""
        rows, codes = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
        return cls([spell(*row) for row in rows.tolist()], codes.reshape(-1).astype(np.int64))


@dataclass(frozen=True, slots=True)
class Flows:
    """Flow ids of each event: `ids[start[i]:start[i + 1]]`; equal ids are joined by an arrow."""

    start: Ints
    ids: Ints

    @classmethod
    def single(cls, ids: Ints) -> Flows:
        """One id for each event, 0 for none."""
        return cls.grouped(np.flatnonzero(ids), ids[ids != 0], len(ids))

    @classmethod
    def grouped(cls, event: Ints, ids: Ints, events: int) -> Flows:
        """Ids by the number of the event they belong to."""
        order = np.argsort(event, kind="stable")
        counts = np.bincount(event, minlength=events)
        return cls(np.concatenate([[0], np.cumsum(counts)]), ids[order])

    def joined(self, other: Flows) -> Flows:
        """Both sets of ids for the same events."""
        events = len(self.start) - 1
        owner = [np.repeat(np.arange(events), np.diff(f.start)) for f in (self, other)]
        ids = np.concatenate([self.ids, other.ids])
        return Flows.grouped(np.concatenate(owner), ids, events)

    def take(self, rows: Ints) -> Flows:
        """Those of some events, in that order."""
        first, counts = self.start[rows], np.diff(self.start)[rows]
        start = np.concatenate([[0], np.cumsum(counts)])
        at = np.arange(start[-1]) + np.repeat(first - start[:-1], counts)
        return Flows(start, self.ids[at])


@dataclass(slots=True)
class Batch:
    """Events of one track, in order of time; of slices that begin together, the longest first.

    Columns are of any length; `rows` says which of their elements are meant, in which order, so
    that nothing need be copied for it.

    Attributes:
        track: Where they go.
        rows: Which elements of the columns below, one per event.
        ts: Begin, ns since the start of the trace.
        end: End of each slice, ns; None for instants and samples.
        values: Of a counter.
        names: Of slices and instants.
        categories: Of slices and instants.
        args: Columns of arguments: numpy arrays or pandas series; what is NA is left out.
        flows: Of slices.
    """

    track: Track
    rows: Ints
    ts: Ints
    end: Ints | None = None
    values: npt.NDArray[Any] | None = None
    names: Words | None = None
    categories: Words | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    flows: Flows | None = None
