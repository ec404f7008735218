"""Timelines in the real Perfetto UI: asked in its own SQL, against a second reading of the file.

`pftrace` reads the file with Perfetto's protos and is itself held against the tables in
`test_writer_perfetto`; here it stands for them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import browser as browser_
import numpy as np
import pandas as pd
import pftrace
import pytest
from frames import At, at, trace_of
from gpu_build import GpuExport
from perfetto_ui import Ui, opened
from places import RECORDING, ROOT
from playwright.sync_api import Browser
from recorded import real_traces

from profilemate.parse.gpu.work import WORK, GpuWork
from profilemate.parse.pipeline import parse_session, read_trace
from profilemate.parse.session.timeline_file import Options, write_timeline
from profilemate.parse.trace.activity import GPU, LAUNCHES
from profilemate.parse.trace.trace import Trace

pytestmark = pytest.mark.real


def nested() -> Trace:
    """Our own ranges around launches, two workers, and slices that cross on a stream."""
    events: list[At] = [
        at(1000, "session", pid=1, role="engine", dp=0),
        at(1000, "session", pid=2, role="worker", dp=0, tp=0),
        at(1000, "session", pid=3, role="worker", dp=0, tp=1),
    ]
    calls: list[dict[str, int]] = []
    gpu: list[dict[str, int]] = []
    for n in range(20):
        begin = 10_000 * (n + 1)
        events.append(at(begin, "sched.step", pid=1, dur=900, step=n, num_tokens=5, running=n))
        said: dict[str, Any] = {"mode": "PIECEWISE", "num_tokens": 8, "step": n}
        for pid in (2, 3):
            phases = {"unpadded": 5, "prefill_tokens": 0, "decode_tokens": 5}
            events.append(at(begin + 1000, "step", pid=pid, dur=5000, **phases, **said))
        for piece, pid in product(range(3), (2, 3)):
            ts, number = begin + 1100 + 1000 * piece, len(calls)
            events.append(at(ts, "graph.replay", pid=pid, dur=700, piece=piece, **said))
            first, last = ts + 2000, ts + 3500  # a replay begins before the last one has ended
            call = {"ts": ts + 100, "dur": 200, "pid": pid, "tid": 1, "id": number}
            call |= {"correlation": number + 1, "records": 1, "kernels": 1, "kernel_ns": 1500}
            calls.append(call | {"first": first, "last": last, "busy": 1500, "graph": piece})
            record = {"start": first, "end": last, "pid": pid, "device": pid - 2, "stream": 7}
            record |= {"correlation": number + 1, "launch": number, "name": 1}
            gpu.append(record | {"host_ts": ts + 100, "host_tid": 1})
    trace = trace_of(events)
    columns, frames = {"launches": LAUNCHES, "gpu": GPU}, {}
    for name, rows in (("launches", calls), ("gpu", gpu)):
        frame = pd.DataFrame(rows).reindex(columns=list(columns[name]), fill_value=0)
        frames[name] = frame.astype(dict(columns[name]))
    # Each record is a call's only one: folded they are the same rows.
    work: dict[str, Any] = {name: np.zeros(len(gpu), dtype=np.int64) for name in WORK}
    work |= {n: frames["gpu"][n].to_numpy() for n in WORK if n in GPU}
    work |= {"id": np.arange(len(gpu)), "records": work["records"] + 1}
    work["busy"] = work["end"] - work["start"]
    return replace(
        trace,
        launches=frames["launches"],
        gpu=frames["gpu"],
        work=GpuWork(work),
        names=["cudaGraphLaunch", "kernel"],
        api_calls={"cudaGraphLaunch": len(calls)},
    )


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser_.launched(browser_.chromium()) as browser:
        yield browser


CASES = ("bundled", "constructed", "nested", "real")


@pytest.fixture(scope="module", params=CASES)
def shown(
    request: pytest.FixtureRequest, chromium: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, pftrace.File, Ui]]:
    """A timeline in the UI, and what its file says."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "bundled":
        file = parse_session([RECORDING], folder / "s", timeline=True).path / "timeline.pftrace"
    else:
        file = folder / "t.pftrace"
        if request.param == "constructed":
            trace = read_trace([GpuExport().write(folder / "run.sqlite")])
        elif request.param == "nested":
            trace = nested()
        else:
            name = "vllm_rtx3090_gptoss20b_full_and_piecewise.pt.trace.json.gz"
            trace = read_trace([real_traces() / name])
        write_timeline(trace, file, Options(kernels=True))
    with opened(chromium, file) as ui:
        yield request.param, pftrace.read(file), ui


Shown = tuple[str, pftrace.File, Ui]

PATHS = """
WITH RECURSIVE line(id, path) AS (
    SELECT id, name FROM track WHERE parent_id IS NULL AND type GLOB 'global*'
    UNION ALL
    SELECT track.id, line.path || ' / ' || track.name FROM track JOIN line ON parent_id = line.id
)
"""


def test_nothing_went_wrong(shown: Shown) -> None:
    _, _, ui = shown
    assert ui.query("SELECT count(*) > 100 FROM stats") == [(1,)]
    wrong = "SELECT name, value FROM stats WHERE severity IN ('error', 'data_loss') AND value > 0"
    assert ui.query(wrong) == []
    assert ui.errors == []
    assert ui.foreign == [], "nothing comes from the network"


