"""Chrome trace JSON, event by event: any legal layout, in bounded memory, and damaged files too.

The file is read in blocks and never held as a whole. An event that is not legal JSON costs only
itself: torch 2.13 writes quotes in a name unescaped, which makes every strict parser lose the file.
Whoever can take whole events off a block of bytes faster may do so, as long as they can.

Whatever the bytes, the work grows with their number only: what is tried again has at least as much
new text as old (`Window.more`), and text that was decoded in vain is counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from profilemate.parse.readers.kineto.inflate import Text
from profilemate.parse.readers.kineto.window import Window
from profilemate.parse.recording.contract import Marker

DISTRIBUTED = "distributedInfo"
"""The member of torch's traces that says which rank of a process group wrote it."""

TO_THE_END = "its text ends before the last event"

_LONGEST_VALUE = 1 << 23  # characters; what is longer is no event but damage
_IN_VAIN, _IN_VAIN_A_BYTE = 1 << 20, 8  # characters that may be decoded for nothing
_FEW = 4  # events: a taker that takes no more is asked less and less often
_LONGEST_PAUSE = 256
_KEYS = "(?:ph|name|cat|pid|tid|ts|dur|args|id|bp|s)"
_NEXT = re.compile(rf'\{{\s*"{_KEYS}"\s*:')
_BETWEEN = re.compile(rf'\}}(?=\s*,\s*\{{\s*"{_KEYS}"\s*:|\s*\]\s*(?:,\s*"|\}}|$))')
_NAME = re.compile(r'"name"\s*:\s*"')
_NAME_ENDS = re.compile(rf'"\s*,\s*"{_KEYS}"\s*:')
_QUOTE = re.compile(r'(?<!\\)"')
_EVENTS = re.compile(r'"traceEvents"\s*:\s*\[')
_BASE = re.compile(r'"baseTimeNanoseconds"\s*:\s*(\d+)')
_BLANK = re.compile(r"[\s,]*")

# Numbers with a fraction stay text: a double cannot hold microseconds since 1970 to the ns.
_decode = json.JSONDecoder(parse_float=str, strict=False).raw_decode


@dataclass(slots=True)
class Taken:
    """What was taken off a block of bytes.

    Attributes:
        at: Where what was not taken begins: with an event, if anything was taken.
        events: How many events were taken.
        exact: Events among them that were decoded one by one.
        markers: Our messages.
        stopped: Whether the next event must be decoded before more can be taken; otherwise there
            is no whole event any more.
    """

    at: int
    events: int = 0
    exact: int = 0
    markers: list[Marker] = field(default_factory=list)
    stopped: bool = False


class Taker(Protocol):
    """Takes whole events off blocks of bytes."""

    def take(self, raw: bytes, begin: int, /) -> Taken:
        """Take what can be taken of bytes, from an event's bracket on."""


class _HopelessError(Exception):
    """So much was decoded in vain that going on would take for ever."""


