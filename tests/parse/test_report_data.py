"""The figures of the report page against the session's files, read by the csv module."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import struct
import subprocess
import sys
from collections import Counter, defaultdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import report_sessions
from made_session import FOREIGN
from recorded import ROOT
from report_sessions import page_of, rows

from profilemate.errors import OutputError, ToolError
from profilemate.parse.findings import find
from profilemate.parse.project import parse_session
from profilemate.parse.report import CHARTS, draw_all, engine, write_page, write_pictures
from profilemate.parse.report.base import Drawing, resolve
from profilemate.parse.report.pictures import SCALE, WIDTH
from profilemate.parse.saved import SavedSession


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real recording's session."""
    return parse_session(
        [report_sessions.BUNDLED], tmp_path_factory.mktemp("bundled") / "session"
    ).path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up session with GPU times on three ranks."""
    return report_sessions.make(tmp_path_factory.mktemp("made") / "session")


def drawn(session: Path) -> dict[str, Drawing | str]:
    """Each chart's drawing, or why there is none."""
    found = draw_all(SavedSession.open(session))
    return {d.chart.name: d.drawing or d.why for part in found.values() for d in part}


def drawing(session: Path, name: str) -> Drawing:
    found = drawn(session)[name]
    assert isinstance(found, Drawing), found
    return found


def column(table: list[dict[str, str]], name: str) -> list[float]:
    return [math.nan if r[name] == "None" else float(r[name]) for r in table]


def grid_total(chart: Drawing, name: str) -> float:
    return float(sum(v for v in chart.grid.data[name] if v is not None))


@pytest.mark.parametrize("which", ["bundled", "made"])
def test_kv_usage(which: str, request: pytest.FixtureRequest) -> None:
    session: Path = request.getfixturevalue(which)
    chart = drawing(session, "kv_cache_usage")
    table = rows(session, "kv_cache_usage.csv")
    points = list(zip(column(table, "timestamp_sec"), column(table, "usage_pct"), strict=True))
    line = list(zip(*chart.data["usage"].values(), strict=True))
    assert line[:-1] == points  # few enough to be drawn as they are
    assert line[-1][1] == points[-1][1], "the last value holds to the end"
    evictions = rows(session, "kv_cache_evictions.csv")
    preemptions = rows(session, "kv_preemptions.csv")
    assert sum(chart.data["evictions"]["n"]) == len(evictions) > 0
    assert chart.data["preemptions"]["t"] == column(preemptions, "timestamp_sec") != []
    assert grid_total(chart, "evictions") == len(evictions)
    assert grid_total(chart, "preemptions") == len(preemptions)
    assert max(v for v in chart.grid.data["high"] if v is not None) == max(u for _, u in points)
    assert f"{max(u for _, u in points):.2f} %" in chart.says


@pytest.mark.parametrize("which", ["bundled", "made"])
def test_prefix_cache(which: str, request: pytest.FixtureRequest) -> None:
    session: Path = request.getfixturevalue(which)
    chart = drawing(session, "kv_prefix_cache")
    counted = [r for r in rows(session, "kv_prefix_cache.csv") if r["preempted"] == "False"]
    assert grid_total(chart, "lookups") == len(counted)
    assert grid_total(chart, "asked") == sum(column(counted, "tokens"))
    assert grid_total(chart, "hit") == sum(column(counted, "hit_tokens"))
    last = rows(session, "kv_prefix_cache.csv")[-1]
    assert grid_total(chart, "asked") == float(last["running_queries"]), "as vLLM counts"
    assert f"{float(last['running_hits']):,.0f} of" in chart.says


@pytest.mark.parametrize("which", ["bundled", "made"])
def test_lifetimes(which: str, request: pytest.FixtureRequest) -> None:
    session: Path = request.getfixturevalue(which)
    chart = drawing(session, "kv_block_lifetimes")
    table = rows(session, "kv_block_lifetimes.csv")
    ends = {"evicted": "evicted", "reused": "reused, nothing cached"}
    for what in ("lifetime", "idle"):
        known = [r for r in table if r[f"{what}_sec"] != "None" and r["ended_by"] != "open"]
        told: Counter[str] = Counter()
        bars = [
            dict(zip(chart.data[what], r, strict=True))
            for r in zip(*chart.data[what].values(), strict=True)
        ]
        for bar in bars:
            inside = [
                r
                for r in known
                if bar["from"] * (1 - 1e-9) <= float(r[f"{what}_sec"]) < bar["to"] * (1 - 1e-9)
                and ends[r["ended_by"]] == bar["end"]
            ]
            assert bar["n"] == len(inside) == bar["y1"] - bar["y0"]
            told[bar["end"]] += bar["n"]
        assert told == Counter(ends[r["ended_by"]] for r in known)


