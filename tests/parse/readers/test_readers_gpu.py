"""A recording of real GPUs that others made, with a release of nsys that is not to be had here."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from decoded import decode_recordings
from recorded import real_traces

from profilemate.parse.readers import open_recording


def test_two_h100_without_our_messages() -> None:
    path = real_traces() / "nsys_h100_2gpu_no_graphs.sqlite"
    recording = open_recording(path)
    trace = decode_recordings([recording])
    info = recording.info
    assert info.recorder == "Nsight Systems (exported by 2026.2.1.210, schema 3.25.0)"
    assert (trace.counts, trace.broken, trace.unfinished) == ({}, 0, 0)
    assert all(frame.empty for frame in trace.frames.values())
    (note,) = info.notes
    assert note.startswith("No messages of profilemate")
    assert info.start_unix_ns == 1_779_630_014_975_716_426
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        first, last = [], []
        for kind in ("KERNEL", "MEMCPY", "MEMSET", "RUNTIME", "SYNCHRONIZATION"):
            sql = f"SELECT start, end FROM CUPTI_ACTIVITY_KIND_{kind}"
            for start, end in db.execute(sql):
                first.append(start)
                last.append(end)
        for start, end in db.execute("SELECT start, end FROM NVTX_EVENTS"):
            first.append(start)
            last.append(end)
    assert info.window == trace.window == (min(first), max(last)) == (155357525002, 156326972607)


def test_its_inline_texts_are_found_by_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2026.2 keeps texts inline. None is ours, so for once some of someone else's are taken for it.
    path = real_traces() / "nsys_h100_2gpu_no_graphs.sqlite"
    monkeypatch.setattr("profilemate.schema.PREFIX", "aten::view")
    markers = list(open_recording(path).markers())
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        rows = db.execute("SELECT start, end, globalTid, text FROM NVTX_EVENTS").fetchall()
    expected = [
        (start, end - start, thread % 2**48 // 2**24, thread % 2**24, text)
        for start, end, thread, text in rows
        if text.startswith("aten::view")
    ]
    assert len(expected) > 100
    assert sorted(map(tuple, markers)) == sorted(expected)
