"""Two clocks that are read one after the other, on a machine that has other things to do."""

from __future__ import annotations

import itertools

import pytest

from profilemate.annotate import identity
from profilemate.annotate.identity import Identity, wall_offset
from profilemate.schema import KINDS

OFFSET = 1_700_000_000_123_456_789


class BusyClock:
    """Two clocks that stand `OFFSET` apart; reading one takes 40 ns, or 8 ms in its turn."""

    def __init__(self, *turns: int) -> None:
        self.now, self._reads, self._turns = 5_000, itertools.count(), turns

    def monotonic_ns(self) -> int:
        self.now += 8_000_000 if next(self._reads) in self._turns else 40
        return self.now

    def time_ns(self) -> int:
        return self.monotonic_ns() + OFFSET


@pytest.mark.parametrize("turns", [(), (1,), (2,), (0, 4, 8), (1, 5, 7, 10)])
def test_the_reading_that_took_least_time_counts(
    monkeypatch: pytest.MonkeyPatch, turns: tuple[int, ...]
) -> None:
    monkeypatch.setattr(identity, "time", BusyClock(*turns))
    assert wall_offset() == OFFSET


def test_the_clocks_of_a_session_are_those_of_one_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = BusyClock(1)
    monkeypatch.setattr(identity, "time", clock)
    now = clock.monotonic_ns()
    clock.now += 70_000_000  # what is loaded is looked up first
    names = [field.name for field in KINDS["session"].fields]
    said = dict(zip(names, Identity().session(now, 0), strict=True))
    assert (said["mono_ns"], said["unix_ns"]) == (now, now + OFFSET)
