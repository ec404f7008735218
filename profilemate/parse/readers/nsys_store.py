"""The database that `nsys export --type sqlite` writes: opened for reading, scanned in columns."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from profilemate.parse.activity import Ints
from profilemate.parse.readers.nsys_activity import Only
from profilemate.parse.readers.nsys_layout import Found, Tables
from profilemate.parse.readers.nsys_ranges import SCAN_ROWS, Range, RowRanges, as_columns

_BATCH = 1 << 16  # rows
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


class SqliteStore:
    """A `Store` on a connection. Damage ends a query early and is kept in `damage`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._ranges = RowRanges(path, database_uri(path), lambda: connect(path))
        self.damage = _cut_short(path)

    def close(self) -> None:
        """End the threads that scan large tables. Nobody need do that if none was scanned."""
        self._ranges.close()

    def query(
        self, sql: str, parameters: Mapping[str, object] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, up to the damage if there is any."""
        try:
            yield from self._connection.execute(sql, parameters or {})
        except sqlite3.DatabaseError as e:
            if e.sqlite_errorcode & 0xFF not in _DAMAGE:
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

    def batches(
        self, table: str, columns: Sequence[str], only: Only | None = None
    ) -> Iterator[list[Ints]]:
        """Columns of integers, NULL as 0."""
        # Of a damaged file anything may come: the cast makes integers of it.
        shown = ", ".join(f"CAST(coalesce({quoted(c)}, 0) AS INTEGER)" for c in columns)
        sql = f"SELECT {shown} FROM {quoted(table)}"
        if only is not None:
            sql += f" WHERE {quoted(only[0])} IN ({', '.join(map(str, only[1]))})"
        joined = "WHERE" if only is None else "AND"
        ranged = self._ranges.ranges(self.last_row(table), self._ranges.rows)
        first = 1

        def read(rows: Range) -> list[Ints]:
            return self._ranges.columns(f"{sql} {joined} {rows.sql('rowid')}", len(columns))

        if ranged is not None and self.damage is None:
            try:
                for rows, found in self._ranges.each(ranged, read):
                    yield found
                    first = rows.last + 1
                return
            except sqlite3.DatabaseError as e:
                self._refuse_unless_damage(e)
            sql += f" {joined} rowid >= {first}"
        slowly = self.query(sql)
        while batch := list(islice(slowly, _BATCH)):
            yield as_columns(batch, len(columns))

    def ranges(
        self, table: str, sql: str, rowid: str, parameters: Mapping[str, int]
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of a query on a large table of which few rows are wanted, in their order.

        Args:
            table: The table.
            sql: The query, with a WHERE.
            rowid: How it calls the rowid of the table.
            parameters: Integers that the query names.
        """
        ranged = self._ranges.ranges(self.last_row(table), SCAN_ROWS)
        first = 1
        for name, value in parameters.items():
            sql = sql.replace(f":{name}", str(value))
        if ranged is not None and self.damage is None:
            try:
                for rows, found in self._ranges.each(
                    ranged, lambda rows: self._ranges.fetched(f"{sql} AND {rows.sql(rowid)}")
                ):
                    yield from found
                    first = rows.last + 1
                return
            except sqlite3.DatabaseError as e:
                self._refuse_unless_damage(e)
            sql += f" AND {rowid} >= {first}"
        yield from self.query(sql)

    def large(self, tables: Sequence[str]) -> list[str]:
        """Those of some tables that take their time to scan."""
        here = self.tables()
        if self.damage is not None:
            return []
        return [name for name in tables if name in here and self.last_row(name) > SCAN_ROWS]

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

    def _refuse_unless_damage(self, error: sqlite3.DatabaseError) -> None:
        if error.sqlite_errorcode & 0xFF not in _DAMAGE:
            raise error

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
        a, b = quoted(first), quoted(last)
        sql = f"SELECT min({a}), max({a}), max({b}) FROM {quoted(table)}"
        ranged = self._ranges.ranges(self.last_row(table), SCAN_ROWS)
        if ranged is None or len(ranged) < 2 or self.damage is not None:
            found = list(self.query(sql))
        else:
            try:
                each = self._ranges.each(
                    ranged, lambda rows: self._ranges.fetched(f"{sql} WHERE {rows.sql('rowid')}")
                )
                found = [row for _, some in each for row in some]
            except sqlite3.DatabaseError as e:
                self._refuse_unless_damage(e)
                found = list(self.query(sql))
        known = [row for row in found if row[0] is not None]
        if not known:
            return None
        return min(row[0] for row in known), max(h for row in known for h in row if h is not None)


@contextmanager
def opened(path: Path) -> Iterator[SqliteStore]:
    """The store of a database, for as long as it is needed.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    with closing(connect(path)) as connection, closing(SqliteStore(connection, path)) as store:
        yield store
