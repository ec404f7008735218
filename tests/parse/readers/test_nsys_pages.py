"""Exports read from their pages give what SQLite gives, and the window of a plain query."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from build import VERSIONS, Export, Row
from gpu_build import GPU_VERSIONS, GpuExport
from nsys_exports import Size, write
from places import RECORDING
from recorded import real_traces
from same_trace import assert_same_trace

from profilemate.parse.pipeline import read_trace
from profilemate.parse.readers import open_recording
from profilemate.parse.readers.nsys import scan as nsys_scan
from profilemate.parse.readers.nsys import store as nsys_store
from profilemate.parse.readers.nsys.layout import LAYOUT
from profilemate.parse.trace.trace import Trace

SHIFT = 1_795_507_742_546_650_858
SIZE = Size(30_000, 15_000, 15_000)


def in_order(trace: Trace) -> Trace:
    """Records of several tables come in turn, as they are read: put them in an order."""
    columns = ["kind", "start", "node", "correlation"]
    gpu = trace.gpu.sort_values(columns, kind="stable", ignore_index=True)
    return replace(trace, gpu=gpu)


@pytest.fixture
def by_sqlite(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Trace]:
    """Reads without looking at a page; the times of all tables are queried when it is opened."""

    def read(path: Path) -> Trace:
        with monkeypatch.context() as patch:
            patch.setattr(nsys_store, "opened_pages", lambda path: None)
            return in_order(read_trace([path]))

    return read


@pytest.fixture
def by_pages(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Trace]:
    """Reads few pages at a time, and learns of the times as they come by."""

    def read(path: Path) -> Trace:
        with monkeypatch.context() as patch:
            patch.setattr(nsys_store, "LARGE", -1)
            patch.setattr(nsys_scan, "PAGES", 3)
            return in_order(read_trace([path]))

    return read


def window_by_query(path: Path, shift: int = 0) -> tuple[int, int]:
    times: list[int] = []
    names = {name for spec in LAYOUT if spec.times for name in spec.called}
    with closing(sqlite3.connect(path)) as db:
        tables = {t for (t,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table in names & tables:
            for row in db.execute(f"SELECT start, end FROM {table}"):
                times += [time for time in row if time is not None]
    return min(times) - shift, max(times) - shift


Reads = Callable[[Path], Trace]


@pytest.mark.parametrize("version", GPU_VERSIONS)
@pytest.mark.parametrize("mode", ["node", "graph", "none"])
@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("shift", [0, SHIFT, -SHIFT])
def test_gpu_work(
    tmp_path: Path,
    by_pages: Reads,
    by_sqlite: Reads,
    version: str,
    mode: str,
    marked: bool,
    shift: int,
) -> None:
    path = GpuExport(version, mode, marked=marked).write(tmp_path / "x.sqlite", shift)
    trace = by_pages(path)
    assert_same_trace(trace, by_sqlite(path))
    assert trace.sources[0].window == window_by_query(path, shift)
    assert len(trace.launches) > 0


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_of_every_kind(
    tmp_path: Path, by_pages: Reads, by_sqlite: Reads, version: str
) -> None:
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
    trace = by_pages(path)
    assert_same_trace(trace, by_sqlite(path))
    assert trace.sources[0].window == window_by_query(path, -77)
    wanted = [r for r in rows if r.text.startswith("pm1.") and r.type != 75]
    assert sum(trace.counts.values()) + trace.broken == len(wanted)


@pytest.mark.parametrize("table", ["NVTX_EVENTS", "CUPTI_ACTIVITY_KIND_RUNTIME"])
def test_a_table_that_sqlite_has_to_end(
    tmp_path: Path, by_pages: Reads, by_sqlite: Reads, table: str
) -> None:
    path = tmp_path / "x.sqlite"
    write(path, SIZE)
    with closing(sqlite3.connect(path)) as db:
        (rows,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
        # No export has a float here: pages behind this row are not looked at.
        db.execute(f"UPDATE {table} SET start = start + 0.25 WHERE rowid = {rows * 2 // 3}")
        db.execute(f"UPDATE {table} SET end = 77777777777 WHERE rowid = {rows - 1}")
        db.commit()
    trace = by_pages(path)
    assert trace.sources[0].window == by_sqlite(path).sources[0].window
    assert trace.sources[0].window is not None
    assert trace.sources[0].window[1] >= 77777777777
    assert_same_trace(trace, by_sqlite(path))


def test_a_run_with_graphs(tmp_path: Path, by_pages: Reads, by_sqlite: Reads) -> None:
    path = tmp_path / "x.sqlite"
    write(path, SIZE)
    trace = by_pages(path)
    assert_same_trace(trace, by_sqlite(path))
    assert trace.sources[0].window == window_by_query(path)
    assert len(trace.frames["step"]) == SIZE.steps


def test_the_bundled_recording(by_pages: Reads, by_sqlite: Reads) -> None:
    assert_same_trace(by_pages(RECORDING), by_sqlite(RECORDING))


def test_a_recording_of_two_gpus(by_pages: Reads, by_sqlite: Reads) -> None:
    path = real_traces() / "nsys_h100_2gpu_no_graphs.sqlite"
    trace = by_pages(path)
    assert_same_trace(trace, by_sqlite(path))
    assert trace.sources[0].window == window_by_query(path)


def test_the_window_is_whole_after_the_messages_where_tables_are_small(tmp_path: Path) -> None:
    path = GpuExport().write(tmp_path / "x.sqlite")
    assert open_recording(path).info.window == window_by_query(path)
