"""A written session, read back, against the csv module and the file's own text."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pandas as pd
import pytest

from profilemate.errors import InputError
from profilemate.parse.saved import SavedSession
from profilemate.parse.tables import TABLES

EXPECTED = Path(__file__).parents[1] / "data" / "vllm_cpu_server" / "expected"


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
