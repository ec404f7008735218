"""Which kernels ran, in which order, as one number: equal sequences have equal numbers."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from profilemate.parse.columns.arrays import Bools, Hashes, Ints, compact, run_starts


class _Sequences:
    """Distinct sequences of kernels, as the numbers of their names.

    With each goes which of its kernels came at the same node and time as the one before it: their
    order is that of the numbers of their names, which are not final yet.
    """

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self._all: list[tuple[Ints, Bools]] = []

    def number(self, row: Ints, rows: int, names: Ints, tied: Bools) -> Ints:
        """The number of the sequence of each row, -1 for none; what is given is sorted by row."""
        found = np.full(rows, -1, dtype=np.int64)
        if not len(row):
            return found
        mixed = np.zeros(rows, dtype=np.uint64)
        mix_by_group(mixed, row, _scattered(2 * names + tied + 1))
        opens = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1]]))
        ends = np.append(opens[1:], len(row))
        keys, first, of = np.unique(mixed[row[opens]], return_index=True, return_inverse=True)
        numbers = np.empty(len(keys), dtype=np.int64)
        for place, (key, at) in enumerate(zip(keys.tolist(), first.tolist(), strict=True)):
            numbers[place] = self._known.setdefault(key, len(self._all))
            if numbers[place] == len(self._all):
                part = slice(opens[at], ends[at])
                self._all.append((compact(names[part].copy()), tied[part].copy()))
        found[row[opens]] = numbers[of]
        return found

    def take(self, other: _Sequences, names: Ints) -> Ints:
        """Take over others, with other numbers of names; return the numbers that they have here."""
        found = []
        for theirs, tied in other._all:
            ours = _tied_in_order(names[theirs], tied)
            found.append(self.number(np.zeros(len(ours), dtype=np.int64), 1, ours, tied)[0])
        return np.array(found, dtype=np.int64)

    def hashes(self, hashed: Hashes) -> Hashes:
        """What each is mixed to; the last one is that of none."""
        result = np.zeros(len(self._all) + 1, dtype=np.uint64)
        for number, (numbers, tied) in enumerate(self._all):
            names = _tied_in_order(numbers, tied)
            mix_by_group(result[number:], np.zeros(len(names), dtype=np.int64), hashed[names])
        return result


def _tied_in_order(names: Ints, tied: Bools) -> Ints:
    return names[np.lexsort((names, np.cumsum(~tied)))] if tied.any() else names


def _scattered(values: Ints) -> Hashes:
    """Numbers that differ in many bits where the values differ."""
    mixed = values.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(32)
    return mixed


_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def mix_by_group(result: Hashes, group: Ints, values: Hashes) -> None:
    """Mix values into one number per group; the order within a group, which is sorted, counts."""
    opens = run_starts(group)
    length = np.diff(np.append(opens, len(group)))
    place = np.arange(len(group)) - np.repeat(opens, length)
    result[group[opens]] = np.add.reduceat(values * _powers(int(length.max()))[1:][place], opens)


def hashes(texts: Sequence[str]) -> Hashes:
    """A number for each text; one at least."""
    found = [int.from_bytes(blake2b(t.encode(), digest_size=8).digest()) for t in texts]
    return np.array(found or [0], dtype=np.uint64)


def chain(result: Hashes, group: Ints, sequence: Hashes, length: Ints) -> None:
    """The same as `mix_by_group` of what runs of values were mixed to, in their order."""
    if not len(group):
        return
    opens = run_starts(group)
    before = np.cumsum(length) - length
    before = before - np.repeat(before[opens], np.diff(np.append(opens, len(group))))
    result[group[opens]] = np.add.reduceat(sequence * _powers(int(before.max()))[before], opens)


def _powers(count: int) -> Hashes:
    """The multiplier to the power of 0, 1 and so on."""
    powers = np.full(count + 1, _MULTIPLIER, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)
