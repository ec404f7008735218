"""Templates: the text of an event with holes for its numbers and its name.

A writer spells all events of a kind the same: the same keys, the same spaces, other numbers and
another name. So an event that was decoded exactly once tells how to read all others of its kind
without decoding them: whatever stands around the holes must be there byte for byte, and what
stands in them must be a number. Nothing is assumed of a layout; each file teaches its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.parse.activity import Ints

Bytes = npt.NDArray[np.uint8]

PAD = 8192
"""Bytes before the first and after the last event of a block that may be looked at."""

LONGEST = 2048
"""Bytes of a template without its name; more than `PAD` would be too much."""

SKIP, WHOLE, MICROSECONDS = range(3)
"""What a number is wanted for: not at all, as an integer, as ns."""

_MOST_HOLES = 64
_DIGITS = 16
_LARGEST_US = (1 << 62) // 1000
_TOKEN = re.compile(
    rb'"[^"\\\x00-\x1f]*"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?![0-9.eE])'
    rb"|true|false|null|[{}\[\],:]|[ \t\r\n]+"
)
Path = tuple[str, ...]


@dataclass(slots=True)
class _Hole:
    """A number: where it stands, what it is wanted for, and whether it may have a fraction."""

    path: Path
    kind: int
    begin: int
    end: int
    fraction: bool


@dataclass(slots=True)
class Matched:
    """Events that fit a template, one array element each.

    Attributes:
        which: Their places among the events that were asked about.
        values: The wanted numbers, by path.
        name: Where the text of their name begins and ends; None for a template without.
    """

    which: Ints
    values: dict[Path, Ints]
    name: tuple[Ints, Ints] | None


_REPEATED: dict[bytes, Bytes] = {}
_KEPT = 8 << 20


def _repeated(text: bytes, count: int) -> Bytes:
    """A text so many times over: comparing flat arrays is what numpy does fastest."""
    found = _REPEATED.get(text)
    if found is None or len(found) < len(text) * count:
        if sum(map(len, _REPEATED.values())) > _KEPT:
            _REPEATED.clear()
        found = _REPEATED[text] = np.frombuffer(text * (count + count // 4 + 16), np.uint8)
    return found[: len(text) * count]


class Block:
    """Bytes in which events are sought, with `PAD` bytes around them, and views on them."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.bytes: Bytes = np.frombuffer(raw, np.uint8)
        self._views: dict[int, npt.NDArray[np.void]] = {}

    def at(self, places: Ints, size: int) -> Bytes:
        """The `size` bytes from each place on, in one row."""
        view = self._views.get(size)
        if view is None:
            shape = (len(self.raw) - size + 1,)
            view = self._views[size] = np.ndarray(shape, f"V{size}", self.raw, 0, (1,))
        return view[places].view(np.uint8)


def _run_table(bits: Callable[[int], str]) -> npt.NDArray[np.int64]:
    return np.array([len(bits(n)) - len(bits(n).lstrip("1")) for n in range(256)], dtype=np.int64)


# How many of 8 bytes are digits, from the first on and from the last back; bit 0 is the first.
_FORWARD = _run_table(lambda n: f"{n:08b}"[::-1])
_BACKWARD = _run_table(lambda n: f"{n:08b}")
_TENS = 10 ** np.arange(19, dtype=np.int64)


def _run(block: Block, at: Ints, forward: bool) -> Ints:
    """How many digits stand from each place on, or before it."""
    window = block.at(at if forward else at - 8, 8)
    bits = np.packbits((window - np.uint8(48)) < 10, bitorder="little")
    run = (_FORWARD if forward else _BACKWARD)[bits]
    full = run == 8
    if full.any():
        more = np.flatnonzero(full)
        # What is longer than any number of ours need not be followed to its end.
        for _ in range(3):
            further = at[more] + run[more] if forward else at[more] - run[more]
            window = block.at(further if forward else further - 8, 8)
            bits = np.packbits((window - np.uint8(48)) < 10, bitorder="little")
            step = (_FORWARD if forward else _BACKWARD)[bits]
            run[more] += step
            more = more[step == 8]
            if not len(more):
                break
    return run


def _decimal(block: Block, end: Ints, length: Ints) -> Ints:
    """The integers of up to 16 digits that end at these places."""
    value = _eight(block, end, np.minimum(length, 8))
    if len(length) and length.max() > 8:
        more = np.flatnonzero(length > 8)
        value[more] += 100_000_000 * _eight(block, end[more] - 8, length[more] - 8)
    return value


