"""Whole events off a block of bytes into columns, by template, by the compiled library.

What comes out is what an exact decoder would say, because nothing is taken on trust:

* An event that fits a template is legal JSON: each of its bytes was compared or understood.
* An event that fits no template is decoded, from where it begins to where it seems to end. If that
  is one whole value, it is one event, and the next one begins after it.
* Where that fails the scanner stops, and the event is left to `EventStream`.
"""

from __future__ import annotations

import ctypes
import json
import re
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from profilemate.parse.columns.arrays import Matrix
from profilemate.parse.readers.kineto.event_stream import Taken
from profilemate.parse.readers.kineto.found import (
    API_NAMES,
    CALL,
    GPU,
    RANGE,
    RANGES,
    Found,
    Group,
    Wanted,
    template_of,
)
from profilemate.parse.readers.kineto.native import SLOTS, VALUES, WIDTH
from profilemate.parse.readers.kineto.template import (
    MICROSECONDS,
    WHOLE,
    Lessons,
    Path,
    Template,
)
from profilemate.parse.recording.activity import is_graph_launch
from profilemate.parse.recording.contract import Marker

_ROOM = 1 << 14  # rows that are put away at a time
_FEW = 64  # rows that are put away one by one: numpy takes longer to begin
_FRACTION = 8  # a flag of a hole's kind, as in _scan.c
_BLOCK = 1 << 22  # bytes after which templates that were not used fade, and lessons are given again
_REACH = 1 << 16  # bytes in which the end of an event is sought, as in _scan.c
_FIRST = 1 << 12  # bytes in which the end of the first event is sought, before all of `_REACH`
_NEXT = re.compile(rb"[ \t\r\n]*,[ \t\r\n]*\{")
# Which number of an event a column is made of; the first two are those of all groups.
_PLACES: Mapping[str, int] = {
    "device": 2,
    "stream": 3,
    "correlation": 4,
    "graph": 5,
    "node": 6,
    "pid": 2,
    "tid": 3,
}


_decode = json.JSONDecoder(parse_float=str, strict=False).raw_decode


