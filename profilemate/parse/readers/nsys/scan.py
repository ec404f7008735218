"""Large tables of a database by pieces of their pages, over two threads.

numpy holds no lock of Python's while it works: two threads are nearly twice as fast as one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.readers.nsys.sqlite_pages import Pages, Rows, UnusualError

THREADS = 2
AHEAD = 3  # pieces that are read before they are asked for
PAGES = 512  # of a piece: what its rows need fits into a processor's cache

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a table lies.

    Attributes:
        root: The page that its tree begins at.
        columns: Name of a column -> its number, of those that are stored in its rows.
        width: How many columns a row has.
    """

    root: int
    columns: Mapping[str, int]
    width: int


class PageBatch:
    """A `Batch` of rows that lie on some pages."""

    def __init__(self, rows: Rows, layout: Layout) -> None:
        self._rows, self._layout = rows, layout
        self._known: dict[str, Ints] = {}

    def prepare(self, columns: Sequence[str], now: Sequence[str]) -> PageBatch:
        """Read some columns, and make sure that others can be read.

        Raises:
            UnusualError: One of them cannot.
        """
        self._known = {name: self.column(name) for name in now}
        for name in columns:
            if name not in self._known:
                self._rows.check(self._layout.columns[name])
        return self

    def __len__(self) -> int:
        """How many rows."""
        return self._rows.count

    def column(self, name: str, at: Ints | None = None) -> Ints:
        """A column of integers, NULL as 0; of some rows or of all."""
        if name in self._known:
            known = self._known[name]
            return known if at is None else known[at]
        return self._rows.column(self._layout.columns[name], at)

    def extent(self, first: str, last: str) -> tuple[int, int] | None:
        """Smallest and largest time stamp in two columns; NULL is none."""
        found: list[int] = []
        for name in dict.fromkeys((first, last)):
            values = self.column(name)
            null = self._rows.is_null(self._layout.columns[name])
            if null.any():
                values = values[~null]
            if len(values):
                found += (int(values.min()), int(values.max()))
        return (min(found), max(found)) if found else None


class Scan(Generic[_Result]):
    """The rows of a table through some function, by pieces.

    Attributes:
        after: The last rowid that was read; None before the first.
        whole: Whether every row was read. SQLite has to be asked for what comes after the last.
    """

    def __init__(
        self,
        pages: Pages | None,
        layout: Layout | None,
        columns: Sequence[str],
        work: Callable[[Rows, Layout], _Result],
    ) -> None:
        """Of a table; without its pages or its layout nothing is read.

        Args:
            pages: The database.
            layout: Of the table.
            columns: Those that are going to be read.
            work: What is called in threads with the rows of each piece.
        """
        self.after: int | None = None
        self.whole = False
        self._pages, self._layout, self._work = pages, layout, work
        self._columns = columns

    def results(self, pool: ThreadPoolExecutor) -> Iterator[_Result]:
        """What the function gives for each piece, in their order."""
        pages, layout = self._pages, self._layout
        if pages is None or layout is None or not {*self._columns} <= layout.columns.keys():
            return
        upto = 1 + max((layout.columns[name] for name in self._columns), default=0)

        def work(numbers: Ints) -> tuple[int | None, _Result]:
            rows = pages.rows(numbers, layout.width, upto)
            last = int(rows.rowids(np.array([rows.count - 1]))[0]) if rows.count else None
            return last, self._work(rows, layout)

        with suppress(UnusualError):
            leaves = pages.leaves(layout.root)
            pieces = [leaves[at : at + PAGES] for at in range(0, len(leaves), PAGES)]
            for last, result in ahead(pool, pieces, work):
                yield result
                self.after = self.after if last is None else last
            self.whole = True


def ahead(
    pool: ThreadPoolExecutor, pieces: Sequence[Ints], work: Callable[[Ints], _Result]
) -> Iterator[_Result]:
    """What a function gives for every piece, in their order; some ahead, in threads."""
    if len(pieces) == 1:
        yield work(pieces[0])
        return
    waiting: deque[Future[_Result]] = deque()
    try:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) == AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def opened_pages(path: Path) -> Pages | None:
    """The pages of a database, None where they are not read."""
    with suppress(UnusualError, OSError):
        return Pages(path)
    return None
