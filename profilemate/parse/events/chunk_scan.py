"""Messages read by the chunk, in columns: the same answer as `schema.decode`, many times faster.

What our own annotator writes is read here. Whatever looks different in any way (an unknown key, a
number that is none, another encoding) is left to `schema.decode`, message by message: the wire
format is defined there alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate import schema
from profilemate.errors import SchemaError
from profilemate.parse.columns.arrays import NONE, Bools, Ints
from profilemate.parse.columns.id_lists import IdLists
from profilemate.parse.events.digits import BIT_WINDOWS, PAD, Text, integers, read_ids
from profilemate.schema import KINDS, PREFIX

Words = npt.NDArray[np.uint64]

_BATCH = "batch"
_HEAD = ("t", "seq")  # of any message
_WORD = 16  # names of kinds and fields are no longer


@dataclass(frozen=True, slots=True)
class Strings:
    """Strings, of which most come more than once.

    Attributes:
        codes: Number of each in `texts`, -1 for None.
        texts: The different ones.
    """

    codes: Ints
    texts: list[str]

    def __getitem__(self, row: int) -> str | None:
        """One of them."""
        code = int(self.codes[row])
        return None if code < 0 else self.texts[code]

    def tolist(self) -> list[str | None]:
        """All of them."""
        padded = [*self.texts, None]
        return [padded[code] for code in self.codes.tolist()]


@dataclass(slots=True)
class Events:
    """Events of one kind.

    Attributes:
        message: Number of the message that each came in.
        place: Its place in that message.
        columns: Field name -> values: `int64` with `NONE`, `int8` with -1, `Strings`, or
            `IdLists`. A field that no event has is not there.
    """

    message: Ints
    place: Ints
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Scanned:
    """A chunk of messages.

    Attributes:
        read: Which of the messages these are; the others have to be decoded one by one.
        t, seq: Of each of them, `NONE` where it does not say.
        events: Events by kind; `Events.message` counts in `read`.
    """

    read: Ints
    t: Ints
    seq: Ints
    events: dict[str, Events] = field(default_factory=dict)


def scan(texts: Sequence[str]) -> Scanned:
    """Read messages.

    Args:
        texts: Whole messages, some megabytes of them at the most.
    """
    usual = [t.isascii() and "\n" not in t and "  " not in t and "\0" not in t for t in texts]
    read = np.flatnonzero(np.array(usual, dtype=bool))
    while len(read):
        attempt = _Chunk([texts[i] for i in read.tolist()])
        if not attempt.odd.any():
            return Scanned(read, attempt.t, attempt.seq, attempt.events)
        read = read[~attempt.odd]
    nothing = np.empty(0, dtype=np.int64)
    return Scanned(nothing, nothing, nothing)


# ------------------------------------------------------------------ names


@dataclass(frozen=True, slots=True)
class _Names:
    """Finds the number of a name of up to 16 bytes by the two words that it is.

    Both words are mixed into one key, and that is looked for among those of the names that are
    known: 0.06 us a name, where `np.unique` over both and a dict take 0.45.

    Attributes:
        names: What is known, by number.
        numbers: Of each key the number of its name.
        keys: In order; [len(names)], like all of these.
        first, second: The words of the name of each key.
    """

    names: tuple[str, ...]
    numbers: npt.NDArray[np.int16]
    keys: Words
    first: Words
    second: Words

    @classmethod
    def of(cls, names: Sequence[str]) -> _Names:
        padded = b"".join(name.encode().ljust(_WORD, b"\0") for name in names)
        first, second = np.frombuffer(padded, dtype="<u8").reshape(-1, 2).T
        keys = _mixed(first, second)
        order = np.argsort(keys)
        numbers = order.astype(np.int16)
        return cls(tuple(names), numbers, keys[order], first[order], second[order])

    def find(self, text: Text, start: Ints, end: Ints) -> npt.NDArray[np.int16]:
        """The number of each name, -1 where it is none of ours."""
        length = end - start
        first = text.words[start] & BIT_WINDOWS[np.clip(length, 0, 8)]
        second = text.words[start + 8] & BIT_WINDOWS[np.clip(length - 8, 0, 8)]
        place = np.searchsorted(self.keys, _mixed(first, second))
        place = np.minimum(place, len(self.keys) - 1)  # larger than all
        same = (self.first[place] == first) & (self.second[place] == second)
        return np.where(same & (length <= _WORD), self.numbers[place], np.int16(-1))


def _mixed(first: Words, second: Words) -> Words:
    """Two words in one: names that differ in either nearly always differ in it."""
    return first ^ (second * np.uint64(0x9E3779B97F4A7C15))


@cache
def _kinds() -> _Names:
    return _Names.of((_BATCH, *KINDS))


@cache
def _fields() -> tuple[_Names, npt.NDArray[np.int8]]:
    """Names of all fields, and (kind, field) -> index of its type in `_TYPES`, -1 for none."""
    known = dict.fromkeys((*_HEAD, *(f for kind in KINDS.values() for f in kind.types)))
    names = tuple(known)
    types = np.full((1 + len(KINDS), len(names)), -1, dtype=np.int8)
    for name in _HEAD:
        types[0, names.index(name)] = _TYPES.index("int")
    for number, kind in enumerate(KINDS.values(), 1):
        for name, type_ in kind.types.items():
            types[number, names.index(name)] = _TYPES.index(type_)
    return _Names.of(names), types


_TYPES = ("int", "bool", "str", "ids")

_UNREADABLE = "\0"  # no text that is read here holds it

# ------------------------------------------------------------------ a chunk


class _Chunk:
    """Messages as one text, cut into words.

    Attributes:
        odd: Messages that have to be decoded one by one; if there are any, the rest is no answer.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.text = Text("\n".join(texts))
        self.odd = np.zeros(len(texts), dtype=bool)
        self.t = self.seq = np.full(len(texts), NONE, dtype=np.int64)
        self.events: dict[str, Events] = {}
        self._cut(len(texts))
        if not self.odd.any():
            self._fill(len(texts))

    def _cut(self, messages: int) -> None:
        """Find words, events and what every word is."""
        text = self.text
        body = text.bytes[PAD : PAD + text.length]
        gaps = np.flatnonzero((body == 32) | (body == 10)) + PAD
        start = np.concatenate([[PAD], gaps + 1])
        end = np.append(gaps, PAD + text.length)
        head = np.concatenate([[True], text.bytes[gaps] == 10])
        message = np.cumsum(head) - 1
        bar = (end - start == 1) & (text.bytes[start] == 124)
        opens = head.copy()
        opens[1:] |= bar[:-1]
        wrong = (end == start) | (bar & opens)
        wrong[-1] |= bar[-1]
        wrong[:-1] |= bar[:-1] & head[1:]  # a message ends with a bar
        prefix = text.words[start[head]] & BIT_WINDOWS[len(PREFIX)]
        ours = int.from_bytes(PREFIX.encode().ljust(8, b"\0"), "little")
        wrong[head] |= prefix != np.uint64(ours)
        self.odd[message[wrong]] = True
        if self.odd.any():
            return
        start[head] += len(PREFIX)
        event = np.cumsum(opens) - 1
        kind = _kinds().find(text, start[opens], end[opens])
        of_message = message[opens]
        # A batch stands at the head of a message and nowhere else.
        self.odd[of_message[(kind < 0) | ((kind == 0) & ~head[opens])]] = True
        words = np.flatnonzero(~opens & ~bar)
        names, types = _fields()
        at = _equals(np.flatnonzero(body == 61) + PAD, start[words], end[words])
        name = names.find(text, start[words], at)
        of_event = event[words]
        type_ = types[kind[of_event], name]
        type_[(name < 0) | (at == end[words])] = -1
        self.odd[message[words[type_ < 0]]] = True
        self._event_kind, self._event_message = kind, of_message
        self._head, self._first_event = head[opens], np.flatnonzero(head[opens])
        self._of_event, self._name, self._type = of_event, name, type_
        self._from, self._to = at + 1, end[words]

    def _fill(self, messages: int) -> None:
        """Read the values of every kind and field."""
        kind, message = self._event_kind, self._event_message
        place = np.arange(len(kind)) - self._first_event[message]
        place -= kind[self._first_event[message]] == 0
        order = np.argsort(kind, kind="stable")
        of_kind = np.split(order, np.cumsum(np.bincount(kind, minlength=1 + len(KINDS)))[:-1])
        rank = np.empty(len(kind), dtype=np.int64)
        for events in of_kind:
            rank[events] = np.arange(len(events))
        values = self._values()
        names, types = _fields()
        code = kind[self._of_event].astype(np.int64) * len(names.names) + self._name
        order = np.argsort(code.astype(np.uint16), kind="stable")
        bounds = np.flatnonzero(np.diff(code[order])) + 1
        columns: dict[int, dict[str, Any]] = {}
        for words in np.split(order, bounds) if len(order) else ():
            number, name = divmod(int(code[words[0]]), len(names.names))
            rows = rank[self._of_event[words]]
            twice = np.flatnonzero(np.diff(rows) == 0)
            self.odd[message[self._of_event[words[twice]]]] = True
            column = values.column(words, rows, len(of_kind[number]), int(types[number, name]))
            columns.setdefault(number, {})[names.names[name]] = column
        head = columns.pop(0, {})
        batches = message[of_kind[0]]
        for field_ in _HEAD:
            column = np.full(messages, NONE, dtype=np.int64)
            column[batches] = head.get(field_, NONE)
            setattr(self, field_, column)
        for number, events in enumerate(of_kind):
            if number and len(events):
                said = columns.get(number, {})
                known = Events(message[events], place[events], said)
                self.events[_kinds().names[number]] = known

    def _values(self) -> _Values:
        """Read every value by its type; what is none makes its message an odd one."""
        text, first, last = self.text, self._from, self._to
        count = len(first)
        position = np.zeros(count, dtype=np.int64)  # of each word, among those of its type
        of_type = [np.flatnonzero(self._type == i) for i in range(len(_TYPES))]
        for words in of_type:
            position[words] = np.arange(len(words))
        ints, flags, strings, lists = of_type
        numbers, bad_int = integers(text, first[ints], last[ints])
        truth, bad_bool = _booleans(text, first[flags], last[flags])
        ids, bad_ids = read_ids(text, first[lists], last[lists])
        codes, texts, bad_str = _strings(text.slices(first[strings], last[strings]))
        for words, bad in (
            (ints, bad_int),
            (flags, bad_bool),
            (strings, bad_str),
            (lists, bad_ids),
        ):
            self.odd[self._event_message[self._of_event[words[bad]]]] = True
        return _Values(position, numbers, truth, Strings(codes, texts), ids)


