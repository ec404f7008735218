"""From a process's monotonic clock to the recorder's, without being fooled by drift or delay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from profilemate.parse.columns.arrays import Ints

_BIN_NS = 1_000_000_000


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
    """

    at: Ints
    base: int
    extra: Ints

    @classmethod
    def fit(cls, t: Ints, ts: Ints) -> ClockMap:
        """Make the map from one or more messages, in any order."""
        offset = ts - t
        base, slope = int(offset.min()), 0.0
        least = _least_by_second(t, offset - base)
        span = int(t[least[-1]] - t[least[0]])
        # With a shorter span, some us of delay would make a slope that leads far away.
        if span >= 2 * _BIN_NS:
            slope = int(offset[least[-1]] - offset[least[0]]) / span
            # Without the drift it shows which message was delayed least, not which came first.
            drift = np.rint((t - t[least[0]]) * slope).astype(np.int64)
            least = _least_by_second(t, offset - base - drift)
        at, extra = t[least], offset[least] - base
        ends = np.array([t.min(), t.max()], dtype=np.int64)
        beyond = np.rint((ends - at[[0, -1]]) * slope).astype(np.int64) + extra[[0, -1]]
        return cls(
            np.concatenate([ends[:1], at, ends[1:]]),
            base,
            np.concatenate([beyond[:1], extra, beyond[1:]]),
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