class CompiledScanner:
    """Takes events off blocks of bytes and puts what is wanted into `found`."""

    def __init__(self, found: Found, library: ctypes.CDLL) -> None:
        self._found, self._library = found, library
        self._pointer = library.pm_new(_ROOM)
        if not self._pointer:
            raise MemoryError
        weakref.finalize(self, library.pm_free, self._pointer)
        self._state = state = self._pointer.contents
        shape = (WIDTH, _ROOM)
        self._rows = [np.ctypeslib.as_array(rows, shape) for rows in state.rows]
        self._hits = np.ctypeslib.as_array(state.hits)
        for which, prefixes in enumerate((RANGES, API_NAMES)):
            for prefix in prefixes:
                raw = prefix.encode()
                self._check(library.pm_prefix(self._pointer, which, raw, len(raw)))
        self._names = _Names(found, library, self._pointer)
        self._templates: list[Template] = []  # in their slots
        self._lessons = Lessons()
        self._scanned = 0  # bytes since templates faded
        self._between = b""  # what stands between two events, brackets included; empty if unknown

    @staticmethod
    def _check(done: int) -> None:
        if not done:
            raise MemoryError

    def take(self, raw: bytes, begin: int) -> Taken:
        """Take events from bytes, from an event's bracket on.

        The last event is left: only what follows it tells that it is whole.
        """
        if not self._between:
            self._between = _between(raw, begin)
            if not self._between:
                return Taken(begin, stopped=len(raw) - begin >= _REACH)
        work, at, stopped = _Work(raw), begin, False
        self._state.row = 0
        while True:
            at = self._library.pm_scan(
                self._pointer, raw, at, len(raw), self._between, len(self._between)
            )
            if self._state.failed:
                raise MemoryError
            if max(self._state.used) == _ROOM:
                self._drain(work)
                continue
            end = raw.find(self._between, at, at + _REACH) + 1
            if not end:
                stopped = len(raw) - at >= _REACH
                break
            event = _decoded(raw[at:end])
            if event is None:
                stopped = True
                break
            self._decoded(work, raw[at:end], event)
            at = end + len(self._between) - 2
        self._drain(work)
        self._fade(at - begin)
        if stopped:
            self._between = b""
        return Taken(at, self._state.row, work.decoded, work.markers, stopped)

    def _decoded(self, work: _Work, raw: bytes, event: Mapping[str, Any]) -> None:
        """Keep an event that fitted no template, and learn from it."""
        work.exact.append((self._state.row, event))
        self._state.row += 1
        if not self._lessons.wanted():
            return
        new = template_of(raw, event)
        if new is None:
            return
        for slot, old in enumerate(self._templates):
            if old.teach(new):
                self._teach(slot)
                return
        slot = len(self._templates)
        if slot == SLOTS:  # in place of the one that was used least lately
            slot = int(self._hits.argmin())
        self._templates[slot : slot + 1] = [new]
        self._teach(slot)

    def _fade(self, scanned: int) -> None:
        self._scanned += scanned
        if self._scanned >= _BLOCK:
            self._scanned = 0
            self._hits *= 0.5
            self._lessons.new_block()

    def _teach(self, slot: int) -> None:
        """Give the library a template that is new in its slot, or has changed."""
        template = self._templates[slot]
        group = template.group
        assert isinstance(group, Group)
        paths: dict[Path, int] = {("ts",): 0, ("dur",): 1}
        otherwise = [0, -1 if group.instant and group.kind not in (GPU, CALL) else 0, *[-1] * 5]
        for name, source in group.columns.items():
            if isinstance(source, int):
                otherwise[_PLACES[name]] = source
            else:
                paths[source] = _PLACES[name]
        kinds, values, cuts = bytearray(), bytearray(), [0]
        for hole in template.holes:
            kinds.append(hole.kind | _FRACTION * hole.fraction)
            values.append(paths[hole.path] if hole.kind in (WHOLE, MICROSECONDS) else 0)
        for literal in template.literals:
            cuts.append(cuts[-1] + len(literal))
        self._check(
            self._library.pm_template(
                self._pointer,
                slot,
                b"".join(template.literals),
                (ctypes.c_int32 * len(cuts))(*cuts),
                bytes(kinds),
                bytes(values),
                len(kinds),
                group.kind,
                group.gpu,
                (ctypes.c_int64 * VALUES)(*otherwise),
            )
        )

    # -------------------------------------------------------------- columns

    def _drain(self, work: _Work) -> None:
        """Put away what the library and the decoder have read of a block up to now."""
        found, state = self._found, self._state
        if sum(state.used) + len(work.exact) <= _FEW:
            self._drain_few(work)
            return
        found.first, found.last = min(found.first, state.first), max(found.last, state.last)
        gpu, calls, ranges = (
            rows[:, :used].copy() for rows, used in zip(self._rows, state.used, strict=True)
        )
        state.used[:] = (0, 0, 0)
        markers = _markers(work.raw, ranges.T.tolist())
        singles: dict[int, list[tuple[int, ...]]] = {GPU: [], CALL: []}
        for row, event in work.exact:
            wanted = found.wants(event)
            if wanted is None:
                continue
            if isinstance(wanted.values, Marker):
                markers.append((row, wanted.values))
            else:
                name = self._names.of(wanted.name)
                singles[wanted.kind].append((row, *wanted.values, name))
        work.decoded += len(work.exact)
        work.exact.clear()
        markers.sort(key=lambda item: item[0])
        kept = (found.range(marker) for _, marker in markers)
        work.markers += [marker for marker in kept if marker is not None]
        started = _with(gpu, singles[GPU])
        launched = self._calls(_with(calls[:7], singles[CALL]))
        self._names.number(started, launched)
        found.use_records(started[1:])
        found.launches.extend(launched[1:])

    def _drain_few(self, work: _Work) -> None:
        """The same for a few rows."""
        found, state, names = self._found, self._state, self._names
        found.first, found.last = min(found.first, state.first), max(found.last, state.last)
        gpu, calls, ranges = (
            rows[:, :used].T.tolist() for rows, used in zip(self._rows, state.used, strict=True)
        )
        state.used[:] = (0, 0, 0)
        together = [
            *((row[0], Wanted(GPU, names.text(row[-1]), tuple(row[1:-1]))) for row in gpu),
            *((row[0], Wanted(CALL, names.text(row[6]), tuple(row[1:6]))) for row in calls),
            *((row, Wanted(RANGE, m.text, m)) for row, m in _markers(work.raw, ranges)),
        ]
        for row, event in work.exact:
            wanted = found.wants(event)
            if wanted is not None:
                together.append((row, wanted))
        work.decoded += len(work.exact)
        work.exact.clear()
        together.sort(key=lambda item: item[0])
        kept = (found.put(wanted) for _, wanted in together)
        work.markers += [marker for marker in kept if marker is not None]

    def _calls(self, calls: Matrix) -> Matrix:
        """Count API calls and keep all but graph launches, which are returned."""
        names, found = self._names, self._found
        found.use_calls(calls[1], calls[2])
        if not calls.shape[1]:
            return calls
        count = np.bincount(calls[-1])
        counted = np.flatnonzero(count).tolist()
        if any(names.text(number) not in found.calls for number in counted):
            counted.sort(key=lambda number: int(np.argmax(calls[-1] == number)))
        for number in counted:
            found.calls[names.text(number)] += int(count[number])
        low, high = int(calls[3].min()), int(calls[3].max())
        found.callers.update((low,) if low == high else np.unique(calls[3]).tolist())
        launch = names.launches()[calls[-1]]
        found.starts.extend(calls[[1, 3, 4, 5]][:, ~launch & (calls[5] != 0)])
        return calls[:, launch]


