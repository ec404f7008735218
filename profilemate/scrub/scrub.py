"""Recordings fit to be shown to others: what the readers need, and nothing of the machine.

nsys writes the environment, command lines, paths, users, the host's name and every process of the
machine into a report. A scrubbed copy is made the other way round: it starts empty, and only the
tables, columns and rows that a reader asks for go into it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from profilemate import __version__, schema
from profilemate.errors import NotThisFormatError, OutputError, SchemaError
from profilemate.parse.readers import OpenOptions, find_reader, open_recording
from profilemate.parse.readers.nsys.facts import Facts, read_facts
from profilemate.parse.readers.nsys.layout import CAPTURE_FACTS, EXPORT_FACTS, Found
from profilemate.parse.readers.nsys.report import NsysReportReader, export_report
from profilemate.parse.readers.nsys.sqlite import (
    NsysSqliteReader,
    damaged,
    messages_from,
    string_bounds,
)
from profilemate.parse.readers.nsys.store import SqliteStore, connect, database_uri, quoted
from profilemate.parse.recording.contract import SourceKind
from profilemate.parse.recording.progress import Progress, no_progress
from profilemate.parse.writers.leftovers import unfinished_file
from profilemate.printable import shell_word

HOST = "scrubbed"
"""What is put in place of a host's name, and of the text of a diagnostic message of nsys."""

_SESSION = "session"
_HOST_FIELD = re.compile(r"( host=)[^ ]*?(?= |:?$)")
# Names and values of these are kept; what else is in the tables tells of paths, hosts and users.
_KEPT_FACTS = {"export": EXPORT_FACTS, "capture": CAPTURE_FACTS}


def scrub(
    source: Path | str,
    target: Path | str,
    *,
    force: bool = False,
    cache_dir: Path | str | None = None,
    nsys: Path | str | None = None,
    progress: Progress | None = None,
) -> None:
    """Copy an nsys sqlite export, or export a report and copy that, without what is private.

    Kept are our messages, GPU activity with kernel names, numbers of processes and threads, the
    start of the recording, and the versions of nsys. Host names inside our own messages are
    replaced. Request ids stay: they tie the events together. Equal input gives equal bytes, with
    the same version of SQLite.

    Args:
        source: An sqlite export or a report.
        target: The file to make.
        force: Overwrite `target` if it exists.
        cache_dir: See `open_recording`.
        nsys: See `open_recording`.
        progress: Told about work that takes its time.

    Raises:
        InputError: The source cannot be read, or is damaged.
        ToolError: It is a report and nsys is missing, too old or failed.
        OutputError: The target exists or cannot be written.
    """
    source, target = Path(source), Path(target)
    options = OpenOptions(
        None if cache_dir is None else Path(cache_dir),
        None if nsys is None else Path(nsys),
        progress or no_progress,
    )
    unfinished: Path | None = None
    try:
        export = _export_of(source, options)
        if target.exists():
            _refuse_to_overwrite(source, target, force)
        try:
            unfinished, lock = unfinished_file(target)
        except OSError as e:
            raise _unwritable(target, e.strerror or str(e)) from e
        with lock:
            _copy(export, unfinished, target, options.progress)
            _check(unfinished, source)
            unfinished.replace(target)
    except OSError as e:
        raise OutputError(
            "Cannot scrub this",
            path=e.filename or target,
            why=e.strerror or str(e),
            hint="Check that the source can be read and the target's folder be written to.",
        ) from e
    finally:
        if unfinished is not None:
            with suppress(OSError):
                unfinished.unlink()


def _refuse_to_overwrite(source: Path, target: Path, force: bool) -> None:
    if target.samefile(source):
        raise OutputError(
            "The scrubbed copy would replace its source", path=target, hint="Choose another name."
        )
    if not force:
        raise OutputError(
            "The target exists", path=target, hint="Choose another name, or say --force."
        )


