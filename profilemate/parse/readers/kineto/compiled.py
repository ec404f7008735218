"""The same as `scan`, by the compiled library: events straight off the text into columns."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from profilemate.parse.columns.arrays import Matrix
from profilemate.parse.readers.kineto.found import (
    API_NAMES,
    CALL,
    GPU,
    RANGES,
    Found,
    Group,
)
from profilemate.parse.readers.kineto.native import SLOTS, VALUES, WIDTH
from profilemate.parse.readers.kineto.scan import Lessons, Scanner, Taken, decoded
from profilemate.parse.readers.kineto.template import Path, Template
from profilemate.parse.recording.activity import is_graph_launch
from profilemate.parse.recording.contract import Marker

_ROOM = 1 << 14  # rows that are put away at a time
_NAME = 3  # a hole for the name, beside the kinds of numbers in template.py
_FRACTION = 4
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


class CompiledScanner(Scanner):
    """Takes events off blocks of bytes and puts what is wanted into `found`."""

    def __init__(self, found: Found, library: ctypes.CDLL) -> None:
        super().__init__(found)
        self._library = library
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

    @staticmethod
    def _check(done: int) -> None:
        if not done:
            raise MemoryError

    def take(self, parts: Sequence[bytes]) -> Taken:
        """Take events from bytes that begin at an event's bracket.

        The last event is left: only what follows it tells that it is whole.
        """
        raw = b"".join(parts)
        if not self._separator and not self._sniff(raw):
            return self._unknown(raw)
        work = _Work(raw)
        self._state.row = 0
        lessons, stopped, at = Lessons(), False, 0
        between = self._separator
        while True:
            at = self._library.pm_scan(self._pointer, raw, at, len(raw), between, len(between))
            if self._state.failed:
                raise MemoryError
            if max(self._state.used) == _ROOM:
                self._drain(work)
                continue
            end = raw.find(between, at) + 1
            if not end:
                break
            event = decoded(raw[at:end])
            if event is None:
                self._separator, stopped = b"", True
                break
            work.exact.append((self._state.row, event))
            self._state.row += 1
            # What is escaped is no template.
            if lessons.wanted() and raw.find(b"\\", at, end) < 0:
                template = self.learn(raw[at:end], event)
                if template is not None:
                    self._teach(template)
                    lessons.learned()
            at = end + len(between) - 2
        self._drain(work)
        self._hits *= 0.5
        return Taken(raw[at:], self._state.row, work.decoded, work.markers, stopped)

    def _teach(self, template: Template) -> None:
        """Give the library a template that is new, or one that it has and that has changed."""
        known = self.templates
        slot = known.index(template)
        if slot >= SLOTS:  # in place of the one that was used least lately
            slot = int(self._hits.argmin())
            known[slot] = known.pop()
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
            kinds.append(_NAME if hole is None else hole.kind | _FRACTION * hole.fraction)
            values.append(paths[hole.path] if hole is not None and hole.kind else 0)
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
        found.first, found.last = min(found.first, state.first), max(found.last, state.last)
        gpu, calls, ranges = (
            rows[:, :used].copy() for rows, used in zip(self._rows, state.used, strict=True)
        )
        state.used[:] = (0, 0, 0)
        markers = _markers(work.raw, ranges)
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
        found.gpu.extend(started[1:])
        found.launches.extend(launched[1:])

    def _calls(self, calls: Matrix) -> Matrix:
        """Count API calls and keep all but graph launches, which are returned."""
        names, found = self._names, self._found
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


def _markers(raw: bytes, ranges: Matrix) -> list[tuple[int, Marker]]:
    found = []
    for row, ts, dur, pid, tid, begin, end in ranges[:7].T.tolist():
        text = raw[begin:end].decode("utf-8", "replace")
        found.append((row, Marker(ts, None if dur < 0 else dur, pid, tid, text)))
    return found