def test_tracks_and_the_counts_on_them(shown: Shown) -> None:
    _, file, ui = shown
    events = "SELECT path, count(*) FROM line JOIN {} e ON e.track_id = line.id GROUP BY path"
    found = dict(ui.query(PATHS + events.format("slice")))
    found |= dict(ui.query(PATHS + events.format("counter")))
    expected = Counter[str]()
    for line in file.lines:
        expected[line.path] += len(line.slices) + len(line.instants) + len(line.samples)
    assert found == dict(+expected)


def test_every_slice_is_where_it_was_put(shown: Shown) -> None:
    name, file, ui = shown
    columns = "path, slice.name, category, ts, dur, depth"
    joined = f"SELECT {columns} FROM line JOIN slice ON slice.track_id = line.id"
    found = sorted(ui.query(PATHS + joined))
    expected = sorted(
        (line.path, s.name, s.category, s.ts, s.end - s.ts, s.depth)
        for line in file.lines
        for s in (*line.slices, *line.instants)
    )
    assert found == expected
    assert (max(row[-1] for row in found) > 0) == (name == "nested")


def test_counters_say_the_same(shown: Shown) -> None:
    _, file, ui = shown
    joined = "SELECT path, ts, value FROM line JOIN counter ON counter.track_id = line.id"
    found = sorted(ui.query(PATHS + joined))
    expected = sorted((x.path, ts, v) for x in file.lines for ts, v in x.samples)
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in expected])


def test_arrows_go_from_call_to_step_to_launch_to_gpu(shown: Shown) -> None:
    name, file, ui = shown
    ends = ", ".join(f"{s}.ts, {s}.name" for s in ("a", "b"))
    found = sorted(
        ui.query(
            f"SELECT {ends} FROM flow JOIN slice a ON a.id = slice_out "
            "JOIN slice b ON b.id = slice_in"
        )
    )
    chains: dict[int, list[tuple[int, str, str]]] = {}
    for line in file.lines:
        for s in (*line.slices, *line.instants):
            for flow in s.flows:
                chains.setdefault(flow, []).append((s.ts, s.name, line.path))
    chains = {flow: sorted(chain) for flow, chain in chains.items()}
    assert found == sorted(a[:2] + b[:2] for c in chains.values() for a, b in pairwise(c))
    lines = [[path.split(" / ")[-1] for *_, path in chain] for chain in chains.values()]
    shapes = {tuple(line.partition(",")[0] for line in chain) for chain in lines}
    to_gpu, to_step = (
        ("Model steps", "Graph launches", "Graph replays"),
        ("Scheduler steps", "Model steps"),
    )
    expected = {
        "bundled": {to_step},
        "nested": {to_step, to_gpu},
        "constructed": {to_gpu},
        "real": {to_gpu},
    }
    assert shapes == expected[name]


def test_arguments_are_typed(shown: Shown) -> None:
    name, file, ui = shown
    found = ui.query(
        "SELECT slice.ts, slice.name, key, value_type, int_value, string_value "
        "FROM slice JOIN args USING (arg_set_id) WHERE key GLOB 'debug.*'"
    )
    seen = Counter((ts, slice_, key) for ts, slice_, key, *_ in found)
    args = Counter(
        (s.ts, s.name, f"debug.{key}")
        for line in file.lines
        for s in (*line.slices, *line.instants)
        for key in s.args
    )
    assert seen == args
    types = {key: kind for _, _, key, kind, *_ in found}
    assert types["debug.mode"] == "string"
    assert types["debug.reqs" if name == "real" else "debug.step"] == "int"
    if name != "real":
        assert types["debug.num_tokens"] == "int"
    if name == "bundled":
        assert types["debug.uniform"] == "bool"


def test_a_person_sees_the_tracks_in_their_groups(shown: Shown) -> None:
    name, file, ui = shown
    text = ui.page.inner_text("body")
    for path in file.paths():
        assert path.split(" / ")[-1] in text, "the groups are open"
    if name == "bundled":
        order = [
            "Scheduler steps",
            "Requests running",
            "KV cache usage",
            "Evictions",
            "Model steps",
        ]
        assert [text.index(t) for t in order] == sorted(text.index(t) for t in order)


def test_the_document_names_every_track_and_its_queries_work(shown: Shown) -> None:
    _, file, ui = shown
    text = (ROOT / "docs" / "timeline.md").read_text(encoding="utf-8")
    for path in file.paths():
        assert re.sub(r"stream \d+", "stream N", path.split(" / ")[-1]) in text
    queries = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    assert len(queries) == 3
    for query in queries:
        assert ui.query(query), query


def test_the_info_page_lists_no_error(shown: Shown) -> None:
    _, _, ui = shown
    ui.page.evaluate("() => { location.hash = '#!/info'; }")
    ui.page.get_by_text("Debugging stats").wait_for()
    text = ui.page.inner_text("body")
    assert "track_event" in text or "trace_size_bytes" in text
    for heading in ("Import errors", "Data losses"):
        assert heading not in text
