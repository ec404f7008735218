"""The readers on what real releases of nsys write, with nsys itself as a witness."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
from decoded import decode_recordings
from frames import kv_frame
from recorded import NSYS_VARIABLES, Recorded, nsys_of, record
from same_trace import assert_same_trace

from profilemate.errors import InputError, ToolError
from profilemate.parse.pipeline import read_trace
from profilemate.parse.readers import open_recording
from profilemate.parse.readers.nsys import report as nsys_rep
from profilemate.parse.recording.contract import Marker

pytestmark = pytest.mark.real

# nsys reads its own pair of clocks whenever it starts; a wrong unit or zero is off by far more.
WALL_NS = 1_000_000_000


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Recorded]:
    """One recording by each release, made when it is first asked for."""
    return cache(lambda release: record(nsys_of(release), tmp_path_factory.mktemp(release)))


@pytest.fixture(params=sorted(NSYS_VARIABLES))
def recorded(request: pytest.FixtureRequest, recordings: Callable[[str], Recorded]) -> Recorded:
    return recordings(request.param)


@pytest.fixture
def newer(recordings: Callable[[str], Recorded]) -> Recorded:
    """A recording by the release that can do what 2022.4 cannot."""
    return recordings("2023.4")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROFILEMATE_CACHE", str(tmp_path / "cache"))


def read(path: Path, nsys: Path | None = None) -> list[Marker]:
    return sorted(open_recording(path, nsys=nsys).markers(), key=lambda m: (m.ts, m.text))


def by_json(recorded: Recorded) -> list[Marker]:
    """Messages of ours by the JSON export, which has nothing in common with the sqlite one."""
    strings: list[str] = []
    events = []
    with recorded.export("json", "out.json", "--force-overwrite=true").open() as file:
        for line in file:
            item = json.loads(line)
            if "files" in item:
                strings = item["data"]
            elif item.get("Type") in (34, 59, 60):
                events.append(item["NvtxEvent"])
    last = max(int(e.get("EndTimestamp", 0)) for e in events)  # of the range that was left open
    found = []
    for event in events:
        text = event.get("Text") or strings[event["TextId"]]
        if text.startswith("pm1."):
            ts, thread = int(event["Timestamp"]), int(event["GlobalTid"])
            end = int(event.get("EndTimestamp", last))
            dur = None if end == last else end - ts
            found.append(Marker(ts, dur, thread >> 24 & 0xFFFFFF, thread & 0xFFFFFF, text))
    return sorted(found, key=lambda m: (m.ts, m.text))


def test_a_report_holds_what_was_emitted(recorded: Recorded) -> None:
    recording = open_recording(recorded.report, nsys=recorded.nsys)
    markers = list(recording.markers())
    assert Counter(m.text for m in markers) == Counter(e["text"] for e in recorded.emitted)
    assert {m.pid for m in markers} == {recorded.pid}
    threads = {e["text"]: e["tid"] for e in recorded.emitted}
    assert all(threads[m.text] == m.tid for m in markers)
    assert len({m.tid for m in markers}) == 2
    info = recording.info
    assert info.start_unix_ns is not None
    first = min(markers)
    # The first message is the session's: its clocks were read before it, the truth written after.
    began, ended = recorded.unix_ns
    assert began - WALL_NS <= info.start_unix_ns + first.ts <= ended + WALL_NS
    assert info.window is not None
    assert info.window[0] <= first.ts
    assert info.window[1] >= max(m.ts for m in markers)
    assert info.notes == ["1 ranges were still open when the recording ended."]


def test_the_same_as_the_json_export(recorded: Recorded) -> None:
    assert read(recorded.report, recorded.nsys) == by_json(recorded)


@pytest.mark.parametrize("lazy", ["true", "false"])
def test_the_same_as_the_sqlite_export(recorded: Recorded, lazy: str) -> None:
    path = recorded.export("sqlite", f"lazy-{lazy}.sqlite", f"--lazy={lazy}")
    assert read(path) == read(recorded.report, recorded.nsys)


def test_marks_ranges_and_the_open_one(recorded: Recorded) -> None:
    kinds = {e["text"]: e["kind"] for e in recorded.emitted}
    for marker in read(recorded.report, recorded.nsys):
        if kinds[marker.text] == "range":
            assert marker.dur is not None
            assert marker.dur > 1_000_000
        else:
            assert marker.dur is None


def test_decoded_times_are_those_of_the_program(recorded: Recorded) -> None:
    trace = decode_recordings([open_recording(recorded.report, nsys=recorded.nsys)])
    assert (trace.broken, trace.unfinished, trace.lost_batches) == (0, 0, {})
    steps = sum(e["text"].startswith("pm1.batch") for e in recorded.emitted)
    assert trace.counts["kv.alloc"] == trace.counts["kv.free"] == trace.counts["step"] == steps
    assert len(kv_frame(trace).query("op == 'evict'")["ids"].iloc[0]) == 30_000
    assert trace.start_unix_ns is not None
    ts = trace.frames["session"]["ts"].iloc[0]
    began, ended = recorded.unix_ns
    assert began - WALL_NS <= trace.start_unix_ns + ts <= ended + WALL_NS
    allocs = kv_frame(trace).query("op == 'alloc'")["ts"].to_numpy()
    frees = kv_frame(trace).query("op == 'free'")["ts"].to_numpy()
    assert set(frees[:steps] - allocs) <= {799, 800, 801}


@pytest.mark.parametrize("options", [(), ("--ts-normalize=true",), ("--ts-shift=-5000",)])
def test_exports_with_shifted_times_read_the_same(
    newer: Recorded, options: tuple[str, ...]
) -> None:
    path = newer.export("sqlite", f"shifted{len(options[0]) if options else 0}.sqlite", *options)
    assert read(path) == read(newer.report, newer.nsys)
    assert (
        open_recording(path).info.window
        == open_recording(newer.report, nsys=newer.nsys).info.window
    )


def test_the_parquet_export_reads_the_same(newer: Recorded) -> None:
    path = newer.export("parquetdir", "out_pqtdir")
    assert read(path) == read(newer.report, newer.nsys)
    ours, theirs = (
        open_recording(path).info,
        open_recording(newer.report, nsys=newer.nsys).info,
    )
    assert (ours.window, ours.start_unix_ns) == (theirs.window, theirs.start_unix_ns)


READ = {
    "ANALYSIS_DETAILS",
    "META_DATA_EXPORT",
    "NVTX_EVENTS",
    "StringIds",
    "TARGET_INFO_SESSION_START_TIME",
}


def test_of_a_report_only_what_is_read_is_exported(
    newer: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_recording(newer.report, nsys=newer.nsys)
    (export,) = (tmp_path / "cache" / "exports").iterdir()
    assert {path.stem for path in export.iterdir()} == READ
    monkeypatch.setattr(nsys_rep, "find_spec", lambda name: None)  # as without pyarrow
    open_recording(newer.report, nsys=newer.nsys, cache_dir=tmp_path / "other")
    (export,) = (tmp_path / "other").iterdir()
    with closing(sqlite3.connect(export)) as db:
        tables = {t for (t,) in db.execute("SELECT name FROM sqlite_master")}
    assert tables == {*READ, "META_DATA_CAPTURE"}


def test_every_export_of_a_report_gives_the_same_trace(
    newer: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = [read_trace([newer.report], nsys=newer.nsys)]
    (export,) = (tmp_path / "cache" / "exports").iterdir()
    assert export.is_dir()
    monkeypatch.setattr(nsys_rep, "find_spec", lambda name: None)
    traces.append(read_trace([newer.report], nsys=newer.nsys, cache_dir=tmp_path / "sqlite"))
    monkeypatch.setattr(nsys_rep, "wanted_tables", lambda: (".*",))
    traces.append(read_trace([newer.report], nsys=newer.nsys, cache_dir=tmp_path / "whole"))
    (whole,) = (tmp_path / "whole").iterdir()
    with closing(sqlite3.connect(whole)) as db:
        assert db.execute("SELECT count(*) FROM PROCESSES").fetchone()[0] > 0
    for trace in traces[1:]:
        assert_same_trace(traces[0], trace)


def test_a_report_that_was_cut_short(recorded: Recorded, tmp_path: Path) -> None:
    whole = recorded.report.read_bytes()
    for size in (len(whole) // 2, len(whole) - 20, 100):
        path = tmp_path / f"{size}.nsys-rep"
        path.write_bytes(whole[:size])
        with pytest.raises(InputError) as caught:
            open_recording(path, nsys=recorded.nsys)
        assert caught.value.what == "This nsys report was cut short"
        assert "Exportation error" in caught.value.why


def test_an_nsys_older_than_the_report(newer: Recorded, tmp_path: Path) -> None:
    old = nsys_of("2022.4")
    with pytest.raises(ToolError) as caught:
        open_recording(newer.report, nsys=old)
    assert caught.value.what == (
        "nsys 2022.4.2.1 is older than the nsys 2023.4.4.54 that wrote this report"
    )
    # As any release after the newest one here would look to it.
    report = tmp_path / "future.nsys-rep"
    report.write_bytes(newer.report.read_bytes().replace(b"2023@4@4", b"2031@1@1", 1))
    with pytest.raises(ToolError) as caught:
        open_recording(report, nsys=newer.nsys)
    assert caught.value.what == (
        "nsys 2023.4.4.54 is older than the nsys 2031.1.1.54 that wrote this report"
    )


def test_a_newer_nsys_reads_an_older_report(recordings: Callable[[str], Recorded]) -> None:
    old, new = recordings("2022.4"), recordings("2023.4")
    assert read(old.report, new.nsys) == read(old.report, old.nsys)
