"""Attribution against loops over sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matching import matched

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.columns.intervals import inside, range_ends
from profilemate.parse.gpu.interval_unions import fold
from profilemate.parse.recording.activity import (
    GPU_COLUMNS,
    KERNEL,
    LAUNCH_COLUMNS,
    START_COLUMNS,
    is_graph_launch,
)

Interval = tuple[int, int, int]
INTERVALS = st.lists(
    st.tuples(st.integers(-1, 3), st.integers(0, 40), st.integers(0, 12)), max_size=20
)


def column(rows: Sequence[tuple[int, ...]], place: int) -> Ints:
    return np.array([row[place] for row in rows], dtype=np.int64)


@given(INTERVALS)
def test_fold(rows: list[Interval]) -> None:
    start = column(rows, 1)
    end: Ints = start + column(rows, 2)
    found = fold(column(rows, 0), 4, start, end)
    for group in range(4):
        mine = [(s, s + d) for g, s, d in rows if g == group]
        covered = {t for s, e in mine for t in range(s, e)}
        assert found.count[group] == len(mine)
        assert found.busy[group] == len(covered)
        if mine:
            assert found.first[group] == min(s for s, _ in mine)
            assert found.last[group] == max(e for _, e in mine)


@st.composite
def nested(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Ranges of two lanes as push and pop make them: inside or outside each other."""
    found: list[tuple[int, int, int]] = []
    for lane in (0, 1):
        opened: list[int] = []
        for now, push in enumerate(draw(st.lists(st.booleans(), max_size=14))):
            at = now // draw(st.integers(1, 2))
            if push:
                opened.append(at)
            elif opened:
                found.append((lane, opened.pop(), max(at, 0)))
    return [(lane, begin, end) for lane, begin, end in found if begin <= end]


@given(
    nested(), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 16)), max_size=12), st.randoms()
)
def test_inside_finds_the_innermost_range(
    ranges: list[tuple[int, int, int]], points: list[tuple[int, int]], rng: object
) -> None:
    # Ranges that cross are none that a thread can have.
    for a in ranges:
        for b in ranges:
            if a[0] == b[0] and a[1] < b[1] < a[2] < b[2]:
                return
    rng.shuffle(ranges)  # type: ignore[attr-defined]
    found = inside(
        column(ranges, 0),
        column(ranges, 1),
        column(ranges, 2),
        column(points, 0),
        column(points, 1),
    )
    for (lane, at), row in zip(points, found.tolist(), strict=True):
        around = [r for r in ranges if r[0] == lane and r[1] <= at <= r[2]]
        if not around:
            assert row == -1
            continue
        assert ranges[row] in around
        latest = max(r[1] for r in around)
        if sum(r[1] == at for r in around) <= 1 and all(r[2] != at for r in around):
            assert ranges[row][1] == latest
            assert ranges[row][2] == min(r[2] for r in around if r[1] == latest)


def test_a_range_without_an_end_goes_on_until_the_next_one_of_its_thread() -> None:
    # The second lane's ranges are no end to the first lane's.
    ranges = [(0, 0, -1), (0, 100, 10), (0, 200, -1), (1, 50, 5), (1, 60, 5)]
    lane, begin, dur = (column(ranges, place) for place in range(3))
    points = [0, 55, 99, 100, 105, 110, 111, 150, 199, 200, 10**9]
    end = range_ends(lane, begin, dur)
    where = np.array(points, dtype=np.int64)
    found = inside(lane, begin, end, np.zeros(len(points), dtype=np.int64), where)
    assert found.tolist() == [0, 0, 0, 1, 1, 1, -1, -1, -1, 2, 2]


def columns(names: object, rows: list[dict[str, int]]) -> dict[str, Ints]:
    return {
        name: np.array([row.get(name, 0) for row in rows], dtype=np.int64)
        for name in (*names, "recording")  # type: ignore[misc]
    }


IDS = st.fixed_dictionaries(
    {
        "recording": st.integers(0, 1),
        "pid": st.integers(7, 8),
        "correlation": st.integers(0, 5),
    }
)


@given(st.lists(IDS, max_size=8), st.lists(st.tuples(IDS, st.integers(0, 3)), max_size=16))
def test_records_go_by_recording_process_and_correlation(
    launched: list[dict[str, int]], ran: list[tuple[dict[str, int], int]]
) -> None:
    once = {tuple(sorted(launch.items())): launch for launch in launched}
    launches = [
        {**launch, "ts": 10 * i, "dur": 2, "tid": 1} for i, launch in enumerate(once.values())
    ]
    gpu = [
        # GPU work that lies where another launch is on the host: times must not matter.
        {**ids, "start": 10 * (i % 7), "end": 10 * (i % 7) + 5, "kind": kind, "name": i % 3}
        for i, (ids, kind) in enumerate(ran)
    ]
    found = matched(
        columns(LAUNCH_COLUMNS, launches),
        columns(START_COLUMNS, []),
        columns(GPU_COLUMNS, gpu),
        ["a", "b", "c"],
    )
    frame, records = found.launches, found.gpu
    for number, launch in enumerate(launches):
        mine = [
            i
            for i, record in enumerate(gpu)
            if launch["correlation"] != 0
            and all(launch[n] == record[n] for n in ("recording", "pid", "correlation"))
        ]
        assert np.flatnonzero(records["launch"] == number).tolist() == mine
        row = frame.iloc[number]
        assert row["records"] == len(mine)
        assert row["kernels"] == sum(gpu[i]["kind"] == KERNEL for i in mine)
        assert row["kernel_ns"] == 5 * row["kernels"]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=8))
def test_graphs_are_equal_when_their_kernels_are(sequences: list[list[int]]) -> None:
    launches = [{"ts": 10 * i, "dur": 2, "correlation": i + 1} for i in range(len(sequences))]
    gpu = [
        {"start": 100 + place, "end": 101 + place, "correlation": i + 1, "name": name}
        for i, names in enumerate(sequences)
        for place, name in enumerate(names)
    ]
    gpu.reverse()  # the order in the file means nothing
    found = matched(
        columns(LAUNCH_COLUMNS, launches),
        columns(START_COLUMNS, []),
        columns(GPU_COLUMNS, gpu),
        ["a", "b", "c", "d"],
    )
    frame = found.launches
    graph = frame["graph"].tolist()
    for i, left in enumerate(sequences):
        for j, right in enumerate(sequences):
            assert (graph[i] == graph[j]) == (left == right)


@pytest.mark.parametrize(
    ("name", "launches"),
    [
        ("cudaGraphLaunch", True),
        ("cudaGraphLaunch_v10000", True),
        ("cudaGraphLaunch_ptsz_v10000", True),
        ("cuGraphLaunch", True),
        ("cuGraphLaunch_ptsz", True),
        ("hipGraphLaunch", True),
        ("cudaGraphInstantiate_v12000", False),
        ("cudaLaunchKernel", False),
        ("xcudaGraphLaunch", False),
        ("cudaGraphLaunchX", False),
    ],
)
def test_names_of_graph_launches(name: str, launches: bool) -> None:
    assert is_graph_launch(name) == launches
