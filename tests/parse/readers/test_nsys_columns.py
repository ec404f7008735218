"""Tables of sqlite exports in columns, and the window, against what Python sees of each row."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from build import VERSIONS, Export, Row
from gpu_build import GPU_VERSIONS, GpuExport
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import real_traces

from profilemate.parse.pipeline import read_trace
from profilemate.parse.readers import open_recording
from profilemate.parse.readers.nsys.layout import LAYOUT, pid_and_tid
from profilemate.parse.readers.nsys.store import SqliteStore, opened

SHIFT = 1_795_507_742_546_650_858
# Two of them come as one number, as they do of the tables of CUDA.
NAMES = ("start", "deviceId", "graphNodeId", "streamId", "correlationId")
EDGES = [(1 << bits) + near for bits in (0, 30, 31, 32, 62) for near in (-1, 0, 1)]
INTS = st.sampled_from([s * n for n in EDGES for s in (1, -1)]) | st.integers(0, 1 << 31)
INTS |= st.integers(-(1 << 63), (1 << 63) - 1)
VALUES = INTS | st.none() | st.floats(-1e6, 1e6) | st.sampled_from(["", "x", "12", "12.5", b"7"])
ROWS = st.lists(st.tuples(*[INTS | st.none()] * len(NAMES)), max_size=30)


def as_integer(value: object) -> int:
    """What SQLite makes of it by CAST, as its documentation says."""
    if isinstance(value, str | bytes):
        text = value.decode() if isinstance(value, bytes) else value
        return int(text.split(".")[0]) if text[:1].isdigit() else 0
    return int(value) if isinstance(value, int | float) else 0


def table(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"CREATE TABLE t ({', '.join(NAMES)})")
        db.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(NAMES))})", rows)
        db.commit()
    return path


def read(
    store: SqliteStore, names: Sequence[str], where: tuple[str, list[int]] | None = None
) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for batch in store.batches("t", names, where):
        found += zip(*(batch[name].tolist() for name in names), strict=True)
    return found


@settings(deadline=None, max_examples=100)
@given(
    ROWS,
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 4), VALUES), max_size=2),
    st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
)
def test_any_values(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[object, ...]],
    changes: list[tuple[int, int, object]],
    names: list[str],
) -> None:
    values = [list(row) for row in rows]
    for row, column, value in changes:
        if row < len(values):
            values[row][column] = value
    path = table(tmp_path_factory.mktemp("any") / "x.sqlite", values)
    expected = [tuple(as_integer(row[NAMES.index(n)]) for n in names) for row in values]
    with opened(path) as store:
        assert read(store, names) == expected


def test_rows_of_some_numbers(tmp_path: Path) -> None:
    rows = [(i, i % 7, -i, i % 5, i) for i in range(100_000)]
    with opened(table(tmp_path / "x.sqlite", rows)) as store:
        assert read(store, NAMES) == rows
        assert read(store, NAMES, ("streamId", [1, 4])) == [r for r in rows if r[3] in (1, 4)]
        assert read(store, ["start"], ("streamId", [])) == []


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_of_a_damaged_table_every_row_before_the_damage(tmp_path: Path, share: float) -> None:
    rows = [(i, 1, i, 2, i) for i in range(90_000)]
    path = table(tmp_path / "x.sqlite", rows)
    with path.open("r+b") as file:
        file.seek(int(share * path.stat().st_size) // 4096 * 4096)
        file.write(b"\xff" * 4096)
    with closing(sqlite3.connect(path)) as db:
        left: list[tuple[int, ...]] = []
        with pytest.raises(sqlite3.DatabaseError):
            left.extend(db.execute("SELECT * FROM t"))
    with opened(path) as store:
        assert read(store, NAMES) == left
        assert store.damage is not None
    assert 0.5 * share < len(left) / len(rows) < share + 0.05


def test_processes_and_threads() -> None:
    assert pid_and_tid((5 << 48) | (4242 << 24) | 77) == (4242, 77)


def window_by_query(path: Path, shift: int = 0) -> tuple[int, int]:
    times: list[int] = []
    names = {name for spec in LAYOUT if spec.times for name in spec.called}
    with closing(sqlite3.connect(path)) as db:
        tables = {t for (t,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for name in names & tables:
            for row in db.execute(f"SELECT start, end FROM {name}"):
                times += [time for time in row if time is not None]
    return min(times) - shift, max(times) - shift


@pytest.mark.parametrize("version", GPU_VERSIONS)
@pytest.mark.parametrize("mode", ["node", "graph", "none"])
@pytest.mark.parametrize("shift", [0, SHIFT, -SHIFT])
def test_the_window_is_known_at_once(tmp_path: Path, version: str, mode: str, shift: int) -> None:
    path = GpuExport(version, mode).write(tmp_path / "x.sqlite", shift)
    assert open_recording(path).info.window == window_by_query(path, shift)


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_among_others(tmp_path: Path, version: str) -> None:
    rows = [
        Row(
            i,
            f"pm1.step ago=1 step={i}" if i % 3 else f"aten::op_{i % 7}" * (1 + i % 40),
            None if i % 5 else 10**9 - i,
            (34, 59, 60, 75)[i % 4],
            inline=i % 11 == 0,
        )
        for i in range(4000)
    ]
    rows.append(Row(5000, "pm1.kv.reset" + " x" * 9000, inline=True))
    path = Export(rows, version, shift=-77).write(tmp_path / "x.sqlite")
    trace = read_trace([path])
    assert trace.sources[0].window == window_by_query(path, -77)
    wanted = [r for r in rows if r.text.startswith("pm1.") and r.type != 75]
    assert sum(trace.counts.values()) + trace.broken == len(wanted)


def test_the_window_of_a_recording_of_two_gpus() -> None:
    path = real_traces() / "nsys_h100_2gpu_no_graphs.sqlite"
    assert open_recording(path).info.window == window_by_query(path)
