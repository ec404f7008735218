"""Proposed capture sizes against brute force: every list of so many sizes, tried."""

from __future__ import annotations

import itertools
import random

import pytest

from profilemate.insight.findings.capture_sizes import best_sizes, fewest, padding_of


def waste(steps: dict[int, int], sizes: tuple[int, ...]) -> int:
    """Padding of these steps, step by step."""
    return sum(n * (min(s for s in sizes if s >= tokens) - tokens) for tokens, n in steps.items())


def brute_force(steps: dict[int, int], most: int, largest: int, multiple: int) -> int:
    top = max(largest, *steps)
    others = range(multiple, top, multiple)
    lists = itertools.chain.from_iterable(
        itertools.combinations(others, r) for r in range(min(most, len(others) + 1))
    )
    return min(waste(steps, (*sizes, top)) for sizes in lists)


@pytest.mark.parametrize("seed", range(150))
def test_no_list_of_so_many_sizes_pads_less(seed: int) -> None:
    rng = random.Random(seed)
    steps = {rng.randint(1, 14): rng.randint(1, 50) for _ in range(rng.randint(1, 8))}
    most, multiple = rng.randint(1, 5), rng.choice([1, 1, 2, 3])
    largest = rng.choice([0, 15, 16])
    proposals = best_sizes(steps, most, largest=largest, multiple=multiple)
    for number, proposal in enumerate(proposals, start=1):
        assert len(proposal.sizes) <= number
        assert max(proposal.sizes) == max(largest, *steps)
        assert all(s % multiple == 0 for s in proposal.sizes[:-1])
        assert proposal.padding == waste(steps, proposal.sizes) == padding_of(steps, proposal.sizes)
        assert proposal.padding == brute_force(steps, number, largest, multiple)
    if len(proposals) < most:
        assert proposals[-1].padding == brute_force(steps, most, largest, multiple)


def test_a_step_above_the_list_has_no_padding() -> None:
    assert padding_of({9: 1}, (4, 8)) is None
    assert padding_of({}, ()) == 0
    assert padding_of({1: 1}, ()) is None


def test_the_shortest_list_that_is_good_enough() -> None:
    steps = {1: 100, 10: 100, 100: 100}
    proposals = best_sizes(steps, 3)
    tokens = 11_100
    assert fewest(proposals, tokens, 0.0).sizes == (1, 10, 100)
    assert fewest(proposals, tokens, 0.5).sizes == (10, 100)  # 900 of 12,000 tokens: 7.5 %
    assert fewest(proposals[:1], tokens, 0.01) == proposals[0], "the best there is"


def test_thousands_of_different_steps_take_no_time_and_give_a_good_list() -> None:
    steps = dict.fromkeys(range(1, 8193), 1)
    proposal = best_sizes(steps, 64)[-1]
    # 64 even gaps of 128 pad by 63.5 on average; halving the candidates may cost a little more.
    assert waste(steps, proposal.sizes) == proposal.padding
    assert proposal.padding <= 8192 * 66
