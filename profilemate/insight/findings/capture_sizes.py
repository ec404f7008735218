"""Which capture sizes would have padded least: an exact what-if over the steps that were seen.

vLLM pads a step to the next size of its list. Between the sizes nothing else matters, so the best
list of k sizes is found by dynamic programming over the batch sizes that occurred.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from profilemate.parse.columns.arrays import Ints

_MOST_CANDIDATES = 1500  # a cost matrix of 18 MB


@dataclass(frozen=True, slots=True)
class Proposal:
    """A list of capture sizes and the tokens it would have added to the steps that were seen."""

    sizes: tuple[int, ...]
    padding: int


def padding_of(steps: Mapping[int, int], sizes: Sequence[int]) -> int | None:
    """Tokens that padding to the next of these sizes adds; None if a step is larger than all.

    Args:
        steps: Unpadded tokens of a step -> steps of that size.
        sizes: Capture sizes, in any order.
    """
    ordered = np.array(sorted(sizes), dtype=np.int64)
    tokens = np.array(list(steps), dtype=np.int64)
    place = np.searchsorted(ordered, tokens)
    if len(tokens) and (not len(ordered) or int(place.max()) == len(ordered)):
        return None
    counts = np.array(list(steps.values()), dtype=np.int64)
    return int(((ordered[place] - tokens) * counts).sum())


def best_sizes(
    steps: Mapping[int, int], most: int, *, largest: int = 0, multiple: int = 1
) -> list[Proposal]:
    """The best list of 1, 2, ... `most` sizes: the i-th proposal has at most i + 1.

    Args:
        steps: Unpadded tokens of a step (1 or more) -> steps of that size.
        most: Sizes that a list may have, 1 or more.
        largest: A size that every list holds, so that no step that may come runs eagerly; 0 for
            the largest step that was seen.
        multiple: Every other size is a multiple of this: tokens a request has in a decode step.
            With very many different steps it is doubled until they are few enough.
    """
    while True:
        candidates, weights, tokens = _candidates(steps, largest, multiple)
        if len(candidates) <= _MOST_CANDIDATES:
            break
        multiple *= 2
    n = len(candidates)
    # Steps of candidates i .. j-1, all padded to candidate j-1.
    weight, token = np.append(0, np.cumsum(weights)), np.append(0, np.cumsum(tokens))
    cost = candidates[None, :] * (weight[None, 1:] - weight[:-1, None])
    cost -= token[None, 1:] - token[:-1, None]
    never = np.iinfo(np.int64).max // 4
    cost[np.tril_indices(n, -1)] = never
    best, choice = cost[0], [np.zeros(n, dtype=np.int64)]
    found = [_walk(candidates, choice, int(best[-1]))]
    for _ in range(1, min(most, n)):
        before = np.append(0, best[:-1])[:, None] + cost
        before[0] = cost[0]
        choice.append(before.argmin(axis=0))
        best = before.min(axis=0)
        found.append(_walk(candidates, choice, int(best[-1])))
    return found


def _candidates(steps: Mapping[int, int], largest: int, multiple: int) -> tuple[Ints, Ints, Ints]:
    """Sizes that are worth having, with the steps and the tokens that come to each."""
    tokens = np.array(list(steps), dtype=np.int64)
    counts = np.array(list(steps.values()), dtype=np.int64)
    sizes = -(-tokens // multiple) * multiple
    largest = max(largest, int(tokens.max(initial=1)))
    sizes = np.minimum(sizes, largest)
    candidates, place = np.unique(np.append(sizes, largest), return_inverse=True)
    weights, sums = np.zeros(len(candidates), np.int64), np.zeros(len(candidates), np.int64)
    np.add.at(weights, place[:-1], counts)
    np.add.at(sums, place[:-1], counts * tokens)
    return candidates, weights, sums


def _walk(candidates: Ints, choice: Sequence[Ints], padding: int) -> Proposal:
    """The sizes of the last layer's best, from the largest down."""
    sizes, end = [], len(candidates) - 1
    for begins in reversed(choice):
        sizes.append(int(candidates[end]))
        begin = int(begins[end])
        if begin == 0:
            break
        end = begin - 1
    return Proposal(tuple(sorted(sizes)), padding)


def fewest(proposals: Sequence[Proposal], tokens: int, share: float) -> Proposal:
    """The shortest list whose padding is at most this share of the padded tokens, else the best."""
    for proposal in proposals:
        if proposal.padding <= share * (tokens + proposal.padding):
            return proposal
    return proposals[-1]


def as_config(sizes: Sequence[int] | None, mode: str = "") -> str:
    """The value of vLLM's --compilation-config."""
    config: dict[str, object] = {"cudagraph_mode": mode} if mode else {}
    if sizes is not None:
        config["cudagraph_capture_sizes"] = sorted(sizes)
    return json.dumps(config)
