"""The `.pftrace` read back with Perfetto's own protos, against the tables' CSV files and builders.

The witness of the bundled recording is its golden session, read with the csv module; that of GPU
recordings is what their builder says it put in, or a second reading of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pftrace
import pytest
from frames import At, at, trace_of
from perfetto_files import NS, seconds, table, written
from places import BUNDLED

from profilemate.errors import InputError, OutputError, ToolError
from profilemate.parse import writers
from profilemate.parse.pipeline import parse_session, read_trace
from profilemate.parse.session import timeline_file
from profilemate.parse.session.timeline_file import Options, write_timeline
from profilemate.parse.timeline import engine
from profilemate.parse.writers.perfetto import interning
from profilemate.schema import decode_ids


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> pftrace.File:
    folder = tmp_path_factory.mktemp("bundled")
    return written(read_trace([BUNDLED / "recording.sqlite"]), folder / "t.pftrace")[1]


# ------------------------------------------------------------------ the bundled recording


def test_steps_are_those_of_the_table(bundled: pftrace.File) -> None:
    rows, found = table("cuda_graph_steps"), bundled.slices("Worker (pid 20508) / Model steps")
    assert len(rows) == len(found) > 500
    for row, step in zip(rows, found, strict=True):
        assert abs(step.ts - float(row["timestamp_sec"]) * NS) < 501, "the table rounds to the us"
        assert f"{(step.end - step.ts) / 1e6:.6f}" == row["host_ms"]
        for arg, column in (
            ("step", "step"),
            ("unpadded", "unpadded_tokens"),
            ("num_tokens", "num_tokens"),
            ("reqs", "requests"),
            ("prefill_tokens", "prefill_tokens"),
            ("decode_tokens", "decode_tokens"),
            ("mode", "runtime_mode"),
            ("uniform", "uniform"),
            ("num_reqs", "num_reqs"),
        ):
            assert str(step.args.get(arg)) == row[column], (arg, row)
        prefill, decode = int(row["prefill_tokens"]), int(row["decode_tokens"])
        kind = {(True, False): "prefill", (False, True): "decode", (True, True): "mixed"}
        assert step.category == kind.get((prefill > 0, decode > 0), "empty")
        assert step.name.startswith(step.category)


def test_every_step_hangs_on_its_schedule_call(bundled: pftrace.File) -> None:
    calls, steps = bundled.slices("Scheduler steps"), bundled.slices("Model steps")
    assert (
        len(calls)
        == json.loads((BUNDLED / "expected/metadata.json").read_text())["events"]["sched.step"]
    )
    by_flow = {flow: call for call in calls for flow in call.flows}
    assert len(by_flow) == len(steps)
    for step in steps:
        (flow,) = step.flows
        call = by_flow.pop(flow)
        assert call.args["step"] == step.args["step"]
        assert call.args["num_tokens"] == step.args["unpadded"]
        assert call.ts < step.ts, "an arrow points forwards"
        assert call.category == step.category
    assert not by_flow


def test_usage_is_that_of_the_table(bundled: pftrace.File) -> None:
    rows = table("kv_cache_usage")
    usage, used = bundled.samples("KV cache usage"), bundled.samples("KV blocks in use")
    assert [(seconds(ts, 3), f"{v:.2f}") for ts, v in usage] == [
        (r["timestamp_sec"], r["usage_pct"]) for r in rows
    ]
    assert [(seconds(ts, 3), str(int(v))) for ts, v in used] == [
        (r["timestamp_sec"], r["num_blocks"]) for r in rows
    ]


def value_at(samples: list[tuple[int, float]], ts: int) -> float | None:
    """What a counter says at a time."""
    return next((v for at_, v in reversed(samples) if at_ <= ts), None)


def test_cached_and_empty_blocks_follow_from_the_log(bundled: pftrace.File) -> None:
    cached, held, steps = set[int](), set[int](), dict[str, tuple[str, int]]()
    for row in table("kv_block_events"):
        ids = set(decode_ids(row["blocks"])) if row["blocks"] != "None" else set()
        changed = set(decode_ids(row["changed_blocks"])) if row["changed_blocks"] != "None" else ids
        if row["op"] in ("alloc", "touch"):
            held |= changed
        elif row["op"] == "free":
            held -= changed
        elif row["op"] == "cache":
            cached |= ids
        elif row["op"] == "evict":
            cached -= ids
        if row["op"] != "evict":  # which says what will be in use after the allocation it is for
            assert len(held) == int(row["used_blocks"])
        steps[row["step"]] = (row["timestamp_sec"], len(cached - held))
    free, empty = (bundled.samples(f"KV blocks {n}") for n in ("cached, free", "empty"))
    used = bundled.samples("KV blocks in use")
    assert len(steps) > 60
    for text, count in steps.values():
        ts = round(float(text) * NS) + 500  # the table rounds to the us
        assert value_at(free, ts) == count
        now = [value_at(samples, ts) for samples in (used, free, empty)]
        assert sum(n or 0 for n in now) == 39


def test_running_and_waiting_requests_are_the_schedule_calls_own(bundled: pftrace.File) -> None:
    calls = bundled.slices("Scheduler steps")
    for name in ("running", "waiting"):
        expected = [(call.end, call.args[name]) for call in calls]
        assert bundled.samples(f"Requests {name}") == expected


def test_tokens_of_each_step(bundled: pftrace.File) -> None:
    rows = table("cuda_graph_steps")
    for name, column in (("to run", "unpadded_tokens"), ("with padding", "num_tokens")):
        expected = [int(r[column]) for r in rows if r[column] != "None"]
        assert [v for _, v in bundled.samples(f"Tokens {name}")] == expected


def test_hit_rate_is_that_of_the_table(bundled: pftrace.File) -> None:
    rows = [r for r in table("kv_prefix_cache") if r["running_hit_rate"] != "None"]
    assert [(seconds(ts), f"{v / 100:.4f}") for ts, v in bundled.samples("Prefix hit rate")] == [
        (r["timestamp_sec"], r["running_hit_rate"]) for r in rows
    ]


def test_evictions_and_preemptions_one_by_one(bundled: pftrace.File) -> None:
    evicted = [r for r in table("kv_block_events") if r["op"] == "evict"]
    found = bundled.instants("Evictions")
    assert [(seconds(i.ts), i.args["ids"], i.args["req"], i.args["cause"]) for i in found] == [
        (r["timestamp_sec"], r["blocks"], r["request_id"], r["cause"]) for r in evicted
    ]
    assert sum(len(decode_ids(i.args["ids"])) for i in found) == len(table("kv_cache_evictions"))
    found = bundled.instants("Preemptions")
    assert [(seconds(i.ts), i.args["req"], i.args["blocks"], i.args["tokens"]) for i in found] == [
        (r["timestamp_sec"], r["request_id"], int(r["blocks_freed"]), int(r["tokens_lost"]))
        for r in table("kv_preemptions")
    ]
    kinds = json.loads((BUNDLED / "expected/metadata.json").read_text())["events"]
    assert len(bundled.instants("Failed allocations")) == kinds["kv.alloc_failed"]
    assert len(bundled.instants("Requests arrived and finished")) == kinds["request"]


def test_the_wall_clock_is_in_it(bundled: pftrace.File) -> None:
    assert bundled.clocks == {6: 0, 1: read_trace([BUNDLED / "recording.sqlite"]).start_unix_ns}


def test_units_and_explanations(bundled: pftrace.File) -> None:
    units = {line.path.rpartition(" / ")[2]: line.unit for line in bundled.lines if line.samples}
    assert units["KV cache usage"] == units["Prefix hit rate"] == "%"
    assert units["KV blocks in use"] == "blocks"
    explained = [line for line in bundled.lines if line.samples or line.slices]
    assert all(line.description for line in explained)


# ------------------------------------------------------------------ windows, odd events, limits


def test_a_window_keeps_what_reaches_into_it_and_counts_the_rest(tmp_path: Path) -> None:
    trace = read_trace([BUNDLED / "recording.sqlite"])
    whole = written(trace, tmp_path / "w.pftrace")[1]
    first, last = 31.5, 32.0
    result, part = written(trace, tmp_path / "p.pftrace", Options(window=(first, last)))
    low, high = round(first * NS), round(last * NS)
    for path in whole.paths():
        lines = whole.slices(path) + whole.instants(path)
        expected = [s for s in lines if s.end >= low and s.ts <= high]
        assert part.slices(path) + part.instants(path) == expected
        if lines:
            assert result.outside.get(path, 0) == len(lines) - len(expected)
        samples = whole.samples(path)
        if samples:
            before = value_at(samples, low)
            opening = [] if before is None or samples[0][0] >= low else [(low, before)]
            inside = [s for s in samples if low <= s[0] <= high]
            assert part.samples(path) == opening + inside
    with pytest.raises(InputError, match="shows nothing"):
        write_timeline(trace, tmp_path / "n.pftrace", Options(window=(1, 2)))
    assert not (tmp_path / "n.pftrace").exists()


def events_of_everything() -> Iterable[At]:
    yield at(10, "session", pid=1, role="engine", dp=0)
    yield at(11, "session", pid=2, role="worker", dp=0, tp=0)
    yield at(12, "session", pid=3, role="worker", dp=0, tp=1)
    yield at(20, "graph.capture", pid=2, dur=5, mode="FULL", num_tokens=8, phase="real")
    yield at(30, "kv.reset", pid=1, dur=1, pool=0, used=0, ok=True)
    yield at(31, "kv.reset", pid=1, dur=1, pool=0, used=2, ok=False)
    yield at(40, "sched.step", pid=1, dur=5, step=1, num_tokens=3, running=1, waiting=0)
    for pid in (2, 3):
        yield at(50, "step", pid=pid, step=1, mode="FULL", unpadded=3, num_tokens=8)  # no end
        yield at(60, "step", pid=pid, dur=4, step=2, mode="NONE", unpadded=0)
        yield at(60, "step", pid=pid, dur=0, step=3, mode="NONE", unpadded=0)
    yield at(70, "graph.replay", pid=2, dur=3, mode="FULL", num_tokens=8, owner="Drafter", piece=1)


def test_odd_events_are_all_there(tmp_path: Path) -> None:
    _, found = written(trace_of(events_of_everything()), tmp_path / "t.pftrace")
    captured = found.instants("Graph captures")
    assert [(c.name, c.ts, c.args["dur_ns"]) for c in captured] == [("capture FULL 8", 20, 5)]
    resets = found.instants("Prefix-cache resets")
    assert [(r.name, r.args["ok"]) for r in resets] == [("reset", True), ("reset refused", False)]
    (replay,) = found.slices("Graph launches")
    assert (replay.name, replay.args["owner"], replay.args["piece"]) == ("FULL 8", "Drafter", 1)
    (call,) = found.slices("Scheduler steps")
    for rank in ("tp0", "tp1"):
        path = next(p for p in found.paths() if rank in p and "Model steps" in p)
        (endless,) = found.instants(path)
        assert endless.ts == 50
        assert endless.flows[0] in call.flows
        assert sorted((s.ts, s.end) for s in found.slices(path)) == [(60, 60), (60, 64)]
    assert len(call.flows) == 2, "one arrow to each rank"


def test_texts_are_said_anew_when_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interning, "LIMIT", 50)
    monkeypatch.setattr(writers.perfetto, "CHUNK", 16)
    events = [
        at(i, "request", pid=1, req=f"req-{i}-%20 é", what="arrived", prompt_tokens=i)
        for i in range(400)
    ]
    _, found = written(trace_of(events), tmp_path / "t.pftrace")
    arrived = found.instants("Requests arrived and finished")
    assert [a.args["req"] for a in arrived] == [f"req-{i}-%20 é" for i in range(400)]
    assert [a.name for a in arrived] == [f"arrived, prompt tokens: {i}" for i in range(400)]


def test_what_began_before_the_recording_moves_everything(tmp_path: Path) -> None:
    events = [at(n, "sched.step", pid=1, dur=3, step=n + 9) for n in (-7, 0, 5)]
    _, found = written(trace_of(events, start_unix_ns=1000), tmp_path / "t.pftrace")
    assert [(s.ts, s.end) for s in found.slices("Scheduler steps")] == [(0, 3), (7, 10), (12, 15)]
    assert found.clocks == {6: 7, 1: 1000}, "the wall clock of zero stays what it was"


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_size_of_chunks_changes_nothing(
    size: int, bundled: pftrace.File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CHUNK", size)
    trace = read_trace([BUNDLED / "recording.sqlite"])
    _, found = written(trace, tmp_path / "t.pftrace")
    for path in bundled.paths():
        assert found.samples(path) == bundled.samples(path), path
        assert found.instants(path) == bundled.instants(path), path


def test_nothing_recorded_is_said(tmp_path: Path) -> None:
    result, found = written(trace_of([]), tmp_path / "t.pftrace")
    assert found.paths() == []
    assert "nothing" in result.warnings[0]


def test_a_file_that_browsers_may_not_open_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline_file, "BROWSER_BYTES", 1000)
    trace = read_trace([BUNDLED / "recording.sqlite"])
    result = write_timeline(trace, tmp_path / "t.pftrace", Options())
    assert "--window" in result.warnings[0]


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "t.pftrace"
    out.write_text("mine")
    with pytest.raises(OutputError, match="--force"):
        write_timeline(trace_of([]), out, Options())
    with pytest.raises(OutputError, match="directory"):
        write_timeline(trace_of([]), tmp_path, Options(), force=True)
    assert out.read_text() == "mine"
    write_timeline(trace_of([]), out, Options(), force=True)
    assert pftrace.read(out).packets == 1
    assert [p.name for p in tmp_path.iterdir()] == ["t.pftrace"]


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "t.pftrace"
    out.write_text("mine")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(timeline_file, "_write", fail)
    with pytest.raises(OutputError, match="No space"):
        write_timeline(trace_of([]), out, Options(), force=True)
    assert out.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["t.pftrace"]


def test_without_the_package_it_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "perfetto.trace_builder", None)
    with pytest.raises(ToolError, match="pip install 'perfetto"):
        write_timeline(trace_of([]), tmp_path / "t.pftrace", Options())
    with pytest.raises(ToolError):
        parse_session([BUNDLED / "recording.sqlite"], tmp_path / "s", timeline=True)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ in a session directory


def test_a_session_holds_its_timeline(tmp_path: Path) -> None:
    session = parse_session([BUNDLED / "recording.sqlite"], tmp_path / "s", timeline=True)
    found = pftrace.read(session.path / "timeline.pftrace")
    assert len(found.slices("Model steps")) == 514
    said = json.loads((session.path / "metadata.json").read_text())
    assert "timeline.pftrace" in said["files"]
    assert said["timeline"]["tracks"]["Worker (pid 20508) / Model steps"]["slices_out"] == 514
    # --force replaces it, and an older session's is gone when none is asked for.
    parse_session([BUNDLED / "recording.sqlite"], tmp_path / "s", force=True)
    assert not (session.path / "timeline.pftrace").exists()
