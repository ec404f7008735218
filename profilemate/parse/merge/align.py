"""Several recordings on one clock.

Wall clocks come first: an nsys session's start, Kineto's `baseTimeNanoseconds`, a sidecar's time
stamps. They agree as well as they were set. Where two recordings hold messages of processes that
share one CLOCK_MONOTONIC (all processes of a host), these say more: the same instant of that clock
is the same instant in both, to the microseconds that a recorder takes to see a message. What shares
no such clock stays where its wall clock puts it, and that is said.

Times of a recording with GPU activity are moved as a whole, so that no duration changes. One with
messages alone follows the clock that it shares, drift and all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from profilemate.parse.columns.arrays import NONE, Ints, groups
from profilemate.parse.events.message_index import MessageIndex
from profilemate.parse.merge.clock_map import ClockMap
from profilemate.parse.merge.process_identity import Processes
from profilemate.parse.recording.contract import SourceInfo
from profilemate.parse.trace.trace import Placement

BY_WALL = "wall clock"
UNPLACED = "not known: its begin is taken for the trace's"


@dataclass(slots=True)
class Aligned:
    """Where everything is on the trace's clock.

    Attributes:
        placements: Of each recording.
        zero: Wall clock of the trace's zero, None where no recording says.
        ts: Time stamp of every message on the trace's clock.
    """

    placements: list[Placement]
    zero: int | None
    ts: Ints

    @property
    def shift(self) -> Ints:
        """What to add to the times of each recording."""
        return np.array([p.shift for p in self.placements], dtype=np.int64)


@dataclass(slots=True)
class _Recording:
    """What a recording knows of the clocks of its processes."""

    number: int
    wall: int | None
    clocks: dict[int, ClockMap] = field(default_factory=dict)
    window: dict[int, tuple[int, int]] = field(default_factory=dict)


def align(
    messages: MessageIndex,
    processes: Processes,
    infos: Sequence[SourceInfo],
    heavy: Collection[int],
    walls: Sequence[int | None],
) -> Aligned:
    """Put recordings on one clock.

    Args:
        messages: Their messages.
        processes: The processes that these are of.
        infos: The recordings.
        heavy: Numbers of those with GPU activity: others are placed by them, not they by others.
        walls: Wall clock of the zero of each, None where nothing says.
    """
    zero = min(
        (w + i.begin for w, i in zip(walls, infos, strict=True) if w is not None), default=None
    )
    known = _clocks(messages, processes, walls, len(infos))
    best = sorted(known, key=lambda r: (r.number not in heavy, r.wall is None, r.number))
    placed: dict[int, Placement] = {}
    reference: dict[int, int] = {}  # recording of a placed one whose clock a light one follows
    for root in best:
        if root.number in placed:
            continue
        placed[root.number] = _by_wall(root, infos[root.number], zero)
        waiting = [root]
        for one in waiting:
            for other in best:
                if other.number in placed or not set(one.clocks) & set(other.clocks):
                    continue
                placed[other.number] = _by_clock(one, other, placed[one.number], infos, zero)
                reference[other.number] = one.number
                waiting.append(other)
    placements = [placed[number] for number in range(len(infos))]
    ts = messages.ts + np.array([p.shift for p in placements], dtype=np.int64)[messages.recording]
    for number, one_number in reference.items():
        if number not in heavy:
            _follow(messages, processes, known, (number, one_number), placements, ts)
    return Aligned(placements, zero, ts)


def _clocks(
    messages: MessageIndex, processes: Processes, walls: Sequence[int | None], count: int
) -> list[_Recording]:
    """For each recording, by which map each clock of its processes leads to its time stamps."""
    known = [_Recording(number, walls[number]) for number in range(count)]
    timed = np.flatnonzero(messages.t != NONE)
    domain = np.array(processes.domain, dtype=np.int64)[processes.of_message[timed]]
    for number, in_recording in groups(messages.recording[timed]):
        for clock, places in groups(domain[in_recording]):
            rows = timed[in_recording[places]]
            one = known[number]
            one.clocks[clock] = ClockMap.fit(messages.t[rows], messages.ts[rows])
            one.window[clock] = (int(messages.t[rows].min()), int(messages.t[rows].max()))
    return known


def _by_wall(one: _Recording, info: SourceInfo, zero: int | None) -> Placement:
    if one.wall is None or zero is None:
        return Placement(-info.begin, UNPLACED)
    return Placement(one.wall - zero, BY_WALL)


def _by_clock(
    one: _Recording,
    other: _Recording,
    placed: Placement,
    infos: Sequence[SourceInfo],
    zero: int | None,
) -> Placement:
    """Place a recording by a clock that it shares with one that is placed already."""
    shared = sorted(set(one.clocks) & set(other.clocks))
    differences, common = [], False
    for clock in shared:
        first = max(one.window[clock][0], other.window[clock][0])
        last = min(one.window[clock][1], other.window[clock][1])
        common |= first <= last
        points = np.concatenate([one.clocks[clock].at, other.clocks[clock].at])
        inside = points[(points >= first) & (points <= last)]
        # Without a common instant: the two ends that are closest to each other.
        at = inside if len(inside) else np.array(sorted((first, last)), dtype=np.int64)
        differences.append(one.clocks[clock](at) - other.clocks[clock](at))
    every = np.concatenate(differences)
    middle = int(np.median(every))
    error = int(np.abs(every - middle).max())
    shift = placed.shift + middle
    offset = None if other.wall is None or zero is None else shift - (other.wall - zero)
    return Placement(
        shift,
        f"monotonic clock, shared with {infos[one.number].path.name}"
        + ("" if common else ", which it does not overlap"),
        offset,
        error,
    )


def _follow(
    messages: MessageIndex,
    processes: Processes,
    known: Sequence[_Recording],
    pair: tuple[int, int],
    placements: Sequence[Placement],
    ts: Ints,
) -> None:
    """Move each time stamp of a recording without GPU activity as the clock it shares says."""
    light, reference = pair
    in_light = np.flatnonzero(messages.recording == light)
    domain = np.array(processes.domain, dtype=np.int64)[processes.of_message[in_light]]
    for clock, places in groups(domain):
        if clock not in known[light].clocks or clock not in known[reference].clocks:
            continue
        rows = in_light[places]
        own, theirs = known[light].clocks[clock], known[reference].clocks[clock]
        # From its time stamps back to the monotonic clock, and on from there.
        ts[rows] = theirs(own.back(messages.ts[rows])) + placements[reference].shift
