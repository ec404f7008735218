"""Build small nsys exports with known content.

These files are constructed, not recorded: the tables are those of real exports (see
`tests/data/nsys_schemas`), the rows are written here. What a real nsys puts into them is tested in
`test_readers_real.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from decoded import decode_recordings
from places import SCHEMAS

from profilemate import schema
from profilemate.parse.recording.activity import ActivitySink
from profilemate.parse.recording.contract import Marker, SourceInfo, SourceKind
from profilemate.parse.trace.trace import Trace
from profilemate.schema import Event
from profilemate.schema.custom import encode_fields

VERSIONS = ("2022.4.2", "2023.4.4")
NEWEST = "2026.2.1"  # its tables were seen in a recording of others: there is no such nsys here
META = {
    "2022.4.2": "EXPORT_META_DATA",
    "2023.4.4": "META_DATA_EXPORT",
    NEWEST: "META_DATA_EXPORT",
}
SECOND = 1_000_000_000
START_UNIX_NS = 1_795_507_742_546_650_858
CATEGORY, MARK, PUSH_POP, START_END, DOMAIN_CREATE = 33, 34, 59, 60, 75


def global_tid(pid: int, tid: int) -> int:
    """A thread as nsys numbers it: a machine, 24 bits of process, 24 bits of thread."""
    return 1 << 48 | pid << 24 | tid


@dataclass(frozen=True, slots=True)
class Row:
    """A row of NVTX_EVENTS."""

    start: int
    text: str
    end: int | None = None
    type: int = MARK
    pid: int = 100
    tid: int = 101
    domain: int = 1
    inline: bool = False


@dataclass(slots=True)
class Export:
    """An sqlite export. `without` names tables to leave out, or columns as `TABLE.column`."""

    rows: Sequence[Row] = ()
    version: str = "2023.4.4"
    duration: int = 10_000_000_000
    shift: int = 0
    start_unix_ns: int = START_UNIX_NS
    without: Sequence[str] = ()
    tables: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        """Write it."""
        with closing(sqlite3.connect(path)) as db:
            db.executescript((SCHEMAS / f"{self.version}.sql").read_text())
            self._describe(db)
            self._events(db)
            for table, rows in self.tables.items():
                for row in rows:
                    _insert(db, table, row)
            for name in self.without:
                table, _, column = name.partition(".")
                db.execute(
                    f"ALTER TABLE {table} DROP COLUMN {column}" if column else f"DROP TABLE {table}"
                )
            db.commit()
        return path

    def _describe(self, db: sqlite3.Connection) -> None:
        facts = {
            "EXPORT_PRODUCT_NAME": "NVIDIA Nsight Systems",
            "EXPORT_PRODUCT_VERSION": self.version,
            "EXPORT_SCHEMA_VERSION": "3.0.0",
            "EXPORT_HOST": "host-of-a-friend",
            "EXPORT_CONFIG_TIME_SHIFT": str(self.shift),
        }
        db.executemany(f"INSERT INTO {META[self.version]} VALUES (?, ?)", facts.items())
        db.execute(
            "INSERT INTO TARGET_INFO_SESSION_START_TIME (utcEpochNs, utcTime, localTime) "
            "VALUES (?, 'a', 'b')",
            (self.start_unix_ns,),
        )
        db.execute("INSERT INTO ANALYSIS_DETAILS VALUES (1, ?, 7, ?)", (self.duration, 7))

    def _events(self, db: sqlite3.Connection) -> None:
        numbers: dict[str, int] = {}
        for row in self.rows:
            number = None if row.inline else numbers.setdefault(row.text, 10 + len(numbers))
            db.execute(
                "INSERT INTO NVTX_EVENTS (start, end, eventType, text, textId, globalTid, domainId)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    row.start + self.shift,
                    None if row.end is None else row.end + self.shift,
                    row.type,
                    row.text if row.inline else None,
                    number,
                    global_tid(row.pid, row.tid),
                    row.domain,
                ),
            )
        db.executemany(
            "INSERT INTO StringIds (id, value) VALUES (?, ?)", [(n, t) for t, n in numbers.items()]
        )


def _insert(db: sqlite3.Connection, table: str, row: Mapping[str, object]) -> None:
    """Insert a row; what it does not say and may not be NULL is 1."""
    needed = {n: 1 for _, n, _, notnull, *_ in db.execute(f"PRAGMA table_info({table})") if notnull}
    full = {**needed, **row}
    marks = ", ".join("?" * len(full))
    db.execute(f"INSERT INTO {table} ({', '.join(full)}) VALUES ({marks})", list(full.values()))


@dataclass(slots=True)
class Stored:
    """A recording made of markers that are there already."""

    stored: Sequence[Marker]
    info: SourceInfo = field(
        default_factory=lambda: SourceInfo(Path("stored"), SourceKind.TORCH, 0)
    )

    def markers(self) -> Iterator[Marker]:
        """Every marker, in the order given."""
        return iter(self.stored)

    def annotations(self) -> Iterator[Marker]:
        """None."""
        return iter(())

    def activity(self, sink: ActivitySink) -> None:
        """None."""


def mark(ts: int, text: str, *, pid: int = 100, tid: int = 101, dur: int | None = None) -> Marker:
    """A marker without thinking of its thread."""
    return Marker(ts, dur, pid, tid, text)


def custom(kind: str, ago: int = 5, /, **fields: object) -> Event:
    said = dict(pair.split("=", 1) for pair in encode_fields(kind, fields).split())
    return Event(f"custom.{kind}", {}, {"ago": str(ago), "dur": "3", **said})


def batch(seq: int, t: int, *events: Event) -> str:
    """A message of several events."""
    return schema.encode_batch([schema.encode_event(e) for e in events], t=t, seq=seq)


def decode(*markers: Marker) -> Trace:
    """Decode markers of one recording."""
    return decode_recordings([Stored(markers)])
