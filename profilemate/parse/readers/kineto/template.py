"""Templates: the text of an event with holes for what differs from one of its kind to the next.

A writer spells all events of a kind the same: the same keys, the same spaces, other numbers and
another name. So an event that was decoded exactly once tells how to read all others of its kind
without decoding them: whatever stands around the holes must be there byte for byte, and what
stands in them must be a number, a text or a list. Nothing is assumed of a layout; each file
teaches its own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

SKIP, WHOLE, MICROSECONDS, NAME, TEXT, ARRAY = range(6)
"""What may stand in a hole, as in _scan.c: a number nobody wants, an integer, a number of us; the
event's name; any other text; a list of numbers, texts and lists."""

_LONGEST = 1 << 14  # bytes of a template around its holes
_MOST_HOLES = 256  # as in _scan.c
_TOKEN = re.compile(
    rb'"[^"\\\x00-\x1f]*"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?![0-9.eE])'
    rb"|true|false|null|[{}\[\],:]|[ \t\r\n]+"
)
_QUOTED = {
    WHOLE: re.compile(rb'"(?:0|[1-9][0-9]*)"'),
    MICROSECONDS: re.compile(rb'"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?"'),
}
Path = tuple[str, ...]


@dataclass(slots=True)
class Hole:
    """A hole.

    Attributes:
        kind: What may stand in it.
        path: The keys that lead to it, from the event down.
        begin: Where it begins in the event it was learned from.
        end: Where it ends there.
        fraction: Whether its number may have decimals.
    """

    kind: int
    path: Path
    begin: int
    end: int
    fraction: bool = False


@dataclass(slots=True)
class Template:
    """What one kind of event looks like.

    Attributes:
        literals: What stands around the holes, in the order of the text: one more than holes.
        holes: The holes.
        group: What becomes of events of this kind.
    """

    literals: list[bytes]
    holes: list[Hole]
    group: object = None

    def teach(self, other: Template) -> bool:
        """Take over what another one knows more, if both are of the same kind of event."""
        if self.literals != other.literals:
            return False
        if [hole.kind for hole in self.holes] != [hole.kind for hole in other.holes]:
            return False
        for hole, one in zip(self.holes, other.holes, strict=True):
            hole.fraction |= one.fraction
        return True


class Lessons:
    """How often events that were decoded are learned from: what never comes again costs time.

    A lesson takes longer than ten events to decode, whether it teaches anything or not. A block
    starts with some; when these are used up there is one for every 32 events or so, by lot: events
    that take turns must each have theirs.
    """

    _AT_ONCE, _BETWEEN = 16, 32

    def __init__(self) -> None:
        self._left, self._wait = self._AT_ONCE, 0
        self._lot = random.Random(1)

    def new_block(self) -> None:
        """Allow those of a new block."""
        self._left = self._AT_ONCE

    def wanted(self) -> bool:
        """Whether the next event that was decoded is to be learned from; if so, that is one."""
        self._wait -= 1
        if self._left:
            self._left -= 1
            return True
        if self._wait > 0:
            return False
        self._wait = self._lot.randrange(self._BETWEEN // 2, self._BETWEEN * 3 // 2)
        return True


def learn(
    raw: bytes,
    event_wants: Mapping[Path, int],
    decisive: Collection[Path],
    group: object,
) -> Template | None:
    """The template of an event, None where it has none.

    Args:
        raw: The event's text, from its first bracket to its last.
        event_wants: Numbers that are wanted of events of its kind, and as what.
        decisive: Paths at which another text would make it an event of another kind.
        group: What becomes of events of its kind; kept for the caller.
    """
    holes = _Holes(raw, event_wants, decisive).find()
    if holes is None or len(holes) > _MOST_HOLES:
        return None
    literals, at = [], 0
    for hole in holes:
        literals.append(raw[at : hole.begin])
        at = hole.end
    literals.append(raw[at:])
    return None if sum(map(len, literals)) > _LONGEST else Template(literals, holes, group)


@dataclass(slots=True)
class _Level:
    """An open bracket.

    Attributes:
        begin: Where it stands.
        is_list: Whether it is that of a list.
        first_hole: How many holes were found before it.
        simple: Whether nothing in it is an object.
        key: The key at hand.
        keys: All keys up to now.
    """

    begin: int
    is_list: bool
    first_hole: int
    simple: bool = True
    key: str = ""
    keys: set[str] = field(default_factory=set)


class _Holes:
    """Looks for the holes in one event, token by token."""

    def __init__(
        self, raw: bytes, event_wants: Mapping[Path, int], decisive: Collection[Path]
    ) -> None:
        self._raw, self._wants, self._decisive = raw, event_wants, decisive
        self._missing = set(event_wants)
        self._open: list[_Level] = []
        self._found: list[Hole] = []
        self._key_comes = False

    def find(self) -> list[Hole] | None:
        """The holes in their order, None where the event cannot be a template."""
        at = 0
        for token in _TOKEN.finditer(self._raw):
            if token.start() != at or not self._take(token[0], at):
                return None
            at = token.end()
        return self._found if at == len(self._raw) and not self._missing else None

    def _take(self, text: bytes, at: int) -> bool:
        """Take a token; whether there may still be a template."""
        first = text[:1]
        if first in b"{[":
            self._open.append(_Level(at, first == b"[", len(self._found)))
            self._key_comes = first == b"{"
        elif first in b"}]":
            self._close(at + 1)
            self._key_comes = False
        elif first == b",":
            self._key_comes = not self._open[-1].is_list
        elif first == b'"' and self._key_comes:
            return self._key(text)
        elif first == b'"':
            return self._text(text, at)
        elif first in b"-0123456789":
            return self._number(text, at)
        return True

    def _close(self, end: int) -> None:
        """A bracket closes; a list without objects is one hole, whatever was found in it."""
        level = self._open.pop()
        if level.is_list and level.simple:
            del self._found[level.first_hole :]
            self._found.append(Hole(ARRAY, self._path(), level.begin, end))
        elif self._open:
            self._open[-1].simple = False

    def _key(self, text: bytes) -> bool:
        level, key = self._open[-1], text[1:-1].decode("utf-8", "replace")
        if key in level.keys:
            return False  # the last one counts, which is more than a template knows
        level.key, self._key_comes = key, False
        level.keys.add(key)
        return True

    def _path(self) -> Path:
        """The keys that lead here; in a list there is no such path."""
        return tuple("" if level.is_list else level.key for level in self._open)

    def _text(self, text: bytes, at: int) -> bool:
        path, inside, end = self._path(), at + 1, at + len(text) - 1
        if path == ("name",):
            self._found.append(Hole(NAME, path, inside, end))
        elif path in self._wants:  # a number in quotes
            kind = self._wants[path]
            if _QUOTED[kind].fullmatch(text) is None:
                return False
            self._missing.discard(path)
            self._found.append(Hole(kind, path, inside, end, kind == MICROSECONDS))
        elif path not in self._decisive:
            self._found.append(Hole(TEXT, path, inside, end))
        return True

    def _number(self, text: bytes, at: int) -> bool:
        path, negative, fraction = self._path(), text.startswith(b"-"), b"." in text
        kind = self._wants.get(path, SKIP)
        if kind != SKIP:
            if negative or (kind == WHOLE and fraction):
                return False
            self._missing.discard(path)
        begin = at + negative  # a sign is part of the text around it
        fraction = fraction or kind == MICROSECONDS
        self._found.append(Hole(kind, path, begin, at + len(text), fraction))
        return True
