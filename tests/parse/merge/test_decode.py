"""Decoding: every event in its frame, in its order, at its time, and every loss counted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pandas as pd
import pytest
from build import SECOND, Stored, batch, decode, mark
from decoded import decode_recordings
from frames import kv_frame
from hypothesis import given, settings
from hypothesis import strategies as st

from profilemate import schema
from profilemate.parse.recording.contract import Marker, SourceInfo, SourceKind
from profilemate.parse.trace.trace import FRAME_NAMES, KV_COLUMNS, Trace, columns_of
from profilemate.schema import KINDS, KV_OPS, Event, Value


def source(name: str, start: int | None, window: tuple[int, int] | None = None) -> SourceInfo:
    return SourceInfo(Path(name), SourceKind.TORCH, 0, start_unix_ns=start, window=window)


def ids(*numbers: int, **values: Value) -> Event:
    return Event("kv.alloc", {"ids": numbers, **values})


def assert_same(a: Trace, b: Trace) -> None:
    pd.testing.assert_frame_equal(kv_frame(a), kv_frame(b))
    for name in FRAME_NAMES:
        pd.testing.assert_frame_equal(a.frames[name], b.frames[name])
    for field in ("window", "counts", "unknown", "broken", "lost_batches", "unfinished"):
        assert getattr(a, field) == getattr(b, field)
    assert (a.start_unix_ns, a.clock_error_ns) == (b.start_unix_ns, b.clock_error_ns)


# ---------------------------------------------------------------------- frames


def test_every_frame_has_its_columns_when_empty_and_when_not() -> None:
    sample: dict[str, Value] = {"int": 7, "bool": True, "str": "a b", "ids": (1, 2)}
    events = [
        Event(kind.name, {f.name: sample[f.type] for f in kind.fields}) for kind in KINDS.values()
    ]
    for trace in (decode(), decode(mark(5, batch(1, 0, *events)))):
        assert list(trace.frames) == list(FRAME_NAMES)
        every = [(columns_of(name), frame) for name, frame in trace.frames.items()]
        for columns, frame in (*every, (KV_COLUMNS, kv_frame(trace))):
            assert {c: str(t) for c, t in frame.dtypes.items()} == dict(columns)
            assert isinstance(frame.index, pd.RangeIndex)
    assert trace.counts == dict.fromkeys(KINDS, 1)
    assert list(kv_frame(trace)["op"]) == [name.removeprefix("kv.") for name in KV_OPS]
    for name, frame in trace.frames.items():
        values = frame.iloc[0].to_dict()
        for field in KINDS[name].fields:
            if field.name not in ("pid",):
                assert values[field.name] == sample[field.type], (name, field.name)


def test_a_field_that_is_not_said_is_na() -> None:
    trace = decode(*(mark(i, schema.encode(Event(kind))) for i, kind in enumerate(KINDS)))
    assert sum(trace.counts.values()) == len(KINDS)
    kv = kv_frame(trace)
    assert kv[["pool", "used", "req", "cause", "dur", "group"]].isna().all(axis=None)
    assert list(kv["ids"]) == list(kv["subset"]) == list(kv["dst"]) == [None] * len(kv)
    assert trace.frames["step"][["step", "mode", "uniform", "dummy"]].isna().all(axis=None)


def test_names_of_the_kv_frame() -> None:
    events = [
        Event("kv.touch", {"ids": (1, 2), "revived": (2,), "hit": True, "req": "r%/ö"}),
        Event("kv.free", {"ids": (5, 4), "freed": ()}),
        Event("kv.move", {"src": (7,), "dst": (8,)}),
        Event("kv.evict", {"ids": (9,), "cause": "connector"}),
        Event("kv.cache", {"ids": (3,), "group": 1, "partial": False}),
        Event("kv.reset", {"ok": False}),
    ]
    kv = kv_frame(decode(mark(5, batch(1, 0, *events))))
    assert list(kv["op"]) == ["touch", "free", "move", "evict", "cache", "reset"]
    assert list(kv["ids"]) == [(1, 2), (5, 4), (7,), (9,), (3,), None]
    assert list(kv["subset"]) == [(2,), (), None, None, None, None]
    assert list(kv["dst"]) == [None, None, (8,), None, None, None]
    assert kv["req"][0] == "r%/ö"
    assert (kv["hit"][0], kv["cause"][3], kv["group"][4]) == (True, "connector", 1)
    assert (kv["partial"][4], kv["ok"][5]) == (False, False)


def test_the_pid_of_a_session_is_the_one_of_its_messages() -> None:
    session = decode(mark(5, "pm1.session pid=7 host=h", pid=100)).frames["session"]
    assert list(session.columns).count("pid") == 1
    assert list(session["pid"]) == [100]


# ---------------------------------------------------------------------- order


def test_kv_operations_are_in_their_true_order() -> None:
    # The second batch has the earlier time stamp, and events that began before the first's.
    markers = [
        mark(50, batch(2, 1000, ids(3, ago=900), ids(4, ago=950))),
        mark(60, batch(1, 990, ids(1, ago=10), ids(2, ago=5))),
        mark(60, batch(1, 990, ids(9)), pid=99),
    ]
    kv = kv_frame(decode(*markers))
    assert list(kv["ids"]) == [(9,), (1,), (2,), (3,), (4,)]
    assert list(kv["pid"]) == [99, 100, 100, 100, 100]
    assert list(kv["seq"]) == [0, 0, 1, 2, 3]


def test_an_operation_outside_a_batch_is_placed_by_its_time() -> None:
    markers = [
        mark(130, batch(2, 1030, ids(3))),
        mark(120, schema.encode(ids(2), t=1020)),
        mark(110, batch(1, 1010, ids(1))),
        mark(140, "pm1.kv.alloc ids=4"),
    ]
    assert list(kv_frame(decode(*markers))["ids"]) == [(1,), (2,), (3,), (4,)]


def test_other_frames_are_ordered_by_time_and_process() -> None:
    markers = [
        mark(9, "pm1.preempt req=d"),
        mark(7, "pm1.preempt req=c", pid=2),
        mark(7, "pm1.preempt req=b", pid=1),
        mark(3, "pm1.preempt req=a", pid=3),
    ]
    assert list(decode(*markers).frames["preempt"]["req"]) == ["a", "b", "c", "d"]


# ---------------------------------------------------------------------- losses


def test_what_cannot_be_read_is_counted_and_nothing_of_it_kept() -> None:
    huge = 1 << 64
    trace = decode(
        mark(1, "pm1.kv.alloc pool=x"),
        mark(2, "pm1.step step"),
        mark(3, "pm1.part what?"),
        mark(4, batch(1, 5, ids(1), Event("step", {"step": 1}), Event("preempt", {"dur": huge}))),
        mark(5, f"pm1.step step={huge}"),
        mark(6, f"pm1.preempt t={huge}"),
        mark(7, f"pm1.batch t=1 seq={huge} | preempt | kv.free ids=3"),
        mark(8, "pm1.part number=1 part=1/2 :x:"),
        mark(9, "pm1.part number=x part=1/2 :x:"),
        mark(10, "pm1.step t=4 step=77 mode=FULL"),
        mark(11, "pm1.preempt req=last"),
    )
    assert trace.broken == 8
    assert trace.unfinished == 1
    assert trace.counts == {"step": 1, "preempt": 1}
    assert trace.frames["step"].iloc[0][["ts", "step", "mode"]].tolist() == [10, 77, "FULL"]
    assert trace.frames["preempt"]["req"][0] == "last"


def test_unknown_kinds_are_counted_by_name() -> None:
    text = batch(1, 5, Event("new.kind", {}, {"a": "1"}), ids(1), Event("new.kind"), Event("else"))
    trace = decode(mark(5, text))
    assert trace.unknown == {"else": 1, "new.kind": 2}
    assert trace.counts == {"kv.alloc": 1}


def test_lost_batches_by_process() -> None:
    markers = [mark(i, batch(i, i), pid=1) for i in (3, 9, 5, 3)]
    markers += [mark(i, batch(i, i), pid=2) for i in (1, 2, 3)]
    markers += [mark(i, batch(i, i), pid=3) for i in (0, 2)]
    assert decode(*markers).lost_batches == {1: 4, 3: 1}


def test_parts_of_long_messages_in_any_order() -> None:
    long = Event("kv.free", {"ids": tuple(range(0, 60_000, 2))})
    first = schema.split(batch(1, 100, long), number=1)
    second = schema.split(batch(2, 200, long, ids(7)), number=2)
    assert len(first) > 3
    markers = [mark(110 + i, part) for i, part in enumerate(first)]
    markers += [mark(210 + i, part) for i, part in enumerate(second)]
    # Another process uses the same number, and one part of it is missing.
    markers += [mark(110 + i, part, pid=7) for i, part in enumerate(first[:-1])]
    random.Random(1).shuffle(markers)
    trace = decode(*markers)
    assert (trace.unfinished, trace.broken) == (1, 0)
    assert trace.counts == {"kv.free": 2, "kv.alloc": 1}
    kv = kv_frame(trace)
    assert list(map(len, kv["ids"])) == [30_000, 30_000, 1]
    assert list(kv["ts"]) == [110 + len(first) - 1, 210 + len(first) - 1, 210 + len(first) - 1]


# ---------------------------------------------------------------------- several recordings


def test_several_recordings_share_the_earliest_zero() -> None:
    start = 1_795_507_742_546_650_858
    trace = decode_recordings(
        [
            Stored([mark(50, "pm1.preempt req=b")], source("b", start + 1000, (10, 60))),
            Stored([mark(70, "pm1.preempt req=a")], source("a", start, (-5, 80))),
        ]
    )
    assert trace.start_unix_ns == start
    assert list(trace.frames["preempt"]["ts"]) == [70, 1050]
    assert list(trace.frames["preempt"]["req"]) == ["a", "b"]
    assert trace.window == (-5, 1060)
    assert trace.sources[0].notes == [
        "2 recordings were put on one time line by the wall clocks of their hosts."
    ]


def test_a_recording_that_does_not_say_when_it_began() -> None:
    trace = decode_recordings(
        [
            Stored([mark(50, "pm1.preempt req=b")], source("b", None)),
            Stored([mark(70, "pm1.preempt req=a")], source("a", 10**18)),
        ]
    )
    assert list(trace.frames["preempt"]["ts"]) == [50, 70]
    assert trace.start_unix_ns == 10**18
    assert trace.sources[0].notes[0].startswith("It does not say when it began")
    assert trace.sources[1].notes == []
    alone = decode(mark(5, "pm1.preempt"))
    assert alone.start_unix_ns is None
    assert alone.sources[0].notes[0].startswith("It does not say when it began")


def test_one_process_in_two_recordings_goes_on_counting() -> None:
    trace = decode_recordings(
        [
            Stored(
                [mark(5, batch(1, 1005, ids(1))), mark(9, batch(3, 1009, ids(3)))], source("a", 0)
            ),
            Stored(
                [mark(5, batch(7, 2005, ids(7))), mark(9, batch(8, 2009, ids(8)))],
                source("b", 1000),
            ),
        ]
    )
    assert list(kv_frame(trace)["ids"]) == [(1,), (3,), (7,), (8,)]
    assert list(kv_frame(trace)["ts"]) == [5, 9, 1005, 1009]
    assert list(kv_frame(trace)["seq"]) == [0, 1, 2, 3]
    # What was not recorded between the two is not lost.
    assert trace.lost_batches == {100: 1}
    assert trace.clock_error_ns == 0


def test_one_number_for_processes_of_two_hosts() -> None:
    trace = decode_recordings(
        [
            Stored([mark(5, "pm1.session host=box1 role=engine")], source("a", 0)),
            Stored([mark(5, "pm1.session host=box2 role=engine")], source("b", 0)),
        ]
    )
    first, second = trace.frames["session"]["pid"]
    assert (first, trace.aliases) == (100, {second: 100})
    assert list(trace.frames["session"]["host"]) == ["box1", "box2"]


def test_two_hosts_for_one_number_in_one_recording_are_said() -> None:
    trace = decode(mark(5, "pm1.session host=box1"), mark(6, "pm1.session host=box2"))
    assert "Number 100 is a process on each of box1, box2" in trace.sources[0].notes[-1]


def test_no_recordings_and_no_messages() -> None:
    for trace in (decode_recordings([]), decode()):
        assert (trace.counts, trace.window, trace.clock_error_ns) == ({}, (0, 0), 0)
        assert all(frame.empty for frame in trace.frames.values())


def test_progress_is_told() -> None:
    seen: list[int] = []
    markers = [mark(i, "pm1.preempt") for i in range(20_000)]
    decode_recordings([Stored(markers)], progress=lambda what, done, total: seen.append(done))
    assert seen == [0, 8192, 16384]


# ---------------------------------------------------------------------- any order, any content

EVENTS = st.one_of(
    st.builds(
        lambda ago, numbers: Event("kv.alloc", {"ago": ago, "ids": tuple(numbers)}),
        st.integers(0, 5000),
        st.lists(st.integers(0, 9), max_size=3),
    ),
    st.builds(lambda dur: Event("preempt", {"dur": dur, "req": "r"}), st.integers(0, 9)),
    st.builds(lambda step: Event("step", {"step": step, "uniform": step > 2}), st.integers(0, 5)),
    st.just(Event("of.the.future", {}, {"a": "b"})),
)


@st.composite
def messages(draw: st.DrawFn) -> list[Marker]:
    """Markers as a recorder might have them, with ties in everything."""
    markers: list[Marker] = []
    numbers = count(1)
    for seq in range(draw(st.integers(0, 8))):
        t = draw(st.integers(0, 4)) * SECOND // 2 + seq
        ts, pid = t + draw(st.integers(0, 300)), draw(st.sampled_from([1, 2]))
        events: list[Event] = draw(st.lists(EVENTS, min_size=1, max_size=4))
        alone: int | None = draw(st.integers(0, 3))
        text = batch(seq, t, *events)
        if alone:
            text = schema.encode(events[0], t=None if alone == 1 else t)
        number = next(numbers)
        limit = draw(st.sampled_from([schema.MAX_MESSAGE, 90]))
        for i, part in enumerate(schema.split(text, number=number, limit=limit)):
            dur = draw(st.sampled_from([None, 5]))
            markers.append(Marker(ts + i, dur, pid, draw(st.sampled_from([1, 2])), part))
    return markers


@settings(deadline=None)
@given(messages(), st.randoms(use_true_random=False))
def test_the_order_of_markers_makes_no_difference(markers: list[Marker], rng: object) -> None:
    shuffled = list(markers)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert_same(decode(*markers), decode(*shuffled))


@settings(deadline=None)
@given(st.lists(st.lists(EVENTS, min_size=1, max_size=5), max_size=6))
def test_what_goes_in_comes_out(batches: list[list[Event]]) -> None:
    t0, offset = 10**15, -(10**14)
    markers = [mark(t0 + offset + i, batch(i, t0 + i, *b)) for i, b in enumerate(batches)]
    trace = decode(*markers)
    assert kv_rows(trace) == [
        (t0 + offset + i - int(str(e.values["ago"])), "alloc", e.values["ids"])
        for i, events in enumerate(batches)
        for e in events
        if e.kind == "kv.alloc"
    ]
    assert sorted(trace.frames["step"]["step"]) == sorted(
        int(str(e.values["step"])) for b in batches for e in b if e.kind == "step"
    )
    assert sum(trace.counts.values()) + sum(trace.unknown.values()) == sum(map(len, batches))


def kv_rows(trace: Trace) -> Sequence[tuple[object, ...]]:
    kv = kv_frame(trace)
    return list(zip(kv["ts"], kv["op"], kv["ids"], strict=True))


def test_strings_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    with pd.option_context("mode.string_storage", "python"):
        trace = decode(mark(5, "pm1.preempt req=a"), mark(6, "pm1.preempt"))
    req = trace.frames["preempt"]["req"]
    assert str(req.dtype) == "string"
    assert (req[0], req[1]) == ("a", pd.NA) or pd.isna(req[1])
