"""The sqlite export of Nsight Systems (`nsys export --type sqlite`)."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from profilemate import schema
from profilemate.errors import InputError, NotThisFormatError
from profilemate.parse.readers.base import OpenOptions
from profilemate.parse.readers.nsys.activity import read_activity
from profilemate.parse.readers.nsys.facts import Facts, note_absence, read_facts
from profilemate.parse.readers.nsys.layout import (
    EVENT_TYPES,
    PUSH_POP_RANGE,
    START_END_RANGE,
    Found,
    pid_and_tid,
)
from profilemate.parse.readers.nsys.store import SqliteStore, opened, quoted, unfinished_log
from profilemate.parse.recording.activity import ANNOTATION_PREFIXES, ActivitySink
from profilemate.parse.recording.contract import Marker, Recording, SourceInfo, SourceKind
from profilemate.parse.recording.progress import Progress

MAGIC = b"SQLite format 3\x00"
_PROGRESS_EVERY = 1 << 14  # messages


def messages_from(facts: Facts, database: str = "main") -> tuple[str, str]:
    """The FROM and WHERE of our messages, and the SQL of their text.

    The events are table `e`; `:first` and `:last` are `string_bounds`. They are scanned once: most
    rows are told apart by their integers, and a string is looked up by its number only where that
    lies between the first and the last string of ours.
    """
    events, strings = facts.table("events"), facts.table("strings")
    assert events is not None  # callers look first
    prefix = f"GLOB '{schema.PREFIX}*'"
    db = quoted(database)
    column = {ours: f"e.{quoted(theirs)}" for ours, theirs in events.columns.items()}
    texts, wanted, join = ["NULL"], ["0"], ""
    if "textId" in column and strings is not None and not strings.missing:
        number, value = (f"s.{quoted(strings.columns[c])}" for c in ("id", "value"))
        texts.insert(0, value)
        wanted.append(f"{column['textId']} BETWEEN :first AND :last")
        join = f"LEFT JOIN {db}.{quoted(strings.table)} s ON {number} = {column['textId']}"
    if "text" in column:
        texts.insert(0, column["text"])
        # Most texts are NULL where strings have numbers: comparing that costs less than GLOB.
        after = schema.PREFIX[:-1] + chr(ord(schema.PREFIX[-1]) + 1)
        inline = column["text"]
        wanted.append(f"({inline} >= '{schema.PREFIX}' AND {inline} < '{after}')")
    text = f"coalesce({', '.join(texts)}, NULL)"
    types = ", ".join(map(str, EVENT_TYPES))
    return (
        f"FROM {db}.{quoted(events.table)} e {join} WHERE ({' OR '.join(wanted)}) "
        f"AND {column['eventType']} IN ({types}) AND {text} {prefix}"
    ), text


def _messages_sql(facts: Facts, events: Mapping[str, str]) -> str:
    source, text = messages_from(facts)
    start, thread = (f"e.{quoted(events[c])}" for c in ("start", "globalTid"))
    end = f"e.{quoted(events['end'])}" if "end" in events else "NULL"
    return f"SELECT e.rowid, {start}, {end}, coalesce({thread}, 0), {text} {source}"


def begins(text: str, prefixes: Sequence[str]) -> str:
    """The condition in SQL that a text begins with one of some prefixes."""
    globs = (p.replace("[", "[[]").replace("'", "''") for p in prefixes)
    return "(" + " OR ".join(f"{text} GLOB '{glob}*'" for glob in globs) + ")"


def annotations_sql(facts: Facts, prefixes: Sequence[str]) -> str:
    """The query of ranges that begin with one of some texts: start, end, thread, text."""
    events, strings = facts.table("events"), facts.table("strings")
    assert events is not None  # callers look first
    column = {ours: f"e.{quoted(theirs)}" for ours, theirs in events.columns.items()}

    texts, wanted = ["NULL"], ["0"]
    if "textId" in column and strings is not None and not strings.missing:
        number, value = (quoted(strings.columns[c]) for c in ("id", "value"))
        table = quoted(strings.table)
        texts.insert(0, f"(SELECT {value} FROM {table} WHERE {number} = {column['textId']})")
        mine = f"SELECT {number} FROM {table} WHERE {begins(value, prefixes)}"
        wanted.append(f"{column['textId']} IN ({mine})")
    if "text" in column:
        texts.insert(0, column["text"])
        wanted.append(begins(column["text"], prefixes))
    return (
        f"SELECT {column['start']}, {column.get('end', 'NULL')}, "
        f"coalesce({column['globalTid']}, 0), coalesce({', '.join(texts)}) "
        f"FROM {quoted(events.table)} e WHERE ({' OR '.join(wanted)}) "
        f"AND {column['eventType']} IN ({PUSH_POP_RANGE}, {START_END_RANGE})"
    )


def string_bounds(store: SqliteStore, facts: Facts) -> dict[str, int]:
    """Smallest and largest number of the strings that are messages of ours."""
    strings = facts.table("strings")
    first = last = None
    if strings is not None and not strings.missing:
        number, value = (quoted(strings.columns[c]) for c in ("id", "value"))
        sql = f"SELECT min({number}), max({number}) FROM {quoted(strings.table)}"
        found = store.query(f"{sql} WHERE {begins(value, [schema.PREFIX])}")
        first, last = next(found, (None, None))
    if store.damage is not None:
        # Not all numbers are known then, while most strings may still be there.
        return {"first": 0, "last": (1 << 63) - 1}
    if first is None or last is None:
        return {"first": 1, "last": 0}  # nothing lies between them
    return {"first": first, "last": last}


class _SqliteRecording:
    """An export; `damage` is what was found while its facts were read, None for nothing."""

    def __init__(self, path: Path, facts: Facts, damage: str | None, progress: Progress) -> None:
        self._path, self._facts, self._damage = path, facts, damage
        self._progress = progress

    @property
    def info(self) -> SourceInfo:
        return self._facts.info

    def markers(self) -> Iterator[Marker]:
        events = self._facts.table("events")
        count, damage = 0, None
        if events is not None:
            try:
                with opened(self._path) as store:
                    for marker in self._read(store, events):
                        count += 1
                        yield marker
                    damage = store.damage
            except sqlite3.Error as e:
                raise damaged(self._path, str(e)) from e
        self._finish(count, damage)

    def annotations(self) -> Iterator[Marker]:
        facts = self._facts
        events = facts.table("events")
        if events is None:
            return
        try:
            with opened(self._path) as store:
                sql = annotations_sql(facts, ANNOTATION_PREFIXES)
                for begin, finish, thread, text in store.query(sql):
                    start, end = _time(begin), _time(finish)
                    if start is None:
                        continue
                    if store.damage is None or not _is_half(begin, text or "\x00"):
                        dur = None if end is None or end == facts.open_end else end - start
                        yield Marker(
                            start - facts.shift, dur, *pid_and_tid(_time(thread) or 0), text
                        )
        except sqlite3.Error as e:
            raise damaged(self._path, str(e)) from e

    def activity(self, sink: ActivitySink) -> None:
        try:
            with opened(self._path) as store:
                read_activity(store, self._facts, sink)
            damage = store.damage or self._damage
            if damage is not None:
                self.info.notes.append(
                    f"The file is damaged ({damage}): of the GPU activity only what lies before "
                    "the damage was read."
                )
        except sqlite3.Error as e:
            raise damaged(self._path, str(e)) from e

    def _read(self, store: SqliteStore, events: Found) -> Iterator[Marker]:
        facts = self._facts
        shift, open_end = facts.shift, facts.open_end
        what = f"reading {self._path.name}"
        total = store.last_row(events.table) or None
        found = store.query(_messages_sql(facts, events.columns), string_bounds(store, facts))
        cut = untimed = 0
        for count, (row, begin, finish, thread, text) in enumerate(found):
            if count % _PROGRESS_EVERY == 0:
                self._progress(what, row, total)
            if store.damage is not None and _is_half(begin, text):
                continue
            start, end = _time(begin), _time(finish)
            if start is None:
                untimed += 1
                continue
            cut += end is not None and end == open_end
            dur = None if end is None or end == open_end else end - start
            yield Marker(start - shift, dur, *pid_and_tid(_time(thread) or 0), text)
        if cut:
            facts.info.notes.append(f"{cut} ranges were still open when the recording ended.")
        if untimed:
            facts.info.notes.append(
                f"{untimed} messages have no time and are left out: the file was changed, or is "
                "damaged. Export the report again."
            )

    def _finish(self, count: int, damage: str | None) -> None:
        """Say what there is of messages; damage elsewhere in the file is no loss of theirs."""
        if damage is None:
            note_absence(self._facts, count)
            return
        if not count:
            raise damaged(self._path, damage)
        self.info.notes.append(
            f"The file is damaged ({damage}): {count} messages were read up to the damage, "
            "whatever came after it is lost. Export the report again for the rest."
        )


def _time(value: object) -> int | None:
    # nsys writes integers; what else copied the database may have made something else of them.
    if isinstance(value, float) and math.isfinite(value):
        return round(value)
    return value if isinstance(value, int) else None


def _is_half(start: object, text: str) -> bool:
    # SQLite fills up the last page of a file that ends inside it with zeros.
    return not isinstance(start, int) or "\x00" in text


def damaged(path: Path, reason: str) -> InputError:
    """What to say of a database of which nothing useful can be read."""
    log = unfinished_log(path)
    if log is not None:
        return InputError(
            "Cannot read the sqlite export",
            path=path,
            why=f"A write to it was not finished: {log.name} lies beside it ({reason}).",
            hint="Copy both files to a folder that you can write to and open the copy.",
        )
    return InputError(
        "Cannot read the sqlite export",
        path=path,
        why=f"It is damaged or was cut short ({reason}); perhaps nsys was still writing it.",
        hint="Export the report again:",
        command="nsys export --type sqlite -f true -o OUT.sqlite REPORT.nsys-rep",
    )


class NsysSqliteReader:
    """Reads sqlite exports of every release of nsys that `nsys_layout` knows."""

    name = SourceKind.NSYS_SQLITE
    suffixes = (".sqlite", ".sqlite3", ".db")

    def sniff(self, path: Path) -> bool:
        """Whether it is an sqlite database."""
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC

    def open(self, path: Path, options: OpenOptions) -> Recording:
        """Open an export.

        Raises:
            NotThisFormatError: It is a database, but not one of nsys.
            InputError: It is damaged beyond reading, or its layout is not known.
        """
        try:
            with opened(path) as store:
                size = path.stat().st_size
                facts = read_facts(store, path, self.name, size)
        except sqlite3.Error as e:
            raise damaged(path, str(e)) from e
        if facts is None and store.damage is not None:
            raise damaged(path, store.damage)
        if facts is None:
            raise NotThisFormatError(
                "This sqlite database is not an export of Nsight Systems",
                path=path,
                why="It has none of the tables NVTX_EVENTS, StringIds or META_DATA_EXPORT.",
                hint="Make one:",
                command="nsys export --type sqlite -o OUT.sqlite REPORT.nsys-rep",
            )
        return _SqliteRecording(path, facts, store.damage, options.progress)
