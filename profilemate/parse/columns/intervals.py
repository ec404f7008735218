"""Ranges of time on lanes (threads), and in which of them a point of time lies."""

from __future__ import annotations

import numpy as np

from profilemate.parse.columns.arrays import FOREVER, Ints


def range_ends(lane: Ints, begin: Ints, dur: Ints) -> Ints:
    """When ranges end; one whose end was not seen (`dur` below 0) goes on until the next one."""
    order = np.lexsort((begin, lane))
    follows = np.full(len(order), FOREVER, dtype=np.int64)
    same = np.flatnonzero(lane[order[1:]] == lane[order[:-1]])
    follows[order[same]] = begin[order[same + 1]] - 1
    return np.where(dur < 0, follows, begin + dur)


def inside(lane: Ints, begin: Ints, end: Ints, point_lane: Ints, point: Ints) -> Ints:
    """The innermost range that each point lies in, as its number, -1 for none.

    Ranges of a lane (a thread) lie inside or outside each other, as push/pop ranges do. Begin and
    end belong to a range.
    """
    if not len(begin):
        return np.full(len(point), -1, dtype=np.int64)
    parent = last_begun(lane, begin, end, lane, begin, own=True)
    found = last_begun(lane, begin, end, point_lane, point, own=False)
    while (over := np.flatnonzero((found >= 0) & (point > end[found]))).size:
        found[over] = parent[found[over]]
    return found


def last_begun(
    lane: Ints, begin: Ints, end: Ints, point_lane: Ints, point: Ints, *, own: bool
) -> Ints:
    """The range of the same lane that began last before each point, as its number, -1 for none.

    One sort answers it: ranges and points lie in one list by (lane, time), and the last range seen
    before a point is its answer.

    Args:
        lane: Lane of each range, length n; begin and end alike, ns.
        begin: Begin of each range.
        end: End of each range.
        point_lane: Lane of each point.
        point: The points, ns.
        own: The points are the ranges' own begins, in their order, and no range answers for
            itself: the one around it is asked for.
    """
    count = len(begin)
    lanes = np.concatenate([lane, point_lane])
    times = np.concatenate([begin, point])
    number = np.concatenate([np.arange(count), np.arange(len(point))])
    is_point = np.arange(len(times)) >= count
    if own:  # the points are the ranges: each comes just before the range that it stands for
        order = np.lexsort((~is_point, number, -np.concatenate([end, end]), times, lanes))
    else:  # at the same instant the longest range comes first, and the point last
        longest = np.concatenate([-end, np.zeros(len(point), dtype=np.int64)])
        order = np.lexsort((longest, is_point, times, lanes))
    is_range = order < count
    position = np.where(is_range, np.arange(len(order)), -1)
    latest = np.maximum.accumulate(position) if len(order) else position
    at_range = np.where(latest >= 0, order[np.maximum(latest, 0)], -1)
    same = (at_range >= 0) & (lanes[np.maximum(at_range, 0)] == lanes[order])
    result = np.full(len(point), -1, dtype=np.int64)
    points = order[~is_range] - count
    result[points] = np.where(same, at_range, -1)[~is_range]
    return result
