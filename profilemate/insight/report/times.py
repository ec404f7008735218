"""Time series: fewer points that keep every extreme, and figures by interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Ints

Floats = npt.NDArray[np.float64]

MOST_BUCKETS = 1500
"""Of a thinned line: about one per pixel of a wide screen."""
MOST_INTERVALS = 180
"""Of bars and tables over time."""


def thin(times: Floats, values: Floats, buckets: int = MOST_BUCKETS) -> Ints:
    """Which points to draw: of equal spans of time the first, last, smallest and largest each.

    A line through them covers the same pixels as one through all points.

    Args:
        times: In ascending order, as long as `values`.
        values: No NaN.
        buckets: Spans; a series of no more than four times as many points stays whole.
    """
    if len(times) <= 4 * buckets:
        return np.arange(len(times))
    span = max(times[-1] - times[0], np.finfo(np.float64).tiny)
    bucket = np.minimum((times - times[0]) / span * buckets, buckets - 1).astype(np.int64)
    first = np.flatnonzero(np.diff(bucket, prepend=-1))
    last = np.append(first[1:], len(times)) - 1
    # By bucket, then by value: the ends of each run are the smallest and the largest.
    order = np.lexsort((values, bucket))
    return np.unique(np.concatenate([first, last, order[first], order[last]]))


@dataclass(frozen=True, slots=True)
class Intervals:
    """Equal intervals of a round length, the first and the last of which may be cut."""

    edges: Floats
    length: float

    def __len__(self) -> int:
        return len(self.edges) - 1

    @property
    def begin(self) -> Floats:
        """Begin of each, in seconds."""
        return self.edges[:-1]

    @property
    def end(self) -> Floats:
        """End of each, in seconds."""
        return self.edges[1:]

    def of(self, times: Floats) -> Ints:
        """In which one each time lies; the end of the last belongs to it."""
        place = np.searchsorted(self.edges, times, side="right") - 1
        return np.clip(place, 0, len(self) - 1)

    def count(self, times: Floats, weights: Floats | None = None) -> Floats:
        """Number of times in each, or the sum of their weights."""
        return np.bincount(self.of(times), weights, minlength=len(self)).astype(np.float64)


def intervals(begin: float, end: float, most: int = MOST_INTERVALS) -> Intervals:
    """Intervals of 1, 2 or 5 times a power of ten seconds, at most about `most` of them."""
    span = end - begin
    if span <= 0:
        return Intervals(np.array([begin, begin + 1.0]), 1.0)
    power = 10.0 ** math.floor(math.log10(span / most))
    length = next(k * power for k in (1, 2, 5, 10) if span / (k * power) <= most)
    first, last = math.floor(begin / length) + 1, math.ceil(end / length) - 1
    digits = max(0, -math.floor(math.log10(length)))  # 0.1 * 3 is not 0.3
    inner = [round(i * length, digits) for i in range(first, last + 1)]
    return Intervals(np.array([begin, *(e for e in inner if begin < e < end), end]), length)


def step_means(times: Floats, values: Floats, edges: Floats) -> Floats:
    """Mean over time, in each interval, of a value that holds until the next one comes.

    NaN for an interval that ends before the first value.
    """
    start = np.maximum(edges, times[0])  # nothing is known before the first value
    area = np.concatenate([[0.0], np.cumsum(np.diff(times) * values[:-1])])
    place = np.maximum(np.searchsorted(times, start, side="right") - 1, 0)
    sums = area[place] + values[place] * (start - times[place])
    length = np.diff(start)
    return np.where(length > 0, np.diff(sums) / np.where(length > 0, length, 1.0), np.nan)


def extremes(times: Floats, values: Floats, spans: Intervals) -> tuple[Floats, Floats]:
    """Smallest and largest value in force in each interval, the one that it begins with too."""
    low, high = np.full(len(spans), np.nan), np.full(len(spans), np.nan)
    place = spans.of(times)
    np.fmin.at(low, place, values)
    np.fmax.at(high, place, values)
    carried = np.searchsorted(times, spans.begin, side="right") - 1
    known = carried >= 0
    low[known] = np.fmin(low[known], values[carried[known]])
    high[known] = np.fmax(high[known], values[carried[known]])
    return low, high
