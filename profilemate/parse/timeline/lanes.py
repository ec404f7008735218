"""Which slices can share a line.

A track of a viewer holds slices that lie beside each other, or inside each other: what crosses is
lost there or drawn wrongly, so it goes into a lane of its own.
"""

from __future__ import annotations

import numpy as np

from profilemate.parse.columns.arrays import Ints


def in_order(ts: Ints, end: Ints) -> Ints:
    """Order of slices on a track: by begin; of those that begin together, the longest first."""
    return np.lexsort((-end, ts))


def lanes(ts: Ints, end: Ints, *, nest: bool = False) -> Ints:
    """The lane of each slice, from 0; slices come as `in_order` gives them.

    Args:
        ts: Begin of each.
        end: End of each, which does not belong to it.
        nest: Slices inside each other may share a lane, as calls inside each other do.
    """
    lane = np.zeros(len(ts), dtype=np.int64)
    if len(ts) < 2 or (ts[1:] >= np.maximum.accumulate(end)[:-1]).all():
        return lane
    if not nest:
        _beside(ts.tolist(), end.tolist(), lane)
    else:
        _inside(ts.tolist(), end.tolist(), lane)
    return lane


def _beside(ts: list[int], end: list[int], lane: Ints) -> None:
    free: list[int] = []  # where each lane is free again
    for i, (begin, stop) in enumerate(zip(ts, end, strict=True)):
        for number, at in enumerate(free):
            if at <= begin:
                free[number] = stop
                lane[i] = number
                break
        else:
            lane[i] = len(free)
            free.append(stop)


def _inside(ts: list[int], end: list[int], lane: Ints) -> None:
    stacks: list[list[int]] = []  # ends of the open slices of each lane, the innermost last
    for i, (begin, stop) in enumerate(zip(ts, end, strict=True)):
        for number, stack in enumerate(stacks):
            while stack and stack[-1] <= begin:
                stack.pop()
            if not stack or stop <= stack[-1]:
                stack.append(stop)
                lane[i] = number
                break
        else:
            lane[i] = len(stacks)
            stacks.append([stop])
