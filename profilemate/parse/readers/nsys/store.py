"""The database that `nsys export --type sqlite` writes: opened for reading, read in columns."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.readers.nsys.layout import NARROW, Found, Tables

_BATCH = 1 << 15  # rows that are given at once
_IDS = 1 << 15  # in one statement
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


# Python makes an object of every number that it gets from SQLite, which is most of the time that a
# table takes. Two numbers of 32 bits therefore come as one.


def _grouped(columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Columns that are fetched as one number: one or two each."""
    narrow = [name for name in columns if name in NARROW]
    pairs: list[tuple[str, ...]] = list(zip(narrow[::2], narrow[1::2], strict=False))
    paired = {name for pair in pairs for name in pair}
    return [*((name,) for name in columns if name not in paired), *pairs]


def _fetched(group: Sequence[str]) -> str:
    """The SQL of a group; NULL, which is no integer, where 31 bits do not hold one of two."""
    first, *second = (f"ifnull({quoted(name)}, 0)" for name in group)
    if not second:
        return first
    return f"CASE WHEN ({first} | {second[0]}) >> 31 = 0 THEN {first} << 32 | {second[0]} END"


def _flat(rows: Iterable[tuple[int, ...]]) -> Ints | None:
    """The values of rows, one row after the other; None if one of them is no integer."""
    try:
        return np.fromiter(chain.from_iterable(rows), dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        return None


def _by_column(groups: Sequence[Sequence[str]], flat: Ints) -> dict[str, Ints]:
    """An array for each column, of rows with a value for each group."""
    found = {}
    for group, values in zip(groups, flat.reshape(-1, len(groups)).T, strict=True):
        if len(group) == 1:
            found[group[0]] = np.ascontiguousarray(values)
        else:
            found |= {group[0]: values >> 32, group[1]: values & 0xFFFFFFFF}
    return found


class SqliteStore:
    """A `Store` on a connection. Damage ends a query early and is kept in `damage`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.damage = _cut_short(path)

    def query(
        self, sql: str, parameters: Mapping[str, object] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, up to the damage if there is any."""
        with self._up_to_damage():
            yield from self._connection.execute(sql, parameters or {})

    @contextmanager
    def _up_to_damage(self) -> Iterator[None]:
        """Ends the block where the file is damaged, and keeps that in `damage`."""
        try:
            yield
        except sqlite3.DatabaseError as e:
            # Errors of the module itself, not of SQLite, have no code.
            if getattr(e, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
                raise
            self.damage = self.damage or str(e)

    def tables(self) -> Tables:
        """Its tables and their columns."""
        found = self.query("SELECT name FROM sqlite_master WHERE type='table'")
        every = [name for (name,) in found]
        names = [name for name in every if isinstance(name, str)]
        if len(names) < len(every):
            self.damage = self.damage or "a table has lost its name"
        return {
            name: [row[1] for row in self.query(f"PRAGMA table_info({quoted(name)})")]
            for name in names
        }

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The rows of a small table."""
        return self.query(f"SELECT {', '.join(map(quoted, columns))} FROM {quoted(table)}")

    def batches(
        self, table: str, columns: Sequence[str], where: tuple[str, Collection[int]] | None = None
    ) -> Iterator[dict[str, Ints]]:
        """The rows of a table in some columns; see `BatchStore`."""
        source = f"FROM {quoted(table)}"
        if where is not None:
            source += f" WHERE {quoted(where[0])} IN ({', '.join(map(str, where[1]))})"
        groups = _grouped(columns)
        given = 0
        with self._up_to_damage():
            cursor = self._connection.execute(f"SELECT {', '.join(map(_fetched, groups))} {source}")
            while (flat := _flat(islice(cursor, _BATCH))) is not None:
                if not len(flat):
                    return
                yield _by_column(groups, flat)
                given += len(flat) // len(groups)
        # What is no integer, or the rows of a batch in which there is damage.
        shown = ", ".join(f"CAST(coalesce({quoted(c)}, 0) AS INTEGER)" for c in columns)
        rest = self.query(f"SELECT {shown} {source} LIMIT -1 OFFSET {given}")
        while len(flat := np.array(list(islice(rest, _BATCH)), dtype=np.int64)):
            yield _by_column([(name,) for name in columns], flat)

    def last_row(self, table: str) -> int:
        """The largest rowid; 0 where there is none."""
        try:
            last = next((n for (n,) in self.query(f"SELECT max(rowid) FROM {quoted(table)}")), 0)
        except sqlite3.OperationalError:  # a view, or a table without rowids
            return 0
        return max(0, last or 0)

    def values(self, strings: Found, ids: Sequence[int]) -> dict[int, str]:
        """Strings by their number."""
        number, value = (quoted(strings.columns[c]) for c in ("id", "value"))
        found: dict[int, str] = {}
        for first in range(0, len(ids), _IDS):
            some = ", ".join(map(str, ids[first : first + _IDS]))
            sql = (
                f"SELECT {number}, {value} FROM {quoted(strings.table)} WHERE {number} IN ({some})"
            )
            found |= {n: str(text) for n, text in self.query(sql)}
        return found

    def extent(self, table: str, first: str, last: str) -> tuple[int, int] | None:
        """Smallest and largest time stamp in two columns."""
        a, b = quoted(first), quoted(last)
        # CUPTI says 0 for begin and end of what it could not collect the time of.
        timed = "1" if first == last else f"NOT ({a} IS 0 AND {b} IS 0)"
        sql = f"SELECT min({a}), max(coalesce({b}, {a})) FROM {quoted(table)} WHERE {timed}"
        # What copied the database may have made texts or fractions of some.
        known = [int(t) for row in self.query(sql) for t in row if isinstance(t, int | float)]
        return (min(known), max(known)) if known else None


@contextmanager
def opened(path: Path) -> Iterator[SqliteStore]:
    """The store of a database, for as long as it is needed.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    with closing(connect(path)) as connection:
        yield SqliteStore(connection, path)
