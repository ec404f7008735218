"""Exports with values of another kind than nsys writes: read, or refused in four parts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
from build import START_UNIX_NS
from gpu_build import GpuExport
from parquet_build import convert

from profilemate.errors import InputError
from profilemate.parse.pipeline import read_trace
from profilemate.parse.readers.nsys.store import quoted

ODD = ("x", None)


def export(path: Path) -> Path:
    return GpuExport().write(path)


def tried(path: Path) -> str:
    """Read it: what it says it is, or in four parts why it cannot be read."""
    try:
        return str(read_trace([path]).sources[0].kind)
    except InputError as e:
        parts = (e.what, e.path, e.why, e.hint)
    return str(parts[2]) if all(parts) else ""


def changed(path: Path, statement: str, values: tuple[object, ...] = ()) -> Path:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA writable_schema=ON")
        db.execute(statement, values)
    return path


def test_every_column_may_hold_anything(tmp_path: Path) -> None:
    whole = export(tmp_path / "whole.sqlite")
    with closing(sqlite3.connect(whole)) as db:
        tables = [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        columns = [
            (table, row[1])
            for table in tables
            for row in db.execute(f"PRAGMA table_info({quoted(table)})")
        ]
    assert len(columns) > 20
    for number, (table, column) in enumerate(columns):
        for value in ODD:
            path = tmp_path / "odd.sqlite"
            path.write_bytes(whole.read_bytes())
            set_to = f"UPDATE OR REPLACE {quoted(table)} SET {quoted(column)} = ?"
            try:
                changed(path, set_to, (value,))
            except sqlite3.IntegrityError:
                continue
            assert tried(path), (number, table, column, value)


def test_a_start_that_is_no_number_is_unknown(tmp_path: Path) -> None:
    path = export(tmp_path / "x.sqlite")
    assert read_trace([path]).start_unix_ns == START_UNIX_NS
    changed(path, "UPDATE TARGET_INFO_SESSION_START_TIME SET utcEpochNs = 'x'")
    trace = read_trace([path])
    assert trace.start_unix_ns is None
    assert any("does not say when it began" in note for note in trace.sources[0].notes)


def test_a_table_without_a_name_is_damage_and_said(tmp_path: Path) -> None:
    path = changed(
        export(tmp_path / "x.sqlite"),
        "UPDATE sqlite_master SET name = NULL WHERE name = 'NVTX_EVENTS'",
    )
    assert any("a table has lost its name" in n for n in read_trace([path]).sources[0].notes)


def test_a_column_whose_name_is_no_text(tmp_path: Path) -> None:
    folder = convert(export(tmp_path / "x.sqlite"), tmp_path / "x_pqtdir")
    (file,) = folder.glob("*KERNEL.parquet")
    whole = file.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    at = whole.index(pq.read_schema(file).names[0].encode(), footer)
    file.write_bytes(whole[:at] + b"\xe4" + whole[at + 1 :])
    assert "damaged" in tried(folder)
