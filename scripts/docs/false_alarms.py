"""How often `profilemate compare` calls equal series different, and finds a shift of 5 %.

`--write` makes docs/false_alarms.md anew.

Series are drawn, not recorded: only of drawn ones it is known that nothing differs. A run draws two
of a kind; "called" is the share of runs with p < 0.05, "not said" that in which the series are too
short, or depend too much on their past, to say anything.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from profilemate.insight.compare.noise import compare_series  # noqa: E402

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]

SHIFT = 1.05
PAGE = ROOT / "docs" / "false_alarms.md"
LENGTHS = ((20, 20), (30, 3000), (50, 500), (100, 100), (100, 5000), (400, 400), (1000, 1000))


def independent(rng: np.random.Generator, n: int) -> Floats:
    """Steps of 5 % noise."""
    return np.exp(0.05 * rng.normal(size=n))


def dependent(weight: float) -> Draw:
    """Steps of 5 % noise, each with this correlation to the one before: AR(1)."""

    def draw(rng: np.random.Generator, n: int) -> Floats:
        noise = rng.normal(size=n)
        noise[1:] *= math.sqrt(1 - weight**2)
        for i in range(1, n):
            noise[i] += weight * noise[i - 1]
        return np.exp(0.05 * noise)

    return draw


def mixture(stay: float) -> Draw:
    """A fifth of the steps take three times as long, each by chance or in spells."""

    def draw(rng: np.random.Generator, n: int) -> Floats:
        slow = rng.random(n) < 0.2
        for i in np.flatnonzero(rng.random(n) < stay).tolist():
            slow[i] = slow[i - 1] if i else slow[i]
        return np.where(slow, 3.0, 1.0) * independent(rng, n)

    return draw


def periodic(rng: np.random.Generator, n: int) -> Floats:
    """A wave of 20 steps and 10 %, 2 % noise."""
    at = np.arange(n) + rng.integers(20)
    return 1 + 0.1 * np.sin(2 * np.pi * at / 20) + 0.02 * rng.normal(size=n)


def growing(rng: np.random.Generator, n: int) -> Floats:
    """Contexts that grow for 100 steps, by 20 % in all, and begin again; 2 % noise."""
    at = np.arange(n) + rng.integers(100)
    return 1 + 0.2 * (at % 100) / 100 + 0.02 * rng.normal(size=n)


KINDS: Mapping[str, Draw] = {
    "independent": independent,
    "AR(1), 0.5": dependent(0.5),
    "AR(1), 0.8": dependent(0.8),
    "AR(1), 0.9": dependent(0.9),
    "AR(1), 0.95": dependent(0.95),
    "two lengths of step": mixture(0.0),
    "two lengths, in spells of ten": mixture(0.9),
    "periodic, 20 steps": periodic,
    "growing, 100 steps": growing,
}


def rates(draw: Draw, n: int, m: int, runs: int, shift: float, seed: int) -> tuple[float, float]:
    """Of so many pairs of series, the share that is called different, and that of no answer."""
    rng = np.random.default_rng(seed)
    called = silent = 0
    for _ in range(runs):
        test = compare_series(draw(rng, n), shift * draw(rng, m))
        silent += test is None
        called += test is not None and test.p < 0.05
    return called / runs, silent / runs


def table(runs: int) -> str:
    """All kinds and lengths, in Markdown."""
    rows = [
        "| steps | of A, of B | equal: called | not said | 5 % longer: called |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for seed, (name, draw) in enumerate(KINDS.items()):
        for n, m in LENGTHS:
            equal, silent = rates(draw, n, m, runs, 1.0, seed)
            shifted, _ = rates(draw, n, m, runs, SHIFT, seed + 100)
            rows.append(f"| {name} | {n}, {m} | {equal:.1%} | {silent:.0%} | {shifted:.0%} |")
    return "\n".join(rows)


INTRODUCTION = """# How often a comparison is wrong

Made by `python scripts/docs/false_alarms.py --write`: {runs} pairs of drawn series a row. Called is
p < 0.05, so 5 % of equal series may be called different; not said, that they are too short or
depend too much on their past to say anything ([the test](findings.md#comparisons)).

What repeats more slowly than a series lasts, nobody can see in it: of 20 steps each, spells of slow
steps and growing contexts are called a difference too often. Compare runs that hold their own cycle
several times.

"""


def main() -> None:
    """Print the table, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000, help="pairs of series of each row")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    chosen = parser.parse_args()
    text = table(chosen.runs) + "\n"
    if chosen.write:
        PAGE.write_text(INTRODUCTION.format(runs=f"{chosen.runs:,}") + text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
