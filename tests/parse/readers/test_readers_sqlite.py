"""The reader of sqlite exports, against a query that shares no code with it."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from build import (
    CATEGORY,
    DOMAIN_CREATE,
    MARK,
    PUSH_POP,
    START_END,
    START_UNIX_NS,
    VERSIONS,
    Export,
    Row,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import leave_out

from profilemate.errors import InputError, NotThisFormatError
from profilemate.parse.readers import open_recording
from profilemate.parse.readers.nsys import layout as nsys_layout
from profilemate.parse.recording.contract import Marker

TEXTS = ("pm1.step t=5 step=1", "pm1.preempt req=a%20b", "pm1.batch t=9 seq=1 | kv.free ids=1")
FOREIGN = ("aten::add", "pm1 no", "PM1.step", "xpm1.step", "pm2.step step=1", "", "pm1")


def read(path: Path) -> list[Marker]:
    return sorted(open_recording(path).markers(), key=lambda m: (m.ts, m.text))


def brute_force(path: Path) -> list[Marker]:
    """Every row and every string into memory, and plain Python from there."""
    with closing(sqlite3.connect(path)) as db:
        strings = dict(db.execute("SELECT * FROM StringIds"))
        details = db.execute("SELECT * FROM ANALYSIS_DETAILS").fetchone()
        found = []
        cursor = db.execute("SELECT * FROM NVTX_EVENTS")
        names = [d[0] for d in cursor.description]
        for values in cursor:
            row = dict(zip(names, values, strict=True))
            text = row["text"] if row["text"] is not None else strings.get(row["textId"])
            if text is None or text[:4] != "pm1." or row["eventType"] not in (34, 59, 60):
                continue
            thread, end = row["globalTid"], row["end"]
            dur = None if end is None or end == details[1] else end - row["start"]
            found.append(Marker(row["start"], dur, thread // 2**24 % 2**24, thread % 2**24, text))
    return sorted(found, key=lambda m: (m.ts, m.text))


ROWS = st.builds(
    Row,
    st.integers(0, 10**12),
    st.sampled_from([*TEXTS, *FOREIGN]),
    st.none() | st.integers(10**12, 2 * 10**12),
    st.sampled_from([MARK, PUSH_POP, START_END, DOMAIN_CREATE, CATEGORY]),
    st.integers(0, 2**24 - 1),
    st.integers(0, 2**24 - 1),
    st.integers(0, 3),
    st.booleans(),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(ROWS, max_size=12), st.sampled_from(VERSIONS))
def test_the_same_messages_as_brute_force(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], version: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.sqlite"
    Export(rows, version).write(path)
    assert read(path) == brute_force(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_many_foreign_strings_between_ours(tmp_path: Path, version: str) -> None:
    rng = random.Random(7)
    rows = [
        Row(i, f"pm1.step step={i}" if rng.random() < 0.3 else f"op {i % 50}", i + 9, PUSH_POP)
        for i in range(3000)
    ]
    path = Export(rows, version).write(tmp_path / "x.sqlite")
    markers = read(path)
    assert markers == brute_force(path)
    assert len(markers) == sum(r.text.startswith("pm1.") for r in rows)


@pytest.mark.parametrize("version", VERSIONS)
def test_facts(tmp_path: Path, version: str) -> None:
    rows = [Row(70, "someone else's", 90, PUSH_POP), Row(75, "pm1.preempt")]
    path = Export(rows, version).write(tmp_path / "x.sqlite")
    info = open_recording(path).info
    assert info.recorder == f"Nsight Systems (exported by {version}, schema 3.0.0)"
    assert (info.kind, info.path, info.size) == ("nsys sqlite export", path, path.stat().st_size)
    assert info.start_unix_ns == START_UNIX_NS
    assert info.window == (70, 90)
    assert info.notes == []


def test_the_window_takes_in_gpu_work(tmp_path: Path) -> None:
    tables = {"CUPTI_ACTIVITY_KIND_MEMSET": [{"start": 2, "end": 99}]}
    path = Export([Row(70, "pm1.preempt")], tables=tables).write(tmp_path / "x.sqlite")
    assert open_recording(path).info.window == (2, 99)


@pytest.mark.parametrize("shift", [0, START_UNIX_NS, -1000])
def test_a_shifted_export_reads_like_one_that_is_not(tmp_path: Path, shift: int) -> None:
    # nsys export --ts-normalize=true, --ts-shift
    rows = [Row(70, "pm1.preempt", 80, PUSH_POP), Row(90, "pm1.preempt", 10**10, PUSH_POP)]
    recording = open_recording(Export(rows, shift=shift).write(tmp_path / "x.sqlite"))
    assert [(m.ts, m.dur) for m in recording.markers()] == [(70, 10), (90, None)]
    assert recording.info.window == (70, 10**10)
    assert recording.info.start_unix_ns == START_UNIX_NS


def test_a_range_that_was_open_at_the_end_has_no_duration(tmp_path: Path) -> None:
    rows = [Row(1, "pm1.preempt", 10**10, PUSH_POP), Row(2, "pm1.preempt", 10**10 - 1, START_END)]
    recording = open_recording(Export(rows).write(tmp_path / "x.sqlite"))
    assert [m.dur for m in recording.markers()] == [None, 10**10 - 3]
    assert recording.info.notes == ["1 ranges were still open when the recording ended."]


def test_a_range_of_the_engine_that_was_open_at_the_end_has_no_duration(tmp_path: Path) -> None:
    text = "execute_context_0(0)_generation_8(8)"
    rows = [Row(1, text, 10**10, PUSH_POP), Row(2, text, 10**10 - 1, START_END)]
    recording = open_recording(Export(rows).write(tmp_path / "x.sqlite"))
    assert [m.dur for m in recording.annotations()] == [None, 10**10 - 3]


@pytest.mark.parametrize(
    "without",
    [
        ("NVTX_EVENTS.jsonTextId", "NVTX_EVENTS.jsonText"),
        ("NVTX_EVENTS.category", "NVTX_EVENTS.domainId"),
        ("META_DATA_EXPORT",),
        ("TARGET_INFO_SESSION_START_TIME",),
        ("ANALYSIS_DETAILS", "PROCESSES", "ThreadNames"),
        ("NVTX_EVENTS.text",),
        ("NVTX_EVENTS.end",),
    ],
)
def test_what_an_export_lacks_is_not_missed(tmp_path: Path, without: tuple[str, ...]) -> None:
    path = Export([Row(5, "pm1.preempt")], without=without).write(tmp_path / "x.sqlite")
    recording = open_recording(path)
    assert [(m.ts, m.text) for m in recording.markers()] == [(5, "pm1.preempt")]
    info = recording.info
    assert info.window == (5, 5)
    assert (info.start_unix_ns is None) == ("TARGET_INFO_SESSION_START_TIME" in without)
    assert (info.recorder is None) == ("META_DATA_EXPORT" in without)


def test_columns_and_tables_that_we_do_not_know_are_nothing_to_us(tmp_path: Path) -> None:
    path = Export([Row(5, "pm1.preempt")]).write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE NVTX_EVENTS ADD COLUMN binaryData TEXT")
        db.execute("CREATE TABLE OF_THE_FUTURE (start INTEGER)")
        db.commit()
    assert len(read(path)) == 1


def test_messages_inline_only(tmp_path: Path) -> None:
    rows = [Row(5, "pm1.preempt", inline=True)]
    for without in (("NVTX_EVENTS.textId",), ("StringIds",)):
        path = Export(rows, without=without).write(tmp_path / f"{without[0]}.sqlite")
        assert len(read(path)) == 1


def test_a_recording_without_our_messages_says_how_to_get_them(tmp_path: Path) -> None:
    recording = open_recording(Export([Row(5, "aten::add")]).write(tmp_path / "x.sqlite"))
    assert list(recording.markers()) == []
    (note,) = recording.info.notes
    for word in ("PROFILEMATE=on", "pip install .", "profilemate annotate status"):
        assert word in note


def test_a_recording_without_nvtx_or_without_strings_says_so(tmp_path: Path) -> None:
    recording = open_recording(Export(without=("NVTX_EVENTS",)).write(tmp_path / "a.sqlite"))
    assert list(recording.markers()) == []
    assert "nsys profile -t nvtx" in recording.info.notes[0]
    rows = [Row(5, "pm1.preempt")]
    recording = open_recording(Export(rows, without=("StringIds",)).write(tmp_path / "b.sqlite"))
    assert list(recording.markers()) == []
    assert "It has no table StringIds" in recording.info.notes[0]
    path = Export(rows).write(tmp_path / "c.sqlite")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("ALTER TABLE StringIds RENAME COLUMN value TO text")
    recording = open_recording(path)
    assert list(recording.markers()) == []
    assert "StringIds, where older nsys put the messages, has no value" in recording.info.notes[0]


def test_what_nsys_itself_complained_of(tmp_path: Path) -> None:
    path = Export([Row(5, "pm1.preempt")]).write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db:
        # As 2026.2 has it; neither of the releases whose tables are bundled does.
        db.execute(
            "CREATE TABLE DIAGNOSTIC_EVENT (timestamp, timestampType, source, severity, text)"
        )
        rows = [(i, 1, 1, 1 + i % 3, f"text {i}") for i in range(12)]
        db.executemany("INSERT INTO DIAGNOSTIC_EVENT VALUES (?, ?, ?, ?, ?)", rows)
        db.commit()
    notes = open_recording(path).info.notes
    assert notes[:2] == ["nsys warning: text 1", "nsys error: text 2"]
    assert notes[-1] == "nsys had 3 more warnings or errors."
    assert len(notes) == 6


def test_a_database_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE cookies (host TEXT)")
    with pytest.raises(NotThisFormatError) as caught:
        open_recording(path)
    assert caught.value.what == "This sqlite database is not an export of Nsight Systems"
    assert "nsys export --type sqlite" in caught.value.commands[0]


def test_a_layout_that_nobody_knows(tmp_path: Path) -> None:
    path = Export(without=("NVTX_EVENTS.globalTid",)).write(tmp_path / "x.sqlite")
    with pytest.raises(InputError) as caught:
        open_recording(path)
    assert caught.value.what == "Cannot read the events: table NVTX_EVENTS has no globalTid"
    assert "2023.4.4" in caught.value.why


def cut(path: Path, share: float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def many(path: Path) -> Path:
    return Export([Row(i, f"pm1.preempt req=number-{i:06}") for i in range(5000)]).write(path)


@pytest.mark.parametrize("share", [0.001, 0.01])
def test_of_a_truncated_export_with_nothing_left_one_message(tmp_path: Path, share: float) -> None:
    path = cut(many(tmp_path / "x.sqlite"), share)
    with pytest.raises(InputError) as caught:
        list(open_recording(path).markers())
    error = caught.value
    assert error.what == "Cannot read the sqlite export"
    assert error.path == str(path)
    assert "damaged or was cut short" in error.why
    assert "nsys export --type sqlite" in error.commands[0]


@pytest.mark.parametrize("share", [0.75, 0.8, 0.9, 0.913, 0.927, 0.99, 0.999])
def test_of_a_truncated_export_what_is_left_is_kept(tmp_path: Path, share: float) -> None:
    whole = read(many(tmp_path / "x.sqlite"))
    recording = open_recording(cut(tmp_path / "x.sqlite", share))
    markers = list(recording.markers())
    assert 0 < len(markers) <= len(whole)
    assert set(markers) <= set(whole)
    note = recording.info.notes[-1]
    size = int((tmp_path / "x.sqlite").stat().st_size)
    assert f"The file is damaged ({size} of its " in note
    assert f"{len(markers)} messages were read" in note


def test_of_an_export_with_a_hole_what_is_before_it_is_kept(tmp_path: Path) -> None:
    path = many(tmp_path / "x.sqlite")
    whole = read(path)
    with closing(sqlite3.connect(path)) as db:
        pages = (
            db.execute(
                "SELECT pageno FROM dbstat WHERE name = 'NVTX_EVENTS' AND pagetype = 'leaf'"
            ).fetchall()
            if _has_dbstat(db)
            else []
        )
    if not pages:
        leave_out("this sqlite has no dbstat to find a page with")
    page = sorted(p for (p,) in pages)[len(pages) // 2]
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    recording = open_recording(path)
    markers = list(recording.markers())
    assert 0 < len(markers) < len(whole)
    assert markers == whole[: len(markers)]
    assert "damaged" in recording.info.notes[-1]


def _has_dbstat(db: sqlite3.Connection) -> bool:
    return ("ENABLE_DBSTAT_VTAB",) in db.execute("PRAGMA compile_options").fetchall()


def test_a_database_header_and_then_nonsense(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"SQLite format 3\x00" + os.urandom(5000))
    with pytest.raises(InputError, match="Cannot read the sqlite export"):
        list(open_recording(path).markers())


def test_a_write_ahead_log_is_read_too(tmp_path: Path) -> None:
    path = Export([Row(5, "pm1.preempt req=old")]).write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("UPDATE StringIds SET value = 'pm1.preempt req=new'")
        db.commit()
        for name in ("x.sqlite", "x.sqlite-wal"):
            shutil.copy(tmp_path / name, tmp_path / name.replace("x", "copy", 1))
    assert [m.text for m in read(tmp_path / "copy.sqlite")] == ["pm1.preempt req=new"]


def test_nothing_is_written_beside_an_export(tmp_path: Path) -> None:
    path = Export([Row(5, "pm1.preempt")]).write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")  # which a reader would answer with a -shm file
    before = path.read_bytes()
    assert len(read(path)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.sqlite"]
    assert path.read_bytes() == before


def test_a_name_that_would_mean_something_in_a_uri(tmp_path: Path) -> None:
    path = Export([Row(5, "pm1.preempt")]).write(tmp_path / "y.sqlite")
    odd = path.rename(tmp_path / "50% of #3? 'yes' \"no\" ö.sqlite")
    assert len(read(odd)) == 1


def test_markers_may_be_left_half_read(tmp_path: Path) -> None:
    recording = open_recording(many(tmp_path / "x.sqlite"))
    markers = iter(recording.markers())
    next(markers)
    assert opened(tmp_path / "x.sqlite")
    del markers  # warnings are errors: an open connection would be one from Python 3.13 on
    assert not opened(tmp_path / "x.sqlite")


def opened(path: Path) -> list[str]:
    """The descriptors of this process that are open on a file."""
    every = [p for p in Path("/proc/self/fd").iterdir() if p.is_symlink()]
    return [p.name for p in every if p.resolve() == path]


def test_progress_is_told(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    path = many(tmp_path / "x.sqlite")
    recording = open_recording(path, progress=lambda *told: seen.append(told))
    assert len(list(recording.markers())) == 5000
    assert seen
    assert all(what == "reading x.sqlite" and total == 5000 for what, _, total in seen)


def test_every_table_is_said_once() -> None:
    names = [name for spec in nsys_layout.LAYOUT for name in spec.called]
    assert len(names) == len(set(names))
    for spec in nsys_layout.LAYOUT:
        assert {*spec.required, *spec.times, *spec.strings} <= set(spec.columns)


def test_times_that_are_no_integers(tmp_path: Path) -> None:
    rows = [Row(1000 * n, TEXTS[0], 1000 * n + 5) for n in range(1, 5)]
    path = Export(rows).write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db, db:
        for n, (start, end) in enumerate([(1000.25, 1005.25), ("then", 2005), (3000, 3005)], 1):
            where = "WHERE start = ?"
            db.execute(f"UPDATE NVTX_EVENTS SET start = ?, end = ? {where}", (start, end, 1000 * n))
    recording = open_recording(path)
    assert [(m.ts, m.dur) for m in recording.markers()] == [(1000, 5), (3000, 5), (4000, 5)]
    assert any("1 messages have no time" in note for note in recording.info.notes)