def _eight(block: Block, end: Ints, length: Ints) -> Ints:
    word = block.at(end - 8, 8).view("<u8").astype(np.uint64) & np.uint64(0x0F0F0F0F0F0F0F0F)
    # Bytes before the number count as zeros; a shift by 64 bits is not defined.
    shift = ((8 - length) * 8).astype(np.uint64)
    word = np.where(length > 0, (word >> shift % np.uint64(64)) << shift % np.uint64(64), 0)
    word = word * np.uint64(10) + (word >> np.uint64(8))
    low = word & np.uint64(0x000000FF000000FF)
    high = (word >> np.uint64(16)) & np.uint64(0x000000FF000000FF)
    word = low * np.uint64(100 + (1000000 << 32)) + high * np.uint64(1 + (10000 << 32))
    return (word >> np.uint64(32)).astype(np.int64)


@dataclass
class Template:
    """What one kind of event looks like.

    Attributes:
        literals: What stands around the holes, in the order of the text.
        holes: Numbers, and None for the name.
        event: The event it was learned from: what is no hole is the same in all.
        quotes: Quotes in an event without its name.
        controls: Control characters in an event without its name.
        hits: Events that fitted lately.
    """

    literals: list[bytes]
    holes: list[_Hole | None]
    event: Mapping[str, Any]
    quotes: int
    controls: int
    group: object = None
    hits: float = 0.0

    @cached_property
    def key(self) -> tuple[bytes, ...]:
        """Equal for templates that differ in fractions only."""
        return tuple(self.literals)

    @cached_property
    def _split(self) -> int:
        """The hole of the name; without one, all but the first literal is read backwards."""
        return self.holes.index(None) if None in self.holes else 0

    @staticmethod
    def _literal(block: Block, at: Ints, text: bytes) -> npt.NDArray[np.bool_] | None:
        """Which places hold a text; None for all of them."""
        size = len(text)
        if not size:
            return None
        same = block.at(at, size) == _repeated(text, len(at))
        return None if same.all() else same.reshape(-1, size).all(axis=1)

    def match(self, block: Block, start: Ints, end: Ints) -> Matched:
        """The events, given by where they begin and end, that fit.

        That no quote, backslash or control character stands in a name is left to the caller.
        """
        rows = _Rows(block, np.arange(len(start)), start.copy(), end.copy())
        last = len(self.literals) - 1
        rows.keep(self._literal(block, start, self.literals[0]))
        rows.keep(self._literal(block, rows.end - len(self.literals[last]), self.literals[last]))
        rows.start = rows.start + len(self.literals[0])
        if last:
            rows.end = rows.end - len(self.literals[last])
        split = self._split
        for i in range(split):
            hole = self.holes[i]
            assert hole is not None
            rows.number(hole, forward=True)
            text = self.literals[i + 1]
            rows.keep(self._literal(block, rows.start, text))
            rows.start = rows.start + len(text)
        named = bool(self.holes) and self.holes[split] is None
        for i in range(last - 1, split if named else -1, -1):
            if not len(rows.which):
                break
            hole = self.holes[i]
            assert hole is not None
            rows.number(hole, forward=False)
            text = self.literals[i]
            if i or named:
                rows.end = rows.end - len(text)
                rows.keep(self._literal(block, rows.end, text))
        rows.keep(rows.start <= rows.end if named else rows.start == rows.end)
        return Matched(rows.which, rows.values, (rows.start, rows.end) if named else None)


