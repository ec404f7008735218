"""The page of a comparison as a file: its figures, what it lets run, foreign names, the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from compare_sessions import two
from made_session import FOREIGN
from places import ROOT
from report_page_text import Page

from profilemate.errors import OutputError
from profilemate.insight.compare import Comparison, as_json, compare
from profilemate.insight.compare.conditions import parse_condition
from profilemate.insight.report import compare_chart
from profilemate.insight.report.compare_page import write_comparison

CONDITIONS = ("replay_p50>5%", "graphs_slower>0", "prefix_hit_pct<-10%")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two sessions, compared."""
    return compare(*two(tmp_path_factory.mktemp("two")))


@pytest.fixture(scope="module")
def text(found: Comparison, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Their page."""
    out = tmp_path_factory.mktemp("page") / "compare.html"
    return write_comparison(found, [parse_condition(c) for c in CONDITIONS], out).read_text()


class Cells(HTMLParser):
    """Rows of all tables in the page: cells as text, and the class of each."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[tuple[str, str]]] = []
        self._in = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(("", dict(attrs).get("class") or ""))
            self._in = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in = False

    def handle_data(self, data: str) -> None:
        if self._in:
            before, kind = self.rows[-1][-1]
            self.rows[-1][-1] = (before + data, kind)


def held(text: str) -> dict[str, Any]:
    """What the page holds for its chart."""
    (data,) = [t for kind, t in Page(text).scripts if kind and '"grid"' in t]
    told: dict[str, Any] = json.loads(data)
    return told


def test_figures_are_those_of_the_json(found: Comparison, text: str) -> None:
    metrics = as_json(found)["metrics"]
    rows = {r[-1][0]: r for r in Cells(text).rows if len(r) == 6}
    assert set(rows) - {"name for --fail-on"} == set(metrics)
    for name, told in metrics.items():
        row = rows[name]
        for place, side in ((1, "a"), (2, "b")):
            shown = row[place][0]
            if told[side] is None:
                assert shown == "-"
            else:
                digits = len(shown.partition(".")[2])
                assert float(shown.replace(",", "")) == round(told[side], digits), name


def test_a_change_has_a_colour_only_where_a_direction_is_good_or_bad(
    found: Comparison, text: str
) -> None:
    metrics = as_json(found)["metrics"]
    rows = {r[-1][0]: r for r in Cells(text).rows if len(r) == 6}
    kinds = set()
    for name, told in metrics.items():
        shown, kind = rows[name][3]
        kinds.add(kind)
        if told["better"] is None or not told["change"]:
            assert kind == "", name
        elif kind:
            rose = told["change"] > 0
            assert kind == ("better" if rose == (told["better"] == "higher") else "worse"), name
            assert rows[name][4][0] == kind, "colour is not the only way to tell"
        else:
            assert float(shown.split()[0]) == 0, "what is shown as nought has no colour"
    assert kinds == {"", "better", "worse"}


def test_graphs_are_those_of_the_json(found: Comparison, text: str) -> None:
    graphs, grid = as_json(found)["graphs"]["rows"], held(text)["grid"]["data"]
    assert grid["label"] == [g["graph"] for g in graphs]
    assert list(zip(grid["p50_a"], grid["p50_b"], strict=True)) == [
        tuple(g["p50_ms"]) for g in graphs
    ]
    assert list(zip(grid["steps_a"], grid["steps_b"], strict=True)) == [
        tuple(g["steps"]) for g in graphs
    ]
    assert grid["q"] == [g["q"] for g in graphs]
    words = {"same": "within noise", "few": "too few steps"}
    assert grid["verdict"] == [words.get(g["outcome"], g["outcome"]) for g in graphs]
    for change, graph in zip(grid["change"], graphs, strict=True):
        assert change == (None if graph["change"] is None else pytest.approx(100 * graph["change"]))
    assert set(grid["verdict"]) == {
        "slower",
        "faster",
        "within noise",
        "too few steps",
        "only A",
        "only B",
    }


def test_slower_and_faster_graphs_are_drawn_before_all_others(
    found: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_chart, "MOST_DRAWN", 4)
    drawing = compare_chart.draw(found).drawing
    assert drawing is not None
    drawn = drawing.data["graphs"]["verdict"]
    assert sorted(drawn) == ["faster", "slower", "slower", "within noise"]
    assert any("4 of 14 graphs are drawn" in note for note in drawing.notes)


def test_caveats_come_first_then_conditions_with_their_outcome(text: str) -> None:
    main = text[text.index("<main") :]
    assert main.index("vLLM versions differ: 0.32.0 in A, 0.32.1 in B") < main.index("<dl")
    told = re.findall(r'class="severity">([^<]+)</p>\s*<div>\s*<h3><code>([^<]+)</code>', main)
    assert told == [
        ("passes", "replay_p50&gt;5%"),
        ("fails", "graphs_slower&gt;0"),
        ("not judged", "prefix_hit_pct&lt;-10%"),
    ]
    assert "Session B has no prefix_hit_pct." in main


def test_foreign_names_are_inert(tmp_path: Path) -> None:
    a, b = two(
        tmp_path,
        session_id=FOREIGN,
        start_time=FOREIGN,
        versions={"vllm": FOREIGN, FOREIGN: FOREIGN},
        processes=[{"host": FOREIGN, "rank": FOREIGN}],
    )
    odd = tmp_path / "<img src=x onerror=alert(1)>"
    b.path.rename(odd)
    found = compare(a, type(b).open(odd))
    text = write_comparison(found, [], tmp_path / "c.html").read_text()
    assert "<script>alert(1)" not in text
    assert "<img src=x" not in text
    page = Page(text)
    assert [kind for kind, _ in page.scripts].count(None) == 2, "no script came in"
    assert any(FOREIGN in name for name in held(text)["grid"]["data"]["label"])
    assert any(FOREIGN in cell for row in Cells(text).rows for cell, _ in row)


def test_nothing_is_fetched_and_the_policy_lets_only_the_two_scripts_run(text: str) -> None:
    page = Page(text)
    assert page.hashes() == set(re.findall(r"'(sha256-[^']+)'", page.policy))
    assert "default-src 'none'" in page.policy
    assert all(load.startswith("data:") for load in page.loads), page.loads
    assert all(not link.startswith(("http", "//", "file")) for link in page.links)
    assert "url(" not in text[: text.index("</style>")]


def test_without_graphs_it_says_so(found: Comparison, tmp_path: Path) -> None:
    from saved_build import usage, write_session

    alone = {"kv_cache_usage": usage((0, 1), (5, 3))}
    a, b = (write_session(tmp_path / n, alone) for n in "ab")
    text = write_comparison(compare(a, b), [], tmp_path / "c.html").read_text()
    assert "Not drawn: There is no duration of steps on graphs that both sessions have." in text
    assert 'id="conditions"' not in text
    assert 'id="caveats"' not in text


# --------------------------------------------------------------------------- the command


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "profilemate", "compare", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


def test_the_command_writes_the_page_whatever_the_conditions_say(
    found: Comparison, tmp_path: Path
) -> None:
    a, b, out = found.a.path, found.b.path, tmp_path / "c.html"
    done = run(a, b, "-o", out, "--fail-on", "graphs_slower>0")
    assert done.returncode == 1, done.stderr
    assert f"wrote {out}" in done.stdout.replace("\n", "")
    assert ">fails</p>" in out.read_text()
    out.unlink()
    quiet = run(a, b, "-o", out, "--json")
    assert json.loads(quiet.stdout)["version"] == 1
    out.unlink()
    unjudged = run(a, b, "-o", out, "--fail-on", "prefix_hit_pct<-10%")
    assert unjudged.returncode == 2
    assert ">not judged</p>" in out.read_text()


def test_a_page_that_cannot_be_written_is_one_message(found: Comparison, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write the comparison"):
        write_comparison(found, [], tmp_path / "file" / "c.html")
    assert (tmp_path / "file").read_text() == "mine"
