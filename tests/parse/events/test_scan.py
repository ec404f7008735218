"""Messages read in columns equal those that `schema.decode` reads one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profilemate import schema
from profilemate.errors import SchemaError
from profilemate.parse.columns.arrays import NONE
from profilemate.parse.columns.pandas import IdsArray
from profilemate.parse.events.chunk_scan import scan
from profilemate.schema import COMMON, KINDS

Row = tuple[str, dict[str, Any]]


def rows(texts: Sequence[str]) -> dict[tuple[int, int], Row]:
    """Every event that `scan` read, by its message and place."""
    found = scan(texts)
    result: dict[tuple[int, int], Row] = {}
    for kind, events in found.events.items():
        types = KINDS[kind].types
        for i in range(len(events.message)):
            said = {}
            for name, column in events.columns.items():
                value = column[i]
                if types[name] == "int":
                    value = None if value == NONE else int(value)
                elif types[name] == "bool":
                    value = None if value == -1 else bool(value)
                if value is not None:
                    said[name] = value
            message = int(found.read[events.message[i]])
            result[message, int(events.place[i])] = kind, said
    return result


def check(texts: Sequence[str]) -> int:
    """Compare with `schema.decode`; the number of messages that were read in columns."""
    found = scan(texts)
    got = rows(texts)
    times = dict(zip(found.read.tolist(), zip(found.t, found.seq, strict=True), strict=True))
    for i in found.read.tolist():
        message = schema.decode(texts[i])
        assert message is not None
        stamps = tuple(NONE if v is None else v for v in (message.t, message.seq))
        assert times[i] == stamps, texts[i]
        for place, event in enumerate(message.events):
            assert got.pop((i, place)) == (event.kind, event.values), texts[i]
    assert got == {}
    return len(found.read)


def test_a_usual_batch_is_read_whole() -> None:
    texts = [
        "pm1.batch t=1000 seq=1 | kv.alloc ago=5 dur=2 pool=0 used=12 ids=5-7,12 req=cmpl-1"
        " | kv.free pool=0 used=9 ids=9-7 freed= req=a%20b | kv.reset pool=0 used=0 ok=True",
        "pm1.step ago=12 step=7 mode=FULL num_tokens=8 uniform=False",
        "pm1.batch t=2000 seq=2 | kv.alloc_failed req=x free=3",
    ]
    assert check(texts) == len(texts)
    assert rows(texts)[0, 0] == (
        "kv.alloc",
        {"ago": 5, "dur": 2, "pool": 0, "used": 12, "ids": (5, 6, 7, 12), "req": "cmpl-1"},
    )
    assert rows(texts)[0, 1][1]["ids"] == (9, 8, 7)
    assert rows(texts)[0, 1][1]["freed"] == ()
    assert rows(texts)[0, 1][1]["req"] == "a b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pm1.",
        "pm1.batch",
        "pm1.batch t=1 seq=2",
        "pm1.batch t=1 seq=2 | ",
        "pm1.batch t=1 seq=2 |",
        "pm1.batch t=1 seq=2 | | kv.reset",
        "pm1.batch t=1 seq=2 |  kv.reset",
        "pm1.batch t=1 seq=2 | batch t=3",
        "pm1.batch t=1 seq=2 | kv.reset t=4",
        "pm1.kv.reset t=4 ok=True",
        "pm1.batch t=1 t=2 seq=2 | kv.reset",
        "pm1.batch t=x seq=2 | kv.reset",
        "pm1.batch t=1 seq=2 | kv.reset pool=1 pool=2",
        "pm1.batch t=1 seq=2 | kv.reset pool",
        "pm1.batch t=1 seq=2 | kv.reset pool=",
        "pm1.batch t=1 seq=2 | kv.reset pool=None ok=None",
        "pm1.batch t=1 seq=2 | kv.reset ok=true",
        "pm1.batch t=1 seq=2 | kv.reset ok=TrueTrue",
        "pm1.batch t=1 seq=2 | kv.reset pool=99999999999999999999",
        "pm1.batch t=1 seq=2 | kv.reset pool=999999999999999999 used=-999999999999999999",
        "pm1.batch t=1 seq=2 | kv.reset pool=-5 used=--5",
        "pm1.batch t=1 seq=2 | kv.reset pool=+5",
        "pm1.batch t=1 seq=2 | kv.reset pool=1_0",
        "pm1.batch t=1 seq=2 | kv.reset pool=\u0661",
        "pm1.batch t=1 seq=2 | kv.reset =5",
        "pm1.batch t=1 seq=2 | kv.reset pool=1=2",
        "pm1.batch t=1 seq=2 | kv.free ids=5-",
        "pm1.batch t=1 seq=2 | kv.free ids=-5",
        "pm1.batch t=1 seq=2 | kv.free ids=5--7",
        "pm1.batch t=1 seq=2 | kv.free ids=5-7-9",
        "pm1.batch t=1 seq=2 | kv.free ids=5,,7",
        "pm1.batch t=1 seq=2 | kv.free ids=,",
        "pm1.batch t=1 seq=2 | kv.free ids=None",
        "pm1.batch t=1 seq=2 | kv.free ids=0-99999999",
        "pm1.batch t=1 seq=2 | kv.free ids= req=",
        "pm1.batch t=1 seq=2 | kv.free req=None",
        "pm1.batch t=1 seq=2 | kv.free req=%4Eone",
        "pm1.batch t=1 seq=2 | kv.new_in_future pool=1",
        "pm1.batch t=1 seq=2 | kv.free pool=1 new_key=2",
        "pm1.batch t=1 seq=2 | a_kind_with_a_name_of_more_than_sixteen_letters pool=1",
        "pm1.batch t=1 seq=2 | kv.free a_key_with_a_name_of_more_than_sixteen_letters=1",
        "pm1.batch t=1 seq=2 | kv.free\nids=1",
        "pm1.batch t=1 seq=2 | kv.free ids=1\0",
        "pm2.batch t=1 seq=2 | kv.free ids=1",
        "xpm1.batch t=1 seq=2 | kv.free ids=1",
        "pm1.batch t=1 seq=2 | kv.free ids=1 ",
        " pm1.batch t=1 seq=2 | kv.free ids=1",
        "|",
        "pm1.| kv.free",
    ],
)
def test_what_looks_odd_is_never_read_in_another_way(text: str) -> None:
    usual = "pm1.batch t=1 seq=1 | kv.free pool=0 used=1 ids=3"
    for texts in ([text], [usual, text, usual], [text, usual, text]):
        found = scan(texts).read.tolist()
        for i in found:
            try:
                assert schema.decode(texts[i]) is not None
            except SchemaError:
                pytest.fail(f"schema.decode refuses {texts[i]!r}")
        check(texts)
        assert {i for i, t in enumerate(texts) if t == usual} <= set(found)


VALUES = {
    "int": st.integers(-(10**12), 10**18 - 1),
    "bool": st.booleans(),
    "str": st.text(max_size=8) | st.just("None") | st.just("chatcmpl-0123456789abcdef"),
    "ids": st.lists(st.integers(0, 40) | st.integers(0, 1 << 40), max_size=9).map(tuple),
}


@st.composite
def events(draw: st.DrawFn) -> str:
    kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    values = [draw(st.none() | VALUES[f.type]) for f in (*COMMON, *kind.fields)]
    return kind.encode(*values)


MESSAGES = st.lists(
    st.builds(
        lambda texts, t, seq: schema.encode_batch(texts, t=t, seq=seq),
        st.lists(events(), min_size=1, max_size=5),
        st.integers(0, 1 << 52),
        st.integers(0, 1 << 30),
    )
    | events().map(lambda text: schema.PREFIX + text),
    max_size=8,
)


@settings(max_examples=50)
@given(MESSAGES)
def test_all_that_we_write_is_read_in_columns(texts: list[str]) -> None:
    assert check(texts) == len(texts)


@settings(max_examples=80)
@given(MESSAGES, st.data())
def test_mangled_messages_are_read_right_or_not_at_all(
    texts: list[str], data: st.DataObject
) -> None:
    mangled = []
    for text in texts:
        at = data.draw(st.integers(0, len(text)))
        other = data.draw(
            st.sampled_from(["", " ", "|", "=", "-", ",", "9", "T", " | ", "%", "\n"])
        )
        mangled.append(text[:at] + other + text[at + data.draw(st.integers(0, 2)) :])
    for i in scan(mangled).read.tolist():
        schema.decode(mangled[i])  # does not raise
    check(mangled)


# ------------------------------------------------------------------ the column of ids

SOME: list[tuple[int, ...] | None] = [(1, 2), None, (), (7,), (3, 3)]


def test_a_column_of_ids_is_a_column_of_tuples() -> None:
    series = pd.Series(SOME, dtype="ids")
    assert series.tolist() == SOME
    assert series.isna().tolist() == [False, True, False, False, False]
    assert series[series.notna()].tolist() == [(1, 2), (), (7,), (3, 3)]
    assert series.iloc[-1] == (3, 3)
    assert series.iloc[[3, 0]].tolist() == [(7,), (1, 2)]
    assert pd.concat([series, series[:1]]).tolist() == [*SOME, (1, 2)]
    assert series.to_numpy(dtype=object).tolist() == SOME
    assert series.reindex([0, 9]).tolist() == [(1, 2), None]
    assert series.copy().equals(series)
    assert repr(series)


@settings(max_examples=50)
@given(st.lists(st.none() | st.lists(st.integers(-5, 1 << 62), max_size=4).map(tuple)), st.data())
def test_ids_are_taken_and_filled(rows: list[tuple[int, ...] | None], data: st.DataObject) -> None:
    array = IdsArray._from_sequence(rows)
    assert list(array) == rows
    count = len(rows)
    where = data.draw(st.lists(st.integers(-1, count - 1), max_size=6))
    taken = array.take(np.array(where, dtype=np.int64), allow_fill=True)
    assert list(taken) == [None if i == -1 else rows[i] for i in where]
    other: list[tuple[int, ...] | None] = [(i,) for i in range(count)]
    filled = array.filled_from(IdsArray._from_sequence(other))
    assert list(filled) == [b if a is None else a for a, b in zip(rows, other, strict=True)]
    keep = np.arange(count) % 2 == 0
    assert list(array.only(keep)) == [r if k else None for r, k in zip(rows, keep, strict=True)]
