"""From a process's monotonic clock to the recorder's, without being fooled by drift or delay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from profilemate.parse.columns.arrays import Ints

_BIN_NS = 1_000_000_000
_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class ClockMap:
    """Maps CLOCK_MONOTONIC of one process (ns) to the time stamps of one recording (ns).

    The two clocks run at slightly different speeds, so their offset is not one number. A message
    says when it was about to be emitted (`t`), the recorder when it saw it (`ts`): `ts - t` is
    the offset plus a delay that is never negative. Of each second the smallest is taken, which is
    the message that was delayed least; between those messages the offset is interpolated. Before
    the first and after the last, where it can be less than a second to the end of the messages,
    it goes on as it changed between these two, or is constant if they are close together.

    Attributes:
        at: Monotonic times of the messages that were delayed least, and of the first and last.
        base: An offset in whole ns, so that what is interpolated are small numbers.
        extra: Their offsets, less `base`.
        error: How far it may be off, in ns. How long some message was delayed is no part of it: of
            each second and its neighbours the two that were delayed least are two readings of one
            offset, and this is the most by which two such readings, or the one that was taken and
            the best of them, differ. 0 for a single message, which nothing can be held against.
    """

    at: Ints
    base: int
    extra: Ints
    error: int = 0

    @classmethod
    def fit(cls, t: Ints, ts: Ints) -> ClockMap:
        """Make the map from one or more messages, in any order."""
        offset = ts - t
        base, slope = int(offset.min()), 0.0
        delay = offset - base
        least = _least_by_second(t, delay)
        span = int(t[least[-1]] - t[least[0]])
        # With a shorter span, some us of delay would make a slope that leads far away.
        if span >= 2 * _BIN_NS:
            slope = int(offset[least[-1]] - offset[least[0]]) / span
            # Without the drift it shows which message was delayed least, not which came first.
            drift = np.rint((t - t[least[0]]) * slope).astype(np.int64)
            delay = delay - drift
            least = _least_by_second(t, delay)
        at, extra = t[least], offset[least] - base
        ends = np.array([t.min(), t.max()], dtype=np.int64)
        beyond = np.rint((ends - at[[0, -1]]) * slope).astype(np.int64) + extra[[0, -1]]
        return cls(
            np.concatenate([ends[:1], at, ends[1:]]),
            base,
            np.concatenate([beyond[:1], extra, beyond[1:]]),
            _disagreement(t, delay),
        )

    def __call__(self, t: Ints) -> Ints:
        """The recorder's time at some monotonic times."""
        # Relative to the first: a double holds no more than 2**53 ns, 104 days, to the ns.
        start = self.at[0]
        extra = np.interp(t - start, self.at - start, self.extra)
        mapped: Ints = t + self.base + np.rint(extra).astype(np.int64)
        return mapped

    def back(self, ts: Ints) -> Ints:
        """The monotonic times at some times of the recorder, to the ns or two."""
        t = ts - self.base - int(self.extra[0])
        # The offset changes by some us a second: two rounds are exact.
        for _ in range(3):
            t = t + ts - self(t)
        return t


def _least_by_second(t: Ints, delay: Ints) -> Ints:
    """Which message has the smallest delay in each second."""
    second = (t - t.min()) // _BIN_NS
    order = np.lexsort((t, delay, second))
    return order[np.unique(second[order], return_index=True)[1]]


def _disagreement(t: Ints, delay: Ints) -> int:
    """See `ClockMap.error`."""
    second = (t - t.min()) // _BIN_NS
    order = np.lexsort((delay, second))
    number, first = np.unique(second[order], return_index=True)
    best = delay[order[first]]
    after = np.minimum(first + 1, len(order) - 1)
    alone = (after == first) | (second[order[after]] != number)
    next_best = np.where(alone, _NONE, delay[order[after]])
    readings = np.full((6, len(number)), _NONE)
    readings[0], readings[1] = best, next_best
    touching = np.diff(number) == 1
    readings[2, 1:] = np.where(touching, best[:-1], _NONE)
    readings[3, 1:] = np.where(touching, next_best[:-1], _NONE)
    readings[4, :-1] = np.where(touching, best[1:], _NONE)
    readings[5, :-1] = np.where(touching, next_best[1:], _NONE)
    readings.sort(axis=0)
    least, other = readings[0], np.where(readings[1] == _NONE, readings[0], readings[1])
    return int((np.maximum(other, best) - least).max())
