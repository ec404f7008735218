"""The report page as a file: what it says, links to and lets run; its pictures; the command."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import report_sessions
from made_session import FOREIGN
from places import RECORDING, ROOT
from report_page_text import Page
from report_sessions import drawing, hostile, page_of

from profilemate.errors import OutputError, ToolError
from profilemate.insight.findings import find
from profilemate.insight.report import draw_all, engine, shell, write_page
from profilemate.insight.report.base import resolve
from profilemate.insight.report.charts import CHARTS
from profilemate.insight.report.pictures import SCALE, WIDTH, write_pictures
from profilemate.parse.pipeline import parse_session
from profilemate.parse.session.saved import SavedSession


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real recording's session."""
    return parse_session([RECORDING], tmp_path_factory.mktemp("bundled") / "session").path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up session with GPU times on three ranks."""
    return report_sessions.make(tmp_path_factory.mktemp("made") / "session")


def test_foreign_texts_stay_texts(made: Path, tmp_path: Path) -> None:
    session = hostile(made, tmp_path / "session")
    grid = drawing(session, "cuda_graph_usage").grid.data
    assert any(FOREIGN in name for name in grid["label"])
    text = page_of(session, tmp_path / "r.html").read_text()
    assert "<script>alert(1)" not in text
    page = Page(text)
    plain = Page(page_of(made, tmp_path / "plain.html").read_text())
    assert len(page.scripts) == len(plain.scripts), "no script came in"
    for kind, inside in page.scripts:
        if kind == "application/json":
            json.loads(inside)
    assert FOREIGN in json.dumps(
        [json.loads(t)["grid"] for k, t in page.scripts if k and '"grid"' in t]
    ).replace('\\"', '"')


def test_flags_in_the_words_of_a_finding_look_like_flags() -> None:
    said = shell._prose("lower --max-num-seqs <b>; not a--b, -- or ---x, and --Upper")
    assert said == (
        "lower <code>--max-num-seqs</code> &lt;b&gt;; not a--b, -- or ---x, and --Upper"
    )


def test_the_start_is_told_to_the_second(bundled: Path, made: Path, tmp_path: Path) -> None:
    text = page_of(bundled, tmp_path / "r.html").read_text()
    told = json.loads((bundled / "metadata.json").read_text())["start_time"]
    assert re.fullmatch(r"\S+T\S+\.\d+[+-]\d\d:\d\d", told)
    assert f"recorded {told[:10]} {told[11:19]}{told[-6:]}" in text
    odd = tmp_path / "odd"
    shutil.copytree(made, odd)
    facts = json.loads((odd / "metadata.json").read_text())
    (odd / "metadata.json").write_text(json.dumps({**facts, "start_time": "<yesterday>"}))
    text = page_of(odd, tmp_path / "odd.html").read_text()
    assert "yesterday" not in text
    assert "start_time in metadata.json is no time and is not used" in text


def test_the_policy_names_exactly_the_pages_two_scripts(made: Path, tmp_path: Path) -> None:
    page = Page(page_of(made, tmp_path / "r.html").read_text())
    assert len(page.hashes()) == 2
    assert set(re.findall(r"'(sha256-[^']+)'", page.policy)) == page.hashes()
    assert "default-src 'none'" in page.policy
    assert "unsafe-eval" not in page.policy
    assert all(load.startswith("data:") for load in page.loads), page.loads


def test_links_lead_to_the_files(made: Path, tmp_path: Path) -> None:
    from urllib.parse import unquote

    out = tmp_path / "elsewhere" / "r.html"
    page = Page(page_of(made, out).read_text())
    files = {
        (out.parent / unquote(link)).resolve() for link in page.links if not link.startswith("#")
    }
    assert {f.name for f in files} >= {
        f for c in CHARTS.values() for f in c.files if f != "ranks.csv" and f != "ranks/"
    }
    assert all(f.exists() for f in files)
    assert all(not link.startswith(("/", "http", "file")) for link in page.links)


def test_the_page_is_small_and_carries_the_notice(made: Path, tmp_path: Path) -> None:
    out = page_of(made, tmp_path / "r.html")
    assert out.stat().st_size < 8e6
    assert "University of Washington Interactive Data Lab" in out.read_text()


def test_an_old_page_stays_when_the_new_one_cannot_be_written(made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    saved = SavedSession.open(made)
    with pytest.raises(OutputError, match="cannot write the report"):
        write_page(saved, tmp_path / "file" / "r.html", {}, find(saved))
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder"):
        write_page(saved, tmp_path / "folder", {}, find(saved))
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(ToolError, match="'jinja2>="):
        engine.library()


# --------------------------------------------------------------------------- pictures


def size_of(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_pictures(made: Path, bundled: Path, tmp_path: Path) -> None:
    found = draw_all(SavedSession.open(made))
    first = write_pictures(found, tmp_path / "a")
    assert {p.name for p in first} == {f"{name}.png" for name in CHARTS}
    again = write_pictures({"KV cache": found["KV cache"]}, tmp_path / "b")
    assert all(p.read_bytes() == (tmp_path / "a" / p.name).read_bytes() for p in again)
    for path in first:
        width, height = size_of(path.read_bytes())
        assert abs(width - WIDTH * SCALE) < 120, (path.name, width)
        assert 300 < height < 2000
    few = write_pictures(draw_all(SavedSession.open(bundled)), tmp_path / "c")
    assert "kv_cache_usage.png" in {p.name for p in few}
    assert "cuda_graph_usage.png" not in {p.name for p in few}


def test_widths_resolve() -> None:
    spec: dict[str, Any] = {
        "width": "$W/3-60",
        "concat": [{"width": "$W-10"}],
        "n": "$C",
        "l": "$L",
    }
    assert resolve(spec, 900, 3) == {"width": 240, "concat": [{"width": 890}], "n": 3, "l": False}
    assert resolve(spec, 900, 1) == {"width": 840, "concat": [{"width": 890}], "n": 1, "l": True}


# --------------------------------------------------------------------------- the command


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "profilemate", "report", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


def test_the_command_writes_page_and_pictures_and_says_so(bundled: Path, tmp_path: Path) -> None:
    page, folder = tmp_path / "r.html", tmp_path / "pictures"
    done = run(bundled, "-o", page, "--png", folder)
    assert done.returncode == 0, done.stderr
    assert f"wrote {page}" in done.stdout
    assert f"wrote {folder / 'kv_cache_usage.png'}" in done.stdout
    assert page.read_text().startswith("<!DOCTYPE html>")
    quiet = run(bundled, "-o", page, "--json")
    assert json.loads(quiet.stdout)["findings"]


def test_a_bad_place_is_one_message(bundled: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for option in (("-o", tmp_path / "file" / "r.html"), ("--png", tmp_path / "file" / "x")):
        done = run(bundled, *option)
        assert done.returncode == 2
        assert done.stderr.startswith("error: cannot write")
        assert "Traceback" not in done.stderr