class _Work:
    """What is at hand of a block: events that were decoded, and what came of it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.exact: list[tuple[int, Mapping[str, Any]]] = []
        self.decoded = 0
        self.markers: list[Marker] = []


class _Names:
    """Names of records and calls: their numbers in the library and those in what was found."""

    def __init__(self, found: Found, library: ctypes.CDLL, pointer: Any) -> None:
        self._found, self._library, self._pointer = found, library, pointer
        self._texts: list[str] = []
        self._launches: list[bool] = []
        self._numbers = np.empty(0, dtype=np.int64)  # in what was found; -1 for none yet

    def of(self, name: str) -> int:
        """The library's number of a name."""
        raw = name.encode("utf-8", "surrogatepass")
        number: int = self._library.pm_number(self._pointer, raw, len(raw))
        if number < 0:
            raise MemoryError
        return number

    def _fetch(self) -> None:
        length = ctypes.c_int64()
        count = self._pointer.contents.names
        for number in range(len(self._texts), count):
            address = self._library.pm_name(self._pointer, number, ctypes.byref(length))
            text = ctypes.string_at(address, length.value).decode("utf-8", "replace")
            self._texts.append(text)
            self._launches.append(is_graph_launch(text))
        unknown = np.full(count - len(self._numbers), -1, dtype=np.int64)
        self._numbers = np.concatenate([self._numbers, unknown])

    def text(self, number: int) -> str:
        """A name."""
        if number >= len(self._texts):
            self._fetch()
        return self._texts[number]

    def launches(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Of each name whether it is that of a graph launch."""
        self._fetch()
        return np.array(self._launches, dtype=bool)

    def number(self, *tables: Matrix) -> None:
        """Replace the library's numbers, which the last row of each table has.

        Names are numbered in the order of the file, whatever they are names of: the first row has
        the place of each event.
        """
        self._fetch()
        new: dict[int, int] = {}
        for table in tables:
            fresh = np.flatnonzero(self._numbers[table[-1]] < 0)
            if not len(fresh):
                continue
            ids, at = np.unique(table[-1, fresh], return_index=True)
            for each, place in zip(ids.tolist(), table[0, fresh[at]].tolist(), strict=True):
                new[each] = min(place, new.get(each, place))
        for each in sorted(new, key=new.__getitem__):
            self._numbers[each] = self._found.number(self._texts[each])
        for table in tables:
            table[-1] = self._numbers[table[-1]]


def _with(table: Matrix, singles: list[tuple[int, ...]]) -> Matrix:
    """A table with further rows, in the order of the file."""
    if not singles:
        return table
    together = np.concatenate([table, np.array(singles, dtype=np.int64).T], axis=1)
    return together[:, np.argsort(together[0], kind="stable")]


def _markers(raw: bytes, ranges: list[list[int]]) -> list[tuple[int, Marker]]:
    """Ranges by their rows in the library's table: place, times, process, thread, name in `raw`."""
    found = []
    for row, ts, dur, pid, tid, begin, end, *_ in ranges:
        text = raw[begin:end].decode("utf-8", "replace")
        found.append((row, Marker(ts, None if dur < 0 else dur, pid, tid, text)))
    return found


def _between(raw: bytes, begin: int) -> bytes:
    """What stands between two events, from bracket to bracket: what stands after this one.

    Empty if it cannot be said: this one is broken, longer than `_REACH`, or the last.
    """
    for size in (_FIRST, _REACH):
        text = raw[begin : begin + size]
        try:
            _, end = _decode(text.decode("latin-1"), 0)
        except (ValueError, RecursionError):
            continue
        found = _NEXT.match(text, end)
        return b"" if found is None or len(found[0]) > 64 else b"}" + found[0]
    return b""


def _decoded(raw: bytes) -> Mapping[str, Any] | None:
    """An event; None if the bytes are not just one."""
    text = raw.decode("utf-8", "surrogateescape")
    try:
        event, end = _decode(text, 0)
    except (ValueError, RecursionError):
        return None
    return event if end == len(text) else None
