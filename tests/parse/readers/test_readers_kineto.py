"""The reader of torch profiler traces: any legal JSON, exact times, damaged files."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from decoded import decode_recordings
from hypothesis import given, settings
from hypothesis import strategies as st
from kineto_texts import BASE, document, event, everything, kernel, kineto_2026, launch, write

from profilemate.errors import InputError
from profilemate.parse.readers import open_recording
from profilemate.parse.readers.kineto import window
from profilemate.parse.readers.kineto.found import nanoseconds
from profilemate.parse.trace.trace import Trace

pytestmark = pytest.mark.usefixtures("scanner")


def opened(path: Path) -> Trace:
    return decode_recordings([open_recording(path)])


# ------------------------------------------------------------------ against json.load

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = st.sampled_from(
    [
        "pm1.step num_tokens=5",
        "execute_new_2_cached_0",
        "cudaGraphLaunch",
        "hipGraphLaunch",
        "cudaGraphLaunch_ptsz_v10000",
        "cudaLaunchKernel",
        "}, {",
        '"name": "x", "ph":',
    ]
)
TIMES = st.one_of(
    st.integers(0, 10**15),
    st.decimals(0, 10**13, places=3).map(str),
    st.tuples(st.integers(0, 10**12), st.integers(0, 999)).map(lambda t: t[0] + t[1] / 1000),
)
CATEGORIES = st.sampled_from(
    [
        "kernel",
        "gpu_memcpy",
        "gpu_memset",
        "cuda_runtime",
        "cuda_driver",
        "user_annotation",
        "gpu_user_annotation",
        "cpu_op",
        "python_function",
        "Trace",
    ]
)
ARGS = st.dictionaries(
    st.sampled_from(
        ["correlation", "device", "stream", "graph id", "graph node id", "External id"]
    ),
    st.integers(0, 2**40),
)
EVENTS = st.fixed_dictionaries(
    {
        "ph": st.sampled_from("XXXXMfi"),
        "cat": CATEGORIES,
        "name": NAMES | TEXTS,
        "pid": st.just(7) | st.just("Spans"),
        "tid": st.integers(0, 99),
        "ts": TIMES,
    },
    optional={
        "dur": TIMES,
        "args": ARGS | st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS)),
        "s": TEXTS,
    },
)


def by_json_load(text: str) -> dict[str, Any]:
    """What a trace holds, by `json.loads` and Decimal: the witness."""

    def us(value: Any) -> int:
        return int((Decimal(str(value)) * 1000).to_integral_value())

    def whole(value: Any, otherwise: int = -1) -> int:
        """A number, or its digits in quotes, as some old writers have them."""
        digits = isinstance(value, str) and value.isascii() and value.isdecimal()
        return int(value) if digits or isinstance(value, int) else otherwise

    found: dict[str, Any] = {n: [] for n in ("markers", "annotations", "launches", "gpu")}
    calls: dict[str, int] = {}
    kinds = {"kernel": 0, "gpu_memcpy": 1, "gpu_memset": 2}
    callers = set()
    for e in json.loads(text, parse_float=Decimal)["traceEvents"]:
        if e["ph"] not in ("X", "i"):
            continue
        ts, dur = us(e["ts"]), us(e.get("dur", 0))
        pid, tid = whole(e["pid"]), whole(e["tid"])
        args, name = e.get("args", {}), e["name"]
        if e["cat"] in kinds:
            if ts == dur == 0:  # its time could not be collected
                continue
            row = [ts, ts + dur, None]
            row += [whole(args.get("device"), pid), whole(args.get("stream"), tid)]
            row += [whole(args.get(k), 0) for k in ("correlation", "graph id", "graph node id")]
            found["gpu"].append([*row, kinds[e["cat"]], name])
        elif e["cat"] in ("cuda_runtime", "cuda_driver"):
            calls[name] = calls.get(name, 0) + 1
            callers.add(pid)
            if "GraphLaunch" in name and '"' not in name:
                row = [ts, dur, pid, tid, whole(args.get("correlation"), 0), name]
                found["launches"].append(tuple(row))
        elif e["cat"] != "gpu_user_annotation" and name.startswith(("pm1.", "execute_")):
            kind = "markers" if name.startswith("pm1.") else "annotations"
            found[kind].append((ts, dur if "dur" in e else None, pid, tid, name))
    if len(callers) <= 1:
        (pid,) = callers or {-1}
        found["gpu"] = [tuple(pid if v is None else v for v in row) for row in found["gpu"]]
    return found | {"calls": calls, "several": len(callers) > 1}


@settings(deadline=None, max_examples=150)
@given(st.lists(EVENTS, min_size=1, max_size=8), st.sampled_from([1, 7, 64, 1 << 20]), st.data())
def test_equal_to_json_load(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]], block: int, data: Any
) -> None:
    trace = document([*events, event("cpu_op", "last", 5)], traceName="x", nested={"a": [1.5, "]"]})
    if data.draw(st.booleans()):  # the events first, the rest after them
        trace = {"traceEvents": trace["traceEvents"]} | trace
    ascii_only = data.draw(st.booleans())
    text = data.draw(
        st.sampled_from(
            [
                json.dumps(trace, ensure_ascii=ascii_only),
                json.dumps(trace, ensure_ascii=ascii_only, separators=(",", ":")),
                json.dumps(trace, ensure_ascii=ascii_only, indent=2),
                kineto_2026(trace),
            ]
        )
    )
    suffix = data.draw(st.sampled_from([".json", ".json.gz"]))
    path = write(tmp_path_factory.mktemp("any") / f"x{suffix}", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "BLOCK", block)
        patch.setattr(window, "SMALL", min(block, window.SMALL))
        recording = open_recording(path)
        found = everything(recording)
    expected = by_json_load(text)
    several = expected.pop("several")
    if several:  # what process a GPU record is of has a test of its own
        for side in (found, expected):
            side["gpu"] = [(*row[:2], *row[3:]) for row in side["gpu"]]
    assert found == expected
    assert recording.info.start_unix_ns == BASE
    assert not any("damaged" in note or "left out" in note for note in recording.info.notes)


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        (1661938466265087, 1661938466265087000),
        ("1705000000123456.789", 1705000000123456789),  # as a double 1705000000123456.75
        ("6216626065839.125", 6216626065839125),
        ("5.1", 5100),
        ("-0.5", -500),
        ("1e3", 1000000),
        ("0.0004999", 0),
        ("0.0005001", 1),
        ("12", 12000),
        (True, None),
        (None, None),
        ("nan", None),
        ("Infinity", None),
        ("x", None),
        (10**30, None),
        ("1e999999", None),
    ],
)
def test_microseconds_to_exact_nanoseconds(value: object, ns: int | None) -> None:
    assert nanoseconds(value) == ns


# ------------------------------------------------------------------ what old and odd writers do


def test_old_kineto_has_times_of_the_wall_clock(tmp_path: Path) -> None:
    events = [kernel(1661938466265584, 5), launch(1661938466265000, 5)]
    path = write(tmp_path / "old.json", {"schemaVersion": 1, "traceEvents": events})
    trace = opened(path)
    assert trace.start_unix_ns == 1661938466265000 * 1000
    assert trace.window == (0, 586_000)
    assert trace.launches[["ts", "first", "kernels"]].to_numpy().tolist() == [[0, 584_000, 1]]


def test_a_top_level_array_and_categories_of_2021(tmp_path: Path) -> None:
    events = [
        event("Runtime", "cudaGraphLaunch", 10, args={"correlation": 3}),
        event("Kernel", "k", 20, args={"correlation": 3}),
        event("Memset", "m", 30, args={"correlation": "3"}),
    ]
    trace = opened(write(tmp_path / "x.json", json.dumps(events)))
    assert trace.launches[["records", "kernels"]].to_numpy().tolist() == [[2, 1]]


def test_messages_of_ours_come_through(tmp_path: Path) -> None:
    text = (
        "pm1.step step=4 mode=FULL num_tokens=8 num_reqs=8 uniform=True has_lora=False unpadded=7"
    )
    events = [
        event("gpu_user_annotation", text, "30.5", pid=0),
        event("user_annotation", text, "10.000", "9.500"),
        launch(11, 5),
        kernel(40, 5),
        event("user_annotation", "execute_new_1_cached_0", 9, 20),
    ]
    trace = opened(write(tmp_path / "x.pt.trace.json.gz", document(events)))
    (step,) = trace.frames["step"].itertuples()
    assert (step.ts, step.dur, step.pid, step.tid) == (1000, 9500, 7, 8)
    assert (step.mode, step.num_tokens, step.unpadded) == ("FULL", 8, 7)
    assert trace.annotations.empty  # its own steps suffice


def test_several_processes_in_one_file(tmp_path: Path) -> None:
    events = [launch(1, 5), launch(2, 6), launch(3, 6, pid=9), launch(4, 7, pid=9)]
    events += [kernel(10 + c, c) for c in (5, 6, 7, 8)]
    trace = opened(write(tmp_path / "x.json", document(events)))
    # Of 6 nobody can say whose it is.
    assert trace.gpu.set_index("correlation")["pid"].to_dict() == {5: 7, 6: -1, 7: 9, 8: -1}
    assert trace.launches["kernels"].tolist() == [1, 0, 0, 1]
    assert any("2 processes in one file" in note for note in trace.sources[0].notes)


# ------------------------------------------------------------------ damage


def test_unescaped_quotes_cost_nothing(tmp_path: Path) -> None:
    # torch 2.13: record_function('pm:q "x"'). The whole file is no JSON any more.
    quoted = event("user_annotation", "execute_QUOTED", 3)
    events = [launch(1, 5), quoted, kernel(2, 5), quoted, launch(9, 6), kernel(9, 6)]
    text = kineto_2026(document(events)).replace("QUOTED", 'q "x", "y"')
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    trace = opened(write(tmp_path / "x.json", text))
    assert (len(trace.launches), len(trace.gpu)) == (2, 2)
    assert trace.annotations["text"].tolist() == ['execute_q "x", "y"'] * 2
    assert any("2 events had unescaped quotes" in note for note in trace.sources[0].notes)


@pytest.mark.parametrize("layout", [kineto_2026, json.dumps])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_broken_event_costs_itself(tmp_path: Path, layout: Any, where: int) -> None:
    events = [launch(1, 5), launch(2, 6), launch(3, 7)]
    events.insert(where, event("cpu_op", "x", 4, args={"Call stack": "BROKEN"}))
    text = layout(document(events)).replace("BROKEN", 'a "b" c\\')
    trace = opened(write(tmp_path / "x.json", text))
    assert trace.launches["correlation"].tolist() == [5, 6, 7]
    assert any(note.startswith("1 events could not be read") for note in trace.sources[0].notes)


def test_a_broken_header_costs_no_event(tmp_path: Path) -> None:
    text = kineto_2026(document([launch(1, 5)], traceName="BROKEN")).replace("BROKEN", 'a "b" c')
    trace = opened(write(tmp_path / "x.json", text))
    assert len(trace.launches) == 1
    assert trace.start_unix_ns == BASE + 1000


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_was_cut_short_keeps_what_came(tmp_path: Path, packed: bool) -> None:
    rng = random.Random(3)
    events = [launch(i, i, name=f"cudaGraphLaunch_v{rng.random()}"[:22]) for i in range(1, 3000)]
    raw = kineto_2026(document(events)).encode()
    whole = gzip.compress(raw) if packed else raw
    seen = []
    for share in (0.3, 0.6, 0.9, 0.999):
        path = tmp_path / "x.json"
        path.write_bytes(whole[: int(len(whole) * share)])
        recording = open_recording(path)
        calls = everything(recording)["calls"]
        seen.append(sum(calls.values()))
        assert "cut short" in recording.info.notes[0]
        assert f"{seen[-1]} events were read" in recording.info.notes[0]
    assert seen == sorted(seen)
    assert seen[0] > 100
    assert seen[-1] >= 2900


@pytest.mark.parametrize(
    "text",
    [
        '{"traceEvents": []}',
        '{"traceEvents": [',
        '{"traceEvents": [{"ph": "M"}]}',
        '{"schemaVersion": 1',
    ],
)
def test_a_trace_without_events_is_an_error(tmp_path: Path, text: str) -> None:
    recording = open_recording(write(tmp_path / "x.json", text))
    with pytest.raises(InputError, match="holds no events") as caught:
        list(recording.markers())
    assert caught.value.why
    assert caught.value.hint


def test_events_that_say_too_little_are_counted(tmp_path: Path) -> None:
    odd = [{"ph": "X"}, {"ph": "X", "name": "a", "ts": "x"}, event("kernel", "k", 5, args=None), 7]
    text = json.dumps(document([launch(1, 5), *odd]))  # type: ignore[list-item]
    trace = opened(write(tmp_path / "x.json", text))
    assert (len(trace.launches), len(trace.gpu)) == (1, 1)
    assert any(note.startswith("2 events could not be read") for note in trace.sources[0].notes)


def test_a_trace_of_viztracer_is_refused(tmp_path: Path) -> None:
    """A real one."""
    trace = tmp_path / "viztracer.json"
    command = [sys.executable, "-m", "viztracer", "-o", str(trace), "--quiet", "-m", "this"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    with pytest.raises(InputError, match="trace of VizTracer, not of torch") as caught:
        opened(trace)
    assert caught.value.commands == ("profilemate run -- vllm serve MODEL",)


def test_a_trace_of_another_program_is_refused_and_one_of_torch_is_not(tmp_path: Path) -> None:
    theirs = [event("devtools.timeline", "RunTask", 5), event("v8", "V8.GC", 7)]
    with pytest.raises(InputError, match="trace of another program") as caught:
        opened(write(tmp_path / "devtools.json", {"traceEvents": theirs, "metadata": {"os": "x"}}))
    assert "None of its 2 events" in caught.value.why
    # What torch wrote on a machine without a GPU may hold nothing for us, and is a recording.
    ours = opened(write(tmp_path / "t.json", document([event("cpu_op", "aten::add", 5)])))
    assert not len(ours.launches)