def _equals(equals: Ints, start: Ints, end: Ints) -> Ints:
    """The first equals sign of each word, or the word's end."""
    if len(equals) == len(start) and bool(((start <= equals) & (equals < end)).all()):
        return equals  # one in each word, as it nearly always is
    at = np.searchsorted(equals, start)
    found = np.append(equals, end[-1:] if len(end) else equals[:0])
    return np.minimum(found[np.minimum(at, len(found) - 1)], end) if len(found) else end


def _decoded(spelled: str) -> str | None:
    try:
        return None if spelled == "None" else schema.decode_str(spelled)
    except SchemaError:
        return _UNREADABLE


def _strings(spelled: Sequence[str]) -> tuple[Ints, list[str], Bools]:
    """The number of each string among the different ones, -1 for None; these; which are bad."""
    numbers: dict[str, int] = {}
    of = (numbers.setdefault(s, len(numbers)) for s in spelled)
    codes = np.fromiter(of, dtype=np.int64, count=len(spelled))
    texts = [_decoded(s) for s in numbers]
    none = np.array([text is None for text in texts], dtype=bool)
    bad = np.array([text is _UNREADABLE for text in texts], dtype=bool)
    if not len(texts):
        return codes, [], bad
    return np.where(none[codes], -1, codes), [text or "" for text in texts], bad[codes]


