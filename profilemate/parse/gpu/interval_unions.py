"""Intervals and folded work, by group: how many, from when to when, and the length of the union."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from profilemate.parse.columns.arrays import FOREVER, Columns, Ints


@dataclass(frozen=True, slots=True)
class Folded:
    """Intervals folded by group: one element per group.

    Attributes:
        count: Intervals.
        first: Smallest start, 0 for an empty group.
        last: Largest end, 0 for an empty group.
        busy: Length of the union.
    """

    count: Ints
    first: Ints
    last: Ints
    busy: Ints

    @property
    def span(self) -> Ints:
        """From the first start to the last end."""
        return self.last - self.first


def fold(group: Ints, groups: int, start: Ints, end: Ints) -> Folded:
    """Fold intervals by group; those of group -1 are left out."""
    kept = np.flatnonzero(group >= 0)
    order = kept[np.lexsort((end[kept], start[kept], group[kept]))]
    group, start, end = group[order], start[order], end[order]
    count = np.bincount(group, minlength=groups).astype(np.int64)
    first, last, busy = (np.zeros(groups, dtype=np.int64) for _ in range(3))
    if not len(order):
        return Folded(count, first, last, busy)
    opens = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    first[group[opens]] = start[opens]
    last[group[opens]] = np.maximum.reduceat(end, opens)
    # The largest end so far in the group: by rank, which leaves room for the group in 64 bits.
    ends, rank = np.unique(end, return_inverse=True)
    so_far = np.maximum.accumulate(group * len(ends) + rank) - group * len(ends)
    before = np.concatenate([[0], ends[so_far[:-1]]])
    before[opens] = start[opens]
    np.add.at(busy, group, np.maximum(0, end - np.maximum(start, before)))
    return Folded(count, first, last, busy)


def fold_work(group: Ints, groups: int, work: Columns, overlaps: Columns) -> Folded:
    """Fold rows of `WORK_COLUMNS` by group; the union is exact, see `parse.fold`.

    Args:
        group: The group of each row, -1 for none.
        groups: How many groups there are.
        work: The rows, by ascending `id`.
        overlaps: The overlaps of these rows.
    """
    mine = np.flatnonzero(group >= 0)
    of = group[mine]
    count, busy = np.zeros(groups, dtype=np.int64), np.zeros(groups, dtype=np.int64)
    first = np.full(groups, FOREVER, dtype=np.int64)
    last = np.full(groups, -FOREVER, dtype=np.int64)
    np.add.at(count, of, work["records"][mine])
    np.add.at(busy, of, work["busy"][mine])
    np.minimum.at(first, of, work["start"][mine])
    np.maximum.at(last, of, work["end"][mine])
    first[count == 0] = last[count == 0] = 0
    over = group[np.searchsorted(work["id"], overlaps["row"])]
    busy += fold(over, groups, overlaps["start"], overlaps["end"]).busy
    return Folded(count, first, last, busy)
