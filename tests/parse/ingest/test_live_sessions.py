"""Sidecars of a live session, parsed: a real recording, replayed through the sink that writes them.

The witness is the recording itself: what Nsight Systems wrote of the run goes through another
reader, and both must give the same tables.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from places import RECORDING

from profilemate.annotate.sinks import sidecar
from profilemate.annotate.sinks.sidecar import SidecarSink
from profilemate.errors import InputError, OutputError
from profilemate.parse import pipeline
from profilemate.parse.ingest import read_one
from profilemate.parse.ingest.live_sessions import being_written
from profilemate.parse.ingest.read_many import read_all
from profilemate.parse.pipeline import parse_session
from profilemate.parse.readers import open_recording

TIMES = ("_sec", "_ms", "_us")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The sinks' clock, which a test sets."""

    class Clock:
        now = 0

    monkeypatch.setattr(sidecar, "monotonic_ns", lambda: Clock.now)
    monkeypatch.setattr(sidecar, "FLUSH_S", 3600.0)
    return Clock


def replay(clock: Any, session: Path, *, ended: bool = True, **options: Any) -> Path:
    """Give the messages of the recording to a sink for each of its processes."""
    (session / "markers").mkdir(parents=True)
    recording = open_recording(RECORDING)
    calls: list[tuple[int, int, int, str, str]] = []
    for number, marker in enumerate(recording.markers()):
        if marker.dur is None:
            calls.append((marker.ts, number, marker.pid, "mark", marker.text))
        else:
            calls.append((marker.ts, number, marker.pid, "push", marker.text))
            calls.append((marker.ts + marker.dur, number, marker.pid, "pop", ""))
    sinks: dict[int, SidecarSink] = {}
    zero = (recording.info.start_unix_ns or 0) + recording.info.begin  # where the run began
    for ts, _, pid, what, text in sorted(calls):
        clock.now = ts
        if pid not in sinks:
            sinks[pid] = sink = SidecarSink(lambda: session, zero=zero, **options)
            sink._pid, sink._offset = pid, recording.info.start_unix_ns or 0
        getattr(sinks[pid], what)(*([text] if text else []))
    for sink in sinks.values():
        if ended:
            sink.close()
        else:
            sink.flush()
    return session


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parse_session([RECORDING], tmp_path_factory.mktemp("expected") / "session").path


def compare(session: Path, expected: Path) -> None:
    """Equal tables: times to their rounding, everything else to the byte."""
    names = sorted(p.name for p in expected.glob("*.csv"))
    assert sorted(p.name for p in session.glob("*.csv")) == names
    for name in names:
        ours, theirs = pd.read_csv(session / name), pd.read_csv(expected / name)
        assert [*ours.columns] == [*theirs.columns]
        assert len(ours) == len(theirs), name
        for column in ours.columns:
            a, b = ours[column], theirs[column]
            of_recording = column in ("recording", "files") or column.startswith("clock_")
            if a.equals(b) or of_recording:  # of ranks.csv
                continue
            assert column.endswith(TIMES), (name, column)
            assert (a - b).abs().max() <= 1.1e-3, (name, column)
    for line, other in zip(
        (session / "kv_cache_summary.txt").read_text().splitlines(),
        (expected / "kv_cache_summary.txt").read_text().splitlines(),
        strict=True,
    ):
        assert line == other or "Avg" in line


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"packed": True},
        {"cap": 8 * 50_000},
        {"cap": 8 * 50_000, "interval": 1},
        {"ended": False},
        {"ended": False, "packed": True},
    ],
    ids=["plain", "packed", "segments", "segments, unbuffered", "killed", "killed, packed"],
)
def test_the_tables_are_those_of_nsight_systems(
    options: dict[str, Any], clock: Any, tmp_path: Path, expected: Path
) -> None:
    session = replay(clock, tmp_path / "session", **options)
    count = len([*(session / "markers").iterdir()])
    assert count > 3 if "cap" in options else count == 2
    done = parse_session([session])
    assert done.path == session
    compare(session, expected)
    facts = done.metadata
    assert {s.recorder for s in facts.sources} == {"profilemate sidecar"}
    assert len(facts.sources) == count
    assert facts.dropped is not None
    assert facts.dropped.broken_messages == 0
    assert facts.dropped.lost_batches == {}
    assert facts.graph_durations == "host"
    no_end = [n for n in facts.notes if "has no end" in n]
    assert len(no_end) == (0 if options.get("ended", True) else 2)
    assert facts.start_time == json.loads((expected / "metadata.json").read_text())["start_time"]


