"""Whatever the bytes of a torch trace, the work of reading them grows with their number only."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from profilemate.parse.readers.kineto import compiled, event_stream, window
from profilemate.parse.readers.kineto.event_stream import EventStream, Taken
from profilemate.parse.readers.kineto.found import Found
from profilemate.parse.readers.kineto.reading import scanner as scanner_in_use

pytestmark = pytest.mark.usefixtures("scanner")

BLOCK, SMALL = 1 << 16, 1 << 11
MOST = 40
"""Times that each byte may be touched: decoded, looked through or moved."""

HOPELESS = "it is broken in more places than can be put right"
HEAD = '{"schemaVersion": 1, "traceEvents": ['


class Text:
    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def read1(self, size: int, /) -> bytes:
        block = self._raw[self._at : self._at + size]
        self._at += len(block)
        return block


class Work:
    """Counts bytes that are touched: decoded, searched, scanned or moved."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        for module in (event_stream, compiled):
            patch.setattr(module, "_decode", self.decoding(module._decode))
        patch.setattr(event_stream, "_BETWEEN", Searching(self, event_stream._BETWEEN))
        for name in ("more", "rewind", "widen"):
            patch.setattr(window.Window, name, self.moving(getattr(window.Window, name)))

    def decoding(self, real: Callable[[str, int], Any]) -> Callable[[str, int], Any]:
        def decode(text: str, at: int) -> Any:
            try:
                value, end = real(text, at)
            except json.JSONDecodeError as e:
                unended = e.msg.startswith("Unterminated")
                self.bytes += (len(text) if unended else e.pos) - at
                raise
            except RecursionError:
                self.bytes += len(text) - at
                raise
            self.bytes += end - at
            return value, end

        return decode

    def moving(self, real: Callable[[window.Window], Any]) -> Callable[[window.Window], Any]:
        def move(one: window.Window) -> Any:
            before = len(one.text) - one.at
            result = real(one)
            self.bytes += before + len(one.text)
            self.bytes += len(one.raw) if real.__name__ == "widen" else 0
            return result

        return move


class Searching:
    def __init__(self, work: Work, pattern: Any) -> None:
        self._work, self._pattern = work, pattern

    def search(self, text: str, at: int) -> Any:
        found = self._pattern.search(text, at)
        self._work.bytes += (found.end() if found else len(text)) - at
        return found


class Scanning:
    """A library whose scans are counted."""

    def __init__(self, work: Work, library: Any) -> None:
        self._work, self._library = work, library

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def pm_scan(self, state: Any, raw: bytes, at: int, *rest: Any) -> int:
        end: int = self._library.pm_scan(state, raw, at, *rest)
        self._work.bytes += end - at
        return end


def read(text: str, monkeypatch: pytest.MonkeyPatch) -> tuple[EventStream, int, float]:
    """The stream at its end, how many events it gave, and how often a byte was touched."""
    raw = text.encode()
    with monkeypatch.context() as patch:
        patch.setattr(window, "BLOCK", BLOCK)
        patch.setattr(window, "SMALL", SMALL)
        work = Work(patch)
        taker = scanner_in_use(Found())
        if taker is not None:
            taker._library = Scanning(work, taker._library)  # type: ignore[assignment]
        stream = EventStream(Text(raw), taker)
        count = sum(e.events if isinstance(e, Taken) else 1 for e in stream.events())
    return stream, count, work.bytes / len(raw)


def event(number: int, name: str = "aten::mul", **more: Any) -> str:
    fields = {"ph": "X", "cat": "cpu_op", "name": name, "pid": 1, "tid": 2, "ts": number, "dur": 5}
    return json.dumps(fields | more)


def trace(events: list[str], between: str = ",\n") -> str:
    return HEAD + between.join(events) + "]}"


def header(value: str) -> str:
    return f'{{"schemaVersion": 1, "a": {value}, ' + trace([event(1), event(2)])[1:]


