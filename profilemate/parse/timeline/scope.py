"""What every part of the timeline needs: the trace, the window, and how frames become batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.tables.base import numbers
from profilemate.parse.timeline.lanes import in_order, lanes
from profilemate.parse.timeline.tracks import Batch, Flows, Track, Tracks, Words
from profilemate.parse.trace.event_columns import COMMON_COLUMNS
from profilemate.parse.trace.trace import Trace

UNKNOWN = -1


@dataclass(slots=True)
class Scope:
    """One timeline in the making.

    Attributes:
        trace: What is shown.
        window: First and last ns to show, None for all.
        kernels: Whether GPU records are shown one by one.
        outside: Events that the window leaves out, by the name of their track.
    """

    trace: Trace
    window: tuple[int, int] | None = None
    kernels: bool = False
    tracks: Tracks = field(default_factory=Tracks)
    outside: Counter[str] = field(default_factory=Counter)

    def rows(self, track: Track, rows: Ints, ts: Ints, end: Ints | None = None) -> Ints:
        """Those rows that lie in the window, or reach into it; the others are counted."""
        if self.window is None:
            return rows
        first, last = self.window
        until = ts[rows] if end is None else np.maximum(end[rows], ts[rows])
        inside = (until >= first) & (ts[rows] <= last)
        if not inside.all():
            self.outside[" / ".join(track.path)] += int((~inside).sum())
        return rows[inside]


@dataclass(slots=True)
class Events:
    """Columns of slices or instants, one element per event; see `Batch`."""

    ts: Ints
    dur: Ints | None  # UNKNOWN where the recording does not see the end
    names: Words
    categories: Words
    args: Mapping[str, Any] = field(default_factory=dict)
    flows: Flows | None = None


def slices(
    scope: Scope, track: Track, events: Events, rows: Ints, *, nest: bool = False
) -> Iterator[Batch]:
    """Some of the events as slices, in as many lanes as they need.

    What has no end in the recording becomes an instant on the same track: nobody knows how long it
    took, and it must not swallow what comes after it.
    """
    ts = events.ts
    assert events.dur is not None
    end = ts + events.dur
    rows = scope.rows(track, rows, ts, end)
    ended = events.dur[rows] >= 0
    if not ended.all():
        yield _batch(track, events, rows[~ended][np.argsort(ts[rows[~ended]], kind="stable")], None)
        rows = rows[ended]
    rows = rows[in_order(ts[rows], end[rows])]
    lane = lanes(ts[rows], end[rows], nest=nest)
    for number in range(int(lane.max(initial=-1)) + 1):
        line = scope.tracks.lane(track, number) if number else track
        yield _batch(line, events, rows[lane == number], end)


def instants(scope: Scope, track: Track, events: Events, rows: Ints) -> Iterator[Batch]:
    """Some of the events as instants."""
    rows = scope.rows(track, rows, events.ts)
    if len(rows):
        order = np.argsort(events.ts[rows], kind="stable")
        args = dict(events.args)
        if events.dur is not None:
            args["dur_ns"] = pd.Series(events.dur).mask(events.dur < 0).astype("Int64")
        shown = Events(events.ts, None, events.names, events.categories, args)
        yield _batch(track, shown, rows[order], None)


def _batch(track: Track, events: Events, rows: Ints, end: Ints | None) -> Batch:
    return Batch(
        track,
        rows,
        events.ts,
        end,
        names=events.names,
        categories=events.categories,
        args=events.args,
        flows=events.flows,
    )


def samples(
    scope: Scope, track: Track, ts: Ints, values: npt.NDArray[Any], rows: Ints
) -> Iterator[Batch]:
    """Some of the values as samples of a counter, in order of time."""
    rows = rows[np.argsort(ts[rows], kind="stable")]
    shown = scope.rows(track, rows, ts)
    if scope.window is not None and len(shown) < len(rows):
        before = rows[ts[rows] < scope.window[0]]
        if len(before):  # what the counter says where the window opens
            opens = np.array([scope.window[0]])
            yield Batch(track, np.zeros(1, dtype=np.int64), opens, values=values[before[-1:]])
    if len(shown):
        yield Batch(track, shown, ts, values=values)


def counters(
    scope: Scope,
    group: Track,
    pid: int,
    frame: pd.DataFrame,
    ts: Ints,
    about: Mapping[str, tuple[str, str]],
    *,
    unit: str,
) -> Iterator[Batch]:
    """Columns of a process's rows as counters on one scale; none for a column that is not known.

    Args:
        scope: The timeline.
        group: Where they go.
        pid: The process.
        frame: The rows of all processes.
        ts: When each of them is sampled.
        about: Name and description of each counter, by its column.
        unit: What all of them count.
    """
    rows = of_pid(frame, pid)
    for name, (title, words) in about.items():
        values = column(frame, name)
        known = rows[values[rows] != UNKNOWN]
        if len(known):
            track = scope.tracks.make(
                "counter", title, group, unit=unit, share=unit, about=words, pid=pid
            )
            yield from samples(scope, track, ts, values, known)


def args_of(frame: pd.DataFrame, **more: Any) -> dict[str, Any]:
    """Every field of our events, as arguments."""
    named = (c for c in frame.columns if c not in (*COMMON_COLUMNS, "seq", "op"))
    return {c: frame[c] for c in named} | more


def column(frame: pd.DataFrame, name: str, unknown: int = UNKNOWN) -> Ints:
    """A column of integers."""
    return numbers(frame[name], unknown)


def of_pid(frame: pd.DataFrame, pid: int) -> Ints:
    """Rows of a process."""
    return np.flatnonzero(frame["pid"].to_numpy(dtype=np.int64) == pid)


def texts(series: pd.Series, spell: Callable[[str], str]) -> Words:
    """A text for each value of a column of strings; NA is spelled ''."""
    codes, known = pd.factorize(series)
    spelled = [spell(str(value)) for value in known]
    return Words([*spelled, ""], np.where(codes < 0, len(spelled), codes).astype(np.int64))
