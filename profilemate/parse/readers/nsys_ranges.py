"""Large tables of a database, by ranges of rows over two threads.

SQLite works on a row for about a tenth of a microsecond and holds no lock of Python's meanwhile:
two threads are nearly twice as fast as one. Columns of integers come as Arrow batches where the
driver for that is installed (the extra `profilemate[fast]`); else as rows of the standard library,
which takes three times as long and gives the same.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from profilemate.parse.activity import Ints

THREADS = 2
AHEAD = 3  # ranges that are read before they are asked for
ARROW_ROWS, PLAIN_ROWS, SCAN_ROWS = 1 << 16, 1 << 15, 1 << 19

_Result = TypeVar("_Result")


class Range(NamedTuple):
    """Rows by their rowid, both included."""

    first: int
    last: int

    def sql(self, rowid: str) -> str:
        """The condition that a row is one of them."""
        return f"{rowid} BETWEEN {self.first} AND {self.last}"


class _Arrow:
    """The few calls into the Arrow driver."""

    def __init__(self) -> None:
        import adbc_driver_manager
        import adbc_driver_sqlite.dbapi
        import pyarrow  # noqa: F401  # the driver gives no columns without it

        self.connect = adbc_driver_sqlite.dbapi.connect
        self.error: type[Exception] = adbc_driver_manager.Error


def _arrow() -> _Arrow | None:
    try:
        return _Arrow()
    except ImportError:
        return None


class RowRanges:
    """Queries on ranges of rows of one database, each thread with a connection of its own."""

    def __init__(self, path: Path, uri: str, connect: Callable[[], sqlite3.Connection]) -> None:
        self._path, self._uri, self._connect = path, uri, connect
        self._pool: ThreadPoolExecutor | None = None
        self._own = threading.local()
        self._opened: list[Any] = []
        self._arrow: _Arrow | None = None
        self._asked = False

    def close(self) -> None:
        """End the threads and close their connections."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        while self._opened:
            self._opened.pop().close()
        self._own = threading.local()

    def ranges(self, last: int, rows: int) -> list[Range] | None:
        """Ranges of so many rows up to the last one; None where rowids are no help."""
        # A row has some bytes: more numbers than that, and there are gaps between them.
        if not 0 < last <= max(self._path.stat().st_size, rows):
            return None
        return [Range(n, n + rows - 1) for n in range(1, last + 1, rows)]

    @property
    def rows(self) -> int:
        """Rows that are best read together in columns."""
        if not self._asked:
            self._asked, self._arrow = True, _arrow()
        return PLAIN_ROWS if self._arrow is None else ARROW_ROWS

    def each(
        self, ranges: list[Range], work: Callable[[Range], _Result]
    ) -> Iterator[tuple[Range, _Result]]:
        """What a function gives for every range, in their order; some ahead, in threads.

        Raises:
            sqlite3.Error: What the function raises.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="profilemate-rows")
        waiting: deque[tuple[Range, Future[_Result]]] = deque()
        rest = iter(ranges)
        try:
            for one in rest:
                waiting.append((one, self._pool.submit(work, one)))
                if len(waiting) == AHEAD:
                    done = waiting.popleft()
                    yield done[0], done[1].result()
            while waiting:
                done = waiting.popleft()
                yield done[0], done[1].result()
        finally:
            for _, future in waiting:
                future.cancel()

    def fetched(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, on the connection of this thread.

        Raises:
            sqlite3.Error: The file is damaged here.
        """
        if not hasattr(self._own, "plain"):
            self._own.plain = self._connect()
            self._opened.append(self._own.plain)
        rows: list[tuple[Any, ...]] = self._own.plain.execute(sql).fetchall()
        return rows

    def columns(self, sql: str, width: int) -> list[Ints]:
        """The columns of a query that gives integers.

        Raises:
            sqlite3.Error: The file is damaged here.
        """
        if self._arrow is not None:
            with suppress(self._arrow.error, OSError):
                return self._columns(self._arrow, sql)
        return as_columns(self.fetched(sql), width)

    def _columns(self, arrow: _Arrow, sql: str) -> list[Ints]:
        if not hasattr(self._own, "arrow"):
            self._own.arrow = arrow.connect(self._uri)
            self._opened.append(self._own.arrow)
        options = {"adbc.sqlite.query.batch_rows": ARROW_ROWS}
        with self._own.arrow.cursor(adbc_stmt_kwargs=options) as cursor:
            cursor.execute(sql)
            table = cursor.fetch_arrow_table()
        return [column.to_numpy().astype(np.int64, copy=False) for column in table.columns]


def as_columns(rows: list[tuple[Any, ...]], width: int) -> list[Ints]:
    """Rows of integers as columns."""
    flat = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=len(rows) * width)
    return list(np.ascontiguousarray(flat.reshape(len(rows), width).T))