@pytest.mark.parametrize("which", ["bundled", "made"])
def test_coverage(which: str, request: pytest.FixtureRequest) -> None:
    session: Path = request.getfixturevalue(which)
    chart = drawing(session, "cuda_graph_coverage")
    for row in rows(session, "cuda_graph_coverage.csv"):
        assert grid_total(chart, row["runtime_mode"]) == int(row["steps"])
    tops: dict[float, float] = defaultdict(float)
    for begin, top in zip(chart.data["shares"]["from"], chart.data["shares"]["y1"], strict=True):
        tops[begin] = max(tops[begin], top)
    assert set(tops.values()) == {100.0}, "the shares of an interval add up"


def test_graph_usage(made: Path) -> None:
    chart = drawing(made, "cuda_graph_usage")
    usage = rows(made, "cuda_graph_usage.csv")
    latency = rows(made, "cuda_graph_replay_latency.csv")
    steps = [r for r in rows(made, "cuda_graph_steps.csv") if r["dummy"] == "False"]
    grid = chart.grid.data
    assert len(grid["label"]) == len(usage) == len(set(grid["label"]))
    assert len(chart.data["graphs"]["label"]) == min(30, len(usage))
    by_name = {
        f"{r['runtime_mode']} {r['num_tokens']}": r for r in usage
    }  # in this session these tell graphs apart
    assert set(by_name) == set(grid["label"])
    gpu = {f"{r['runtime_mode']} {r['num_tokens']}": r["gpu_time_share"] for r in latency}
    padding: Counter[str] = Counter()
    for step in steps:
        if step["runtime_mode"] != "NONE":
            padding[f"{step['runtime_mode']} {step['num_tokens']}"] += int(step["padding_tokens"])
    for i, name in enumerate(grid["label"]):
        assert grid["steps"][i] == int(by_name[name]["replay_count"])
        assert grid["steps_pct"][i] == pytest.approx(100 * grid["steps"][i] / len(steps), abs=1e-4)
        assert grid["gpu_pct"][i] == pytest.approx(100 * float(gpu[name]), abs=1e-4)
        assert grid["padding"][i] == padding[name]
    assert sum(grid["padding_pct"]) == pytest.approx(100, abs=0.01)


def test_latency(made: Path) -> None:
    chart = drawing(made, "cuda_graph_replay_latency")
    table = {
        f"{r['runtime_mode']} {r['num_tokens']}": r
        for r in rows(made, "cuda_graph_replay_latency.csv")
    }
    grid = chart.grid.data
    assert set(grid["label"]) == set(table)
    names = [n for n in grid if n.endswith("_ms")]
    assert {n.removesuffix("_p50_ms") for n in names if "p50" in n} == {
        "launch",
        "delay",
        "gpu_span",
    }
    for i, label in enumerate(grid["label"]):
        for name in names:
            assert grid[name][i] == float(table[label][name]), (label, name)


def test_padding(made: Path) -> None:
    chart = drawing(made, "cuda_graph_padding")
    table = [r for r in rows(made, "cuda_graph_padding.csv") if r["runtime_mode"] != "NONE"]
    captured = {int(r["num_tokens"]) for r in rows(made, "cuda_graph_captures.csv")}
    assert len(chart.data["pairs"]["n"]) == len(table)
    assert set(chart.data["captured"]["size"]) == captured
    sizes = dict(
        zip(chart.grid.data["size"], zip(*chart.grid.data.values(), strict=True), strict=True)
    )
    assert set(sizes) == captured | {int(r["padded_tokens"]) for r in table}
    waste: Counter[int] = Counter()
    for r in table:
        waste[int(r["padded_tokens"])] += int(r["num_paddings"]) * int(r["count"])
    assert dict(zip(chart.grid.data["size"], chart.grid.data["waste"], strict=True)) == {
        size: waste[size] for size in sizes
    }
    assert f"{sum(waste.values()):,} of the" in chart.says


def test_ranks(made: Path) -> None:
    chart = drawing(made, "ranks")
    grid = chart.grid.data
    folders = sorted(p.name for p in (made / "ranks").iterdir())
    assert grid["label"] == ["dp0_pp0_tp0", *folders]
    for i, place in enumerate([made, *(made / "ranks" / f for f in folders)]):
        steps = [r for r in rows(place, "cuda_graph_steps.csv") if r["unpadded_tokens"] != "0"]
        host = sorted(column(steps, "host_ms"))
        assert grid["steps"][i] == len(steps)
        for name, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)):
            nearest = host[math.ceil(len(host) * percent / 100) - 1]
            assert grid[f"host_{name}_ms"][i] == nearest
    assert grid["evictions"][1:] == [None, None], "workers have no cache of their own"