def _export_of(source: Path, options: OpenOptions) -> Path:
    reader = find_reader(source)
    if isinstance(reader, NsysSqliteReader):
        return source
    if isinstance(reader, NsysReportReader):
        return export_report(source, options)
    if reader.name.startswith("nsys"):
        raise NotThisFormatError(
            f"An {reader.name} cannot be scrubbed",
            path=source,
            hint="Make an sqlite export:",
            command="nsys export --type sqlite REPORT.nsys-rep",
        )
    raise NotThisFormatError(
        f"A {reader.name} cannot be scrubbed",
        path=source,
        why="Only reports of Nsight Systems and their sqlite exports can.",
        hint="Share its session instead, after a look at metadata.json:",
        command=f"profilemate parse {shell_word(source)} -o session",
    )


def _copy(source: Path, unfinished: Path, target: Path, progress: Progress) -> None:
    try:
        with closing(connect(source)) as reading:
            store = SqliteStore(reading, source)
            facts = read_facts(store, source, SourceKind.NSYS_SQLITE, source.stat().st_size)
            bounds = {} if facts is None else string_bounds(store, facts)
        if store.damage is not None:
            raise damaged(source, store.damage)
        if facts is None:
            raise NotThisFormatError(
                "This sqlite database is not an export of Nsight Systems",
                path=source,
                hint="Make one:",
                command="nsys export --type sqlite REPORT.nsys-rep",
            )
        with closing(sqlite3.connect(unfinished.absolute().as_uri(), uri=True)) as writing:
            writing.execute("PRAGMA journal_mode=OFF")
            writing.execute("PRAGMA synchronous=OFF")
            writing.execute("ATTACH ? AS src", (database_uri(source),))
            _Copy(writing, facts, bounds).run(progress)
            writing.commit()
            writing.execute("DETACH src")
            # Rewritten texts leave their old bytes in the pages; VACUUM leaves none.
            writing.execute("VACUUM")
    except sqlite3.Error as e:
        if e.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise damaged(source, str(e)) from e
        raise _unwritable(target, str(e)) from e


def _unwritable(target: Path, why: str) -> OutputError:
    return OutputError(
        "Cannot write the scrubbed copy",
        path=target,
        why=why,
        hint="Check its folder, and the space on the disk.",
    )


class _Copy:
    """Moves what is kept from the database `src` into the main one, table by table."""

    def __init__(self, db: sqlite3.Connection, facts: Facts, bounds: dict[str, int]) -> None:
        self._db, self._facts, self._bounds = db, facts, bounds

    def run(self, progress: Progress) -> None:
        """Copy everything that is kept."""
        how = {
            "events": self._events,
            "export": self._facts_in,
            "capture": self._facts_in,
            "diagnostics": self._diagnostics,
        }
        tables = [f for f in self._facts.found if f.columns]
        # Strings come last: which of them are needed is known when all the rest is there.
        tables.sort(key=lambda f: f.spec.role == "strings")
        for number, found in enumerate(tables):
            progress(f"scrubbing {found.table}", number, len(tables))
            self._create(found)
            if found.spec.role == "strings":
                self._strings(found)
            else:
                how.get(found.spec.role, self._whole)(found)
        self._say_what_this_is()
        for table, column in _text_columns(self._facts):
            _hide_hosts(self._db, quoted(table), quoted(column))

    def _create(self, found: Found) -> None:
        # The types as they are; the key matters, since strings are looked up by it.
        info = self._db.execute(f"PRAGMA src.table_info({quoted(found.table)})").fetchall()
        kept = set(found.columns.values())
        columns = ", ".join(
            f"{quoted(name)} {kind}{' PRIMARY KEY' if key else ''}"
            for _, name, kind, _, _, key in info
            if name in kept
        )
        self._db.execute(f"CREATE TABLE {quoted(found.table)} ({columns})")

    def _insert(self, found: Found, source: str, given: Sequence[object] | dict[str, int]) -> None:
        names = list(found.columns.values())
        into = ", ".join(map(quoted, names))
        values = ", ".join(f"e.{quoted(name)}" for name in names)
        self._db.execute(
            f"INSERT INTO main.{quoted(found.table)} ({into}) SELECT {values} {source}", given
        )

    def _whole(self, found: Found) -> None:
        self._insert(found, f"FROM src.{quoted(found.table)} e ORDER BY e.rowid", ())

    def _events(self, found: Found) -> None:
        source, _ = messages_from(self._facts, "src")
        self._insert(found, f"{source} ORDER BY e.rowid", self._bounds)

    def _facts_in(self, found: Found) -> None:
        kept = sorted(_KEPT_FACTS[found.spec.role].values())
        marks = ", ".join("?" * len(kept))
        name = quoted(found.columns["name"])
        self._insert(found, f"FROM src.{quoted(found.table)} e WHERE e.{name} IN ({marks})", kept)

    def _diagnostics(self, found: Found) -> None:
        # How many there were is worth knowing; their text names paths and programs.
        self._whole(found)
        if "text" in found.columns:
            text = quoted(found.columns["text"])
            self._db.execute(f"UPDATE main.{quoted(found.table)} SET {text} = ?", (HOST,))

    def _strings(self, strings: Found) -> None:
        refer = [
            f"SELECT {quoted(f.columns[column])} FROM main.{quoted(f.table)}"
            for f in self._facts.found
            for column in f.spec.strings
            if column in f.columns
        ]
        number = quoted(strings.columns["id"])
        if refer:
            used = " UNION ".join(refer)
            source = f"FROM src.{quoted(strings.table)} e WHERE e.{number} IN ({used})"
            self._insert(strings, f"{source} ORDER BY e.{number}", ())

    def _say_what_this_is(self) -> None:
        export = self._facts.table("export")
        if export is None:
            self._db.execute("CREATE TABLE META_DATA_EXPORT (name TEXT NOT NULL, value TEXT)")
        table = "META_DATA_EXPORT" if export is None else export.table
        rows = [(EXPORT_FACTS["scrubbed"], __version__)]
        if self._facts.info.window is not None:
            rows.append((EXPORT_FACTS["window"], "{}..{}".format(*self._facts.info.window)))
        self._db.executemany(f"DELETE FROM {quoted(table)} WHERE name = ?", [r[:1] for r in rows])
        self._db.executemany(f"INSERT INTO {quoted(table)} (name, value) VALUES (?, ?)", rows)


