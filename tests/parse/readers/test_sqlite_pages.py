"""Columns read from the pages of a database, against SQLite on the same file."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profilemate.parse.readers.nsys import scan as nsys_scan
from profilemate.parse.readers.nsys.scan import Layout, PageBatch
from profilemate.parse.readers.nsys.sqlite_pages import Pages, Rows, UnusualError
from profilemate.parse.readers.nsys.store import SqliteStore, opened

EDGES = [(1 << bits) + near for bits in (0, 7, 8, 15, 23, 31, 47, 63) for near in (-1, 0, 1)]
INTS = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-300, 300)
INTS |= st.sampled_from([s * n for n in EDGES for s in (1, -1) if -(1 << 63) <= s * n < 1 << 63])
TEXTS = st.text(max_size=3) | st.integers(0, 9000).map("x".__mul__) | st.just("pm1.step")
OTHERS = TEXTS | st.floats(-1e6, 1e6) | st.binary(max_size=70)


def in_columns(store: SqliteStore, columns: Sequence[str]) -> list[list[int]]:
    """What the store gives; each batch in two ways."""
    found: list[list[int]] = [[] for _ in columns]
    for batch in store.batches("t", columns, columns[:1]):
        some = np.arange(0, len(batch), 2)
        for values, name in zip(found, columns, strict=True):
            column = batch.column(name)
            assert batch.column(name, some).tolist() == column[some].tolist()
            values += column.tolist()
    return found


def by_sqlite(path: Path, columns: Sequence[str]) -> list[list[int]]:
    shown = ", ".join(f"CAST(coalesce({name}, 0) AS INTEGER)" for name in columns)
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(f"SELECT {shown} FROM t ORDER BY rowid").fetchall()
    return [[row[i] for row in rows] for i in range(len(columns))]


def whole(store: SqliteStore, columns: Sequence[str]) -> bool:
    """Whether all was read without asking SQLite."""
    scan, found = store.scan(
        "t", columns, lambda rows, layout: len(PageBatch(rows, layout).prepare(columns, columns))
    )
    sum(found)
    return scan.whole


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_integers(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("any") / "x.sqlite"
    width = data.draw(st.integers(1, 30))
    names = [f"c{i}" for i in range(width)]
    rowids = sorted(
        data.draw(st.sets(st.integers(0, (1 << 56) - 1) | st.integers(1, 99), max_size=60))
    )
    kinds = data.draw(st.lists(st.integers(0, 3), min_size=width, max_size=width))
    rng = data.draw(st.randoms(use_true_random=False))

    def value(kind: int) -> int | None:
        if kind == 0:
            return None if rng.random() < 0.5 else rng.randrange(300)
        return [7, rng.choice([0, 1, -1]), rng.randrange(-(1 << 63), 1 << 63)][kind - 1]

    rows = [[rowid, *map(value, kinds)] for rowid in rowids]
    for row in data.draw(st.lists(st.sampled_from(rows), max_size=4)) if rows else ():
        row[1 + rng.randrange(width)] = data.draw(INTS)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA page_size={data.draw(st.sampled_from([4096, 8192, 32768]))}")
        db.execute(f"CREATE TABLE t ({', '.join(f'{name} INTEGER' for name in names)})")
        marks = ", ".join("?" * (1 + width))
        db.executemany(f"INSERT INTO t (rowid, {', '.join(names)}) VALUES ({marks})", rows)
        db.commit()
    asked = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    with opened(path) as store:
        assert whole(store, asked)
        assert in_columns(store, asked) == by_sqlite(path, asked)


TABLES = (
    "CREATE TABLE t (a INTEGER, b INTEGER, c, d INTEGER)",
    "CREATE TABLE t (a, b, c TEXT, d)",
    "CREATE TABLE t (a INTEGER PRIMARY KEY, b INTEGER, c REAL, d INTEGER)",
    "CREATE TABLE t (a REAL, b INTEGER, c, d INTEGER)",
    "PRAGMA encoding='UTF-16'; CREATE TABLE t (a INTEGER, b INTEGER, c, d INTEGER)",
    "PRAGMA auto_vacuum=FULL; CREATE TABLE t (a INTEGER, b INTEGER, c, d INTEGER)",
    "PRAGMA page_size=1024; CREATE TABLE t (a INTEGER, b INTEGER, c, d INTEGER)",
    "CREATE TABLE t (a INTEGER, b INTEGER, c AS (a + 1) STORED, d INTEGER)",
    "CREATE TABLE t (a INTEGER, c AS (a + 1), b INTEGER, d INTEGER)",
)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(TABLES),
    st.lists(st.tuples(INTS | st.none(), INTS | OTHERS, OTHERS | st.none(), INTS), max_size=9),
    st.integers(1, 600),
    st.booleans(),
    st.lists(st.sampled_from("abcd"), min_size=1, unique=True),
)
def test_whatever_is_unusual_is_left_to_sqlite(
    tmp_path_factory: pytest.TempPathFactory,
    table: str,
    some: list[tuple[Any, ...]],
    times: int,
    added: bool,
    asked: list[str],
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(table)
        names = "abd" if " AS (" in table else "abcd"
        rows = [row if len(names) == 4 else (row[0], row[1], row[3]) for row in some]
        marks = ", ".join("?" * len(names))
        for row in rows * (times if sum(len(str(row)) for row in some) < 500 else 1):
            # Whoever has the rowid for a column gets each number but once.
            values = row if "PRIMARY" not in table else (None, *row[1:])
            db.execute(f"INSERT INTO t ({', '.join(names)}) VALUES ({marks})", values)
        if added:
            db.execute("ALTER TABLE t ADD COLUMN e INTEGER DEFAULT 7")
        db.commit()
    asked = [*asked, "e"] if added else asked
    with opened(path) as store:
        assert in_columns(store, asked) == by_sqlite(path, asked)


def large(path: Path, rows: int = 60_000, seed: int = 1) -> Path:
    """A table whose tree has three levels, between rows of another one."""
    rng = random.Random(seed)
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (start INTEGER, end INTEGER, c INTEGER, text TEXT, d INTEGER)")
        db.execute("CREATE TABLE other (a, b, c)")
        for first in range(0, rows, 500):
            db.executemany(
                "INSERT INTO t VALUES (?, ?, ?, ?, ?)",
                [
                    (
                        5_000_000_000 + i * 77 - rng.randrange(5000),
                        rng.choice([None, 5_000_000_000 + i * 77 + rng.randrange(1 << 20)]),
                        rng.choice([None, 0, 1, rng.randrange(1 << rng.randrange(1, 60))]),
                        rng.choice([None, None, "aten::mm", "pm1.step " + "y" * rng.randrange(99)]),
                        i,
                    )
                    for i in range(first, first + 500)
                ],
            )
            db.execute("INSERT INTO other VALUES (?, 1, 2)", ["z" * rng.randrange(9000)])
        db.commit()
    return path


def test_three_levels_and_many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = large(tmp_path / "x.sqlite")
    for pages in (7, 512):
        monkeypatch.setattr(nsys_scan, "PAGES", pages)
        with opened(path) as store:
            assert whole(store, ["start", "end", "c"])
            names = ["start", "end", "c"]
            assert in_columns(store, names) == by_sqlite(path, names)
            # What comes behind a text is not read here, what SQLite says of it is the same.
            assert not whole(store, ["d"])
            assert in_columns(store, ["d"]) == by_sqlite(path, ["d"])


def test_rows_that_were_deleted(tmp_path: Path) -> None:
    path = large(tmp_path / "x.sqlite", 20_000)
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM t WHERE rowid % 7 = 3 OR rowid BETWEEN 4000 AND 9000")
        db.execute("INSERT INTO t (start, c) VALUES (3, -9)")
        db.commit()
    with opened(path) as store:
        assert whole(store, ["start", "end", "c"])
        assert in_columns(store, ["start", "c"]) == by_sqlite(path, ["start", "c"])


@pytest.mark.parametrize("where", ["1", "0", "rowid = 9000", "end IS NULL", "rowid > 59000"])
def test_the_extent_is_that_of_sqlite(tmp_path: Path, where: str) -> None:
    path = large(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"DELETE FROM t WHERE NOT ({where})")
        db.execute("UPDATE t SET start = start - 9000000000, end = end - 9000000000")
        db.commit()
        sql = "SELECT min(start), min(end), max(start), max(end) FROM t"
        known = [time for time in db.execute(sql).fetchone() if time is not None]
    expected = (min(known), max(known)) if known else None
    with opened(path) as store:
        assert whole(store, ["start", "end"])
        assert store.extent("t", "start", "end") == expected
        starts = store.extent("t", "start", "start")
        assert (starts is None) == (expected is None)


def every_row(path: Path, look: Callable[[Rows, Layout], Any]) -> list[Any]:
    with opened(path) as store:
        scan, found = store.scan("t", ["start", "text"], look)
        results = list(found)
        assert scan.whole
        return results


def test_rowids_texts_and_nulls(tmp_path: Path) -> None:
    path = large(tmp_path / "x.sqlite", 20_000)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE t SET rowid = rowid * 70000000 WHERE rowid > 9000")
        db.commit()

    def look(rows: Rows, layout: Layout) -> list[tuple[Any, ...]]:
        every = np.arange(rows.count)
        text = layout.columns["text"]
        found = (
            rows.rowids(every),
            rows.begins(text, ["pm1.", "execute_context"]),
            rows.is_text(text),
            rows.is_null(text),
            rows.is_null(layout.columns["end"]),
        )
        return list(zip(*(column.tolist() for column in found), strict=True))

    with closing(sqlite3.connect(path)) as db:
        expected = db.execute(
            "SELECT rowid, coalesce(text GLOB 'pm1.*', 0), text IS NOT NULL, text IS NULL, "
            "end IS NULL FROM t ORDER BY rowid"
        ).fetchall()
    assert [row for rows in every_row(path, look) for row in rows] == expected


def leaf_pages(path: Path) -> list[int]:
    with closing(Pages(path)) as pages, closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 't'").fetchone()
        return [int(n) for n in pages.leaves(root)]


@pytest.mark.parametrize("filling", [b"\x00", b"\xff", b"\x0d"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_page_that_is_gone(
    tmp_path: Path, filling: bytes, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = large(tmp_path / "x.sqlite", 20_000)
    leaves = leaf_pages(path)
    lost = leaves[int(share * (len(leaves) - 1))]
    with path.open("r+b") as file:
        file.seek((lost - 1) * 4096)
        file.write(filling * 4096)
    monkeypatch.setattr(nsys_scan, "PAGES", 20)
    with opened(path) as store:
        found = in_columns(store, ["start", "c"])
        damage = store.damage
    with opened(path) as store:
        sql = "SELECT start, coalesce(c, 0) FROM t ORDER BY rowid"
        left = list(store.query(sql))
        assert (damage is None) == (store.damage is None)
    assert list(zip(*found, strict=True)) == left


def test_a_file_that_was_cut(tmp_path: Path) -> None:
    path = large(tmp_path / "x.sqlite", 20_000)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3 + 99)
    with closing(Pages(path)) as pages:
        for number in (-1, 0, 1, pages.count, pages.count + 1, 1 << 40):
            with pytest.raises(UnusualError):
                pages.read(np.array([2, number, number + 1]))
    with opened(path) as store:
        assert store.damage is not None
        in_columns(store, ["start"])  # by SQLite, as far as it goes


@pytest.mark.parametrize("seed", range(40))
def test_bytes_that_changed_never_end_in_anything_else(tmp_path: Path, seed: int) -> None:
    path = large(tmp_path / "x.sqlite", 3000, seed)
    leaves = leaf_pages(path)
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 't'").fetchone()
    rng = random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 3, 100, 3000])):
        page = rng.choice([root, *leaves])
        place = rng.choice([rng.randrange(4096), rng.randrange(20)])
        content[(page - 1) * 4096 + place] = rng.choice([0, 255, rng.randrange(256)])
    path.write_bytes(content)
    with closing(Pages(path)) as pages, suppress(UnusualError):
        for number in pages.leaves(root):
            for column in range(5):
                with suppress(UnusualError):
                    rows = pages.rows(np.array([number]), 5, 5)
                    rows.rowids(np.arange(rows.count))
                    rows.begins(3, ["pm1."])
                    rows.column(column, np.flatnonzero(~rows.is_text(3)))


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00", b"x" * 5000])
def test_files_that_are_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UnusualError):
        Pages(tmp_path / "x")
    assert nsys_scan.opened_pages(tmp_path / "missing") is None
