"""Columns in few bytes come back as they were."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from profilemate.parse.columns.arrays import NONE
from profilemate.parse.columns.id_lists import IdLists
from profilemate.parse.columns.packed import joined, pack, picked, unpack

EXTREMES = (NONE, NONE + 1, -1, 0, 1, 255, 256, 1 << 32, (1 << 63) - 1)


@pytest.mark.parametrize("seed", range(300))
def test_any_column_comes_back(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.choice([0, 1, 2, 3, 50])
    pools: list[Callable[[], int]] = [
        lambda: rng.choice(EXTREMES),
        lambda: rng.randrange(1 << rng.randrange(1, 63)) - (1 << 20),
        lambda: rng.choice([NONE, 3]),
        lambda: 7,
    ]
    make = rng.choice(pools)
    values = np.array([make() for _ in range(count)], dtype=np.int64)
    if rng.random() < 0.3 and count:
        values = np.cumsum(values % (1 << 31)) + rng.randrange(1 << 61)
    lists = [
        rng.choice([None, (), tuple(rng.randrange(99) for _ in range(3))]) for _ in range(count)
    ]
    flags = values > 3
    found = unpack(pack({"a": values, "ids": IdLists.of(lists), "flag": flags}))
    assert list(found) == ["a", "ids", "flag"]
    assert found["a"].dtype == np.int64
    assert found["a"].tolist() == values.tolist()
    assert list(found["ids"]) == lists
    assert found["flag"].astype(bool).tolist() == flags.tolist()
    assert list(unpack(pack({"a": values, "b": flags}), ("b",))) == ["b"]


def test_little_takes_little() -> None:
    rows = 10_000
    same = np.full(rows, 1 << 40)
    times = np.arange(rows) * 10**7 + (1 << 60)  # far apart, in steps that are alike
    mostly = np.where(np.arange(rows) % 100, NONE, 5)
    assert len(pack({"same": same})) < 100
    assert len(pack({"times": times})) < rows + 200
    assert len(pack({"mostly": mostly})) < rows / 8 + 200


def test_rows_of_batches() -> None:
    one = {"a": np.array([1, 2]), "ids": IdLists.of([(1,), None])}
    both = joined([one, one])
    assert both["a"].tolist() == [1, 2, 1, 2]
    assert list(picked(both, np.array([3, 0]))["ids"]) == [None, (1,)]
