"""Markers to event frames: join, decode, put on one clock, count what was lost."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from profilemate import schema
from profilemate.errors import SchemaError
from profilemate.parse.clock import ClockMap
from profilemate.parse.collect import add_activity
from profilemate.parse.custom import CustomEvents, wanted
from profilemate.parse.custom import frame as custom_frame
from profilemate.parse.frames import NONE, Ints, Rows, build, integers
from profilemate.parse.progress import Progress, no_progress
from profilemate.parse.trace import (
    FRAME_NAMES,
    Marker,
    Recording,
    SourceInfo,
    Trace,
    empty_frame,
)
from profilemate.schema import KV_OPS

_PROGRESS_EVERY = 1 << 13  # messages


def decode_recordings(
    recordings: Sequence[Recording], *, progress: Progress | None = None
) -> Trace:
    """Read the messages of recordings of one run and put their events on one clock.

    The order of the markers makes no difference. An event began `ago` before its message was
    emitted; that instant is mapped from the monotonic clock of its process (see `ClockMap`). What
    carries no clock of its own has the recorder's time stamp.

    Args:
        recordings: Opened recordings, of which nothing was read yet.
        progress: Told how many messages were read.

    Raises:
        InputError: A recording is damaged beyond reading.
    """
    progress = progress or no_progress
    collected = _Collected()
    for number, recording in enumerate(recordings):
        collected.read(number, recording.markers(), progress)
    trace = collected.trace(recordings)
    steps = collected.rows["step"].message
    marked = {collected.recording[message] for message in steps}
    add_activity(trace, recordings, _shifts([r.info for r in recordings]), marked)
    return trace


class _Collected:
    """All messages read so far, one array element per message, and their events by kind."""

    def __init__(self) -> None:
        self.recording, self.pid, self.tid = array("q"), array("q"), array("q")
        self.ts, self.dur = array("q"), array("q")
        self.t, self.seq = array("q"), array("q")
        self.hash = array("q")
        self._columns = (
            self.recording,
            self.pid,
            self.tid,
            self.ts,
            self.dur,
            self.t,
            self.seq,
            self.hash,
        )
        self.rows = {name: Rows(kind) for name, kind in schema.KINDS.items()}
        self.custom = CustomEvents()
        self.unknown: Counter[str] = Counter()
        self.broken = 0
        self.unfinished = 0

    def read(self, recording: int, markers: Iterable[Marker], progress: Progress) -> None:
        """Take the markers of one recording."""
        parts: list[Marker] = []
        for count, marker in enumerate(markers):
            if count % _PROGRESS_EVERY == 0:
                progress("decoding messages", count, None)
            try:
                # A Joiner of its own keeps what is a part of something and returns the rest.
                text = schema.Joiner().feed(None, marker.text)
                if text is None:
                    parts.append(marker)
                else:
                    self._add(recording, marker, text)
            except SchemaError:
                self.broken += 1
        # Parts wait for the end, since the recorder need not give them in their order; the
        # message then has the time of its last part.
        joiner = schema.Joiner()
        for part in sorted(parts, key=lambda m: (m.ts, m.pid, m.text)):
            try:
                text = joiner.feed(part.pid, part.text)
                if text is not None:
                    self._add(recording, part, text)
            except SchemaError:
                self.broken += 1
        self.unfinished += joiner.unfinished

    def _add(self, recording: int, marker: Marker, text: str) -> None:
        """Decode a message.

        Raises:
            SchemaError: It breaks the wire format; nothing of it is kept.
        """
        message = schema.decode(text)
        if message is None:  # a reader's mistake: it has not our prefix
            raise SchemaError("not a message of ours")
        number = len(self.ts)
        # A batch's own length says nothing of the events in it.
        dur = NONE if message.seq is not None or marker.dur is None else marker.dur
        facts = (
            recording,
            marker.pid,
            marker.tid,
            marker.ts,
            dur,
            NONE if message.t is None else message.t,
            NONE if message.seq is None else message.seq,
            crc32(text.encode(errors="replace")),
        )
        try:
            for column, value in zip(self._columns, facts, strict=True):
                column.append(value)
        except OverflowError as e:
            for column in self._columns:
                del column[number:]
            raise SchemaError(f"a time of more than 64 bits in {text[:80]!r}") from e
        rows = self.rows
        for place, event in enumerate(message.events):
            kind = rows.get(event.kind)
            if kind is not None:
                kind.add(number, place, event.values)
            elif wanted(event.kind):
                self.custom.add(number, place, event)
            else:
                self.unknown[event.kind] += 1

    def _settle(self) -> None:
        """After the last message: drop those that turn out to be broken."""
        for rows in self.rows.values():
            rows.settle()
        broken = set().union(*(rows.broken for rows in self.rows.values()))
        self.broken += len(broken)
        for rows in self.rows.values() if broken else ():
            rows.drop(broken)
        for number in broken:
            self.t[number] = self.seq[number] = NONE

    # ------------------------------------------------------------------ all of it together

    def trace(self, recordings: Sequence[Recording]) -> Trace:
        """Make frames of it."""
        self._settle()
        infos = [r.info for r in recordings]
        zero, shift = _zero(infos), _shifts(infos)
        messages = _Messages(self, shift)
        frames = {name: self._frame(name, messages) for name in FRAME_NAMES}
        _note_clocks(infos)
        for pid, hosts in _shared_pids(self.rows["session"], messages).items():
            infos[0].notes.append(
                f"Number {pid} is a process on each of {', '.join(hosts)}: their events are mixed."
            )
        windows = [
            (i.window[0] + by, i.window[1] + by)
            for i, by in zip(infos, shift.tolist(), strict=True)
            if i.window is not None
        ]
        return Trace(
            infos,
            frames,
            zero,
            (min(a for a, _ in windows), max(b for _, b in windows)) if windows else (0, 0),
            {name: len(rows) for name, rows in self.rows.items() if len(rows)}
            | self.custom.counts(),
            dict(sorted(self.unknown.items())),
            self.broken,
            messages.lost(),
            self.unfinished,
            messages.clock_error_ns,
            custom=self._custom(messages),
        )

    def _custom(self, messages: _Messages) -> dict[str, pd.DataFrame]:
        frames: dict[str, pd.DataFrame] = {}
        for name, rows in sorted(self.custom.rows.items()):
            message, place = np.array(rows.message), np.array(rows.place)
            ts, dur = messages.began(message, np.array(rows.ago)), np.array(rows.dur)
            pid, rank = messages.pid[message], messages.rank[message]
            order = np.lexsort((place, rank, pid, ts))
            given = {
                "ts": ts[order],
                "dur": integers(dur[order]),
                "pid": pid[order],
                "tid": messages.tid[message][order],
            }
            frames[name] = custom_frame(rows, order, given)
        return frames

    def _frame(self, name: str, messages: _Messages) -> pd.DataFrame:
        kinds = [self.rows[k] for k in (KV_OPS if name == "kv" else (name,))]
        kinds = [rows for rows in kinds if len(rows)]
        if not kinds:
            return empty_frame(name)
        message = np.concatenate([np.array(rows.message) for rows in kinds])
        place = np.concatenate([np.array(rows.place) for rows in kinds])
        ts = messages.began(message, np.concatenate([r.numbers("ago", 0) for r in kinds]))
        dur = np.concatenate([rows.numbers("dur", NONE) for rows in kinds])
        dur = np.where(dur == NONE, messages.lasted(message, ts), dur)
        pid, rank = messages.pid[message], messages.rank[message]
        given: dict[str, Any] = {}
        if name == "kv":
            order = np.lexsort((place, rank, pid))
            pid_in_order = pid[order]
            first = np.searchsorted(pid_in_order, pid_in_order, side="left")
            given["seq"] = np.arange(len(order), dtype=np.int64) - first
            ops = [rows.kind.name.removeprefix("kv.") for rows in kinds]
            which = np.repeat(np.arange(len(kinds)), [len(rows) for rows in kinds])
            names = np.array(ops, dtype=object)[which[order]]
            given["op"] = pd.array(names, dtype="string")
        else:
            order = np.lexsort((place, rank, pid, ts))
        given |= {
            "ts": ts[order],
            "dur": integers(dur[order]),
            "pid": pid[order],
            "tid": messages.tid[message][order],
        }
        return build(name, kinds, order, given)


def _note_clocks(infos: Sequence[SourceInfo]) -> None:
    for info in infos:
        if info.start_unix_ns is None:
            info.notes.append("It does not say when it began: its zero is taken for the trace's.")
    if len(infos) > 1:
        infos[0].notes.append(
            f"{len(infos)} recordings were put on one time line by the wall clocks of their hosts."
        )


def _zero(infos: Sequence[SourceInfo]) -> int | None:
    """Wall clock of the trace's zero: where the first recording began."""
    known = (i.start_unix_ns + i.begin for i in infos if i.start_unix_ns is not None)
    return min(known, default=None)