def header_list(size: int) -> str:
    return header("[" + "1," * (size // 2) + "1]")


def header_text(size: int) -> str:
    return header('"' + "x" * size + '"')


def header_that_never_ends(size: int) -> str:
    return '{"a": "' + "x" * size


def zeros_at_the_end(size: int) -> str:
    return trace([event(1), event(2)])[:-2] + ",\n" + "\0" * size


def quotes(every: int) -> Callable[[int], str]:
    def text(size: int) -> str:
        events = [event(i, "NAME" if i % every == 0 else "b") for i in range(size // 100)]
        return trace(events).replace("NAME", 'q "x"')

    return text


def another_layout_after_the_first(size: int) -> str:
    return HEAD + event(0) + ",\n\n" + ",".join(event(i) for i in range(size // 100)) + "]}"


def layouts_in_turn(size: int) -> str:
    gaps = (",", ", ", ",\n", " ,")
    return HEAD + "".join(event(i) + gaps[i % 4] for i in range(size // 100)) + event(0) + "]}"


def brackets_that_never_close(size: int) -> str:
    return HEAD + '{"ph": [{"a": 1}, ' * (size // 18)


def brackets_that_close_late(size: int) -> str:
    piece = '{"ph": [' + "1," * 4000 + '{"a": 1}, '
    return HEAD + piece * (size // len(piece))


def many_names_in_a_broken_event(size: int) -> str:
    return HEAD + '{"ph": 1 1, ' + '"name":"' * (size // 8) + "}, " + event(1) + "]}"


def long_names(size: int) -> str:
    return trace([event(i, "n" * 30_000 + str(i)) for i in range(size // 30_000)])


def events_of_many_kinds(size: int) -> str:
    return trace([event(i, args={f"key {i}": 1}) for i in range(size // 100)])


def texts_without_end(size: int) -> str:
    return HEAD + '{"ph": "' * (size // 8)


def members_without_end(size: int) -> str:
    return '{"a" 1, "traceEvents": [' * (size // 24)


HARMFUL: dict[Callable[[int], str], Callable[[int], tuple[int, int, str | None]]] = {
    header_list: lambda size: (2, 0, None),
    header_text: lambda size: (2, 0, None),
    header_that_never_ends: lambda size: (0, 0, None),
    zeros_at_the_end: lambda size: (2, 0, "its text ends inside an event"),
    quotes(1): lambda size: (size // 100, size // 100, None),
    quotes(10): lambda size: (size // 100, -(-(size // 100) // 10), None),
    another_layout_after_the_first: lambda size: (size // 100 + 1, 0, None),
    layouts_in_turn: lambda size: (size // 100 + 1, 0, None),
    brackets_that_never_close: lambda size: (0, 0, HOPELESS),
    brackets_that_close_late: lambda size: (0, 0, HOPELESS),
    many_names_in_a_broken_event: lambda size: (1, 0, None),
    long_names: lambda size: (size // 30_000, 0, None),
    events_of_many_kinds: lambda size: (size // 100, 0, None),
    texts_without_end: lambda size: (0, 0, "its text ends inside an event"),
    members_without_end: lambda size: (0, 0, "its text ends inside an event"),
}
"""Of each text how many events come out of it, how many of them were put right, and the damage."""


@pytest.mark.parametrize("make", HARMFUL, ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", [1 << 19, 1 << 21])
def test_work_is_linear(
    make: Callable[[int], str], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, count, touched = read(make(size), monkeypatch)
    assert (count, stream.repaired, stream.damage) == HARMFUL[make](size)
    assert touched < MOST


def test_a_text_that_is_tried_again_and_again_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the count itself: with as many bytes each time, a long list is read anew for each."""
    monkeypatch.setattr(window.Window, "more", more_of_the_same)
    monkeypatch.setattr(event_stream, "_IN_VAIN", 1 << 40)
    _, _, touched = read(header_list(1 << 19), monkeypatch)
    assert touched > 3 * MOST


def more_of_the_same(one: window.Window) -> bool:
    if one.next == len(one.raw) and not one.widen():
        return False
    part = one.raw[one.next : one.next + SMALL]
    one.next += len(part)
    one.text, one.at = one.text[one.at :] + part.decode(), 0
    return True