class _Rows:
    """Events that fit so far: what of each is not yet read lies between `start` and `end`."""

    def __init__(self, block: Block, which: Ints, start: Ints, end: Ints) -> None:
        self.block, self.which, self.start, self.end = block, which, start, end
        self.values: dict[Path, Ints] = {}

    def keep(self, fits: npt.NDArray[np.bool_] | None) -> None:
        if fits is None or fits.all():
            return
        self.which, self.start, self.end = self.which[fits], self.start[fits], self.end[fits]
        self.values = {path: values[fits] for path, values in self.values.items()}

    def number(self, hole: _Hole, forward: bool) -> None:
        """Read a number; events without one there do not fit."""
        block, at = self.block, self.start if forward else self.end
        run = _run(block, at, forward)
        fits = run > 0
        whole, fraction = run, None
        if hole.fraction:
            whole, fraction = self._around_point(at, run, forward)
            fits &= whole > 0
        length = whole if fraction is None else whole + fraction + (fraction > 0)
        begin = at if forward else at - length
        first = block.at(begin, 2).reshape(-1, 2)
        fits &= (first[:, 0] != 48) | (whole == 1)  # JSON knows no leading zeros
        if hole.kind != SKIP:
            fits &= whole <= _DIGITS
            value = _decimal(block, begin + whole, np.minimum(whole, _DIGITS))
            if hole.kind == MICROSECONDS:
                fits &= value < _LARGEST_US
                value = np.where(fits, value, 0) * 1000
                if fraction is not None:
                    fits &= fraction <= 3  # finer than ns: somebody must round
                    few = np.minimum(fraction, 3)
                    value += _decimal(block, begin + length, few) * _TENS[3 - few]
            self.values[hole.path] = value
        if forward:
            self.start = begin + length
        else:
            self.end = begin
        self.keep(fits)

    def _around_point(self, at: Ints, run: Ints, forward: bool) -> tuple[Ints, Ints]:
        """Digits before and after the decimal point; none after it where there is no point."""
        point = at + run if forward else at - run - 1
        pointed = self.block.bytes[point] == 46
        other = np.zeros(len(run), dtype=np.int64)
        with_point = np.flatnonzero(pointed)
        if len(with_point):
            beyond = point[with_point] + 1 if forward else point[with_point]
            other[with_point] = _run(self.block, beyond, forward)
        if forward:
            # A point without digits after it is no number: the text after it does not fit.
            return run, other
        return np.where(pointed, other, run), np.where(pointed, run, 0)


# ------------------------------------------------------------------ learning


def learn(
    raw: bytes, event: Mapping[str, Any], wanted: Mapping[Path, int], group: object
) -> Template | None:
    """The template of an event, None where it has none.

    Args:
        raw: The event's text, from its first bracket to its last.
        event: The same, decoded.
        wanted: Numbers that are wanted of events of its kind, and as what. Whatever else they say
            is taken from `event` for all of them.
        group: What events of its kind are; kept for the caller.
    """
    found = _holes(raw, wanted)
    if found is None or len(found) > _MOST_HOLES:
        return None
    literals, at = [], 0
    for _, begin, end in found:
        literals.append(raw[at:begin])
        at = end
    literals.append(raw[at:])
    if sum(map(len, literals)) > LONGEST:
        return None
    text = b"".join(literals)
    controls = sum(byte < 32 for byte in text)
    return Template(literals, [h for h, _, _ in found], event, text.count(b'"'), controls, group)


def _holes(raw: bytes, wanted: Mapping[Path, int]) -> list[tuple[_Hole | None, int, int]] | None:
    """Numbers and the name of an event, None where it cannot be a template."""
    found: list[tuple[_Hole | None, int, int]] = []
    stack: list[list[Any]] = []  # of each open bracket: what kind, the key at hand, all its keys
    missing = set(wanted)
    at, key_comes = 0, False
    for token in _TOKEN.finditer(raw):
        if token.start() != at:
            return None
        at, text = token.end(), token[0]
        first = text[:1]
        if first in b"{[":
            stack.append([first, None, set()])
            key_comes = first == b"{"
        elif first in b"}]":
            stack.pop()
            key_comes = False
        elif first == b",":
            key_comes = bool(stack) and stack[-1][0] == b"{"
        elif first == b'"' and key_comes:
            key = text[1:-1].decode("utf-8", "replace")
            if key in stack[-1][2]:
                return None  # the last one counts, which is more than a template knows
            stack[-1][1], key_comes = key, False
            stack[-1][2].add(key)
        elif first in b'"-0123456789':
            path = tuple(str(level[1]) for level in stack)
            if first == b'"':
                if path == ("name",):
                    found.append((None, token.start() + 1, at - 1))
                continue
            kind = wanted.get(path, SKIP) if all(level[0] == b"{" for level in stack) else SKIP
            negative = first == b"-"
            if kind != SKIP and (negative or (kind == WHOLE and b"." in text)):
                return None
            if kind != SKIP:
                missing.discard(path)
            begin = token.start() + negative  # a sign is part of the text around it
            fraction = b"." in text or kind == MICROSECONDS
            found.append((_Hole(path, kind, begin, at, fraction), begin, at))
    return found if at == len(raw) and not missing else None
