"""GPU records folded in the order of a file, against sets of nanoseconds."""

from __future__ import annotations

import pickle
import tempfile
import tracemalloc
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profilemate.parse.columns.budget import Budget
from profilemate.parse.columns.spool import Blocks
from profilemate.parse.gpu import fold_any_order
from profilemate.parse.gpu.fold_any_order import NAMES, AnyOrder
from profilemate.parse.gpu.interval_unions import fold_work
from profilemate.parse.recording.activity import KERNEL

TEXTS = ["gemm", "norm", "", "attention"]


class Record(NamedTuple):
    start: int
    end: int
    device: int
    stream: int
    correlation: int
    graph: int
    node: int
    kind: int
    name: int


assert Record._fields == NAMES

RECORDS = st.builds(
    lambda start, dur, *rest: Record(start, start + dur, *rest),
    st.integers(0, 60),
    st.integers(0, 12),
    st.sampled_from([0, 0, 0, 1]),
    st.integers(0, 1),
    st.integers(0, 4),
    st.integers(0, 1),
    st.integers(0, 2),
    st.sampled_from([0, 0, 0, 1, 3]),
    st.integers(0, 3),
)


@pytest.fixture(autouse=True)
def _limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "_as_shipped" in request.fixturenames:
        return
    monkeypatch.setattr(fold_any_order, "_TOGETHER", 5)
    monkeypatch.setattr(fold_any_order, "_AT_ONCE", 3)


@pytest.fixture
def _as_shipped() -> None:
    """The limits of any use, which nobody else wants here."""


def folded(records: Sequence[Record], batch: int, split: int) -> AnyOrder:
    """Fold records in batches, and in two parts of which the second numbers names backwards."""
    first, second = AnyOrder(), AnyOrder()
    _give(first, records[:split], batch)
    turned = [r._replace(name=len(TEXTS) - 1 - r.name) for r in records[split:]]
    _give(second, turned, batch)
    first.merge(pickle.loads(pickle.dumps(second)), np.arange(len(TEXTS))[::-1])
    return first


def _give(part: AnyOrder, records: Sequence[Record], batch: int) -> None:
    for at in range(0, len(records), batch):
        some = records[at : at + batch]
        if len(some) == 1:
            part.add(*some[0])
        else:
            part.extend(np.array(some, dtype=np.int64).T)


def busy(records: Sequence[Record]) -> int:
    return len({t for r in records for t in range(r.start, r.end)})