def _text_columns(facts: Facts) -> Iterator[tuple[str, str]]:
    """Where texts of ours are: table and column."""
    for found, column in ((facts.table("events"), "text"), (facts.table("strings"), "value")):
        if found is not None and column in found.columns:
            yield found.table, found.columns[column]


def _hide_hosts(db: sqlite3.Connection, table: str, column: str) -> None:
    mine = f"{column} GLOB ? AND instr({column}, ?)"
    rows = db.execute(
        f"SELECT rowid FROM {table} WHERE {mine}", (f"{schema.PREFIX}*", _SESSION)
    ).fetchall()
    for row in rows:
        ((text,),) = db.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", row).fetchall()
        db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (_hostless(text), *row))


def _hostless(text: str) -> str:
    """A message with the host's name replaced."""
    try:
        if schema.Joiner().feed(None, text) is not None:
            return _with_host(text, HOST)
    except SchemaError:
        pass  # not one that can be read, yet one that a person could read a name in
    # A session leads its batch: its host is hardly where two parts meet, which `_check` looks at.
    return _HOST_FIELD.sub(rf"\g<1>{HOST}", text)


def _with_host(text: str, host: str) -> str:
    message = schema.decode(text)
    if message is None:
        return text
    for event in message.events:
        if event.kind == _SESSION and "host" in event.values:
            event.values["host"] = host
    if message.seq is None or message.t is None:
        (event,) = message.events
        return schema.encode(event, t=message.t)
    spelled = [schema.encode_event(event) for event in message.events]
    return schema.encode_batch(spelled, t=message.t, seq=message.seq)


def _check(copy: Path, source: Path) -> None:
    """Read the long messages of a copy, whose parts were changed one by one, as a reader will."""
    joiner = schema.Joiner()
    for marker in open_recording(copy).markers():
        try:
            if schema.Joiner().feed(None, marker.text) is not None:
                continue
            text = joiner.feed(marker.pid, marker.text)
            message = None if text is None else schema.decode(text)
        except SchemaError:
            continue
        for event in [] if message is None else message.events:
            if event.kind == _SESSION and event.values.get("host", HOST) != HOST:
                raise OutputError(
                    "A host's name could not be removed from a message",
                    path=source,
                    why="It lies where two parts of a long message meet.",
                    hint="Report this as an issue, and do not share the recording.",
                )