def _shifts(infos: Sequence[SourceInfo]) -> Ints:
    """What to add to the times of each recording to have them on the trace's clock."""
    zero = _zero(infos)
    shifts = [
        -i.begin if i.start_unix_ns is None or zero is None else i.start_unix_ns - zero
        for i in infos
    ]
    return np.array(shifts, dtype=np.int64)


class _Messages:
    """The messages as numpy arrays, on the trace's clock and in their true order.

    Attributes:
        pid: Process of each.
        tid: Thread of each.
        dur: How long its range took, `NONE` where it is none.
        rank: Its place in the order of all messages of its process.
        clock_error_ns: See `Trace`.
    """

    def __init__(self, raw: _Collected, shift: Ints) -> None:
        self.recording, self.pid, self.tid, self.dur, self._t, self._seq, ts, crc = (
            np.array(column, dtype=np.int64)
            for column in (
                raw.recording,
                raw.pid,
                raw.tid,
                raw.dur,
                raw.t,
                raw.seq,
                raw.ts,
                raw.hash,
            )
        )
        self._ts = ts + shift[self.recording] if len(ts) else ts
        self._maps: dict[int, ClockMap] = {}
        self._sender = _numbered(self.recording, self.pid)
        self.clock_error_ns = 0
        emitted = self._ts.copy()
        for sender, mine in _groups(self._sender):
            timed = mine[self._t[mine] != NONE]
            if len(timed):
                clock = self._maps[sender] = ClockMap.fit(self._t[timed], self._ts[timed])
                emitted[timed] = clock(self._t[timed])
                error = int(np.abs(self._ts[timed] - emitted[timed]).max())
                self.clock_error_ns = max(self.clock_error_ns, error)
            # Batches are numbered in the order they left: a later one is never earlier.
            numbered = mine[self._seq[mine] != NONE]
            numbered = numbered[np.argsort(self._seq[numbered], kind="stable")]
            emitted[numbered] = np.maximum.accumulate(emitted[numbered])
        order = np.lexsort((crc, self.tid, self._ts, self._seq, emitted, self.pid))
        self.rank = np.empty(len(order), dtype=np.int64)
        self.rank[order] = np.arange(len(order), dtype=np.int64)

    def began(self, message: Ints, ago: Ints) -> Ints:
        """When events began, from their messages and how long before these they began."""
        result = self._ts[message] - ago
        sender, t = self._sender[message], self._t[message]
        for number, mine in _groups(sender):
            timed = mine[t[mine] != NONE]
            if len(timed):
                result[timed] = self._maps[number](t[timed] - ago[timed])
        return result

    def lasted(self, message: Ints, began: Ints) -> Ints:
        """How long events took whose end is that of their message's range."""
        dur = self.dur[message]
        # The range opens `ago` after the event began.
        return np.where(dur == NONE, NONE, np.maximum(self._ts[message] + dur - began, dur))

    def lost(self) -> dict[int, int]:
        """Batches that are missing, by process."""
        lost: dict[int, int] = {}
        for _, mine in _groups(self._sender):
            seq = np.unique(self._seq[mine][self._seq[mine] != NONE])
            if len(seq):
                missing = int(seq[-1] - seq[0]) + 1 - len(seq)
                pid = int(self.pid[mine[0]])
                lost[pid] = lost.get(pid, 0) + missing
        return {pid: n for pid, n in sorted(lost.items()) if n}


def _numbered(recording: Ints, pid: Ints) -> Ints:
    """A small number for every process of every recording."""
    if not len(pid):
        return pid
    pairs = np.stack([recording, pid], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)


def _groups(numbers: Ints) -> Iterable[tuple[int, Ints]]:
    """Each number, and where it stands."""
    order = np.argsort(numbers, kind="stable")
    values, first = np.unique(numbers[order], return_index=True)
    return zip(values.tolist(), np.split(order, first[1:]), strict=True) if len(values) else ()


def _shared_pids(session: Rows, messages: _Messages) -> dict[int, list[str]]:
    """Process numbers that belong to processes on several hosts, and the hosts."""
    hosts: dict[int, set[str]] = {}
    pids = messages.pid[np.array(session.message)]
    for pid, host in zip(pids.tolist(), session.columns["host"], strict=True):
        if host is not None:
            hosts.setdefault(pid, set()).add(host)
    return {pid: sorted(names) for pid, names in sorted(hosts.items()) if len(names) > 1}