def mixed(records: Sequence[Record]) -> int:
    """What `mix_by_group` says of a call's kernels, by its definition."""
    kernels = sorted((r.node, r.start, r.name) for r in records if r.kind == KERNEL)
    total, power = 0, 1
    for _, _, name in kernels:
        power = power * 0x9E3779B97F4A7C15 % (1 << 64)
        total += power * int.from_bytes(blake2b(TEXTS[name].encode(), digest_size=8).digest())
    return total % (1 << 64)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(RECORDS, min_size=1, max_size=30),
    st.sampled_from([2, 3, 40]),
    st.sampled_from([0, 1 << 24]),
    st.data(),
)
def test_equal_to_sets_of_nanoseconds(
    records: list[Record], batch: int, in_memory: int, data: Any
) -> None:
    if data.draw(st.booleans()):  # nearly always it is like this
        records.sort()
    split = data.draw(st.integers(0, len(records)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_any_order, "IN_MEMORY", in_memory)
        work = folded(records, batch, split)
        assert len(work) == len(records)
        found, overlaps = work.finish(TEXTS)
        again = [Record(*r) for b in work.records() for r in zip(*b.values(), strict=True)]
    assert again == records
    rows = len(found["start"])
    _check_rows(records, found)
    # Any grouping of calls, with the exact union.
    group = {c: data.draw(st.integers(-1, 2)) for c in range(5)}
    of = np.array([group[c] for c in found["correlation"].tolist()], dtype=np.int64)
    result = fold_work(of, 3, {**found, "id": np.arange(rows)}, overlaps)
    for number in range(3):
        mine = [r for r in records if group[r.correlation] == number]
        assert result.count[number] == len(mine)
        assert result.busy[number] == busy(mine)
        assert result.first[number] == min((r.start for r in mine), default=0)
        assert result.last[number] == max((r.end for r in mine), default=0)
    # And the union of each device, of which a call may have several.
    total = np.zeros(2, dtype=np.int64)
    np.add.at(total, found["device"], found["busy"])
    for device in (0, 1):
        over = np.flatnonzero(overlaps["device"] == device)
        more = {t for i in over for t in range(int(overlaps["start"][i]), int(overlaps["end"][i]))}
        assert total[device] + len(more) == busy([r for r in records if r.device == device])


def _check_rows(records: Sequence[Record], found: dict[str, Any]) -> None:
    named = [c for c in found["correlation"].tolist() if c]
    assert sorted(named) == sorted({r.correlation for r in records if r.correlation})
    for at, correlation in enumerate(found["correlation"].tolist()):
        if not correlation:
            continue
        mine = [r for r in records if r.correlation == correlation]
        kernels = [r for r in mine if r.kind == KERNEL]
        of_graph = [r for r in mine if r.node or r.graph]
        both = [r for r in kernels if r in of_graph]
        opens = min(mine, key=lambda r: r.start)
        expected = {
            "start": min(r.start for r in mine),
            "end": max(r.end for r in mine),
            "device": opens.device,
            "stream": opens.stream,
            "records": len(mine),
            "kernels": len(kernels),
            "kernel_ns": sum(r.end - r.start for r in kernels),
            "graph": max(r.graph for r in mine),
            "graph_records": len(of_graph),
            "graph_kernels": len(both),
            "graph_kernel_ns": sum(r.end - r.start for r in both),
            "whole": sum(r.kind == 3 for r in mine),
            "sequence": mixed(mine),
        }
        assert {name: int(found[name][at]) for name in expected} == expected


def test_calls_apart_need_no_record_again() -> None:
    records = [Record(10 * i, 10 * i + 8, 0, 7, i // 3 + 1, 0, i % 3, 0, i % 4) for i in range(30)]
    work = folded(records, 40, 30)
    _, overlaps = work.finish(TEXTS)
    assert not len(overlaps["start"])


def test_blocks_go_to_a_file_and_come_back() -> None:
    items = [bytes(40) * n for n in (1, 2, 0, 5, 1)]
    one = Blocks(Budget(held=100))
    for item in items:
        one.add(item)
    assert one.in_file
    assert [one[n] for n in range(len(one))] == items
    other: Blocks = pickle.loads(pickle.dumps(one))
    assert [other[n] for n in range(len(other))] == items


def test_without_room_for_a_file_all_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    one = Blocks(Budget(held=10))
    for number in range(5):
        one.add(bytes([number]) * 9)
    assert [one[n] for n in range(5)] == [bytes([n]) * 9 for n in range(5)]


@pytest.mark.usefixtures("_as_shipped")
def test_memory_does_not_grow_with_the_records() -> None:
    def taken(millions: int) -> int:
        """Bytes at the most, for so many million records of a thousand launches each."""
        rng = np.random.default_rng(1)
        work = AnyOrder()
        tracemalloc.start()
        for at in range(0, millions << 20, 1 << 14):
            number = np.arange(at, at + (1 << 14))
            start = 2000 * number + rng.integers(0, 900, len(number))
            rows = dict.fromkeys(NAMES, np.zeros(len(number), dtype=np.int64))
            rows |= {"start": start, "end": start + rng.integers(1, 900, len(number))}
            rows |= {"correlation": 1 + number // 1000, "node": number % 1000, "name": number % 8}
            work.extend(np.array([rows[name] for name in NAMES]))
        found, overlaps = work.finish(TEXTS * 2)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(found["start"]) == -(-(millions << 20) // 1000)
        assert not len(overlaps["start"])
        return peak

    assert taken(4) < taken(2) + (4 << 20)
