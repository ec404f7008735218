"""Chrome trace JSON, event by event: any legal layout, in bounded memory, and damaged files too.

The file is read in blocks and never held as a whole. An event that is not legal JSON costs only
itself: torch 2.13 writes quotes in a name unescaped, which makes every strict parser lose the file.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

_BLOCK = 1 << 20
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


class Bytes(Protocol):
    """A file as far as it is needed here."""

    def read1(self, size: int, /) -> bytes:
        """Up to so many bytes, by one read of what lies below; none at the end."""


class EventStream:
    """The events of one file.

    Attributes:
        header: Members of the top-level object other than the events; complete after the events.
        repaired: Events whose name had unescaped quotes, put right.
        broken: Events that could not be read and are left out.
        damage: Why the file ends before its end, None for a whole one.
        read: Bytes read so far, after unpacking.
    """

    def __init__(self, file: Bytes) -> None:
        self._file = file
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._text, self._at, self._ended = "", 0, False
        self.header: dict[str, Any] = {}
        self.repaired = self.broken = self.read = 0
        self.damage: str | None = None

    # ------------------------------------------------------------------ text

    def _more(self) -> bool:
        """Read on; whether there was anything."""
        if self._ended:
            return False
        try:
            # `read` would lose what it has already unpacked when it meets the damage.
            block = self._file.read1(_BLOCK)
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            # The good part before the damage was returned by the calls before this one.
            self.damage, block = f"{e}".rstrip(".") or "it ends too early", b""
        self.read += len(block)
        self._ended = not block
        self._text = self._text[self._at :] + self._utf8.decode(block, final=not block)
        self._at = 0
        return True

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

    def events(self) -> Iterator[dict[str, Any]]:
        """Every event that is an object, in the order of the file."""
        first = self._peek()
        if first == "[":
            self._at += 1
            yield from self._array()
        elif first == "{":
            self._at += 1
            yield from self._members()

    def _members(self) -> Iterator[dict[str, Any]]:
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

    def _array(self) -> Iterator[dict[str, Any]]:
        while (char := self._peek()) != "]":
            if not char:
                self.damage = self.damage or "its text ends before the last event"
                return
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
