"""Text as an array of bytes, and the numbers and lists of numbers in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Bools, Ints, ranges, starts_of
from profilemate.parse.columns.id_lists import IdLists
from profilemate.schema import MAX_IDS

PAD = 24
"""Bytes in front of and behind the text, so that a window of eight may begin or end anywhere."""

DIGITS = 18
"""Longest number that is read here; 64 bits hold it whatever its digits are."""

BIT_WINDOWS = np.array([(1 << (8 * n)) - 1 for n in range(9)], dtype=np.uint64)
"""Keeps the first n bytes of a word."""

_LAST = np.array([((1 << 64) - 1) ^ ((1 << (64 - 8 * n)) - 1) for n in range(9)], dtype=np.uint64)
"""Keeps the last n bytes of a word."""

_COMMA, _DASH = 44, 45
_AT_ONCE = 1 << 22
"""Ids that are made at once: where lists hold more, the exact decoder takes them one by one."""

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
    """The numbers at some places, eight digits at a time; which of them cannot be read here.

    A number is an optional minus sign and up to `DIGITS` digits.
    """
    minus = text.bytes[start] == _DASH
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


def read_ids(text: Text, start: Ints, end: Ints) -> tuple[IdLists, Bools]:
    """The lists of ids (`5-7,12`) at some places, and which of them cannot be read here."""
    length = end - start
    at = ranges(start, length)
    owner = np.repeat(np.arange(len(start)), length)
    separator = (text.bytes[at] == _COMMA) | (text.bytes[at] == _DASH)
    cut, its = at[separator], owner[separator]
    some = np.flatnonzero(length > 0)
    # Every list that is not empty has one number more than separators.
    # Two sorted halves each: a merge is all that a stable sort has to do.
    first = np.sort(np.concatenate([start[some], cut + 1]), kind="stable")
    last = np.sort(np.concatenate([cut, end[some]]), kind="stable")
    of = np.sort(np.concatenate([some, its]), kind="stable")
    bad = np.zeros(len(start), dtype=bool)
    # A minus sign is a dash of ours: without digits in front of it the number is empty.
    value, wrong = integers(text, first, last)
    wrong |= text.bytes[np.minimum(first, last)] == _DASH
    to = np.zeros(len(first), dtype=bool)
    inner = np.flatnonzero(of[1:] == of[:-1]) + 1
    to[inner] = text.bytes[first[inner] - 1] == _DASH
    wrong[1:] |= to[1:] & to[:-1]
    run = np.flatnonzero(~to)
    upto = np.append(to[1:], False)[run] if len(run) else run.astype(bool)
    begin = value[run]
    finish = np.where(upto, value[np.minimum(run + 1, len(value) - 1)], begin)
    count = np.abs(finish - begin) + 1
    wrong[run[(count < 1) | (count > MAX_IDS)]] = True
    total = np.zeros(len(start), dtype=np.int64)
    np.add.at(total, of[run], np.clip(count, 0, MAX_IDS))
    if total.sum() > _AT_ONCE:
        bad |= total > 1
    bad |= total > MAX_IDS
    bad[of[wrong]] = True
    if bad.any():
        return IdLists.none(len(start)), bad
    step: Ints = np.where(finish < begin, -1, 1).astype(np.int64)
    offset = ranges(np.zeros(len(count), dtype=np.int64), count)
    flat: Ints = np.repeat(begin, count) + np.repeat(step, count) * offset
    total = starts_of(count)
    list_starts = np.searchsorted(of[run], np.arange(len(start) + 1))
    lengths: Ints = np.diff(total[list_starts])
    return IdLists(flat, lengths, np.zeros(len(start), dtype=bool)), bad
