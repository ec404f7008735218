"""A written session, read back, against the csv module and the file's own text."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from places import EXPECTED

from profilemate.errors import InputError
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables import TABLES


@pytest.mark.parametrize("name", [n for n, t in TABLES.items() if not t.heading])
def test_every_cell_comes_back(name: str) -> None:
    frame = SavedSession.open(EXPECTED).table(name)
    with (EXPECTED / f"{name}.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert list(frame.columns) == header
    assert len(frame) == len(rows)
    for column, texts in zip(header, zip(*rows, strict=True), strict=False):
        for value, text in zip(frame[column].tolist(), texts, strict=True):
            if text == "None":
                assert pd.isna(value)
            else:
                same = float(text) == value if isinstance(value, float) else str(value) == text
                assert same, (column, value, text)


def test_the_summary_comes_back_as_it_stands() -> None:
    row = SavedSession.open(EXPECTED).table("kv_cache_summary").iloc[0]
    assert row["Total blocks available"] == "39"
    assert row["Peak usage"] == "100.00%"


def test_a_folder_that_is_no_session(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no session directory"):
        SavedSession.open(tmp_path)


def test_a_recording_in_place_of_a_session(tmp_path: Path) -> None:
    (tmp_path / "run.nsys-rep").write_bytes(b"x")
    with pytest.raises(InputError, match="no session directory") as caught:
        SavedSession.open(tmp_path / "run.nsys-rep")
    path = tmp_path / "run.nsys-rep"
    assert caught.value.commands == (f"profilemate parse {path} -o session",)


def test_a_table_of_a_newer_version_is_empty(tmp_path: Path) -> None:
    shutil.copytree(EXPECTED, tmp_path / "s")
    (tmp_path / "s" / "kv_preemptions.csv").unlink()
    session = SavedSession.open(tmp_path / "s")
    assert session.table("kv_preemptions").empty
    assert session.ranks() == {}


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    shutil.copytree(EXPECTED, tmp_path / "s")
    (tmp_path / "s" / "kv_preemptions.csv").write_text('a,b\n"x\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"kv_preemptions\.csv"):
        SavedSession.open(tmp_path / "s").table("kv_preemptions")


def test_pieces_of_a_table_are_the_table() -> None:
    session = SavedSession.open(EXPECTED)
    columns = ["ended_by", "lifetime_sec", "idle_sec"]
    pieces = list(session.chunks("kv_block_lifetimes", columns, rows=100))
    assert [len(p) for p in pieces] == [100, 100, 100, 24]
    whole = session.table("kv_block_lifetimes")[columns]
    pd.testing.assert_frame_equal(pd.concat(pieces), whole)


def test_a_table_that_is_not_there_has_no_pieces_and_a_broken_one_is_named(tmp_path: Path) -> None:
    shutil.copytree(EXPECTED, tmp_path / "s")
    session = SavedSession.open(tmp_path / "s")
    (tmp_path / "s" / "kv_preemptions.csv").unlink()
    assert list(session.chunks("kv_preemptions", ["tokens_lost"])) == []
    (tmp_path / "s" / "kv_preemptions.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"kv_preemptions\.csv"):
        list(session.chunks("kv_preemptions", ["tokens_lost"]))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text[: len(text) - 3], "last line is not whole"),
        (lambda text: "a,b\n1,2\n", "no column timestamp_sec"),
        (lambda text: text.replace("\n3", "\nx3", 1), "timestamp_sec is no number"),
        (lambda text: "", "No columns to parse"),
    ],
)
def test_a_table_that_was_changed(tmp_path: Path, change: Callable[[str], str], why: str) -> None:
    shutil.copytree(EXPECTED, tmp_path / "s")
    file = tmp_path / "s" / "kv_cache_usage.csv"
    file.write_text(change(file.read_text()))
    with pytest.raises(InputError) as caught:
        SavedSession.open(tmp_path / "s").table("kv_cache_usage")
    assert caught.value.path == str(file)
    assert why in caught.value.why
    assert "profilemate parse TRACE" in caught.value.commands[0]
