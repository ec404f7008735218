"""Is a difference between two series of durations more than noise.

Durations of steps are neither normal nor independent: contexts grow, clocks drift, one slow step
follows another. So ranks are compared, not values, and the variance is that of a series, not of
independent draws:

* the effect is P(B > A) + P(B = A) / 2, 0.5 without a difference (Brunner and Munzel, 2000), from
  the placements of each series in the other;
* a series of n dependent steps says as much as n / spread independent ones. The spread comes from
  an autoregression of the series' ranks, its order chosen by AIC, as in the effective sample size
  of a Markov chain. The series that depends more on its past lends its spread to the other: a short
  one hardly shows its own. With fewer than `INDEPENDENT` nothing is said;
* the variance is that of so many independent steps or, if it is larger, that of ten batch means,
  which need no model;
* the p-value is two-sided, from Student's t with Welch's degrees of freedom;
* over many graphs, q-values after Benjamini and Hochberg keep the share of false alarms. All of
  them together are one series of a session: what slows one graph slows those that run next to it.

`scripts/docs/false_alarms.py` shows how often equal series of several kinds are called different,
and how often a shift is found. Nothing here is drawn at random. What one run cannot tell is how
much two runs of the same thing differ, nor what repeats more slowly than the run lasts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Ints

Floats = npt.NDArray[np.float64]

LEAST = 20
"""Steps that each side needs: fewer cannot show how they depend on each other."""
INDEPENDENT = 6
"""Independent steps that each side's must be worth."""
_BATCHES = 10  # ten long ones bear more dependence between steps than many short ones


@dataclass(frozen=True, slots=True)
class Test:
    """What the comparison of two series came to.

    Attributes:
        effect: Probability that a step of B is longer than one of A.
        variance: Of the effect.
        freedom: Degrees of freedom.
        p: Two-sided p-value.
    """

    effect: float
    variance: float
    freedom: float
    p: float


@dataclass(frozen=True, slots=True)
class Pair:
    """The same thing in two sessions.

    Attributes:
        a: Durations in A.
        b: Durations in B.
        when_a: Places of those of A among all of A, in order of time.
        when_b: The same of B.
    """

    a: Floats
    b: Floats
    when_a: Ints
    when_b: Ints


def compare_series(a: Floats, b: Floats) -> Test | None:
    """Compare two series in their order of time; None where one of them is too short to tell."""
    return compare_together([Pair(a, b, np.arange(len(a)), np.arange(len(b)))])


def compare_together(pairs: Sequence[Pair]) -> Test | None:
    """One test of several things, each compared with itself and weighted with its steps in both.

    What slows one of them down slows those down that ran next to it, so each session is one series,
    in which they take turns. Those that are too short are left out; None where nothing is left, or
    where it is too short to tell.
    """
    pairs = [pair for pair in pairs if min(len(pair.a), len(pair.b)) >= LEAST]
    if not pairs:
        return None
    shares = np.array([len(pair.a) + len(pair.b) for pair in pairs], dtype=np.float64)
    shares /= shares.sum()
    of_a = _Side([(p.a, _placements(p.a, p.b), p.when_a) for p in pairs], shares)
    of_b = _Side([(p.b, _placements(p.b, p.a), p.when_b) for p in pairs], shares)
    wide = max(of_a.spread, of_b.spread)
    worth_a, worth_b = len(of_a.placed) / wide, len(of_b.placed) / wide
    if min(worth_a, worth_b) < INDEPENDENT:
        return None
    effect = float(of_b.placed.mean())
    var_a, free_a = _mean_variance(of_a.off, worth_a)
    var_b, free_b = _mean_variance(of_b.off, worth_b)
    # Series that do not overlap have no variance at all; one exchanged pair gives the least.
    variance = max(var_a + var_b, 1 / (4 * worth_a * worth_b))
    if var_a + var_b > 0:
        freedom = (var_a + var_b) ** 2 / (var_a**2 / free_a + var_b**2 / free_b)
    else:
        freedom = min(free_a, free_b)
    return Test(effect, variance, freedom, _two_sided(effect, variance, freedom))


