"""Every file that lies in a directory is read, or named with the reason."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from build import PUSH_POP, Export, Row

from profilemate.errors import InputError
from profilemate.parse.ingest.find_files import gather
from profilemate.parse.ingest.left_out import left_out
from profilemate.parse.pipeline import read_trace
from profilemate.parse.readers import find_recordings
from profilemate.parse.readers.nsys.report import MAGIC


def trace(path: Path, pid: int = 9) -> Path:
    event: dict[str, Any] = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel"}
    event |= {"pid": pid, "tid": 1, "ts": 1000, "dur": 4, "args": {"correlation": 1}}
    head = {"schemaVersion": 1, "baseTimeNanoseconds": 10**18}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**head, "traceEvents": [event]}))
    return path


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_to_nothing(path: Path) -> None:
    path.write_bytes(gzip.compress(b'{"traceEvents": []}' * 50)[:12])


def packed_twice(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.compress(b'{"traceEvents": []}')))


def of_another_tool(path: Path) -> None:
    path.write_text('{"frames": [], "metric": "time"}')


def a_picture(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n rest")


def another_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE cookies (a)")


def viztracer(path: Path) -> None:
    events = [{"ph": "X", "name": "f", "pid": 1, "tid": 1, "ts": 1, "dur": 2}]
    path.write_text(json.dumps({"traceEvents": events, "viztracer_metadata": {"version": "1"}}))


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("b.pt.trace.json", empty, "empty"),
        ("b.pt.trace.json.gz", cut_to_nothing, "cut short"),
        ("b.pt.trace.json.gz", packed_twice, "packed twice"),
        ("b.json", of_another_tool, "JSON without the list traceEvents"),
        ("b.json", a_picture, "a PNG image"),
        ("b.sqlite", another_database, "not an export of Nsight Systems"),
        ("b.json", viztracer, "VizTracer"),
        ("b.qdstrm", a_picture, "unfinished nsys recording"),
    ],
)
def test_what_is_not_read_is_named(
    tmp_path: Path, name: str, make: Callable[[Path], None], why: str
) -> None:
    trace(tmp_path / "t" / "a.json")
    (tmp_path / "t" / "notes.txt").write_text("nobody's business")
    make(tmp_path / "t" / name)
    found = read_trace([tmp_path / "t"])
    told = [*found.notes, *(str(n) for s in found.sources for n in s.notes)]
    assert [note for note in told if name in note and why in note], told
    assert not [note for note in told if "notes.txt" in note]
    # Alone, it is why there is nothing to read.
    (tmp_path / "t" / "a.json").unlink()
    with pytest.raises(InputError) as e:
        read_trace([tmp_path / "t"])
    assert why in f"{e.value.what} {e.value.why}"


def test_a_folder_below_is_named(tmp_path: Path) -> None:
    trace(tmp_path / "t" / "a.json")
    trace(tmp_path / "t" / "capture_traces" / "c.json")
    (note,) = read_trace([tmp_path / "t"]).notes
    assert note.startswith("capture_traces/ holds 1 recordings that are not read")


def test_a_clean_folder_has_nothing_to_say(tmp_path: Path) -> None:
    trace(tmp_path / "t" / "a.json")
    for name in ("metadata.json", "ranks.csv", "report.html", "run.sh", "timeline.pftrace"):
        (tmp_path / "t" / name).write_text("{}")
    assert read_trace([tmp_path / "t"]).notes == []


def test_an_export_older_than_its_report_is_of_another_run(tmp_path: Path) -> None:
    export = Export([Row(1, "pm1.step step=1", 5, PUSH_POP)]).write(tmp_path / "run.sqlite")
    report = tmp_path / "run.nsys-rep"
    report.write_bytes(MAGIC + bytes(40))
    made = export.stat().st_mtime
    os.utime(report, (made + 60, made + 60))
    assert find_recordings(tmp_path) == [report]
    os.utime(report, (made - 60, made - 60))
    assert find_recordings(tmp_path) == [export]


def test_the_old_export_is_named(tmp_path: Path) -> None:
    export = Export([Row(1, "pm1.step step=1", 5, PUSH_POP)]).write(tmp_path / "run.sqlite")
    report = tmp_path / "run.nsys-rep"
    report.write_bytes(MAGIC)
    made = export.stat().st_mtime
    os.utime(report, (made + 60, made + 60))
    (note,) = left_out([tmp_path], gather([tmp_path]))
    assert note.startswith("run.sqlite is not read: it is older than run.nsys-rep")
