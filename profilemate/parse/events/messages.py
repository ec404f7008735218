"""Markers to messages: join, decode, and keep in columns; what cannot be read is counted."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from zlib import crc32

import numpy as np

from profilemate import schema
from profilemate.errors import SchemaError
from profilemate.parse.columns.arrays import NONE, Ints
from profilemate.parse.columns.budget import Budget
from profilemate.parse.events.chunk_scan import scan
from profilemate.parse.events.custom import CustomEvents, wanted
from profilemate.parse.events.kv_rows import KvRows
from profilemate.parse.events.message_index import MessageIndex, Torn
from profilemate.parse.events.rows import Rows
from profilemate.parse.recording.contract import Marker
from profilemate.parse.recording.progress import Progress

_PROGRESS_EVERY = 1 << 13  # messages
_CHUNK = 1 << 20  # characters of messages that are read together
_PART = f"{schema.PREFIX}part "
_BEGINS = re.compile(rf"{re.escape(_PART)}\S+ part=1/\d+ :\S+ t=(\d+) ")


def _fits(marker: Marker) -> bool:
    """Whether 64 bits hold its times and numbers."""
    return all(abs(n) < 1 << 62 for n in (marker.ts, marker.dur or 0, marker.pid, marker.tid))


class Messages:
    """All messages read so far, one array element per message, and their events by kind.

    Attributes:
        rows: Events of each kind but the block operations.
        kv: The block operations.
        custom: Events of others' hooks.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.recording, self.pid, self.tid = array("q"), array("q"), array("q")
        self.ts, self.dur = array("q"), array("q")
        self.t, self.seq = array("q"), array("q")
        self.hash, self.identity = array("q"), array("q")
        self._columns = (
            self.recording,
            self.pid,
            self.tid,
            self.ts,
            self.dur,
            self.t,
            self.seq,
            self.hash,
            self.identity,
        )
        self.told = array("b")
        self.rows = {n: Rows(k) for n, k in schema.KINDS.items() if n not in schema.KV_OPS}
        self.kv = KvRows(budget or Budget())
        self.custom = CustomEvents()
        self._unknown: list[tuple[int, str]] = []
        self._broken: Counter[tuple[int, int, int]] = Counter()
        self.torn: list[Torn] = []
        self.joined: list[int] = []

    def read(self, recording: int, markers: Iterable[Marker], progress: Progress) -> None:
        """Take the markers of one recording."""
        parts: list[Marker] = []
        whole: list[Marker] = []
        length = 0
        for count, marker in enumerate(markers):
            if count % _PROGRESS_EVERY == 0:
                progress("decoding messages", count, None)
            if marker.text.startswith(_PART):
                # A Joiner of its own keeps what is a part of something and counts what is none.
                try:
                    schema.Joiner().feed(None, marker.text)
                    parts.append(marker)
                except SchemaError:
                    self._break(recording, marker)
                continue
            whole.append(marker)
            length += len(marker.text)
            if length > _CHUNK:
                self._add_all(recording, whole)
                whole, length = [], 0
        self._add_all(recording, whole)
        self._join(recording, parts)

    def _join(self, recording: int, parts: Iterable[Marker]) -> None:
        """Put the parts of long messages together.

        They wait for the end, since the recorder need not give them in their order; the message
        then has the time of its last part.
        """
        joiner = schema.Joiner()
        torn: dict[tuple[int, str], Torn] = {}
        whole: set[tuple[int, str]] = set()
        for part in sorted(parts, key=lambda m: (m.ts, m.pid, m.text)):
            key = (part.pid, part.text[: part.text.index(" part=")])
            try:
                text = joiner.feed(part.pid, part.text)
                if text is not None:
                    torn.pop(key, None)
                    whole.add(key)
                    self._add(recording, part, text)
                    self.joined.append(len(self.ts) - 1)
                elif key not in whole:
                    said = _BEGINS.match(part.text)
                    t = int(said[1]) if said and int(said[1]) < 1 << 62 else NONE
                    one = torn.setdefault(key, Torn(recording, part.pid, part.ts, t))
                    if one.t == NONE != t:
                        torn[key] = replace(one, t=t)
            except SchemaError:
                self._break(recording, part)
        self.torn += torn.values()

    def take(self, recording: int, other: Messages) -> None:
        """Take all messages of another one, as those of a recording of this number."""
        first, count = len(self.ts), len(other.ts)
        for column, theirs in zip(self._columns, other._columns, strict=True):
            column.extend(theirs)
        self.recording[first:] = array("q", [recording]) * count
        self.told.extend(other.told)
        for name, rows in self.rows.items():
            rows.take(first, other.rows[name])
        self.kv.take(first, other.kv)
        self._unknown += [(number + first, kind) for number, kind in other._unknown]
        self._broken.update({(recording, *key[1:]): n for key, n in other._broken.items()})
        self.torn += [replace(one, recording=recording) for one in other.torn]
        self.joined += [number + first for number in other.joined]

    def _add_all(self, recording: int, markers: Sequence[Marker]) -> None:
        """Decode whole messages: together where they look as usual, else one by one."""
        found = scan([marker.text if _fits(marker) else "" for marker in markers])
        numbers = np.arange(len(self.ts), len(self.ts) + len(found.read), dtype=np.int64)
        for i, t, seq in zip(
            found.read.tolist(), found.t.tolist(), found.seq.tolist(), strict=True
        ):
            self._note(recording, markers[i], markers[i].text, t, seq)
        self.kv.add_all(numbers, found.events)
        for name in found.events.keys() & self.rows.keys():
            self.rows[name].add_all(numbers, found.events[name])
        usual = set(found.read.tolist())
        for i, marker in enumerate(markers):
            if i not in usual:
                try:
                    self._add(recording, marker, marker.text)
                except SchemaError:
                    self._break(recording, marker)

    def _note(self, recording: int, marker: Marker, text: str, t: int, seq: int) -> None:
        """Keep what is known of a message itself.

        Raises:
            SchemaError: A time has more than 64 bits.
        """
        # A batch's own length says nothing of the events in it.
        dur = NONE if seq != NONE or marker.dur is None else marker.dur
        crc = crc32(text.encode(errors="replace"))
        identity = _identity(text, numbered=seq != NONE)
        facts = (recording, marker.pid, marker.tid, marker.ts, dur, t, seq, crc, identity)
        number = len(self.ts)
        try:
            for column, value in zip(self._columns, facts, strict=True):
                column.append(value)
        except OverflowError as e:
            for column in self._columns:
                del column[number:]
            raise SchemaError(f"a time of more than 64 bits in {text[:80]!r}") from e
        self.told.append(" step=" in text)

    def _add(self, recording: int, marker: Marker, text: str) -> None:
        """Decode a message.

        Raises:
            SchemaError: It breaks the wire format; nothing of it is kept.
        """
        message = schema.decode(text)
        if message is None:  # a reader's mistake: it has not our prefix
            raise SchemaError("not a message of ours")
        number = len(self.ts)
        t, seq = (NONE if value is None else value for value in (message.t, message.seq))
        self._note(recording, marker, text, t, seq)
        rows = self.rows
        for place, event in enumerate(message.events):
            kind = rows.get(event.kind)
            if event.kind in schema.KV_OPS:
                self.kv.add(number, place, event.kind, event.values)
            elif kind is not None:
                kind.add(number, place, event.values)
            elif wanted(event.kind):
                self.custom.add(number, place, event)
            else:
                self._unknown.append((number, event.kind))

    def _break(self, recording: int, marker: Marker) -> None:
        self._broken[recording, marker.pid, _hash(marker.text)] += 1

    @property
    def broken(self) -> int:
        """Messages that could not be read; those that two recordings hold count once."""
        most: Counter[tuple[int, int]] = Counter()
        for (_, pid, text), count in self._broken.items():
            most[pid, text] = max(most[pid, text], count)
        return most.total()

    def settle(self) -> None:
        """After the last message: drop those that turn out to be broken."""
        for rows in self.rows.values():
            rows.settle()
        self.kv.settle()
        broken = self.kv.broken.union(*(rows.broken for rows in self.rows.values()))
        for number in broken:
            key = (self.recording[number], self.pid[number], self.identity[number])
            self._broken[key] += 1
            self.t[number] = self.seq[number] = NONE
        self.drop(broken)

    def drop(self, messages: set[int]) -> None:
        """Forget the events of some messages."""
        self.kv.drop(messages)
        for rows in self.rows.values() if messages else ():
            rows.drop(messages)
        self.custom.drop(messages)
        self._unknown = [(number, kind) for number, kind in self._unknown if number not in messages]

    @property
    def unknown(self) -> dict[str, int]:
        """Events of kinds that this version does not know, by kind."""
        return dict(sorted(Counter(kind for _, kind in self._unknown).items()))

    def _counter(self, kind: str) -> Ints:
        """The number of the step that each message tells of, `NONE` for another message."""
        rows = self.rows[kind]
        numbers = np.full(len(self.ts), NONE, dtype=np.int64)
        numbers[np.array(rows.message, dtype=np.int64)] = rows.numbers("step", NONE)
        return numbers

    def index(self) -> MessageIndex:
        """What is known of each message but its text."""

        def whole(column: array[int]) -> Ints:
            return np.array(column, dtype=np.int64)

        return MessageIndex(
            whole(self.recording),
            whole(self.pid),
            whole(self.ts),
            whole(self.t),
            whole(self.seq),
            whole(self.identity),
            (self._counter("sched.step"), self._counter("step")),
            np.array(self.told, dtype=bool),
        )


def _identity(text: str, *, numbered: bool) -> int:
    """Equal for the same message in two recordings, which number their batches on their own."""
    if numbered:
        begin = text.index(" seq=")
        end = text.find(" ", begin + 1)
        text = text[:begin] + (text[end:] if end >= 0 else "")
    return _hash(text)


def _hash(text: str) -> int:
    """64 bits, the same in every process: messages that were read in several are compared."""
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