class _Side:
    """All that one session has of several things, as one series.

    Args:
        parts: Of each thing its durations, their placements in the other session, their places.
        shares: The weight of each.

    Attributes:
        placed: Placements, weighted so that their mean is the weighted mean of the things' means.
        off: By how much each is off the mean of its thing.
        spread: See `_spread`; of the ranks that durations have among those of their own thing.
    """

    def __init__(self, parts: Sequence[tuple[Floats, Floats, Ints]], shares: Floats) -> None:
        order = np.argsort(np.concatenate([when for _, _, when in parts]), kind="stable")
        weights = [
            share * len(order) / len(at) for (at, _, _), share in zip(parts, shares, strict=True)
        ]
        placed = [w * of for (_, of, _), w in zip(parts, weights, strict=True)]
        self.placed = np.concatenate(placed)[order]
        self.off = np.concatenate([of - of.mean() for of in placed])[order]
        ranks = [_placements(durations, durations) for durations, _, _ in parts]
        self.spread = _spread(np.concatenate([r - r.mean() for r in ranks])[order])


def q_values(p: Sequence[float]) -> list[float]:
    """Benjamini-Hochberg: the least share of false alarms at which each would be called."""
    values = np.array(p, dtype=np.float64)
    order = np.argsort(values)
    scaled = values[order] * len(values) / np.arange(1, len(values) + 1)
    least = np.minimum.accumulate(scaled[::-1])[::-1]
    found = np.empty(len(values))
    found[order] = np.minimum(least, 1.0)
    return [float(q) for q in found]


def _placements(x: Floats, y: Floats) -> Floats:
    """For each value the share of the other series below it; equal ones count half."""
    ordered = np.sort(y)
    below, up_to = np.searchsorted(ordered, x, "left"), np.searchsorted(ordered, x, "right")
    return np.asarray((below + up_to) / (2 * len(y)), dtype=np.float64)


def _mean_variance(series: Floats, worth: float) -> tuple[float, float]:
    """The variance of a series' mean, and its degrees of freedom.

    Args:
        series: The series.
        worth: How many independent values it is worth.
    """
    n = len(series)
    size = max(1, n // _BATCHES)
    batches = n // size
    means = series[n - batches * size :].reshape(batches, size).mean(axis=1)
    by_batches = float(means.var(ddof=1)) / batches
    # Values that go together lie closer to their own mean than to the true one.
    by_worth = float(series.var()) / (worth - 1)
    return (by_batches, batches - 1) if by_batches > by_worth else (by_worth, worth - 1)


def _spread(off: Floats) -> float:
    """How many times the variance of a series' mean is that of independent values; at least 1.

    Args:
        off: By how much its values are off their mean.
    """
    n = len(off)
    if not off.any():
        return 1.0
    orders = min(int(10 * math.log10(n)), n // 4)
    products = np.array([off[lag:] @ off[: n - lag] for lag in range(orders + 1)])
    weights, left = _autoregression(products / products[0], n)
    total = float(weights.sum())
    if total > 0:  # estimates are too low by about this, as the mean was estimated too
        total += (3 * total + len(weights)) / n
    return max(left / (1 - min(total, 1 - 1 / n)) ** 2, 1.0)


def _autoregression(correlations: Floats, n: int) -> tuple[Floats, float]:
    """The autoregression of a series by Levinson's recursion, of the order with the least AIC.

    Args:
        correlations: Of the series with itself, by lag from 0 to the largest order.
        n: Its length, which corrects the AIC.

    Returns:
        The weights of the past, and the share of the variance that they leave.
    """
    weights, left = np.empty(0), 1.0
    best, least = (weights, left), 2 * n / (n - 2)
    for order in range(1, len(correlations)):
        past = correlations[order - 1 : 0 : -1]
        reflected = (correlations[order] - weights @ past) / left
        weights = np.append(weights - reflected * weights[::-1], reflected)
        left = max(left * (1 - reflected**2), 1e-12)
        information = n * math.log(left) + 2 * (order + 1) * n / (n - order - 2)
        if information < least:
            best, least = (weights, left), information
    return best


def _two_sided(effect: float, variance: float, freedom: float) -> float:
    return student_tail(abs(effect - 0.5) / math.sqrt(variance), freedom)


def student_tail(t: float, freedom: float) -> float:
    """P(|T| > t) of Student's t: the regularised incomplete beta function."""
    x = freedom / (freedom + t * t)
    return _beta(freedom / 2, 0.5, x)


def _beta(a: float, b: float, x: float) -> float:
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # there its fraction converges slowly
        return 1 - _beta(b, a, 1 - x)
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log + a * math.log(x) + b * math.log1p(-x)) / a
    # The continued fraction of the incomplete beta function, by Lentz's method.
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for part in (even, odd):
            d = 1 / (1 + part * d or tiny)
            c = 1 + part / c or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * value
