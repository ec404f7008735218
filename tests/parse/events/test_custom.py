"""Tables of kinds that others define: types, order, ranks, and messages that lie."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from build import batch, custom, decode, mark

from profilemate.parse.pipeline import write_session
from profilemate.parse.trace.ranks import split_ranks
from profilemate.schema import Event


def rows(folder: Path, name: str) -> list[list[str]]:
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_a_column_has_the_type_of_its_values() -> None:
    events = [
        custom("it", 9, i=1, f=1, b=True, s="1", mixed=1, odd=True),
        custom("it", 8, i=2, f=0.5, b=False, s="2", mixed="x", odd=3),
        custom("it", 7),
    ]
    frame = decode(mark(100, batch(1, 100, *events))).custom["it"]
    assert [str(t) for t in frame.dtypes[:4]] == ["int64", "Int64", "int64", "int64"]
    assert [str(t) for t in frame.dtypes[4:]] == ["Int64", "Float64", "boolean", *["string"] * 3]
    assert frame["odd"].tolist()[:2] == ["True", "3"]
    assert frame["ts"].tolist() == [91, 92, 93]
    assert frame.iloc[2, 4:].isna().all()


def test_order_does_not_depend_on_the_file() -> None:
    first = mark(100, batch(1, 100, custom("it", 9, a=1, c=1)))
    second = mark(200, batch(2, 200, custom("it", 9, a=2, b=2, c=2)))
    one, other = decode(first, second), decode(second, first)
    pd.testing.assert_frame_equal(one.custom["it"], other.custom["it"])
    assert list(one.custom["it"].columns)[4:] == ["a", "c", "b"]


def test_numbers_keep_their_digits(tmp_path: Path) -> None:
    values = {"f": 0.1, "tiny": 5e-324, "nan": math.nan, "i": (1 << 63) - 1}
    write_session(decode(mark(10**9, batch(1, 10**9, custom("it", **values)))), tmp_path / "s")
    header, row = rows(tmp_path / "s", "custom_it")
    assert header == ["timestamp_sec", "duration_ms", "pid", "f", "tiny", "nan", "i"]
    assert row[3:] == ["0.1", "5e-324", "nan", "9223372036854775807"]
    metadata = json.loads((tmp_path / "s" / "metadata.json").read_text())
    assert metadata["events"] == {"custom.it": 1}
    assert "custom_it.csv" in metadata["files"]
    # A session that is parsed anew, without these events, has no such table any more.
    write_session(decode(), tmp_path / "s", force=True)
    assert not (tmp_path / "s" / "custom_it.csv").exists()


def test_each_rank_has_its_own_rows_and_the_front_end_goes_with_the_lead(tmp_path: Path) -> None:
    def worker(pid: int, tp: int) -> list[Event]:
        return [
            Event("session", {"role": "worker", "tp": tp, "dp": 0, "pp": 0}),
            custom("it", tp=tp),
            custom(f"only{tp}", tp=tp),
        ]

    trace = decode(
        *(mark(100 + tp, batch(1, 100, *worker(tp, tp)), pid=10 + tp) for tp in (0, 1)),
        mark(102, batch(1, 100, custom("it", tp=9)), pid=5),
    )
    assert [r.rank.folder for r in split_ranks(trace)] == ["dp0_pp0_tp0", "dp0_pp0_tp1"]
    out = tmp_path / "s"
    write_session(trace, out)
    assert sorted(r[3] for r in rows(out, "custom_it")[1:]) == ["0", "9"]
    further = out / "ranks" / "dp0_pp0_tp1"
    assert [r[3] for r in rows(further, "custom_it")[1:]] == ["1"]
    assert (out / "custom_only0.csv").exists()
    assert not (out / "custom_only1.csv").exists()
    assert (further / "custom_only1.csv").exists()


@pytest.mark.parametrize("kind", ["../../x", "UPPER", "", "a/b", "x" * 99])
def test_a_kind_that_is_no_name_is_counted_as_unknown(kind: str, tmp_path: Path) -> None:
    text = f"pm1.batch t=5 seq=1 | custom.{kind} ago=1 dur=1 x=i:1"
    trace = decode(mark(5, text))
    assert (trace.custom, trace.unknown, trace.broken) == ({}, {f"custom.{kind}": 1}, 0)


@pytest.mark.parametrize(
    ("said", "value"),
    [("x=i:no", "i:no"), ("x=q:1", "q:1"), ("x=", ""), ("x=b:maybe", "b:maybe"), ("x=1", "1")],
)
def test_a_value_that_is_spelled_wrongly_is_its_own_text(said: str, value: str) -> None:
    trace = decode(mark(5, f"pm1.batch t=5 seq=1 | custom.it ago=no dur=-x {said} ts=i:4 Y=i:1"))
    frame = trace.custom["it"]
    assert frame["x"].tolist() == [value]
    assert frame["dur"].isna().all()
    assert trace.broken == 0
    assert "Y" not in frame
