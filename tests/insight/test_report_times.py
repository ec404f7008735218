"""Thinning and intervals of the report, against what a loop says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profilemate.insight.report.times import extremes, intervals, step_means, thin

VALUES = st.lists(st.integers(0, 50).map(float), min_size=1, max_size=300)


@given(VALUES, st.integers(1, 30))
def test_thinning_keeps_the_extremes_of_every_stretch(values: list[float], buckets: int) -> None:
    times = np.arange(len(values), dtype=np.float64)
    kept = thin(times, np.array(values), buckets)
    assert sorted(set(kept.tolist())) == kept.tolist()
    assert {0, len(values) - 1} <= set(kept.tolist())
    if len(values) <= 4 * buckets:
        assert len(kept) == len(values)
        return
    assert len(kept) <= 4 * buckets
    span = times[-1] - times[0]
    place = [min(int((t - times[0]) / span * buckets), buckets - 1) for t in times]
    for _, group in itertools.groupby(range(len(values)), key=lambda i: place[i]):
        here = list(group)
        drawn = [values[i] for i in kept if i in here]
        assert min(drawn) == min(values[i] for i in here)
        assert max(drawn) == max(values[i] for i in here)
        assert {here[0], here[-1]} <= set(kept.tolist())


@given(st.floats(0, 1e4), st.floats(1e-4, 1e5), st.integers(5, 200))
def test_intervals_are_round_and_cover_everything(begin: float, span: float, most: int) -> None:
    spans = intervals(begin, begin + span, most)
    assert (spans.edges[0], spans.edges[-1]) == (begin, begin + span)
    assert (np.diff(spans.edges) > 0).all()
    assert len(spans) <= most + 2
    mantissa = spans.length / 10 ** math.floor(math.log10(spans.length) + 1e-9)
    assert min(abs(mantissa - k) for k in (1, 2, 5, 10)) < 1e-6
    inner = spans.edges[1:-1] / spans.length
    assert np.allclose(inner, np.round(inner), atol=1e-6)


def test_intervals_of_nothing() -> None:
    assert len(intervals(5.0, 5.0)) == 1


@given(st.lists(st.floats(0, 10), min_size=0, max_size=50), st.integers(3, 40))
def test_every_event_is_counted_once(times: list[float], most: int) -> None:
    spans = intervals(0.0, 10.0, most)
    counts = spans.count(np.array(times))
    assert counts.sum() == len(times)
    for i, (begin, end) in enumerate(itertools.pairwise(spans.edges)):
        last = i == len(spans) - 1
        assert counts[i] == sum(begin <= t < end or (last and t == end) for t in times)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.integers(0, 100)),
        min_size=1,
        max_size=30,
        unique_by=lambda p: p[0],
    )
)
def test_mean_and_extremes_of_a_value_that_holds(points: list[tuple[int, int]]) -> None:
    points.sort()
    times = np.array([t for t, _ in points], dtype=np.float64)
    values = np.array([v for _, v in points], dtype=np.float64)
    spans = intervals(0.0, 100.0, 10)
    means = step_means(times, values, spans.edges)
    low, high = extremes(times, values, spans)

    def at(t: float) -> float | None:
        before = [v for when, v in points if when <= t]
        return float(before[-1]) if before else None

    # All times are whole seconds: the value is constant within each.
    for i in range(len(spans)):
        begin, end = int(spans.begin[i]), int(spans.end[i])
        held = [v for t in range(begin, end) if (v := at(t)) is not None]
        if not held:
            assert np.isnan(means[i])
            assert np.isnan(low[i])
            continue
        assert means[i] == pytest.approx(sum(held) / len(held))
        assert (low[i], high[i]) == (min(held), max(held))
