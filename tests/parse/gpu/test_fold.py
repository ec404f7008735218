"""Records folded as they stream in, against loops over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.gpu import fold_in_order
from profilemate.parse.gpu.collected import Collected
from profilemate.parse.gpu.fold_in_order import Fold, UnorderedError
from profilemate.parse.gpu.interval_unions import fold_work
from profilemate.parse.gpu.work import OVERLAP_COLUMNS, WORK_COLUMNS
from profilemate.parse.recording.activity import GPU_COLUMNS, GRAPH, KERNEL, ActivitySink

NAMES = {0: "a", 1: "b", 2: "c"}


class Record(NamedTuple):
    start: int
    dur: int
    pid: int
    device: int
    call: int
    node: int
    kind: int
    name: int


RECORDS = st.lists(
    st.builds(
        Record,
        start=st.integers(0, 60),
        dur=st.integers(0, 9),
        pid=st.sampled_from([7, 7, 7, 8, -1]),
        device=st.sampled_from([0, 0, 0, 1]),
        call=st.integers(0, 6),
        node=st.integers(0, 3),
        kind=st.integers(0, 3),
        name=st.integers(0, 2),
    ),
    max_size=24,
)


def batch(records: list[Record]) -> dict[str, Ints]:
    rows = [
        {
            **r._asdict(),
            "end": r.start + r.dur,
            "correlation": r.call,
            "graph": 0,
            "stream": 0,
        }
        for r in records
    ]
    return {name: np.array([row[name] for row in rows], dtype=np.int64) for name in GPU_COLUMNS}


@contextmanager
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fold_in_order, "_BLOCK", 2)
        yield


def joined(parts: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    none = np.empty(0, dtype=np.int64)
    return {n: np.concatenate([p[n] for p in parts]) if parts else none for n in names}


def folded(
    records: list[Record], size: int, *, promise: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows and overlaps of records that come in batches, in order of time if promised."""
    one = Fold()
    one.names.update(NAMES)
    if promise:
        records = sorted(records, key=lambda r: r.start)
    with small_blocks():
        for first in range(0, len(records), size):
            one.add(batch(records[first : first + size]))
            if promise:
                one.until(records[min(first + size, len(records)) - 1].start)
        work, overlaps = one.finish()
    return joined(work, WORK_COLUMNS), joined(overlaps, OVERLAP_COLUMNS)


def union(intervals: list[tuple[int, int]]) -> int:
    return len({t for begin, end in intervals for t in range(begin, end)})


@given(
    RECORDS,
    st.integers(1, 9),
    st.booleans(),
    st.lists(st.integers(-1, 2), min_size=7, max_size=7),
)
def test_any_grouping_of_calls_is_exact(
    records: list[Record], size: int, promise: bool, groups: list[int]
) -> None:
    try:
        work, overlaps = folded(records, size, promise=promise)
    except UnorderedError:
        assert promise  # tested below: it is read again without promises
        return
    for pid in (7, 8, -1):
        group = np.array(
            [
                groups[call] if p == pid else -1
                for p, call in zip(work["pid"], work["correlation"], strict=True)
            ],
            dtype=np.int64,
        )
        found = fold_work(group, 3, work, overlaps)
        for number in range(3):
            mine = [r for r in records if r.pid == pid and groups[r.call] == number]
            assert found.count[number] == len(mine)
            assert found.first[number] == min((r.start for r in mine), default=0)
            assert found.last[number] == max((r.start + r.dur for r in mine), default=0)
            assert found.busy[number] == union([(r.start, r.start + r.dur) for r in mine])


@given(RECORDS, st.integers(1, 9), st.booleans())
def test_sums_and_devices(records: list[Record], size: int, promise: bool) -> None:
    try:
        work, overlaps = folded(records, size, promise=promise)
    except UnorderedError:
        return
    kernels = [r for r in records if r.kind == KERNEL]
    assert work["records"].sum() == len(records)
    assert work["kernels"].sum() == len(kernels)
    assert work["kernel_ns"].sum() == sum(r.dur for r in kernels)
    assert work["graph_records"].sum() == sum(r.node != 0 for r in records)
    assert work["graph_kernel_ns"].sum() == sum(r.dur for r in kernels if r.node)
    assert work["whole"].sum() == sum(r.kind == GRAPH for r in records)
    for device in (0, 1):
        for pid in (7, 8, -1):
            mine = [r for r in records if (r.device, r.pid) == (device, pid)]
            over = (overlaps["device"] == device) & (overlaps["pid"] == pid)
            alone = work["busy"][(work["device"] == device) & (work["pid"] == pid)].sum()
            times = zip(overlaps["start"][over], overlaps["end"][over], strict=True)
            assert alone + union(list(times)) == union([(r.start, r.start + r.dur) for r in mine])


@given(RECORDS, st.integers(1, 9))
def test_streaming_gives_the_same_sequences(records: list[Record], size: int) -> None:
    whole, _ = folded(records, 1000, promise=False)
    try:
        work, _ = folded(records, size, promise=True)
    except UnorderedError:
        return

    def by_call(rows: dict[str, Any]) -> dict[tuple[int, int], list[int]]:
        found: dict[tuple[int, int], list[int]] = {}
        for pid, call, value in zip(
            rows["pid"], rows["correlation"], rows["sequence"], strict=True
        ):
            if call:
                found.setdefault((pid, call), []).append(value)
        return found

    one, two = by_call(whole), by_call(work)
    assert one.keys() == two.keys()
    for call, values in two.items():
        assert len(values) > 1 or values == one[call]


class Late:
    """A recording that says its records are in order, though they may not be."""

    def __init__(self, records: list[Record], size: int) -> None:
        self._records, self._size = records, size
        self.info = type("Info", (), {"notes": []})()

    def activity(self, sink: ActivitySink) -> None:
        sink.names(NAMES)
        sink.calls({"cudaLaunchKernel": 1})
        for first in range(0, len(self._records), self._size):
            some = self._records[first : first + self._size]
            sink.gpu(batch(some))
            sink.until(some[-1].start)


@given(RECORDS, st.integers(1, 9))
def test_a_broken_promise_costs_time_and_changes_nothing(records: list[Record], size: int) -> None:
    found = []
    for order in (sorted(records, key=lambda r: r.start), records):
        collected = Collected(records=False)
        with small_blocks():
            collected.read(0, Late(order, size))  # type: ignore[arg-type]
        work, overlaps = collected.columns("work"), collected.columns("overlaps")
        assert collected.api_calls == {"cudaLaunchKernel": 1}
        group = np.where(work["pid"] == 7, work["correlation"], -1).astype(np.int64)
        one = fold_work(group, 7, work, overlaps)
        found.append([c.tolist() for c in (one.count, one.first, one.last, one.busy)])
    assert found[0] == found[1]


def test_what_is_over_does_not_wait() -> None:
    one = Fold()
    one.names.update(NAMES)
    waited = []
    with small_blocks():
        for step in range(100):
            some = [Record(100 * step + 10 * i, 8, 7, 0, step + 1, i, 0, i % 3) for i in range(5)]
            one.add(batch(some))
            one.until(some[-1].start)
            waited.append(sum(p.waiting for p in one._processes.values()))
    assert max(waited) <= 10
    work, overlaps = one.finish()
    assert sum(len(part["id"]) for part in work) == 100
    assert sum(len(part["row"]) for part in overlaps) == 0