def _booleans(text: Text, start: Ints, end: Ints) -> tuple[npt.NDArray[np.int8], Bools]:
    word = text.words[start] & BIT_WINDOWS[np.clip(end - start, 0, 8)]
    true, false = (
        word == np.uint64(int.from_bytes(s.ljust(8, b"\0"), "little")) for s in (b"True", b"False")
    )
    return true.astype(np.int8), ~(true | false) | (end - start > 5)


@dataclass(frozen=True, slots=True)
class _Values:
    """The values of all words, by type."""

    position: Ints
    numbers: Ints
    truth: npt.NDArray[np.int8]
    strings: Strings
    ids: IdLists

    def column(self, words: Ints, rows: Ints, length: int, type_: int) -> Any:
        """The values of some words as a column with one row per event of the kind."""
        at = self.position[words]
        if _TYPES[type_] == "int":
            column = np.full(length, NONE, dtype=np.int64)
            column[rows] = self.numbers[at]
            return column
        if _TYPES[type_] == "bool":
            flags = np.full(length, -1, dtype=np.int8)
            flags[rows] = self.truth[at]
            return flags
        where = np.full(length, -1, dtype=np.int64)
        where[rows] = at
        if _TYPES[type_] == "ids":
            return self.ids.rows_or_none(where)
        return Strings(np.append(self.strings.codes, -1)[where], self.strings.texts)
