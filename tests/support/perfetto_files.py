"""Timelines that tests write and read back, and the tables that they are held against."""

from __future__ import annotations

import csv
from pathlib import Path

import pftrace
from places import BUNDLED

from profilemate.parse.session.timeline_file import Options, Result, write_timeline
from profilemate.parse.trace.trace import Trace

NS = 1_000_000_000


def table(name: str, folder: Path = BUNDLED / "expected") -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="") as text:
        return list(csv.DictReader(text))


ALL = Options()


def written(trace: Trace, out: Path, options: Options = ALL) -> tuple[Result, pftrace.File]:
    """Write, and check what holds for every file."""
    result = write_timeline(trace, out, options)
    found = pftrace.read(out)
    assert result.written.size == out.stat().st_size
    assert result.written.packets == found.packets
    assert set(result.written.tracks) == set(found.paths())
    for path, count in result.written.tracks.items():
        lines = [line for line in found.lines if line.path == path]
        assert count.slices_in == count.slices_out == sum(len(x.slices) for x in lines)
        assert count.instants_in == count.instants_out == sum(len(x.instants) for x in lines)
        assert count.samples_in == count.samples_out == sum(len(x.samples) for x in lines)
        assert count.lanes == sum(bool(x.slices or x.instants or x.samples) for x in lines) or 1
    return result, found


def seconds(ts: int, digits: int = 6) -> str:
    return f"{round(ts / NS, digits):.{digits}f}"
