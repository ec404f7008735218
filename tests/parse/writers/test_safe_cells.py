"""Texts that a spreadsheet would run: guarded in the files, the same for those that read them."""

from __future__ import annotations

import csv
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from build import batch, custom, decode, mark
from places import RECORDING, ROOT

from profilemate.parse.pipeline import parse_session, write_session
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables import TABLES
from profilemate.parse.tables.base import Column, Table
from profilemate.parse.writers import csv_session
from profilemate.parse.writers.csv_session import write_csv
from profilemate.parse.writers.safe_cells import unguarded

RUN = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the begin of a formula."""
READ: dict[str, Any] = {
    "na_values": ["None"],
    "keep_default_na": False,
    "dtype_backend": "numpy_nullable",
}
TEXTS = [
    "=1+1",
    '=HYPERLINK("http://x","y, z")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "'''-1",
    "'plain",
    "plain",
    "a=b",
    "",
    "line\n=1",
    "größer",
]
COLUMNS = (
    Column("text", "value", ""),
    Column("digits", "value", ""),
    Column("number", "value", ""),
    Column("ns", "seconds", ""),
)
LAYOUT = Table("x", "", COLUMNS, lambda trace: pd.DataFrame())


def frame() -> pd.DataFrame:
    count = len(TEXTS) + 1
    return pd.DataFrame(
        {
            "text": pd.array([*TEXTS, None], dtype="string"),
            "digits": ["-5"] * count,
            "number": pd.array([-7] * (count - 1) + [None], dtype="Int64"),
            "ns": pd.array([-1_500_000_000] * count, dtype="Int64"),
        }
    )


@pytest.mark.parametrize("arrow", [True, False])
def test_no_text_is_a_formula_and_all_of_it_can_be_had_back(
    arrow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not arrow:
        monkeypatch.setattr(csv_session, "_arrow", lambda: None)
    plain, safe = tmp_path / "plain.csv", tmp_path / "safe.csv"
    write_csv(plain, frame(), LAYOUT)
    write_csv(safe, frame(), LAYOUT, safe=True)
    with plain.open(newline="") as one, safe.open(newline="") as other:
        pairs = [*zip(csv.reader(one), csv.reader(other), strict=True)]
    assert len(pairs) == len(TEXTS) + 2
    for before, after in pairs[1:]:
        for old, new in zip(before[:2], after[:2], strict=True):
            assert not new.startswith(RUN)
            assert new == (f"'{old}" if old.lstrip("'").startswith(RUN) else old)
        assert before[2:] == after[2:], "numbers are not touched"
    pd.testing.assert_frame_equal(
        unguarded(pd.read_csv(safe, **READ), **READ), pd.read_csv(plain, **READ)
    )


def test_custom_columns_are_guarded_too(tmp_path: Path) -> None:
    events = (custom("it", name="+cmd", cost=-3), custom("it", name="@y", cost=-4))
    trace = decode(mark(5, batch(1, 5, *events)))
    write_session(trace, tmp_path / "s", safe_csv=True)
    with (tmp_path / "s" / "custom_it.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [(row["name"], row["cost"]) for row in rows] == [("'+cmd", "-3"), ("'@y", "-4")]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A session whose request ids and versions are formulas, as it is and safe."""
    folder = tmp_path_factory.mktemp("both")
    recording = folder / "run.sqlite"
    recording.write_bytes(RECORDING.read_bytes())
    with sqlite3.connect(recording) as db:
        db.execute("UPDATE StringIds SET value = replace(value, ' req=cmpl-', ' req=-')")
        db.execute("UPDATE StringIds SET value = replace(value, ' host=', ' host=@')")
    db.close()
    plain = parse_session([recording], folder / "plain").path
    return plain, parse_session([recording], folder / "safe", safe_csv=True).path


def test_the_files_differ_and_say_so(both: tuple[Path, Path]) -> None:
    plain, safe = both
    assert json.loads((safe / "metadata.json").read_text())["safe_csv"] is True
    assert "safe_csv" not in json.loads((plain / "metadata.json").read_text())
    guarded_cells = 0
    for file in safe.glob("*.csv"):
        with file.open(newline="") as one, (plain / file.name).open(newline="") as other:
            for new, old in zip(csv.reader(one), csv.reader(other), strict=True):
                for a, b in zip(new, old, strict=True):
                    guarded_cells += a != b
                    assert a == b or a == f"'{b}", file.name
                    assert not a.startswith(("=", "+", "@", "\t", "\r")), file.name
    assert guarded_cells > 50


def test_readers_of_sessions_find_the_same(both: tuple[Path, Path]) -> None:
    plain, safe = map(SavedSession.open, both)
    for name, layout in TABLES.items():
        pd.testing.assert_frame_equal(safe.table(name), plain.table(name))
        if not layout.heading:
            columns = [c.name for c in layout.columns]
            pairs = zip(
                safe.chunks(name, columns, 37), plain.chunks(name, columns, 37), strict=True
            )
            for ours, theirs in pairs:
                pd.testing.assert_frame_equal(ours, theirs)


@pytest.mark.parametrize("command", [("report", "--json"), ("export",), ("compare", "--json")])
def test_commands_say_the_same(command: tuple[str, ...], both: tuple[Path, Path]) -> None:
    said = []
    for session in both:
        other = [both[0]] if command[0] == "compare" else []
        done = subprocess.run(
            [sys.executable, "-m", "profilemate", *command, *map(str, other), str(session)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        said.append(done.stdout.replace(str(both[1]), str(both[0])))
    assert said[0] == said[1]
    assert len(said[0]) > 1000
