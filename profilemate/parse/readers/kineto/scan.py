"""Whole events off the front of a block of bytes: by template, thousands at once.

What comes out is what an exact decoder would say, because nothing is taken on trust:

* An event that fits a template is legal JSON if its name is free of quotes, backslashes and control
  characters. Its other characters were compared. The block's quotes and control characters are
  counted: if there are as many as the templates have, there is none in a name.
* An event that fits no template is decoded, from where it begins to where it seems to end. If that
  is one whole value, it is one event, and the next one begins after it.
* Where that fails the block ends, and the event is left to `EventStream`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.readers.kineto.batch import Batches, Events
from profilemate.parse.readers.kineto.block import PAD, Block
from profilemate.parse.readers.kineto.found import Found, group_of
from profilemate.parse.readers.kineto.template import Matched, Template, learn
from profilemate.parse.recording.contract import Marker

_MOST = 128  # templates
_LESSONS = 16  # what a block may teach at once
_BETWEEN_LESSONS = 32  # events that are decoded from then on, before one is learned from
_FADING = 0.5
_FIRST = 1 << 16
_NEXT = re.compile(rb"[ \t\r\n]*,[ \t\r\n]*\{")

decode = json.JSONDecoder(parse_float=str, strict=False).raw_decode


@dataclass(slots=True)
class Taken:
    """What came of a block.

    Attributes:
        rest: The bytes that were not taken; if any were, they begin with an event.
        events: How many.
        exact: Events among them that were decoded one by one.
        markers: Our messages.
        stopped: Whether the event that comes next must be read by other means.
    """

    rest: bytes
    events: int = 0
    exact: int = 0
    markers: list[Marker] = field(default_factory=list)
    stopped: bool = False


class Lessons:
    """How often events that were decoded are learned from: what never comes again costs time."""

    def __init__(self) -> None:
        self._taken = self._since = 0

    def wanted(self) -> bool:
        """Whether the next event that was decoded should be learned from."""
        self._since += 1
        return self._taken < _LESSONS or self._since >= _BETWEEN_LESSONS

    def learned(self) -> None:
        """It taught something."""
        self._taken, self._since = self._taken + 1, 0


class Scanner:
    """Takes events off blocks of bytes and puts what is wanted into `found`."""

    def __init__(self, found: Found) -> None:
        self._found, self._batches = found, Batches(found)
        self._templates: list[Template] = []
        self._separator = b""

    def take(self, parts: Sequence[bytes]) -> Taken:
        """Take events from bytes that begin at an event's bracket.

        The last event is left: only what follows it tells that it is whole.
        """
        block = Block(parts)
        if not self._separator and not self._sniff(block.raw[PAD : min(block.end, PAD + _FIRST)]):
            return self._unknown(block.raw[PAD : block.end])
        starts, ends = self._events(block)
        if not len(starts):
            return Taken(block.raw[PAD : block.end])
        odd = np.zeros(len(starts), dtype=bool)
        if block.raw.find(b"\\") >= 0:
            at = np.flatnonzero(block.bytes == 92)
            odd[np.maximum(np.searchsorted(starts, at, "right") - 1, 0)] = True
        while True:
            work = _Work(self, block, starts, ends, odd)
            wrong = work.wrong(self._separator)
            if not len(wrong):
                break
            odd[wrong] = True
        stopped = work.stop < len(starts)
        if stopped:
            self._separator = b""
        markers = self._batches.keep(block, work.events(), work.exact)
        self._forget()
        rest = block.raw[starts[work.stop] if stopped else work.after : block.end]
        return Taken(rest, work.stop, len(work.exact), markers, stopped)

    def _sniff(self, data: bytes) -> bool:
        """Find out what stands between two events: what stands after the first one."""
        for size in (4096, _FIRST):
            text = data[:size]
            try:
                _, end = decode(text.decode("latin-1"), 0)
            except (ValueError, RecursionError):
                continue
            found = _NEXT.match(text, end)
            if found is None or len(found[0]) > 64:
                return False
            self._separator = b"}" + found[0]
            return True
        return False

    @staticmethod
    def _unknown(data: bytes) -> Taken:
        """What to say of bytes of which not even the first event is whole or understood."""
        return Taken(data, stopped=len(data) >= _FIRST)

    def _events(self, block: Block) -> tuple[Ints, Ints]:
        """Where the events seem to begin and end, without the last one."""
        text = self._separator
        found = np.flatnonzero(block.bytes[PAD : block.end - len(text) + 1] == 125) + PAD
        found = found[block.begins(found, text)]
        starts = np.concatenate([[PAD], found[:-1] + len(text) - 1]) if len(found) else found
        return starts.astype(np.int64), found + 1

    def _forget(self) -> None:
        for template in self._templates:
            template.hits *= _FADING
        self._templates.sort(key=lambda t: -t.hits)
        if len(self._templates) > _MOST:
            del self._templates[_MOST * 3 // 4 :]

    @property
    def templates(self) -> list[Template]:
        """What is known, what was most useful lately first."""
        return self._templates

    def learn(self, raw: bytes, event: Mapping[str, Any]) -> Template | None:
        """Learn from an event that fitted no template; return what is new."""
        group = group_of(event)
        if group is None:
            return None
        new = learn(raw, event, group[1], group[0])
        if new is None:
            return None
        for old in self._templates:
            if old.literals == new.literals:
                for hole, other in zip(old.holes, new.holes, strict=True):
                    if hole is not None and other is not None:
                        hole.fraction |= other.fraction
                return old
        self._templates.append(new)
        return new


def decoded(raw: bytes) -> Mapping[str, Any] | None:
    """An event; None if the bytes are not just one."""
    text = raw.decode("utf-8", "surrogateescape")
    try:
        event, end = decode(text, 0)
    except (ValueError, RecursionError):
        return None
    return event if end == len(text) else None


class _Work:
    """One pass over the events of a block."""

    def __init__(
        self,
        scanner: Scanner,
        block: Block,
        starts: Ints,
        ends: Ints,
        odd: np.ndarray[Any, np.dtype[np.bool_]],
    ) -> None:
        self._block, self._starts, self._ends = block, starts, ends
        self._matched: list[tuple[Template, Ints, Matched]] = []
        self.exact: list[tuple[int, Mapping[str, Any]]] = []
        self.stop = len(starts)
        self._left = np.flatnonzero(~odd)
        for template in scanner.templates:
            self._match(template)
        rest = np.sort(np.concatenate([self._left, np.flatnonzero(odd)]))
        self._decode(scanner, rest, odd)

    def _match(self, template: Template) -> None:
        left = self._left
        if not len(left):
            return
        matched = template.match(self._block, self._starts[left], self._ends[left])
        if len(matched.which):
            template.hits += len(matched.which)
            self._matched.append((template, left[matched.which], matched))
            self._left = np.delete(left, matched.which)

    def _decode(
        self, scanner: Scanner, rest: Ints, odd: np.ndarray[Any, np.dtype[np.bool_]]
    ) -> None:
        """Decode what fitted no template, one event after the other, and learn from it."""
        lessons = Lessons()
        pending = np.zeros(len(self._starts), dtype=bool)
        pending[rest] = True
        for row in rest.tolist():
            if not pending[row]:
                continue
            raw = self._block.raw[self._starts[row] : self._ends[row]]
            event = decoded(raw)
            if event is None:
                self.stop = row
                return
            self.exact.append((row, event))
            pending[row] = False
            if not lessons.wanted() or odd[row]:
                continue
            template = scanner.learn(raw, event)
            if template is not None:
                lessons.learned()
                self._left = self._left[self._left > row]
                before = self._left
                self._match(template)
                pending[np.setdiff1d(before, self._left, assume_unique=True)] = False

    @property
    def after(self) -> int:
        """Where the event after the last one begins."""
        return int(self._ends[-1]) + self._tail

    _tail = 0

    def wrong(self, separator: bytes) -> Ints:
        """Events that fit a template and yet hold a quote or a control character too many."""
        self._tail = len(separator) - 2
        begin = int(self._starts[0])
        end = int(self._starts[self.stop]) if self.stop < len(self._starts) else self.after
        text = self._block.bytes[begin:end]
        gaps = self.stop * sum(byte < 32 for byte in separator)
        quotes = np.count_nonzero(text == 34)
        controls = np.count_nonzero(text < 32) - gaps
        for template, rows, _ in self._matched:
            count = int((rows < self.stop).sum())
            quotes -= count * template.quotes
            controls -= count * template.controls
        for row, _ in self.exact:
            piece = self._block.bytes[self._starts[row] : self._ends[row]]
            quotes -= np.count_nonzero(piece == 34)
            controls -= np.count_nonzero(piece < 32)
        if not quotes and not controls:
            return np.empty(0, dtype=np.int64)
        found = []
        for template, rows, _ in self._matched:
            for row in rows[rows < self.stop].tolist():
                piece = self._block.bytes[self._starts[row] : self._ends[row]]
                if (
                    np.count_nonzero(piece == 34) != template.quotes
                    or np.count_nonzero(piece < 32) != template.controls
                ):
                    found.append(row)
        return np.array(found, dtype=np.int64)

    def events(self) -> list[Events]:
        """What was read by templates, before where the block stops."""
        found = []
        for template, rows, matched in self._matched:
            kept = rows < self.stop
            if not kept.all():
                values = {path: v[kept] for path, v in matched.values.items()}
                name = matched.name and (matched.name[0][kept], matched.name[1][kept])
                matched, rows = Matched(matched.which[kept], values, name), rows[kept]
            found.append(Events(rows, template.group, matched))  # type: ignore[arg-type]
        return found
