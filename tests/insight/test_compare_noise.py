"""The test of a difference: against printed tables, exact permutations, and simulated noise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from false_alarms import KINDS, SHIFT, dependent, rates

from profilemate.insight.compare.noise import (
    Pair,
    compare_series,
    compare_together,
    q_values,
    student_tail,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@pytest.mark.parametrize(
    # Two-sided critical values as printed in any table of Student's t.
    ("t", "freedom", "p"),
    [
        (12.7062, 1, 0.05),
        (63.6567, 1, 0.01),
        (2.22814, 10, 0.05),
        (4.58689, 10, 0.001),
        (2.04227, 30, 0.05),
        (1.98397, 100, 0.05),
        (0.0, 7, 1.0),
    ],
)
def test_students_t(t: float, freedom: float, p: float) -> None:
    assert student_tail(t, freedom) == pytest.approx(p, rel=2e-5)


def test_students_t_is_normal_with_very_many_degrees_of_freedom() -> None:
    for t in (0.1, 1.0, 1.96, 4.0):
        assert student_tail(t, 1e7) == pytest.approx(math.erfc(t / math.sqrt(2)), rel=1e-4)


def series(rng: np.random.Generator, n: int, dependence: float) -> Floats:
    """Durations of n steps, each with this correlation to the one before."""
    noise = rng.normal(size=n)
    values = np.empty(n)
    values[0] = noise[0] / math.sqrt(1 - dependence**2)
    for i in range(1, n):
        values[i] = dependence * values[i - 1] + noise[i]
    return np.exp(0.3 * values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "m"), [(50, 500), (100, 5000), (400, 400), (1000, 1000)])
def test_equal_series_are_called_different_as_rarely_as_promised(kind: str, n: int, m: int) -> None:
    """5 % of them are, and by chance of 200 draws a few more: 9 % is 2.6 standard deviations."""
    called, silent = rates(KINDS[kind], n, m, runs=200, shift=1.0, seed=1)
    assert called <= 0.09
    if m >= 400 <= n and kind != "AR(1), 0.95":
        assert silent < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_of_5_percent_is_found(kind: str) -> None:
    called, _ = rates(KINDS[kind], 1000, 1000, runs=60, shift=SHIFT, seed=2)
    assert called >= 0.7
    for other in ("independent", "two lengths of step", "periodic, 20 steps", "AR(1), 0.5"):
        if kind == other:
            assert rates(KINDS[kind], 100, 5000, runs=60, shift=SHIFT, seed=3)[0] >= 0.9


@pytest.mark.parametrize("n", [20, 30])
def test_short_series_that_depend_on_their_past_are_not_judged(n: int) -> None:
    for kind in ("AR(1), 0.8", "AR(1), 0.9", "AR(1), 0.95", "two lengths, in spells of ten"):
        called, silent = rates(KINDS[kind], n, 3000, runs=100, shift=1.0, seed=4)
        assert (called, silent >= 0.9) == (0, True), kind


def test_a_short_series_is_judged_by_the_dependence_that_the_long_one_shows() -> None:
    """The case that had 13 % false alarms: correlated steps, one side much shorter."""
    called, silent = rates(dependent(0.8), 60, 6000, runs=300, shift=1.0, seed=5)
    assert 1 - silent > 0.4, "it is judged"
    assert called <= 0.07 * (1 - silent) + 0.02


def test_dependent_steps_are_what_a_plain_rank_test_gets_wrong() -> None:
    """The witness that the case above is not an easy one: independent batches of one."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(200):
        a, b = series(rng, 400, 0.8), series(rng, 400, 0.8)
        ranks = np.concatenate([a, b]).argsort().argsort() + 1.0
        u = ranks[400:].sum() - 400 * 401 / 2
        wrong += abs(u - 80_000) / math.sqrt(400 * 400 * 801 / 12) > 1.96
    assert wrong / 200 > 0.3


def test_a_difference_is_found() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(100):
        test = compare_series(series(rng, 200, 0.5), 1.3 * series(rng, 200, 0.5))
        assert test is not None
        found += test.p < 0.05 and test.effect > 0.5
    assert found >= 95


def test_series_that_do_not_overlap_are_as_unlikely_as_their_permutations() -> None:
    rng = np.random.default_rng(9)
    a, b = rng.permutation(np.arange(20.0)), rng.permutation(np.arange(20.0)) + 100
    test = compare_series(a, b)
    assert test is not None
    assert test.effect == 1
    orders = math.comb(40, 20)  # two of them separate the series
    assert test.p < 1000 * 2 / orders


