"""Chrome trace JSON, event by event: any legal layout, in bounded memory, and damaged files too.

The file is read in blocks and never held as a whole. An event that is not legal JSON costs only
itself: torch 2.13 writes quotes in a name unescaped, which makes every strict parser lose the file.
Whoever can take whole events off a block of bytes faster may do so, as long as they can.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from profilemate.parse.readers.kineto.inflate import DamagedError, Text

_BLOCK = 1 << 22
_SMALL = 1 << 14  # what is decoded at a time, and the least that is offered
_LONGEST_EVENT = 1 << 26  # characters; what is longer is no event but damage
_KEYS = "(?:ph|name|cat|pid|tid|ts|dur|args|id|bp|s)"
_NEXT = re.compile(rf'\{{\s*"{_KEYS}"\s*:')
_BETWEEN = re.compile(rf'\}}(?=\s*,\s*\{{\s*"{_KEYS}"\s*:|\s*\]\s*(?:,\s*"|\}}|$))')
_NAME = re.compile(rf'("name"\s*:\s*")(.*?)("\s*,\s*"{_KEYS}"\s*:)', re.DOTALL)
_QUOTE = re.compile(r'(?<!\\)"')
_EVENTS = re.compile(r'"traceEvents"\s*:\s*\[')
_BASE = re.compile(r'"baseTimeNanoseconds"\s*:\s*(\d+)')
_BLANK = re.compile(r"[\s,]*")

# Numbers with a fraction stay text: a double cannot hold microseconds since 1970 to the ns.
_decode = json.JSONDecoder(parse_float=str, strict=False).raw_decode


class Taken(Protocol):
    """What was taken off a block of bytes."""

    @property
    def events(self) -> int:
        """How many events were taken."""

    @property
    def rest(self) -> bytes:
        """What was not taken; it begins with an event."""

    @property
    def stopped(self) -> bool:
        """Whether the next event must be decoded before more can be taken."""


T = TypeVar("T", bound=Taken)
T_co = TypeVar("T_co", bound=Taken, covariant=True)


class Taker(Protocol[T_co]):
    """Takes whole events off the front of blocks of bytes."""

    def take(self, parts: Sequence[bytes], /) -> T_co:
        """Take what can be taken of bytes, in parts, that begin with an event."""


class EventStream(Generic[T]):
    """The events of one file.

    Attributes:
        header: Members of the top-level object other than the events; complete after the events.
        repaired: Events whose name had unescaped quotes, put right.
        broken: Events that could not be read and are left out.
        damage: Why the file ends before its end, None for a whole one.
        read: Bytes read so far, after unpacking.
    """

    def __init__(self, file: Text, taker: Taker[T] | None = None) -> None:
        self._file, self._taker = file, taker
        # What is no UTF-8 can be turned back into its bytes.
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._text, self._at, self._ended = "", 0, False
        self._ahead = memoryview(b"")  # read and not yet decoded
        self._size = 0
        self.header: dict[str, Any] = {}
        self.repaired = self.broken = self.read = 0
        self.damage: str | None = None

    # ------------------------------------------------------------------ text

    def _bytes(self, size: int) -> bytes:
        """The next bytes, no more than `size`; none at the end."""
        if not self._ahead:
            if self._ended:
                return b""
            try:
                # `read` would lose what it has already unpacked when it meets the damage.
                block = self._file.read1(_BLOCK)
            except DamagedError as e:
                # The good part before the damage was returned by the calls before this one.
                self.damage, block = str(e), b""
            self.read += len(block)
            self._ended = not block
            if len(block) <= size:
                return block
            self._ahead = memoryview(block)
        block, self._ahead = bytes(self._ahead[:size]), self._ahead[size:]
        return block

    def _more(self) -> bool:
        """Decode on; whether there was anything."""
        if self._ended and not self._ahead:
            return False
        block = self._bytes(_SMALL)
        self._text = self._text[self._at :] + self._utf8.decode(block, final=not block)
        self._at = 0
        return True

    def _offer(self) -> Iterator[T]:
        """Let the taker take what it can. It leaves an event, with which the text then begins."""
        assert self._taker is not None
        data = self._text[self._at :].encode("utf-8", "surrogateescape")
        data += self._utf8.getstate()[0]
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
        size = self._size or _BLOCK
        while True:
            parts, length = [data], len(data)
            while length < size and (block := self._bytes(size)):
                parts.append(block)
                length += len(block)
            taken = self._taker.take(parts)
            data = taken.rest
            if taken.events:
                yield taken
                size = min(2 * size, _BLOCK)
            elif not taken.stopped:
                size = 2 * length
            if taken.stopped or len(data) > _LONGEST_EVENT or (self._ended and not self._ahead):
                break
        self._size = min(_SMALL, _BLOCK) if taken.stopped else 0
        rest = memoryview(data)[_SMALL:]
        self._ahead = memoryview(bytes(rest) + bytes(self._ahead)) if rest else self._ahead
        self._text, self._at = self._utf8.decode(data[:_SMALL]), 0

    def _peek(self) -> str:
        """The next character that is neither blank nor a comma; empty at the end."""
        while True:
            match = _BLANK.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _value(self) -> Any:
        """The value that begins here.

        Raises:
            ValueError: It is no legal JSON, or the file ends inside it.
        """
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as e:
                left = len(self._text) - self._at
                near_end = e.pos > len(self._text) - 16 or e.msg.startswith("Unterminated")
                if near_end and left < _LONGEST_EVENT and self._more():
                    continue
                raise
            except RecursionError as e:
                raise ValueError("nested too deeply") from e
            if end == len(self._text) and not isinstance(value, (dict, list)) and self._more():
                continue  # a number may go on in the next block
            self._at = end
            return value

    # ------------------------------------------------------------------ structure

    def events(self) -> Iterator[dict[str, Any] | T]:
        """Every event that is an object, or what was taken, in the order of the file."""
        first = self._peek()
        if first == "[":
            self._at += 1
            yield from self._array()
        elif first == "{":
            self._at += 1
            yield from self._members()

    def _members(self) -> Iterator[dict[str, Any] | T]:
        while (char := self._peek()) != "}":
            if not char:
                self.damage = self.damage or "its text ends before the last bracket"
                return
            try:
                key = self._value()
                if self._peek() != ":" or not isinstance(key, str):
                    raise ValueError("no member of an object")
                self._at += 1
                if self._peek() == "[" and key == "traceEvents":
                    self._at += 1
                    yield from self._array()
                else:
                    self.header[key] = self._value()
            except ValueError:
                if not self._find_events():
                    return
                yield from self._array()

    def _find_events(self) -> bool:
        """Go on after the bracket of the events, wherever it is."""
        while (match := _EVENTS.search(self._text, self._at)) is None:
            self._keep_base()
            # What was searched may go, but not the first half of what is sought.
            self._at = max(self._at, len(self._text) - 64)
            if not self._more():
                return False
        self._keep_base(match.start())
        self._at = match.end()
        return True

    def _keep_base(self, end: int | None = None) -> None:
        found = _BASE.search(self._text, self._at, len(self._text) if end is None else end)
        if found:
            self.header.setdefault("baseTimeNanoseconds", int(found[1][:19]))

    def _array(self) -> Iterator[dict[str, Any] | T]:
        while (char := self._peek()) != "]":
            if not char:
                self.damage = self.damage or "its text ends before the last event"
                return
            if char == "{" and self._taker is not None:
                yield from self._offer()
            try:
                event = self._value()
            except ValueError:
                event = self._salvage()
            if isinstance(event, dict):
                yield event
        self._at += 1

    # ------------------------------------------------------------------ damage

    def _salvage(self) -> dict[str, Any] | None:
        """Pass a broken event; return it if its name could be put right."""
        searched = 0
        while (end := _BETWEEN.search(self._text, self._at + searched)) is None:
            searched = max(0, len(self._text) - self._at - 64)
            if searched > _LONGEST_EVENT:
                self._at, searched = self._at + searched, 0
            if not self._more():
                self._at = len(self._text)
                self.damage = self.damage or "its text ends inside an event"
                return None
        text = self._text[self._at : end.end()]
        self._at = end.end()
        fixed = _NAME.sub(lambda m: m[1] + _QUOTE.sub(lambda _: '\\"', m[2]) + m[3], text, count=1)
        begin = _NEXT.search(fixed)
        try:
            event, _ = _decode(fixed, begin.start() if begin else 0)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            self.broken += 1
            return None
        self.repaired += 1
        return event