def test_ranks_csv_is_used_where_there_is_one(made: Path, tmp_path: Path) -> None:
    session = tmp_path / "s"
    shutil.copytree(made, session)
    (session / "ranks.csv").write_text(
        "rank,role,host,replay_ratio\n"
        "dp0_pp0_tp0,engine,a,None\ndp0_pp0_tp0,worker,a,0.9\ndp0_pp0_tp1,worker,b,1.1\n"
    )
    grid = drawing(session, "ranks").grid.data
    assert grid["replay_ratio"] == [0.9, 1.1, None]
    assert grid["host"] == ["a", "b", None]


def test_what_cannot_be_drawn_says_why(bundled: Path, tmp_path: Path) -> None:
    found = drawn(bundled)
    told = json.loads((bundled / "metadata.json").read_text())["empty_files"]
    for name in ("cuda_graph_usage", "cuda_graph_replay_latency", "cuda_graph_padding"):
        why = found[name]
        assert isinstance(why, str)
        assert told["cuda_graph_usage.csv"] in why
    assert found["ranks"] == "The session has one rank."
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "metadata.json").write_text('{"session_id": "bare"}')
    assert all(isinstance(why, str) and why for why in drawn(bare).values())
    text = page_of(bare, tmp_path / "bare.html").read_text()
    assert text.count("Not drawn:") == len(CHARTS)


def test_a_recording_of_plain_vllm(tmp_path: Path) -> None:
    """GPU times and no descriptors: what is known is drawn, and it is said what is not."""
    traces = report_sessions.real_traces()
    trace = traces / "vllm_rtx3090_gptoss20b_full_and_piecewise.pt.trace.json.gz"
    session = parse_session([trace], tmp_path / "s").path
    usage = drawing(session, "cuda_graph_usage")
    assert len(usage.grid.data["label"]) == len(rows(session, "cuda_graph_usage.csv"))
    assert any("padding" in note and "not known" in note for note in usage.notes)
    assert drawing(session, "cuda_graph_replay_latency").columns == 3
    assert isinstance(drawn(session)["cuda_graph_padding"], str)


# --------------------------------------------------------------------------- the page as a file


class Page(HTMLParser):
    """What a browser's parser would make of it: scripts, links, attributes that load."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts: list[tuple[str | None, str]] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.policy = ""
        self._in: str | None = None
        self._kind: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._in = tag
        if tag == "script":
            self._kind = given.get("type")
            self.scripts.append((self._kind, ""))
        if tag == "a":
            self.links.append(given.get("href") or "")
        elif tag == "meta" and given.get("http-equiv"):
            self.policy = given.get("content") or ""
        self.loads += [
            v or ""
            for k, v in attrs
            if k in ("src", "data", "poster") or (k == "href" and tag != "a")
        ]
        assert not [k for k in given if k.startswith("on")], "a handler in an attribute"

    def handle_data(self, data: str) -> None:
        if self._in == "script" and self.scripts:
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)

    def handle_endtag(self, tag: str) -> None:
        self._in = None


def hostile(session: Path, folder: Path) -> Path:
    """The session with foreign texts that would break a careless page, in every place."""
    shutil.copytree(session, folder)
    file = folder / "metadata.json"
    metadata = json.loads(file.read_text())
    evil = FOREIGN
    metadata["session_id"] = evil
    metadata["notes"] = [evil]
    metadata["versions"] = {"vllm": evil}
    metadata["sources"] = [{"path": f"/tmp/{evil}", "kind": evil, "size": 1, "recorder": evil}]
    metadata["processes"] = [{"role": evil, "pid": 1, "host": evil, "rank": evil, "events": 1}]
    metadata["hooks"] = {"installed": {}, "skipped": {evil: evil}}
    file.write_text(json.dumps(metadata))
    text = (folder / "cuda_graph_replay_latency.csv").read_text().splitlines()
    text[1] = text[1].replace(",0,None,", ',0,"' + evil.replace('"', '""') + '",', 1)
    (folder / "cuda_graph_replay_latency.csv").write_text("\n".join(text) + "\n")
    return folder


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


def test_the_policy_names_exactly_the_pages_two_scripts(made: Path, tmp_path: Path) -> None:
    page = Page(page_of(made, tmp_path / "r.html").read_text())
    run = [text for kind, text in page.scripts if kind is None]
    hashes = {
        "sha256-" + base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in run
    }
    assert len(run) == 2
    assert set(re.findall(r"'(sha256-[^']+)'", page.policy)) == hashes
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
    with pytest.raises(ToolError, match=r"profilemate\[report\]"):
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
