"""Sessions of older versions: columns and keys that they lack are not known, and that is said."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import made_session
import pandas as pd
import pytest
from places import EXPECTED

from profilemate.insight.compare import compare
from profilemate.insight.findings import find
from profilemate.insight.headline import headline
from profilemate.insight.metrics import families
from profilemate.insight.reading import NoData, table_of
from profilemate.insight.report import CHARTS, draw, draw_all, write_page
from profilemate.insight.report.base import Chart
from profilemate.insight.report.source import Source
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables import TABLES

CSVS = [name for name, table in TABLES.items() if not table.heading]


def without(folder: Path, table: str, *columns: str) -> SavedSession:
    """A copy of the golden session whose table never had these columns."""
    shutil.copytree(EXPECTED, folder)
    file = folder / TABLES[table].file
    with file.open(newline="") as opened:
        rows = list(csv.reader(opened))
    here = [i for i, name in enumerate(rows[0]) if name not in columns]
    with file.open("w", newline="") as opened:
        csv.writer(opened, lineterminator="\n").writerows([[r[i] for i in here] for r in rows])
    return SavedSession.open(folder)


@pytest.mark.parametrize("table", CSVS)
def test_a_column_that_is_not_there_is_not_known(table: str, tmp_path: Path) -> None:
    names = [column.name for column in TABLES[table].columns]
    last = names[-1]
    session = without(tmp_path / "s", table, last)
    frame, whole = session.table(table), SavedSession.open(EXPECTED).table(table)
    assert list(frame.columns) == [*names[:-1], last]
    assert len(frame) == len(whole)
    assert frame[last].isna().all()
    (warning,) = [w for w in session.warnings if w.id == "columns-missing"]
    assert warning.text.startswith(f"{TABLES[table].file} has no column {last}: ")
    pieces = list(session.chunks(table, [last, names[0]], rows=10))
    assert [list(piece.columns) for piece in pieces[:1]] in ([[last, names[0]]], [])
    assert all(piece[last].isna().all() for piece in pieces)
    with pytest.raises(NoData, match=f"has no column {last}: another profilemate wrote it"):
        table_of(session, table, [last])


def test_of_a_table_of_today_no_column_is_missing() -> None:
    session = SavedSession.open(EXPECTED)
    assert not any(session.lacks(name) for name in TABLES)
    assert not [w for w in session.warnings if w.id == "columns-missing"]


HALVES = {
    "the first half": lambda names: names[: (len(names) + 1) // 2],
    "the second half": lambda names: names[len(names) // 2 :],
    "the first": lambda names: names[:1],
    "the last": lambda names: names[-1:],
}


@pytest.mark.parametrize("there", HALVES.values(), ids=HALVES)
def test_a_session_of_an_older_version_is_reported_and_compared(
    there: Callable[[list[str]], list[str]], tmp_path: Path
) -> None:
    """Few keys, and tables with few of their columns."""
    old = tmp_path / "old"
    shutil.copytree(EXPECTED, old)
    for name in CSVS:
        columns = [column.name for column in TABLES[name].columns]
        lost = {*columns} - {*there(columns)}
        changed = without(tmp_path / name, name, *lost)
        shutil.copy(changed.path / TABLES[name].file, old / TABLES[name].file)
    said = json.loads((EXPECTED / "metadata.json").read_text())
    early = ("session_id", "start_time", "window_sec", "hooks", "events", "dropped")
    (old / "metadata.json").write_text(json.dumps({key: said[key] for key in early}))
    session, whole = SavedSession.open(old), SavedSession.open(EXPECTED)
    sentences = [w.text for w in session.warnings]
    assert sum("has no column" in text for text in sentences) == len(CSVS)
    for pair in ((session, whole), (whole, session)):
        assert sum("has no column" in text for text in compare(*pair).caveats) == len(CSVS)
    headline(session)
    families(session)
    page = write_page(session, tmp_path / "page.html", draw_all(session), find(session))
    text = page.read_text()
    assert "metadata.json has no " in text
    assert "kv_cache_usage.csv has no column" in text


@pytest.mark.parametrize(
    ("name", "column"),
    [("kv_prefix_cache", "running_hits"), ("kv_cache_evictions", "lifetime_sec")],
)
def test_a_rule_does_not_judge_by_a_column_that_is_not_there(
    name: str, column: str, tmp_path: Path
) -> None:
    session = without(tmp_path / "s", name, column)
    before = {f.rule for f in find(SavedSession.open(EXPECTED)).findings}
    assert {f.rule for f in find(session).findings} <= before


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session in which every chart has something to draw."""
    what = made_session.Made(steps=120, seconds=12, ranks=2, lives=90, operations=40)
    return made_session.make(tmp_path_factory.mktemp("made") / "s", what)


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
def test_a_chart_is_not_drawn_without_what_it_needs_and_is_without_the_rest(
    chart: Chart, made: Path
) -> None:
    whole = SavedSession.open(made)
    frames = {name: whole.table(name) for name in TABLES}
    files = {file.removesuffix(".csv") for file in chart.files if file.endswith(".csv")}
    for name in sorted(files | {*chart.needs}):
        for column in (c.name for c in TABLES[name].columns):
            unknown = frames[name].assign(
                **{column: pd.array([pd.NA] * len(frames[name]), "Int64")}
            )
            session = SavedSession(
                made, whole.metadata, {**frames, name: unknown}, {name: frozenset([column])}
            )
            after = draw(chart, Source(session))
            if column in chart.needs.get(name, ()):
                assert after.why.startswith(f"{name}.csv has no column {column}: "), column
            else:
                assert after.drawing is not None, (column, after.why)
