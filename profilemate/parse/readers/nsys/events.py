"""Which NVTX events of an sqlite export may be wanted: found on its pages, read by SQLite.

Of twenty million events some thousands are ours. They are told apart by the number of their string,
or by the first bytes of a text of their own; no row that is wanted is missed, and SQLite, which is
asked for the rows that are left, decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.readers.nsys.facts import Facts
from profilemate.parse.readers.nsys.layout import Found
from profilemate.parse.readers.nsys.scan import Layout, PageBatch
from profilemate.parse.readers.nsys.sqlite_pages import Rows
from profilemate.parse.readers.nsys.store import SqliteStore, quoted

_DENSE = 1 << 26  # numbers of strings that are marked in an array


@dataclass(frozen=True, slots=True)
class Some:
    """What was found on some pages.

    Attributes:
        rowids: Of the events that may be wanted, in order.
        most: Whether these are so many that rather all from the first to the last are read.
        extent: First and last time stamp of all events there.
    """

    rowids: Ints
    most: bool
    extent: tuple[int, int] | None

    def sql(self, rowid: str) -> str:
        """The condition that an event is one of them."""
        if self.most:
            return f"{rowid} BETWEEN {self.rowids[0]} AND {self.rowids[-1]}"
        return f"{rowid} IN ({', '.join(map(str, self.rowids.tolist()))})"


class _Numbers:
    """Tells whether numbers are some of those that it knows."""

    def __init__(self, numbers: Ints) -> None:
        self._sorted = np.sort(numbers)
        self.any = len(numbers) > 0
        self._first, last = (int(self._sorted[i]) if self.any else -i for i in (0, -1))
        self._marks = None
        if self.any and last - self._first < _DENSE:
            # One more at each end, where all numbers beyond go.
            self._marks = np.zeros(last - self._first + 3, dtype=bool)
            self._marks[self._sorted - self._first + 1] = True

    def among(self, numbers: Ints) -> npt.NDArray[np.bool_]:
        """Which of some numbers are known."""
        if self._marks is not None:
            place = np.clip(numbers, self._first - 1, self._first + len(self._marks) - 2)
            found: npt.NDArray[np.bool_] = self._marks[place - (self._first - 1)]
            return found
        return np.isin(numbers, self._sorted)


def string_numbers(store: SqliteStore, facts: Facts, condition: str) -> Ints:
    """Numbers of the strings for which a condition in SQL is true; the string is `value`."""
    strings = facts.table("strings")
    if strings is None or strings.missing:
        return np.empty(0, dtype=np.int64)
    number, value = (quoted(strings.columns[c]) for c in ("id", "value"))
    sql = f"SELECT number FROM (SELECT {number} AS number, {value} AS value FROM "
    sql += f"{quoted(strings.table)}) WHERE {condition}"
    return np.fromiter((n for (n,) in store.query(sql)), dtype=np.int64)


def found_events(
    store: SqliteStore,
    facts: Facts,
    events: Found,
    numbers: Ints,
    prefixes: Sequence[str],
    sql: str,
) -> Iterator[tuple[Any, ...]]:
    """The rows of a query of events, in order of rowid.

    Args:
        store: The export.
        facts: What is known of it; its window is extended where it waits for the events.
        events: Their table.
        numbers: Of the strings that are wanted.
        prefixes: What texts that are wanted begin with.
        sql: A query with a WHERE, which calls the events `e`, gives the rowid first and does not
            find events but by these.
    """
    columns = events.columns
    times = [columns[name] for name in ("start", "end") if name in columns]
    texts = [columns[name] for name in ("text", "textId") if name in columns]
    known = _Numbers(numbers)

    def look(rows: Rows, layout: Layout) -> Some:
        wanted = np.zeros(rows.count, dtype=bool)
        without: Ints | None = None
        if "text" in columns:
            text = layout.columns[columns["text"]]
            wanted |= rows.begins(text, prefixes)
            if (inline := rows.is_text(text)).any():
                without = np.flatnonzero(~inline)
        if "textId" in columns and known.any:
            ids = rows.column(layout.columns[columns["textId"]], without)
            wanted[slice(None) if without is None else without] |= known.among(ids)
        extent = None
        if events.table in facts.later:
            extent = PageBatch(rows, layout).prepare(times, times).extent(times[0], times[-1])
        at = np.flatnonzero(wanted)
        return Some(rows.rowids(at), 2 * len(at) > rows.count, extent)

    scan, found = store.scan(events.table, [*times, *texts], look)
    for some in found:
        facts.extend(events.table, some.extent)
        if len(some.rowids):
            yield from store.query(f"{sql} AND {some.sql('e.rowid')} ORDER BY e.rowid")
    if not scan.whole:
        if events.table in facts.later:
            for extent in store.extent_after(scan.after, events.table, times[0], times[-1]):
                facts.extend(events.table, extent)
        rest = "" if scan.after is None else f" AND e.rowid > {scan.after}"
        yield from store.query(f"{sql}{rest}")
