"""The names that notebooks use: few, lazy, typed, and those of the page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from places import EXPECTED, RECORDING, ROOT

import profilemate
from profilemate import api
from profilemate.errors import InputError
from profilemate.insight.figures import FIGURES
from profilemate.parse.tables import TABLES

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_every_name_is_exported_typed_and_on_the_page() -> None:
    names = set(profilemate.__all__) - {"__version__"}
    assert names == set(api.__all__)
    assert names == set(re.findall(r"^\| `(\w+)", PAGE, re.MULTILINE))
    stub = (ROOT / "profilemate" / "__init__.pyi").read_text(encoding="utf-8")
    assert names == set(re.findall(r"import (\w+) as \1", stub))
    for name in names:
        assert getattr(profilemate, name) is getattr(api, name)
        assert name in dir(profilemate)
    with pytest.raises(AttributeError, match="no attribute 'session'"):
        profilemate.session  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_loads_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import profilemate; "
    code += "print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name for name in done.stdout.split() if "profilemate" in name} == {"profilemate"}
    assert not {"pandas", "numpy", "typer", "wrapt"} & set(done.stdout.split())


def test_a_session_is_its_tables(tmp_path: Path) -> None:
    session = profilemate.parse_recordings([str(RECORDING)], str(tmp_path / "s"))
    assert isinstance(session, profilemate.Session)
    assert set(session.tables) == set(TABLES)
    frame = session.tables["kv_preemptions"]
    expected = pd.read_csv(EXPECTED / "kv_preemptions.csv", na_values=["None"])
    assert frame["tokens_lost"].tolist() == expected["tokens_lost"].tolist()
    assert len(frame) == 12
    with pytest.raises(KeyError):
        session.tables["nothing"]


def test_tables_of_own_hooks_are_there(tmp_path: Path) -> None:
    session = profilemate.parse_recordings([RECORDING], tmp_path / "s")
    (tmp_path / "s" / "custom_arrival.csv").write_text("timestamp_sec,size\n0.5,7\n1.5,None\n")
    assert set(session.tables) == {*TABLES, "custom_arrival"}
    assert session.tables["custom_arrival"]["size"].tolist() == [7, pd.NA]
    assert len(session.tables) == len(TABLES) + 1


def test_figures_and_comparison_are_those_of_the_commands(tmp_path: Path) -> None:
    session = profilemate.parse_recordings([RECORDING], tmp_path / "s")
    found = profilemate.figures(session)
    assert set(found) == set(FIGURES)
    assert found["kv_peak_pct"].value == pytest.approx(100)
    unknown = [value for value in found.values() if value.value is None]
    assert unknown
    assert all(value.why for value in unknown)
    same = profilemate.compare_sessions(session, profilemate.open(tmp_path / "s"))
    assert {row.change for row in same.metrics} <= {0, None}


def test_what_is_no_session_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="This is no session directory"):
        profilemate.open(tmp_path)


def test_the_page_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profilemate.parse_recordings([RECORDING], tmp_path / "session")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {})
