"""Templates: the text of an event with holes for its numbers and its name.

A writer spells all events of a kind the same: the same keys, the same spaces, other numbers and
another name. So an event that was decoded exactly once tells how to read all others of its kind
without decoding them: whatever stands around the holes must be there byte for byte, and what
stands in them must be a number. Nothing is assumed of a layout; each file teaches its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.parse.activity import Ints

Bytes = npt.NDArray[np.uint8]

PAD = 8192
"""Bytes before the first and after the last event of a block that may be looked at."""

_PADDING = bytes(PAD)
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
_TENS = 10 ** np.arange(19, dtype=np.int64)
_EIGHT = np.uint64(8)
_SIXTEEN = np.uint64(16)
_HALVES = np.uint64(0x000000FF000000FF)
_LOW, _HIGH = np.uint64(100 + (1000000 << 32)), np.uint64(1 + (10000 << 32))
_ZERO = np.uint8(48)


@dataclass(slots=True)
class _Digits:
    """Digits at some places: how many, whether they begin with a needless zero, their value."""

    run: Ints
    bad: Bytes
    value: Ints


_NO_VALUE = np.empty(0, dtype=np.int64)


def _digits(block: Block, at: Ints, *, forward: bool, value: bool) -> _Digits:
    """The digits that stand from each place on, or before it.

    Of more than 16 there is no value, and of more than 32 not even the number is right.
    """
    window = block.at(at if forward else at - 8, 8)
    digit = window - _ZERO
    bits = np.packbits(digit < 10, bitorder="little")
    zero = np.packbits(digit == 0, bitorder="little")
    run = (_FORWARD if forward else _BACKWARD)[bits]
    bad = zero & (_FORWARD_LEAD if forward else _BACKWARD_LEAD)[bits]
    found = _Digits(run, bad, _NO_VALUE)
    if value and not forward:
        found.value = _number(window.view("<u8") & _VALUE[bits])
    if len(run) and run.max() == 8:
        _lengthen(block, at, found, forward)
    if value and forward:
        found.value = _digits(block, at + run, forward=False, value=True).value
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


def _lengthen(block: Block, at: Ints, found: _Digits, forward: bool) -> None:
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
    def _split(self) -> int:
        """The hole of the name; without one, all but the first literal is read backwards."""
        return self.holes.index(None) if None in self.holes else 0

    def match(self, block: Block, start: Ints, end: Ints) -> Matched:
        """The events, given by where they begin and end, that fit.

        That no quote, backslash or control character stands in a name is left to the caller.
        """
        literals, last = self.literals, len(self.literals) - 1
        rows = _Rows(block, np.arange(len(start)), start, end)
        rows.text(literals[0], forward=True)
        if last:
            rows.text(literals[last], forward=False)
        split = self._split
        for i in range(split):
            rows.number(self.holes[i], forward=True)
            rows.text(literals[i + 1], forward=True)
        named = bool(self.holes) and self.holes[split] is None
        for i in range(last - 1, split if named else -1, -1):
            rows.number(self.holes[i], forward=False)
            if i or named:
                rows.text(literals[i], forward=False)
        rows.settle(named)
        return Matched(rows.which, rows.values, (rows.start, rows.end) if named else None)


class _Rows:
    """Events that fit so far: what of each is not yet read lies between `start` and `end`."""

    def __init__(self, block: Block, which: Ints, start: Ints, end: Ints) -> None:
        self.block, self.which, self.start, self.end = block, which, start, end
        self.values: dict[Path, Ints] = {}
        self._fewest = np.ones(len(which), dtype=np.int64)  # digits of a number
        self._bad = np.zeros(len(which), dtype=np.uint8)

    def keep(self, fits: npt.NDArray[np.bool_]) -> None:
        """Go on with some events only."""
        self.which, self.start, self.end = self.which[fits], self.start[fits], self.end[fits]
        self._fewest, self._bad = self._fewest[fits], self._bad[fits]
        self.values = {path: values[fits] for path, values in self.values.items()}

    def settle(self, named: bool) -> None:
        """Apply what was put off: numbers must be numbers, and nothing may be left over."""
        fits = self._bad == 0
        fits &= self._fewest > 0
        fits &= self.start <= self.end if named else self.start == self.end
        if np.count_nonzero(fits) != len(fits):
            self.keep(fits)

    def text(self, text: bytes, *, forward: bool) -> None:
        """Read a text; events without it there do not fit."""
        if not text or not len(self.which):
            return
        at = self.start if forward else self.end - len(text)
        same = self.block.at(at, len(text)) == _repeated(text, len(at))
        if forward:
            self.start = at + len(text)
        else:
            self.end = at
        if np.count_nonzero(same) != len(same):
            self.keep(same.reshape(-1, len(text)).all(axis=1))

    def number(self, hole: _Hole | None, *, forward: bool) -> None:
        """Read a number; what is none is remembered."""
        if not len(self.which):
            return
        assert hole is not None
        block, at, wanted = self.block, self.start if forward else self.end, hole.kind != SKIP
        digits = _digits(block, at, forward=forward, value=wanted)
        if hole.fraction:
            self._fractional(hole, at, digits, forward)
            return
        self._count(digits)
        if wanted:
            self._bad |= digits.run > _DIGITS
            value = digits.value
            if hole.kind == MICROSECONDS:
                self._bad |= value >= _LARGEST_US
                value *= 1000
            self.values[hole.path] = value
        if forward:
            self.start = at + digits.run
        else:
            self.end = at - digits.run

    def _count(self, digits: _Digits) -> None:
        np.minimum(self._fewest, digits.run, out=self._fewest)
        self._bad |= digits.bad

    def _fractional(self, hole: _Hole, at: Ints, near: _Digits, forward: bool) -> None:
        """A number that may have a decimal point, of which one side was read."""
        point = at + near.run if forward else at - near.run - 1
        pointed = np.flatnonzero(self.block.bytes[point] == 46)
        every = len(pointed) == len(at)
        beyond = point if every else point[pointed]
        wanted = hole.kind != SKIP
        far = _digits(self.block, beyond + 1 if forward else beyond, forward=forward, value=wanted)
        whole, fraction = (near, far) if forward else (far, near)
        if every:
            self._count(whole)
            length = near.run + far.run + 1
            np.minimum(self._fewest, fraction.run, out=self._fewest)
        else:
            length = near.run.copy()
            length[pointed] += far.run + 1
            np.minimum(self._fewest, near.run, out=self._fewest)
            self._fewest[pointed] = np.minimum(self._fewest[pointed], far.run)
            bad = near.bad.copy()
            bad[pointed] = whole.bad if not forward else near.bad[pointed]
            self._bad |= bad
        if wanted:
            self.values[hole.path] = self._ns(near, far, pointed, forward)
        if forward:
            self.start = at + length
        else:
            self.end = at - length

    def _ns(self, near: _Digits, far: _Digits, pointed: Ints, forward: bool) -> Ints:
        """Microseconds with up to three decimals as ns."""
        if len(pointed) == len(near.run):
            whole, part = (near, far) if forward else (far, near)
            self._bad |= (part.run > 3) | (whole.run > _DIGITS) | (whole.value >= _LARGEST_US)
            value = whole.value * 1000
            value += part.value * _TENS[3 - np.minimum(part.run, 3)]
            return value
        value, run = near.value.copy(), near.run.copy()
        part_value, part_run = np.zeros_like(value), np.zeros_like(run)
        if forward:
            part_value[pointed], part_run[pointed] = far.value, far.run
        else:
            part_value[pointed], part_run[pointed] = near.value[pointed], near.run[pointed]
            value[pointed], run[pointed] = far.value, far.run
        self._bad |= (part_run > 3) | (run > _DIGITS) | (value >= _LARGEST_US)
        value = value * 1000
        value += part_value * _TENS[3 - np.minimum(part_run, 3)]
        return value


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