def test_series_that_do_not_overlap_say_little_where_steps_depend_on_their_past() -> None:
    rng = np.random.default_rng(10)
    a, b = dependent(0.9)(rng, 400), dependent(0.9)(rng, 400) + 100
    test = compare_series(a, b)
    independent = compare_series(rng.permutation(a), rng.permutation(b))
    assert test is not None
    assert independent is not None
    assert (test.effect, independent.effect) == (1, 1)
    assert independent.p < test.p / 1e6


def test_the_effect_is_the_share_of_pairs() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 6, 25).astype(float), rng.integers(0, 6, 31).astype(float)
    pairs = [(y > x) + 0.5 * (y == x) for x, y in itertools.product(a, b)]
    test = compare_series(a, b)
    assert test is not None
    assert test.effect == pytest.approx(np.mean(pairs))


def test_too_few_steps_say_nothing() -> None:
    rng = np.random.default_rng(8)
    many, few = rng.normal(size=100), rng.normal(size=19)
    assert compare_series(few, many) is None
    assert compare_series(many, few) is None
    assert compare_series(many, rng.normal(size=20)) is not None
    # A hundred that only ever rise are one long movement.
    assert compare_series(many, np.arange(100.0)) is None


def test_a_constant_series_is_no_difference() -> None:
    test = compare_series(np.ones(20), np.ones(30))
    assert test is not None
    assert test.p == 1


def test_q_values_by_hand() -> None:
    # Sorted 0.01 0.02 0.03 0.5, times 4/1 4/2 4/3 4/4: 0.04 0.04 0.04 0.5.
    assert q_values([0.5, 0.03, 0.01, 0.02]) == pytest.approx([0.5, 0.04, 0.04, 0.04])
    assert q_values([]) == []
    assert q_values([0.9, 0.95]) == pytest.approx([0.95, 0.95])


def test_many_graphs_without_a_difference_raise_few_false_alarms() -> None:
    rng = np.random.default_rng(5)
    with_alarm = 0
    for _ in range(60):
        tests = [compare_series(series(rng, 60, 0.3), series(rng, 60, 0.3)) for _ in range(30)]
        q = q_values([t.p for t in tests if t is not None])
        with_alarm += min(q) < 0.05
    assert with_alarm <= 8


def turns(rng: np.random.Generator, durations: Floats, graphs: int) -> list[tuple[Floats, Ints]]:
    """Steps that run on one of so many graphs, each of its own length, and their places."""
    on = rng.integers(0, graphs, len(durations))
    return [((1 + g) * durations[on == g], np.flatnonzero(on == g)) for g in range(graphs)]


def pairs(rng: np.random.Generator, a: Floats, b: Floats, graphs: int) -> list[Pair]:
    return [
        Pair(x, y, at_x, at_y)
        for (x, at_x), (y, at_y) in zip(turns(rng, a, graphs), turns(rng, b, graphs), strict=True)
    ]


def test_all_graphs_together() -> None:
    rng = np.random.default_rng(6)
    made = pairs(rng, series(rng, 800, 0.0), 1.08 * series(rng, 800, 0.0), 20)
    tests = [t for p in made if (t := compare_series(p.a, p.b))]
    together = compare_together(made)
    assert together is not None
    assert together.p < min(t.p for t in tests), "many weak signs make a strong one"
    assert compare_together([]) is None
    steps = sum(len(p.a) + len(p.b) for p in made)
    weighted = sum(
        (len(p.a) + len(p.b)) / steps * np.mean(p.b[:, None] > p.a[None, :]) for p in made
    )
    assert together.effect == pytest.approx(weighted)


@pytest.mark.parametrize("graphs", [1, 5, 20])
@pytest.mark.parametrize("kind", ["independent", "AR(1), 0.9", "growing, 100 steps"])
def test_graphs_that_slow_down_together_are_no_more_signs_than_one(kind: str, graphs: int) -> None:
    rng = np.random.default_rng(7)
    called = 0
    for _ in range(100):
        a, b = (KINDS[kind](rng, 2000) * np.exp(0.02 * rng.normal(size=2000)) for _ in "ab")
        together = compare_together(pairs(rng, a, b, graphs))
        assert together is not None
        called += together.p < 0.05
    assert called <= 10
    found = 0
    for _ in range(40):
        a, b = KINDS[kind](rng, 2000), SHIFT * KINDS[kind](rng, 2000)
        together = compare_together(pairs(rng, a, b, graphs))
        found += together is not None and together.p < 0.05
    assert found >= 36