class EventStream:
    """The events of one file.

    Attributes:
        header: Members of the top-level object that somebody asks for; complete after the events.
        repaired: Events whose name had unescaped quotes, put right.
        broken: Events that could not be read and are left out.
        in_vain: Characters that were decoded for nothing.
    """

    def __init__(
        self, file: Text, taker: Taker | None = None, wanted: Collection[str] = ()
    ) -> None:
        self._window, self._taker, self._wanted = Window(file), taker, wanted
        self.header: dict[str, Any] = {}
        self.repaired = self.broken = self.in_vain = 0
        self._pause = self._next_pause = 0  # events that are decoded before the taker is asked
        self._damage: str | None = None

    @property
    def damage(self) -> str | None:
        """Why the file ends before its end, None for a whole one."""
        return self._window.damage or self._damage

    @property
    def read(self) -> int:
        """Bytes read so far, after unpacking."""
        return self._window.read

    # ------------------------------------------------------------------ text

    def _offer(self) -> Iterator[Taken]:
        """Let the taker take what it can. It leaves an event, with which the text then begins."""
        assert self._taker is not None
        window, events = self._window, 0
        window.rewind()
        while True:
            taken = self._taker.take(window.raw, window.next)
            window.next = taken.at
            events += taken.events
            if taken.events:
                yield taken
            if taken.stopped or not window.widen():
                break
        window.more()
        self._next_pause = 0 if events > _FEW else min(2 * self._next_pause + 1, _LONGEST_PAUSE)
        self._pause = self._next_pause

    def _peek(self) -> str:
        """The next character that is neither blank nor a comma; empty at the end."""
        window = self._window
        while True:
            match = _BLANK.match(window.text, window.at)
            assert match is not None
            window.at = match.end()
            if window.at < len(window.text):
                return window.text[window.at]
            if not window.more():
                return ""

    def _value(self) -> Any:
        """The value that begins here.

        Raises:
            ValueError: It is no legal JSON, or the file ends inside it.
        """
        window = self._window
        while True:
            begin, length = window.at, len(window.text)
            try:
                value, end = _decode(window.text, begin)
            except json.JSONDecodeError as e:
                near_end = e.pos > length - 16 or e.msg.startswith("Unterminated")
                self._failed(length - begin if near_end else e.pos - begin)
                if near_end and length - begin < _LONGEST_VALUE and window.more():
                    continue
                raise
            except RecursionError as e:
                self._failed(length - begin)
                raise ValueError("nested too deeply") from e
            if end == length and not isinstance(value, (dict, list)) and window.more():
                self._failed(end - begin)
                continue  # a number may go on in the next block
            window.at = end
            return value

    def _failed(self, characters: int) -> None:
        """Count what was decoded for nothing.

        Raises:
            _HopelessError: It is too much.
        """
        self.in_vain += characters
        if self.in_vain > _IN_VAIN + _IN_VAIN_A_BYTE * self._window.read:
            raise _HopelessError

    # ------------------------------------------------------------------ structure

    def events(self) -> Iterator[dict[str, Any] | Taken]:
        """Every event that is an object, or what was taken, in the order of the file."""
        first = self._peek()
        try:
            if first == "[":
                self._window.at += 1
                yield from self._array()
            elif first == "{":
                self._window.at += 1
                yield from self._members()
        except _HopelessError:
            self._ends("it is broken in more places than can be put right")

    def _ends(self, why: str) -> None:
        self._damage = self._damage or why

    def _members(self) -> Iterator[dict[str, Any] | Taken]:
        while (char := self._peek()) != "}":
            if not char:
                self._ends("its text ends before the last bracket")
                return
            try:
                key = self._value()
                if self._peek() != ":" or not isinstance(key, str):
                    raise ValueError("no member of an object")
                self._window.at += 1
                if self._peek() == "[" and key == "traceEvents":
                    self._window.at += 1
                    yield from self._array()
                    continue
                value = self._value()
            except ValueError:
                if not self._find_events():
                    return
                yield from self._array()
            else:
                if key in self._wanted:
                    self.header[key] = _fact(key, value)
                self._window.shrink()

    def _find_events(self) -> bool:
        """Go on after the bracket of the events, wherever it is."""
        window = self._window
        while (match := _EVENTS.search(window.text, window.at)) is None:
            self._keep_base(len(window.text))
            # What was searched may go, but not the first half of what is sought.
            window.at = max(window.at, len(window.text) - 64)
            if not window.more():
                return False
        self._keep_base(match.start())
        window.at = match.end()
        return True

    def _keep_base(self, end: int) -> None:
        found = _BASE.search(self._window.text, self._window.at, end)
        if found:
            self.header.setdefault("baseTimeNanoseconds", int(found[1][:19]))

    def _array(self) -> Iterator[dict[str, Any] | Taken]:
        while (char := self._peek()) != "]":
            if not char:
                self._ends(TO_THE_END)
                return
            if self._pause:
                self._pause -= 1
            elif char == "{" and self._taker is not None:
                yield from self._offer()
            try:
                event = self._value()
            except ValueError:
                event = self._salvage()
            self._window.shrink()
            if isinstance(event, dict):
                yield event
        self._window.at += 1

    # ------------------------------------------------------------------ damage

    def _salvage(self) -> dict[str, Any] | None:
        """Pass a broken event; return it if its name could be put right."""
        window, searched = self._window, 0
        while (end := _BETWEEN.search(window.text, window.at + searched)) is None:
            searched = max(0, len(window.text) - window.at - 64)
            if searched > _LONGEST_VALUE:
                window.at, searched = window.at + searched, 0
            if not window.more():
                window.at = len(window.text)
                self._ends("its text ends inside an event")
                return None
        text = window.text[window.at : end.end()]
        window.at = end.end()
        fixed = _with_name_put_right(text)
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


def _fact(key: str, value: object) -> object:
    """What is asked of a member: its value, or the rank in `distributedInfo`; else no object."""
    if key == DISTRIBUTED and isinstance(value, dict):
        value = value.get("rank")
    return None if isinstance(value, (dict, list)) else value


def _with_name_put_right(text: str) -> str:
    """A broken event, the quotes in its name escaped: up to the first that a key follows."""
    begin = _NAME.search(text)
    end = None if begin is None else _NAME_ENDS.search(text, begin.end())
    if begin is None or end is None:
        return text
    name = text[begin.end() : end.start()]
    return text[: begin.end()] + _QUOTE.sub(lambda _: '\\"', name) + text[end.start() :]
