"""Templates: the text of an event with holes for its numbers and its name.

A writer spells all events of a kind the same: the same keys, the same spaces, other numbers and
another name. So an event that was decoded exactly once tells how to read all others of its kind
without decoding them: whatever stands around the holes must be there byte for byte, and what
stands in them must be a number. Nothing is assumed of a layout; each file teaches its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.readers.kineto.block import Block, Digits, digits_at, repeated

LONGEST = 2048
"""Bytes of a template without its name; more than `PAD` would be too much."""

SKIP, WHOLE, MICROSECONDS = range(3)
"""What a number is wanted for: not at all, as an integer, as ns."""

_MOST_HOLES = 64
_DIGITS = 16
_TENS = 10 ** np.arange(19, dtype=np.int64)
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
        same = self.block.at(at, len(text)) == repeated(text, len(at))
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
        digits = digits_at(block, at, forward=forward, value=wanted)
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

    def _count(self, digits: Digits) -> None:
        np.minimum(self._fewest, digits.run, out=self._fewest)
        self._bad |= digits.bad

    def _fractional(self, hole: _Hole, at: Ints, near: Digits, forward: bool) -> None:
        """A number that may have a decimal point, of which one side was read."""
        point = at + near.run if forward else at - near.run - 1
        pointed = np.flatnonzero(self.block.bytes[point] == 46)
        every = len(pointed) == len(at)
        beyond = point if every else point[pointed]
        wanted = hole.kind != SKIP
        far = digits_at(
            self.block, beyond + 1 if forward else beyond, forward=forward, value=wanted
        )
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

    def _ns(self, near: Digits, far: Digits, pointed: Ints, forward: bool) -> Ints:
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
