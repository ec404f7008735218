"""Rows spelled by Arrow are those of the csv module, byte for byte."""

from __future__ import annotations

import csv
import io
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profilemate.parse.writers.arrow_rows import encoded
from profilemate.parse.writers.spelling import SPELLINGS

TIMES = st.integers(-(10**6), 10**6) | st.integers(-(1 << 60), 1 << 60)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["a,b", 'a"b', "a\nb", "a\rb", "None", "", " x"]
)
IDS = st.lists(st.integers(0, 6) | st.integers(0, 1 << 40), max_size=8).map(tuple)

COLUMNS: dict[str, tuple[str, str, st.SearchStrategy[Any]]] = {
    "i": ("value", "Int64", st.integers(-(1 << 62), 1 << 62)),
    "b": ("value", "boolean", st.booleans()),
    "s": ("value", "string", TEXTS),
    "o": ("value", "object", TEXTS),
    "ids": ("ids", "ids", IDS),
    **{name: (name, "Int64", TIMES) for name in SPELLINGS if name.endswith("seconds")},
    "percent": ("percent", "Float64", st.floats(0, 2)),
    "ratio": ("ratio", "Float64", st.floats(0, 1)),
}


def by_csv(frame: pd.DataFrame, spellings: list[str]) -> bytes:
    """Row by row, each with the line end that has the csv module quote both of its characters."""
    lines = []
    columns = [SPELLINGS[s](frame.iloc[:, i]) for i, s in enumerate(spellings)]
    for row in zip(*columns, strict=True):
        file = io.StringIO(newline="")
        csv.writer(file, lineterminator="\r\n").writerow(row)
        lines.append(file.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines).encode()


@settings(max_examples=100)
@given(st.data())
def test_every_spelling_is_the_same(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=2, max_size=4))
    rows = data.draw(st.integers(0, 6))
    series, spellings = [], []
    for name in names:
        spelling, dtype, values = COLUMNS[name]
        given_ = data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        series.append(pd.Series(given_, dtype=dtype))
        spellings.append(spelling)
    frame = pd.concat(series, axis=1, ignore_index=True)
    assert bytes(encoded(frame, spellings)) == by_csv(frame, spellings)


@pytest.mark.parametrize(
    "ids", [(5, 6, 5), (5, 6, 7, 6, 5), (1, 2, 1, 2, 1), (3, 3), (9, 8, 7, 9), (0,), ()]
)
def test_runs_that_turn_back(ids: tuple[int, ...]) -> None:
    frame = pd.DataFrame({"a": pd.Series([ids, (1,), ids], dtype="ids"), "b": [1, 2, 3]})
    assert bytes(encoded(frame, ["ids", "value"])) == by_csv(frame, ["ids", "value"])


def test_a_lone_surrogate_is_refused() -> None:
    frame = pd.DataFrame({"a": pd.Series(["\ud800"], dtype="object"), "b": [1]})
    with pytest.raises(UnicodeEncodeError):
        encoded(frame, ["value", "value"])
