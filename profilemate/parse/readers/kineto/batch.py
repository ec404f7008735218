"""Thousands of events at once into the columns, in the order of the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from profilemate.parse.columns.arrays import Ints, Matrix
from profilemate.parse.columns.int_table import IntTable
from profilemate.parse.gpu.fold_any_order import AnyOrder
from profilemate.parse.readers.kineto.block import Block
from profilemate.parse.readers.kineto.found import (
    API_NAMES,
    BARE,
    CALL,
    GPU,
    NOTHING,
    RANGE,
    RANGES,
    Found,
    Group,
    Source,
)
from profilemate.parse.readers.kineto.template import Matched
from profilemate.parse.recording.activity import is_graph_launch
from profilemate.parse.recording.contract import Marker

_API_BYTES = tuple(n.encode() for n in API_NAMES)
_TS, _DUR = ("ts",), ("dur",)


@dataclass(slots=True)
class Events:
    """Events of one template: their places in the block, and what was read of them."""

    rows: Ints
    group: Group
    matched: Matched


class _Named(NamedTuple):
    """Rows of a table, the first of which is the place in the block, and the names of each."""

    table: Matrix
    texts: list[bytes]


class Batches:
    """Puts what was read of blocks where it belongs."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._numbers: dict[bytes, int] = {}  # of names, by their bytes
        self._launches: dict[bytes, bool] = {}
        # The first bytes of a name tell nearly always that it is not wanted.
        self._begins = [r.encode()[:8] for r in RANGES]

    def keep(
        self,
        block: Block,
        events: Sequence[Events],
        exact: Sequence[tuple[int, Mapping[str, Any]]],
    ) -> list[Marker]:
        """Keep what is wanted of a block; return our messages.

        Args:
            block: The bytes.
            events: What was read by templates.
            exact: Events that were decoded, with their places.
        """
        gpu: list[Matrix] = []
        calls: list[Matrix] = []
        ranges: list[tuple[int, Marker]] = []
        names: list[bytes] = []  # of exact events
        for row, event in exact:
            wanted = self._found.wants(event)
            if wanted is None:
                continue
            if isinstance(wanted.values, Marker):
                ranges.append((row, wanted.values))
                continue
            values = (row, *wanted.values, -1, len(names))
            names.append(wanted.name.encode("utf-8", "surrogatepass"))
            (gpu if wanted.kind == GPU else calls).append(np.array([values], dtype=np.int64).T)
        for each in events:
            kind = each.group.kind
            if kind == NOTHING or not len(each.rows):
                continue
            self._window(each)
            if kind == GPU:
                gpu.append(_gpu_rows(each))
            elif kind == CALL:
                calls.append(_call_rows(each))
            elif kind in (RANGE, BARE):
                if kind == BARE:
                    calls.append(_call_rows(each)[:, self._api(block, each)])
                ranges += self._ranges(block, each)
        # Names are numbered in the order of the file, whatever they are names of.
        started, launched = self._gpu(block, gpu, names), self._calls(block, calls, names)
        self._number(started, launched)
        self._keep(self._found.gpu, started)
        self._keep(self._found.launches, launched)
        ranges.sort(key=lambda item: item[0])
        kept = [self._found.range(marker) for _, marker in ranges]
        return [marker for marker in kept if marker is not None]

    def _window(self, events: Events) -> None:
        ts = events.matched.values[_TS]
        end = ts + events.matched.values.get(_DUR, 0)
        self._found.first = min(self._found.first, int(ts.min()))
        self._found.last = max(self._found.last, int(end.max()))

    # -------------------------------------------------------------- tables

    def _gpu(self, block: Block, parts: list[Matrix], exact: list[bytes]) -> _Named:
        if not parts:
            return _Named(np.empty((0, 0), dtype=np.int64), [])
        table = _in_order(parts)
        return _Named(table[:-2], _texts(block, table[-2], table[-1], exact))

    def _calls(self, block: Block, parts: list[Matrix], exact: list[bytes]) -> _Named:
        """Count API calls and keep all but graph launches, which are returned."""
        if not parts:
            return _Named(np.empty((0, 0), dtype=np.int64), [])
        table = _in_order(parts)
        found, known = self._found, self._launches
        texts = _texts(block, table[-2], table[-1], exact)
        for text, count in Counter(texts).items():
            name = _text(text)
            found.calls[name] += count
            if text not in known:
                known[text] = is_graph_launch(name)
        found.callers.update(np.unique(table[3]).tolist())
        launch = np.array([known[text] for text in texts], dtype=bool)
        found.starts.extend(table[[1, 3, 4, 5]][:, ~launch & (table[5] != 0)])
        return _Named(table[:-2, launch], [texts[i] for i in np.flatnonzero(launch)])

    def _number(self, *all_named: _Named) -> None:
        """Give new names their numbers."""
        new: dict[bytes, int] = {}
        for named in all_named:
            for text in set(named.texts) - self._numbers.keys():
                row = int(named.table[0, named.texts.index(text)])
                new[text] = min(row, new.get(text, row))
        for text in sorted(new, key=new.__getitem__):
            self._numbers[text] = self._found.number(_text(text))

    def _keep(self, table: IntTable | AnyOrder, named: _Named) -> None:
        if named.texts:
            number = np.array([self._numbers[text] for text in named.texts], dtype=np.int64)
            table.extend(np.concatenate([named.table[1:], number[None]]))

    # -------------------------------------------------------------- names

    def _api(self, block: Block, events: Events) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which events without a category are API calls, by their name."""
        assert events.matched.name is not None
        texts = _texts(block, *events.matched.name, [])
        return np.array([text.startswith(_API_BYTES) for text in texts], dtype=bool)

    def _ranges(self, block: Block, events: Events) -> list[tuple[int, Marker]]:
        assert events.matched.name is not None
        begin, end = events.matched.name
        likely = np.zeros(len(begin), dtype=bool)
        for text in self._begins:
            likely |= block.begins(begin, text)
        at = np.flatnonzero(likely)
        if not len(at):
            return []
        columns = [_column(events, name, at) for name in ("pid", "tid")]
        dur: list[Any] = [None] * len(at)
        if not events.group.instant:
            dur = events.matched.values[_DUR][at].tolist()
        facts = (
            events.rows[at].tolist(),
            events.matched.values[_TS][at].tolist(),
            dur,
            *(column.tolist() for column in columns),
            _texts(block, begin[at], end[at], []),
        )
        found = []
        for row, ts, length, pid, tid, raw in zip(*facts, strict=True):
            name = _text(raw)
            api = events.group.kind == BARE and name.startswith(API_NAMES)
            if name.startswith(RANGES) and not api:
                found.append((row, Marker(ts, length, pid, tid, name)))
        return found


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _texts(block: Block, begin: Ints, end: Ints, exact: list[bytes]) -> list[bytes]:
    raw = block.raw
    if exact:
        pairs = zip(begin.tolist(), end.tolist(), strict=True)
        return [raw[b:e] if b >= 0 else exact[e] for b, e in pairs]
    return [raw[b:e] for b, e in zip(begin.tolist(), end.tolist(), strict=True)]


def _source(events: Events, source: Source) -> Ints | int:
    return source if isinstance(source, int) else events.matched.values[source]


def _column(events: Events, name: str, at: Ints) -> Ints:
    source = _source(events, events.group.columns[name])
    return np.full(len(at), source) if isinstance(source, int) else source[at]


def _filled(events: Events, columns: Sequence[Ints | int]) -> Matrix:
    assert events.matched.name is not None
    table = np.empty((len(columns) + 3, len(events.rows)), dtype=np.int64)
    for i, column in enumerate((events.rows, *columns, *events.matched.name)):
        table[i] = column
    return table


def _gpu_rows(events: Events) -> Matrix:
    values, columns = events.matched.values, events.group.columns
    ts = values[_TS]
    rest = [_source(events, columns[n]) for n in ("device", "stream", "correlation")]
    graph = [_source(events, columns[n]) for n in ("graph", "node")]
    return _filled(events, [ts, ts + values.get(_DUR, 0), *rest, *graph, events.group.gpu])


def _call_rows(events: Events) -> Matrix:
    values, columns = events.matched.values, events.group.columns
    rest = [_source(events, columns[n]) for n in ("pid", "tid", "correlation")]
    return _filled(events, [values[_TS], values.get(_DUR, 0), *rest])


def _in_order(parts: list[Matrix]) -> Matrix:
    table = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    rows = table[0]
    if (rows[1:] >= rows[:-1]).all():
        return table
    return table[:, np.argsort(rows, kind="stable")]
