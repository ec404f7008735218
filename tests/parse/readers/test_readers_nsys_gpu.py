"""GPU activity in nsys exports of all three schemas. Constructed files: see `gpu_build.py`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from gpu_build import GPU_VERSIONS, LAUNCH_NAMES, GpuExport
from nsys_exports import Size, write
from parquet_build import convert

from profilemate.parse.pipeline import parse_session, read_trace
from profilemate.parse.tables import TABLES

versions = pytest.mark.parametrize("version", GPU_VERSIONS)


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def of_launch(export: GpuExport, launch: dict[str, Any]) -> list[dict[str, Any]]:
    return [r for r in export.records if r["correlation"] == launch["correlation"]]


def union(records: list[dict[str, Any]]) -> int:
    covered: set[int] = set()
    for r in records:
        covered.update(range(r["start"], r["end"]))
    return len(covered)


@versions
@pytest.mark.parametrize("mode", ["node", "graph"])
@pytest.mark.parametrize("name", LAUNCH_NAMES)
@pytest.mark.parametrize("shift", [0, 1_795_507_742_546_650_858])
def test_every_launch_has_its_records(
    tmp_path: Path, version: str, mode: str, name: str, shift: int
) -> None:
    export = GpuExport(version, mode, launch_name=name)
    trace = read_trace([export.write(tmp_path / "x.sqlite", shift)])
    assert trace.api_calls == export.calls
    found = {
        r["correlation"]: [r[c] for c in ("ts", "records", "first", "last", "busy", "kernels")]
        for r in rows(trace.launches)
    }
    expected = {}
    for launch in export.launches:
        mine = of_launch(export, launch)
        expected[launch["correlation"]] = [
            launch["ts"],
            len(mine),
            min(r["start"] for r in mine),
            max(r["end"] for r in mine),
            union(mine),
            sum(r["kind"] == "kernel" for r in mine),
        ]
    assert found == expected


@versions
@pytest.mark.parametrize("marked", [True, False])
def test_steps_and_coverage(tmp_path: Path, version: str, marked: bool) -> None:
    export = GpuExport(version, marked=marked)
    trace = read_trace([export.write(tmp_path / "x.sqlite")])
    steps = rows(TABLES["cuda_graph_steps"].build(trace))
    assert len(steps) == len(export.steps)
    for number, (row, step) in enumerate(zip(steps, export.steps, strict=True)):
        mine = [launch for launch in export.launches if launch["step"] == number]
        records = [r for launch in mine for r in of_launch(export, launch)]
        assert row["runtime_mode"] == step["mode"]
        assert (row["launches"], row["expected_launches"]) == (len(mine), len(mine))
        # The range opens 7 ns after the step began, and ends with it.
        assert row["timestamp_sec"] == step["begin"] - (7 if marked else 0)
        assert row["timestamp_sec"] + row["host_ms"] == step["end"]
        assert row["unpadded_tokens"] == step["size"] - (1 if marked else 0)
        eager = [r for r in export.records if r["node"] is None][number]
        assert row["gpu_busy_ms"] == union([*records, eager])
        if mine:
            assert row["graph_gpu_ms"] == max(r["end"] for r in records) - min(
                r["start"] for r in records
            )
            assert row["graph_gpu_busy_ms"] == union(records)
        else:
            assert pd.isna(row["graph_gpu_ms"])
    coverage = parse_session([tmp_path / "x.sqlite"], tmp_path / "s").metadata.coverage
    kernels = [r for r in export.records if r["kind"] == "kernel"]
    in_graphs = [r for r in kernels if r["node"] is not None]
    spans = 0
    for launch in export.launches:
        records = of_launch(export, launch)
        spans += max(r["end"] for r in records) - min(r["start"] for r in records)
    assert coverage == {
        "steps": 12,
        "launches": len(export.launches),
        "launches_in_steps": len(export.launches),
        "launches_in_dummy_steps": 0,
        "launches_with_gpu_records": len(export.launches),
        "kernels": len(kernels),
        "kernels_in_graphs": len(in_graphs),
        "kernel_time_us": sum(r["end"] - r["start"] for r in kernels) / 1000,
        "kernel_time_in_graphs_us": sum(r["end"] - r["start"] for r in in_graphs) / 1000,
        "graph_span_us": spans / 1000,
        "kernel_time_in_steps_us": sum(r["end"] - r["start"] for r in kernels) / 1000,
        "kernel_time_after_captures_us": 0,
        "kernel_time_before_steps_us": 0,
        "kernel_time_elsewhere_us": 0,
    }


@versions
def test_graphs_are_told_apart_without_markers(tmp_path: Path, version: str) -> None:
    export = GpuExport(version, marked=False)
    trace = read_trace([export.write(tmp_path / "x.sqlite")])
    by_number: dict[int, set[Any]] = {}
    for row, launch in zip(rows(trace.launches), export.launches, strict=True):
        # By id where the release has one; else graphs of the same kernels in order are one.
        graph = launch["graph"] if version == "2026.2.1" else launch["graph"][1:]
        by_number.setdefault(row["graph"], set()).add(graph)
    assert all(len(graphs) == 1 for graphs in by_number.values())
    assert len(set.union(*by_number.values())) == len(by_number)
    usage = TABLES["cuda_graph_usage"].build(trace)
    on_graphs = [s["mode"] for s in export.steps if s["mode"] != "NONE"]
    assert usage["replay_count"].sum() == len(on_graphs)
    assert usage["num_tokens"].isna().all()


def test_graph_mode_cannot_tell_kernels(tmp_path: Path) -> None:
    export = GpuExport("2023.4.4", "graph")
    session = parse_session([export.write(tmp_path / "x.sqlite")], tmp_path / "s")
    coverage = session.metadata.coverage
    assert coverage["kernels_in_graphs"] is None
    assert coverage["kernel_time_in_graphs_us"] is None
    assert (coverage["graph_span_us"] or 0) > 0
    assert session.metadata.graph_durations == "gpu"
    assert any("the kernels in them are not in any count" in w for w in session.warnings)


@versions
def test_launches_without_any_row_are_told(tmp_path: Path, version: str) -> None:
    export = GpuExport(version, "none")
    session = parse_session([export.write(tmp_path / "x.sqlite")], tmp_path / "s")
    coverage = session.metadata.coverage
    assert coverage["launches"] == len(export.launches)
    for name in ("kernels_in_graphs", "kernel_time_in_graphs_us", "graph_span_us"):
        assert coverage[name] is None
    assert coverage["kernels"] == 12
    assert any("neither kernels nor GRAPH_TRACE rows" in w for w in session.warnings)
    assert session.metadata.graph_durations == "host"


def test_replays_without_captures_are_not_called_no_replays(tmp_path: Path) -> None:
    session = parse_session([GpuExport().write(tmp_path / "x.sqlite")], tmp_path / "s")
    assert (session.metadata.coverage["launches"] or 0) > 0
    why = session.metadata.empty_files["cuda_graph_captures.csv"]
    assert why == "no CUDA graph was captured while it was recorded: vLLM does that as it starts"


def test_launches_and_no_gpu_records_at_all(tmp_path: Path) -> None:
    path = GpuExport().write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db:
        for kind in ("KERNEL", "MEMCPY"):
            db.execute(f"DELETE FROM CUPTI_ACTIVITY_KIND_{kind}")
        db.commit()
    session = parse_session([path], tmp_path / "s")
    assert session.metadata.coverage["kernels"] is None
    assert any("not one GPU record" in w for w in session.warnings)


def test_kernels_without_launches(tmp_path: Path) -> None:
    path = GpuExport().write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM CUPTI_ACTIVITY_KIND_RUNTIME WHERE correlationId > 510")
        db.commit()
    session = parse_session([path], tmp_path / "s")
    assert any("belong to no launch that was recorded" in w for w in session.warnings)
    assert any("should have made were not recorded" in w for w in session.warnings)
    assert (session.metadata.coverage["kernels_in_graphs"] or 0) > 0


@pytest.mark.parametrize("column", ["id", "value"])
def test_calls_whose_names_cannot_be_read(tmp_path: Path, column: str) -> None:
    path = GpuExport().write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"ALTER TABLE StringIds RENAME COLUMN {column} TO other")
    session = parse_session([path], tmp_path / "s")
    assert any("API calls were not traced" in w for w in session.warnings)


def test_dropped_records_are_told(tmp_path: Path) -> None:
    export = GpuExport()
    path = export.write(tmp_path / "x.sqlite")
    lost = export.launches[0]["correlation"]
    with closing(sqlite3.connect(path)) as db:
        for kind in ("KERNEL", "MEMCPY"):
            db.execute(f"DELETE FROM CUPTI_ACTIVITY_KIND_{kind} WHERE correlationId = {lost}")
        db.commit()
    session = parse_session([path], tmp_path / "s")
    assert any(
        f"1 of {len(export.launches)} graph launches have no GPU" in w for w in session.warnings
    )


def test_graph_rows_without_a_time_are_left_out(tmp_path: Path) -> None:
    path = GpuExport("2023.4.4", "graph").write(tmp_path / "x.sqlite")
    timed = GpuExport("2023.4.4", "graph").write(tmp_path / "y.sqlite")
    with closing(sqlite3.connect(timed)) as db:
        db.execute("DELETE FROM CUPTI_ACTIVITY_KIND_GRAPH_TRACE")
        db.commit()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE CUPTI_ACTIVITY_KIND_GRAPH_TRACE SET start = 0, end = 0")
        db.commit()
    session = parse_session([path], tmp_path / "s")
    # No time is moved: the recording begins with what has one.
    assert session.metadata.window_sec == parse_session([timed], tmp_path / "t").metadata.window_sec
    (told,) = [w for w in session.metadata.warnings if w.id == "gpu-time-unmeasured"]
    assert told.text in session.metadata.doubts
    assert session.metadata.coverage["graph_span_us"] is None


def test_a_launch_inside_a_launch_is_one(tmp_path: Path) -> None:
    # The driver's call inside the runtime's, and the GPU's records name the inner one.
    export = GpuExport(launch_name="cudaGraphLaunch_v10000")
    path = export.write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO StringIds VALUES (5000, 'cuGraphLaunch')")
        launches = db.execute(
            "SELECT start, end, globalTid, correlationId FROM CUPTI_ACTIVITY_KIND_RUNTIME r, "
            "StringIds s WHERE s.id = r.nameId AND s.value = 'cudaGraphLaunch_v10000'"
        ).fetchall()
        for start, end, thread, correlation in launches:
            inner = correlation + 100_000
            db.execute(
                "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME "
                "(start, end, eventClass, globalTid, correlationId, nameId, returnValue) "
                "VALUES (?, ?, 1, ?, ?, 5000, 0)",
                (start + 10, end - 10, thread, inner),
            )
            for kind in ("KERNEL", "MEMCPY"):
                db.execute(
                    f"UPDATE CUPTI_ACTIVITY_KIND_{kind} SET correlationId = ? "
                    "WHERE correlationId = ?",
                    (inner, correlation),
                )
        db.commit()
    trace = read_trace([path])
    assert len(trace.launches) == len(export.launches)
    assert (trace.launches["records"] > 0).all()


def test_an_export_without_gpu_tables_cannot_tell(tmp_path: Path) -> None:
    path = GpuExport().write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db:
        for kind in ("KERNEL", "MEMCPY", "MEMSET", "RUNTIME"):
            db.execute(f"DROP TABLE CUPTI_ACTIVITY_KIND_{kind}")
        db.commit()
    session = parse_session([path], tmp_path / "s")
    coverage = dict(session.metadata.coverage)
    assert coverage.pop("steps") == 12
    assert set(coverage.values()) == {None}
    assert session.metadata.graph_durations == "host"
    assert not session.metadata.doubts


def test_a_hole_in_the_kernels_is_told(tmp_path: Path) -> None:
    path = GpuExport().write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(CUPTI_ACTIVITY_KIND_KERNEL)")]
        many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999)"
        names = ", ".join(columns)
        db.execute(
            f"INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL ({names}) {many} "
            f"SELECT {names} FROM CUPTI_ACTIVITY_KIND_KERNEL, n"
        )
        db.commit()
    whole = len(read_trace([path]).gpu)
    size = path.stat().st_size
    with path.open("r+b") as file:  # most of the file by now are kernels
        file.seek(size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    trace = read_trace([path])
    assert 0 < len(trace.gpu) < whole
    assert any("The file is damaged" in note for note in trace.sources[0].notes)


def test_a_parquet_export_gives_the_same(tmp_path: Path) -> None:
    for version in ("2023.4.4", "2026.2.1"):
        for marked in (True, False):
            name = f"{version}_{marked}"
            path = GpuExport(version, marked=marked).write(tmp_path / f"{name}.sqlite")
            directory = convert(path, tmp_path / name, every_column=True)
            left, right = read_trace([path]), read_trace([directory])
            assert left.names == right.names
            assert left.api_calls == right.api_calls
            pd.testing.assert_frame_equal(left.launches, right.launches)
            pd.testing.assert_frame_equal(left.gpu, right.gpu)
            pd.testing.assert_frame_equal(left.annotations, right.annotations)
            pd.testing.assert_frame_equal(left.frames["step"], right.frames["step"])


def test_copies_are_named_by_their_direction(tmp_path: Path) -> None:
    path = GpuExport().write(tmp_path / "x.sqlite")
    kinds = {1: "HtoD", 2: "DtoH", 8: "DtoD", 10: "PtoP", 99: "99"}  # as CUPTI numbers them
    table = "CUPTI_ACTIVITY_KIND_MEMCPY"
    with closing(sqlite3.connect(path)) as db, db:
        copies = [row for (row,) in db.execute(f"SELECT rowid FROM {table}")]
        assert len(copies) >= len(kinds)
        for place, rowid in enumerate(copies):
            kind = [*kinds][place % len(kinds)]
            db.execute(f"UPDATE {table} SET copyKind = ? WHERE rowid = ?", (kind, rowid))
        expected = {
            start: f"Memcpy {kinds[kind]}"
            for start, kind in db.execute(f"SELECT start, copyKind FROM {table}")
        }
    trace = read_trace([path])
    found = {r["start"]: trace.names[r["name"]] for r in rows(trace.gpu)}
    assert {start: found[start] for start in expected} == expected


def test_graphs_that_only_their_executable_tells_apart(tmp_path: Path) -> None:
    export = GpuExport("2023.4.4", "graph", marked=False)
    path = export.write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE CUPTI_ACTIVITY_KIND_GRAPH_TRACE SET graphId = 0")
    graph = {launch["correlation"]: launch["graph"] for launch in export.launches}
    numbers: dict[tuple[str, int, int], set[int]] = {}
    for row in rows(read_trace([path]).launches):
        numbers.setdefault(graph[row["correlation"]], set()).add(row["graph_id"])
    assert len(numbers) > 1
    assert all(len(ids) == 1 and ids != {0} for ids in numbers.values())
    assert len(set.union(*numbers.values())) == len(numbers)


def test_damage_among_gpu_records_is_no_loss_of_messages(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    write(path, Size(nvtx=2000, runtime=2000, kernels=40_000))
    whole = read_trace([path])
    with path.open("r+b") as file:  # most of the file are kernels
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    trace = read_trace([path])
    assert len(trace.frames["step"]) == len(whole.frames["step"])
    assert 0 < len(trace.gpu) < len(whole.gpu)
    (note,) = (note for note in trace.sources[0].notes if "damaged" in note)
    assert "of the GPU activity only what lies before the damage was read" in note


def test_calls_without_a_name_are_told_apart(tmp_path: Path) -> None:
    export = GpuExport()
    path = export.write(tmp_path / "x.sqlite")
    (eager,) = (name for name in export.calls if name.startswith("cudaLaunchKernel"))
    calls = "CUPTI_ACTIVITY_KIND_RUNTIME"
    with closing(sqlite3.connect(path)) as db, db:
        ids = [n for (n,) in db.execute(f"SELECT nameId FROM {calls} GROUP BY nameId")]
        db.execute(f"UPDATE {calls} SET nameId = 77777 WHERE rowid = 1")
        db.execute(f"UPDATE {calls} SET nameId = 88888 WHERE rowid IN (2, 3)")
        (left,) = db.execute(
            f"SELECT count(*) FROM {calls} JOIN StringIds s ON s.id = nameId WHERE value = ?",
            (eager,),
        ).fetchone()
    assert not {77777, 88888} & {*ids}
    found = read_trace([path]).api_calls
    assert found is not None
    assert (found["call 77777"], found["call 88888"], found[eager]) == (1, 2, left)
    assert sum(found.values()) == sum(export.calls.values())
