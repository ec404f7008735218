"""A block of text and the digits in it, for thousands of places at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Ints

Bytes = npt.NDArray[np.uint8]

PAD = 8192
"""Bytes before the first and after the last event of a block that may be looked at."""

_PADDING = bytes(PAD)
_REPEATED: dict[bytes, Bytes] = {}
_KEPT = 8 << 20


def repeated(text: bytes, count: int) -> Bytes:
    """A text so many times over: comparing flat arrays is what numpy does fastest."""
    found = _REPEATED.get(text)
    if found is None or len(found) < len(text) * count:
        if sum(map(len, _REPEATED.values())) > _KEPT:
            _REPEATED.clear()
        found = _REPEATED[text] = np.frombuffer(text * (count + count // 4 + 16), np.uint8)
    return found[: len(text) * count]


class Block:
    """Bytes in which events are sought, with `PAD` bytes around them, and views on them."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self.raw = b"".join((_PADDING, *parts, _PADDING))
        self.end = len(self.raw) - PAD
        self.bytes: Bytes = np.frombuffer(self.raw, np.uint8)
        self._views: dict[int, npt.NDArray[np.void]] = {}

    def at(self, places: Ints, size: int) -> Bytes:
        """The `size` bytes from each place on, all in one array."""
        view = self._views.get(size)
        if view is None:
            shape = (len(self.raw) - size + 1,)
            view = self._views[size] = np.ndarray(shape, f"V{size}", self.raw, 0, (1,))
        return view[places].view(np.uint8)

    def begins(self, places: Ints, text: bytes) -> npt.NDArray[np.bool_]:
        """At which places a text begins."""
        found = np.ones(len(places), dtype=bool)
        for first in range(0, len(text), 8):
            part = text[first : first + 8]
            mask = np.uint64((1 << 8 * len(part)) - 1)
            word = self.at(places + first, 8).view("<u8")
            found &= (word & mask) == np.uint64(int.from_bytes(part, "little"))
        return found


def _run_table(bits: Callable[[int], str]) -> npt.NDArray[np.int64]:
    return np.array([len(bits(n)) - len(bits(n).lstrip("1")) for n in range(256)], dtype=np.int64)


# Of 8 bytes, a bit each that says whether it is a digit, the first one lowest: how many digits
# there are from the first byte on, and from the last one back.
_FORWARD = _run_table(lambda n: f"{n:08b}"[::-1])
_BACKWARD = _run_table(lambda n: f"{n:08b}")
# The first digit of a number of several that ends with the 8 bytes, or begins with them.
_BACKWARD_LEAD = np.array([1 << 8 - int(r) if r > 1 else 0 for r in _BACKWARD], dtype=np.uint8)
_FORWARD_LEAD = (_FORWARD > 1).astype(np.uint8)
# The digits' values in the 8 bytes of a number that ends with them.
_VALUE = np.array(
    [0x0F0F0F0F0F0F0F0F >> 8 * (8 - int(r)) << 8 * (8 - int(r)) for r in _BACKWARD],
    dtype=np.uint64,
)
_EIGHT = np.uint64(8)
_SIXTEEN = np.uint64(16)
_HALVES = np.uint64(0x000000FF000000FF)
_LOW, _HIGH = np.uint64(100 + (1000000 << 32)), np.uint64(1 + (10000 << 32))
_ZERO = np.uint8(48)


@dataclass(slots=True)
class Digits:
    """Digits at some places: how many, whether they begin with a needless zero, their value."""

    run: Ints
    bad: Bytes
    value: Ints


_NO_VALUE = np.empty(0, dtype=np.int64)


def digits_at(block: Block, at: Ints, *, forward: bool, value: bool) -> Digits:
    """The digits that stand from each place on, or before it.

    Of more than 16 there is no value, and of more than 32 not even the number is right.
    """
    window = block.at(at if forward else at - 8, 8)
    digit = window - _ZERO
    bits = np.packbits(digit < 10, bitorder="little")
    zero = np.packbits(digit == 0, bitorder="little")
    run = (_FORWARD if forward else _BACKWARD)[bits]
    bad = zero & (_FORWARD_LEAD if forward else _BACKWARD_LEAD)[bits]
    found = Digits(run, bad, _NO_VALUE)
    if value and not forward:
        found.value = _number(window.view("<u8") & _VALUE[bits])
    if len(run) and run.max() == 8:
        _lengthen(block, at, found, forward)
    if value and forward:
        found.value = digits_at(block, at + run, forward=False, value=True).value
    return found


def _number(word: npt.NDArray[np.uint64]) -> Ints:
    """Eight digits, the last one in the highest byte, as an integer."""
    word = word * np.uint64(10) + (word >> _EIGHT)
    high = word >> _SIXTEEN
    word &= _HALVES
    high &= _HALVES
    word *= _LOW
    high *= _HIGH
    word += high
    word >>= np.uint64(32)
    return word.view(np.int64)


def _lengthen(block: Block, at: Ints, found: Digits, forward: bool) -> None:
    """Follow digits beyond the first eight."""
    more = np.flatnonzero(found.run == 8)
    for scale in (100_000_000, 0, 0):
        run = found.run[more]
        further = at[more] + run if forward else at[more] - run - 8
        window = block.at(further, 8)
        digit = window - _ZERO
        bits = np.packbits(digit < 10, bitorder="little")
        step = (_FORWARD if forward else _BACKWARD)[bits]
        if len(found.value) and scale:
            found.value[more] += scale * _number(window.view("<u8") & _VALUE[bits])
        found.run[more] = run + step
        more = more[step == 8]
        if not len(more):
            break
    long = np.flatnonzero(found.run >= 8)
    first = at[long] if forward else at[long] - found.run[long]
    found.bad[long] = block.bytes[first] == _ZERO
