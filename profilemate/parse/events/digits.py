"""Text as an array of bytes, and the numbers in it, read eight digits at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Bools, Ints

PAD = 24
"""Bytes in front of and behind the text, so that a window of eight may begin or end anywhere."""

DIGITS = 18
"""Longest number that is read here; 64 bits hold it whatever its digits are."""

BIT_WINDOWS = np.array([(1 << (8 * n)) - 1 for n in range(9)], dtype=np.uint64)
"""Keeps the first n bytes of a word."""

_LAST = np.array([((1 << 64) - 1) ^ ((1 << (64 - 8 * n)) - 1) for n in range(9)], dtype=np.uint64)
"""Keeps the last n bytes of a word."""

_ZEROS = np.uint64(0x3030303030303030)
_ABOVE_NINE = np.uint64(0x7676767676767676)
_HIGH = np.uint64(0x8080808080808080)


class Text:
    """A text in ASCII.

    Attributes:
        length: Its length.
        end: Where it ends in `bytes`; it begins at `PAD`.
        bytes: The text between zeros.
        words: Of every position, the eight bytes that begin there, the first one lowest.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self.length = len(text)
        self.end = PAD + self.length
        raw = bytes(PAD) + text.encode("ascii") + bytes(PAD)
        self.bytes = np.frombuffer(raw, dtype=np.uint8)
        self.words: npt.NDArray[np.uint64] = np.ndarray(
            (len(raw) - 7,), dtype="<u8", buffer=raw, strides=(1,)
        )

    def slices(self, start: Ints, end: Ints) -> list[str]:
        """Pieces of it, by their positions in `bytes`."""
        text = self._text
        pairs = zip((start - PAD).tolist(), (end - PAD).tolist(), strict=True)
        return [text[a:b] for a, b in pairs]


def _eight(word: Any) -> npt.NDArray[np.uint64]:
    """The number that eight digits make, each as a byte 0 to 9, the first one lowest."""
    word = word * np.uint64(10) + (word >> np.uint64(8))
    pairs = word & np.uint64(0x000000FF000000FF)
    others = (word >> np.uint64(16)) & np.uint64(0x000000FF000000FF)
    high = pairs * np.uint64(0x000F424000000064)  # 100 and 1000000 << 32
    low = others * np.uint64(0x0000271000000001)  # 1 and 10000 << 32
    result: npt.NDArray[np.uint64] = (high + low) >> np.uint64(32)
    return result


def integers(text: Text, start: Ints, end: Ints) -> tuple[Ints, Bools]:
    """The numbers at some places, and which of them are none that can be read here.

    A number is an optional minus sign and up to `DIGITS` digits.
    """
    minus = text.bytes[start] == 45
    start = start + minus
    length = end - start
    bad = (length < 1) | (length > DIGITS)
    total = np.zeros(len(start), dtype=np.uint64)
    scale = np.uint64(1)
    for part in range(3):
        rest = np.clip(length - 8 * part, 0, 8)
        if part and not rest.any():
            break
        word = (text.words[np.maximum(end - 8 * (part + 1), 0)] ^ _ZEROS) & _LAST[rest]
        bad |= (((word + _ABOVE_NINE) | word) & _HIGH) != 0
        total += _eight(word) * scale
        scale = scale * np.uint64(10**8) if part < 2 else scale
    value = total.astype(np.int64)
    return np.where(minus, -value, value), bad
