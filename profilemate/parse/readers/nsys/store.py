"""The database that `nsys export --type sqlite` writes: opened for reading, scanned in columns."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.readers.nsys.activity import ArrayBatch, Batch
from profilemate.parse.readers.nsys.facts import united
from profilemate.parse.readers.nsys.layout import Found, Tables
from profilemate.parse.readers.nsys.scan import THREADS, Layout, PageBatch, Scan, opened_pages
from profilemate.parse.readers.nsys.sqlite_pages import Pages, Rows

LARGE = 1 << 19  # rows that it takes some time to look at
_BATCH = 1 << 15  # rows
_CACHE_KIB = 32 * 1024
_DAMAGE = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
)


def database_uri(path: Path) -> str:
    """The URI that opens a database without writing a byte anywhere near it.

    `immutable` skips locks and the -shm file, so that a recording on a read-only file system can
    be read; it also skips the logs of an unfinished write, so it may only be said without them.
    """
    immutable = "" if unfinished_log(path) else "&immutable=1"
    return f"{path.absolute().as_uri()}?mode=ro{immutable}"


def unfinished_log(path: Path) -> Path | None:
    """The log of a write to a database that was not finished, None if there is none."""
    logs = (Path(f"{path}{suffix}") for suffix in ("-wal", "-journal"))
    return next((log for log in logs if log.exists() and log.stat().st_size), None)


def connect(path: Path) -> sqlite3.Connection:
    """Open a database for reading, damaged ones too.

    SQLite refuses every query on a file that is shorter than its header says, unless
    `writable_schema` is on; then only what lies beyond the end cannot be read. Nothing is ever
    written: the connection is read-only.
    """
    connection = sqlite3.connect(database_uri(path), uri=True, check_same_thread=False)
    try:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    except sqlite3.Error:
        connection.close()
        raise
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def quoted(name: str) -> str:
    """A table's or a column's name as SQL spells it."""
    return '"' + name.replace('"', '""') + '"'


def _cut_short(path: Path) -> str | None:
    """How much of a database is missing at its end, by what its header says of its size."""
    with path.open("rb") as file:
        head = file.read(100)
    page, pages = int.from_bytes(head[16:18]), int.from_bytes(head[28:32])
    page = 65536 if page == 1 else page
    size = path.stat().st_size
    # The number of pages only counts if whoever changed the file last kept it up to date.
    if head[24:28] != head[92:96] or size >= page * pages:
        return None
    return f"{size} of its {page * pages} bytes are there"


_Result = TypeVar("_Result")


def as_columns(rows: list[tuple[Any, ...]], width: int) -> list[Ints]:
    """Rows of integers as columns."""
    flat = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=len(rows) * width)
    return list(np.ascontiguousarray(flat.reshape(len(rows), width).T))


class SqliteStore:
    """A `Store` on a connection. Damage ends a query early and is kept in `damage`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._pages: Pages | None = None
        self._pool: ThreadPoolExecutor | None = None
        self.damage = _cut_short(path)

    def close(self) -> None:
        """End the threads that scan large tables. Nobody need do that if none was scanned."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        if self._pages is not None:
            self._pages.close()
            self._pages = None

    def query(
        self, sql: str, parameters: Mapping[str, object] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, up to the damage if there is any."""
        try:
            yield from self._connection.execute(sql, parameters or {})
        except sqlite3.DatabaseError as e:
            # Errors of the module itself, not of SQLite, have no code.
            if getattr(e, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
                raise
            self.damage = self.damage or str(e)

    def tables(self) -> Tables:
        """Its tables and their columns."""
        names = [
            name for (name,) in self.query("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        return {
            name: [row[1] for row in self.query(f"PRAGMA table_info({quoted(name)})")]
            for name in names
        }

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The rows of a small table."""
        return self.query(f"SELECT {', '.join(map(quoted, columns))} FROM {quoted(table)}")

    def scan(
        self, table: str, columns: Sequence[str], work: Callable[[Rows, Layout], _Result]
    ) -> tuple[Scan[_Result], Iterator[_Result]]:
        """The rows of a table through a function that is called in threads.

        Args:
            table: The table.
            columns: Those that the function reads.
            work: Called with some rows at a time.

        Returns:
            The scan, which knows how far it came, and what the function gave, in order of rows.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="profilemate-pages")
        # Pages tell what a query does only where no log of an unfinished write changes them.
        if self._pages is None and self.damage is None and unfinished_log(self._path) is None:
            self._pages = opened_pages(self._path)
        pages = None if self.damage is not None else self._pages
        scan = Scan(pages, self._layout(table), columns, work)
        return scan, scan.results(self._pool)

    def _layout(self, table: str) -> Layout | None:
        """Where a table lies, None where its rows are not stored as they are declared."""
        sql = "SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name = :name"
        root = next((n for (n,) in self.query(sql, {"name": table})), 0)
        columns = list(self.query(f"PRAGMA table_xinfo({quoted(table)})"))
        if self.damage is not None or not root or any(hidden for *_, hidden in columns):
            return None
        # The rowid by another name is not stored in its column.
        stored = {name: n for n, name, _, _, _, key, _ in columns if not key}
        return Layout(root, stored, len(columns))

    def batches(
        self, table: str, columns: Sequence[str], now: Sequence[str] = ()
    ) -> Iterator[Batch]:
        """The rows of a table in some columns, of which some are going to be asked for at once."""
        scan, found = self.scan(
            table, columns, lambda rows, layout: PageBatch(rows, layout).prepare(columns, now)
        )
        yield from found
        if scan.whole:
            return
        # Of a damaged file anything may come: the cast makes integers of it.
        shown = ", ".join(f"CAST(coalesce({quoted(c)}, 0) AS INTEGER)" for c in columns)
        rest = "" if scan.after is None else f" WHERE rowid > {scan.after}"
        slowly = self.query(f"SELECT {shown} FROM {quoted(table)}{rest}")
        while some := list(islice(slowly, _BATCH)):
            yield ArrayBatch(dict(zip(columns, as_columns(some, len(columns)), strict=True)))

    def large(self, tables: Sequence[str]) -> list[str]:
        """Those of some tables that take their time to scan."""
        if self.damage is not None:
            return []
        return [name for name in tables if self.last_row(name) > LARGE]

    def last_row(self, table: str) -> int:
        """The largest rowid; 0 where there is none, or one that is not positive."""
        sql = "SELECT rowid FROM {0} ORDER BY rowid {1} LIMIT 1"
        try:
            first, last = (
                next((n for (n,) in self.query(sql.format(quoted(table), way))), 0)
                for way in ("ASC", "DESC")
            )
        except sqlite3.OperationalError:  # a view, or a table without rowids
            return 0
        return int(last) if first > 0 else 0

    def values(self, strings: Found, ids: Sequence[int]) -> dict[int, str]:
        """Strings by their number."""
        number, value = (quoted(strings.columns[c]) for c in ("id", "value"))
        found: dict[int, str] = {}
        for first in range(0, len(ids), _BATCH):
            some = ", ".join(map(str, ids[first : first + _BATCH]))
            sql = (
                f"SELECT {number}, {value} FROM {quoted(strings.table)} WHERE {number} IN ({some})"
            )
            found |= {n: str(text) for n, text in self.query(sql)}
        return found

    def extent(self, table: str, first: str, last: str) -> tuple[int, int] | None:
        """Smallest and largest time stamp in two columns."""
        times = list(dict.fromkeys((first, last)))
        scan, found = self.scan(
            table,
            times,
            lambda rows, layout: PageBatch(rows, layout).prepare(times, times).extent(first, last),
        )
        known = [extent for extent in found if extent is not None]
        if not scan.whole:
            known += self.extent_after(scan.after, table, first, last)
        return united(known)

    def extent_after(
        self, after: int | None, table: str, first: str, last: str
    ) -> list[tuple[int, int]]:
        """The same of the rows behind one, or of all: one extent, or none."""
        a, b = quoted(first), quoted(last)
        rest = "" if after is None else f" WHERE rowid > {after}"
        sql = f"SELECT min({a}), max({a}), min({b}), max({b}) FROM {quoted(table)}{rest}"
        # What copied the database may have made texts or fractions of some.
        known = [int(t) for row in self.query(sql) for t in row if isinstance(t, int | float)]
        return [(min(known), max(known))] if known else []


@contextmanager
def opened(path: Path) -> Iterator[SqliteStore]:
    """The store of a database, for as long as it is needed.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    with closing(connect(path)) as connection, closing(SqliteStore(connection, path)) as store:
        yield store