def test_dropped_segments_become_a_note(clock: Any, tmp_path: Path) -> None:
    session = replay(clock, tmp_path / "session", cap=8 * 10_000)
    done = parse_session([session])
    notes = [n for n in done.metadata.notes if "PROFILEMATE_MAX_MB" in n]
    assert any("worker" in n for n in notes)
    assert any("engine" in n for n in notes)


def test_a_session_is_updated_in_place(clock: Any, tmp_path: Path) -> None:
    session = replay(clock, tmp_path / "session", ended=False)
    (session / "notes.txt").write_text("mine")
    (session / "metadata.json").write_text(
        json.dumps({"session_id": "session", "recording": True, "files": ["kv_old_table.csv"]})
    )
    (session / "kv_old_table.csv").write_text("of an older version")
    inode = session.stat().st_ino
    assert len(being_written(session / "markers")) == 2
    first = parse_session([session])
    tables = {p.name: p.read_bytes() for p in session.glob("*.csv")}
    assert len(tables) > 10
    again = parse_session([session])
    assert {p.name: p.read_bytes() for p in session.glob("*.csv")} == tables
    assert session.stat().st_ino == inode
    assert (session / "notes.txt").read_text() == "mine"
    assert not (session / "kv_old_table.csv").exists()
    facts = json.loads((session / "metadata.json").read_text())
    assert facts["session_id"] == "session"
    assert facts["output_dir"] == str(session) == first.summary["output_dir"]
    assert "recording" not in facts
    assert again.path == session
    assert sorted(p.name for p in session.iterdir() if p.name not in {*facts["files"]}) == [
        "markers",
        "notes.txt",
    ]


def test_elsewhere_on_request(clock: Any, tmp_path: Path, expected: Path) -> None:
    session = replay(clock, tmp_path / "session")
    parse_session([session], tmp_path / "out")
    compare(tmp_path / "out", expected)
    assert [p.name for p in session.iterdir()] == ["markers"]


def test_a_failure_changes_nothing(
    clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = replay(clock, tmp_path / "session")
    parse_session([session])
    before = {str(p): p.read_bytes() for p in session.rglob("*") if p.is_file()}

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("profilemate.parse.writers.csv_session.write_csv", full)
    with pytest.raises(OutputError, match="no space is left"):
        parse_session([session])
    assert {str(p): p.read_bytes() for p in session.rglob("*") if p.is_file()} == before


def segments(session: Path) -> list[Path]:
    """The segments of the first process, the oldest first."""
    names: dict[str, list[Path]] = {}
    for path in (session / "markers").iterdir():
        names.setdefault(path.name.partition(".")[0], []).append(path)
    return sorted(next(n for n in names.values() if len(n) > 2), key=lambda p: len(p.name))


@pytest.mark.parametrize("when", ["before it is opened", "once it is open"])
def test_a_segment_that_is_dropped_meanwhile_is_not_missed(
    when: str, clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sidecar under its cap drops its oldest segment just after the session was listed."""
    session = replay(clock, tmp_path / "session", cap=8 * 50_000)
    oldest = segments(session)[0]
    aside = tmp_path / "aside"
    oldest.rename(aside)
    parse_session([session])
    without = {p.name: p.read_bytes() for p in session.glob("*.csv")}
    aside.rename(oldest)
    listed = []

    def drop_before(tasks: Any, *args: Any, **how: Any) -> Any:
        listed.append(len(tasks))
        oldest.unlink(missing_ok=True)
        return read_all(tasks, *args, **how)

    def drop_after(path: Path, **how: Any) -> Any:
        opened = open_recording(path, **how)
        if path == oldest:
            listed.append(0)
            oldest.unlink()
        return opened

    if when == "before it is opened":
        monkeypatch.setattr(pipeline, "read_all", drop_before)
    else:
        monkeypatch.setattr(read_one, "open_recording", drop_after)
    done = parse_session([session])
    assert {p.name: p.read_bytes() for p in session.glob("*.csv")} == without
    assert not any("left out" in note for note in done.metadata.notes)
    if when == "before it is opened":
        first, second = listed
        assert first == second + 1


def test_a_session_that_never_stands_still_ends_in_an_error(
    clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = replay(clock, tmp_path / "session")
    tries = []

    def another(tasks: Any, *args: Any, **how: Any) -> Any:
        tries.append(tasks)
        old = tasks[0].path
        old.rename(old.with_name(f"{len(tries)}.trace.json"))
        return read_all(tasks, *args, **how)

    monkeypatch.setattr(pipeline, "read_all", another)
    with pytest.raises(InputError, match="No such file"):
        parse_session([session])
    assert len(tries) == 5
