"""Reading by templates says what an exact decoder says: of any layout, whole or mangled."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kineto_texts import BASE, document, event, everything, kernel, kineto_2026, long_run, write
from test_readers_kineto import by_json_load

from profilemate.errors import InputError
from profilemate.parse.readers import open_recording
from profilemate.parse.readers.kineto import compiled, event_stream, native, window
from profilemate.parse.recording.contract import Recording

pytestmark = pytest.mark.usefixtures("compiled_scanner")

# ------------------------------------------------------------------ layouts


def kineto_2024(trace: dict[str, Any]) -> str:
    """Two lines of head, the arguments in one line."""
    head = "".join(
        f"  {json.dumps(k)}: {json.dumps(v)},\n" for k, v in trace.items() if k != "traceEvents"
    )
    events = ",\n".join(_event_2024(e) for e in trace["traceEvents"])
    return "{\n" + head + f'  "traceEvents": [\n{events}\n  ]\n}}\n'


def _event_2024(event: dict[str, Any], between: str = ", ") -> str:
    first = {k: v for k, v in event.items() if k not in ("ts", "dur", "args")}
    times = {k: v for k, v in event.items() if k in ("ts", "dur")}
    lines = [json.dumps(first)[1:-1], json.dumps(times)[1:-1]]
    if "args" in event:
        inside = between.join(json.dumps({k: v})[1:-1] for k, v in event["args"].items())
        lines.append(f'"args": {{\n      {inside}\n    }}')
    return "  {\n    " + ",\n    ".join(lines) + "\n  }"


def kineto_2022(trace: dict[str, Any]) -> str:
    """The same with an argument a line."""
    head = "".join(
        f"  {json.dumps(k)}: {json.dumps(v)},\n" for k, v in trace.items() if k != "traceEvents"
    )
    events = ",\n".join(_event_2024(e, ",\n      ") for e in trace["traceEvents"])
    return "{\n" + head + f'  "traceEvents": [\n{events}\n  ]\n}}\n'


def compact(trace: dict[str, Any]) -> str:
    return json.dumps(trace, separators=(",", ":"))


def spaced(trace: dict[str, Any]) -> str:
    return json.dumps(trace)


def indented(trace: dict[str, Any]) -> str:
    return json.dumps(trace, indent=1)


def raw_unicode(trace: dict[str, Any]) -> str:
    return json.dumps(trace, ensure_ascii=False)


def shuffled(trace: dict[str, Any]) -> str:
    """Every event with its keys in another order, now and then another space."""
    rng, out = random.Random(5), []
    for e in trace["traceEvents"]:
        keys = list(e)
        rng.shuffle(keys)
        text = json.dumps({k: e[k] for k in keys})
        out.append(text[0] + " " * rng.randrange(2) + text[1:])
    head = json.dumps({k: v for k, v in trace.items() if k != "traceEvents"})
    return head[:-1] + ', "traceEvents": [' + ",\n".join(out) + "]}"


KINETO = (kineto_2026, kineto_2024, kineto_2022)
LAYOUTS = (*KINETO, compact, spaced, indented, raw_unicode, shuffled)
BLOCKS = (1, 64, 333, 2048, 1 << 22)

# ------------------------------------------------------------------ traces

NAMES = st.sampled_from(
    [
        "pm1.step num_tokens=5",
        "execute_new_2_cached_0",
        "void k<3>(int*)",
        "}, {",
        "},\n  {",
        "},{",
        'q "quoted", "twice"',
        "back\\slash",
        '"ph": "X", "cat": "kernel", "name": "k"',
        "tab\t and unit separator \x1f",
        "h\u00e9\u4e2d\U0001f600",
        "",
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
NUMBERS = st.one_of(
    st.integers(0, 9),
    st.integers(0, 2**33),
    st.sampled_from([7, 99999999, 100000000, 10**15, 10**16 - 1, 10**16, 10**18, 2**62, 10**40]),
)
TIMES = st.one_of(
    st.integers(0, 4 * 10**15),
    st.decimals(0, 10**12, places=3).map(str),
    st.tuples(st.integers(0, 10**12), st.integers(0, 999)).map(lambda t: t[0] + t[1] / 1000),
    st.sampled_from([0, 0.5, 1e22, 1e-9, -3, "12", 123456789.0625]),
)
LISTS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, -1e30, "int", "", '"']),
    lambda inside: st.lists(inside, max_size=4),
    max_leaves=9,
).map(lambda value: value if isinstance(value, list) else [value])
ARGUMENTS = st.fixed_dictionaries(
    {"device": st.integers(0, 7), "stream": NUMBERS, "correlation": NUMBERS},
    optional={
        "graph id": NUMBERS,
        "graph node id": NUMBERS,
        "blocks per SM": st.sampled_from([0.5, 12, 4.848485, 100.25, -1, 1e30]),
        "grid": st.lists(st.integers(0, 4096), max_size=4),
        "deep": st.just({"a": [{"b": "}, {"}, {"name": "x"}], "c": None, "d": [True, False]}),
        "note": NAMES,
        "Input Dims": LISTS,
        "Ev Idx": NUMBERS.map(str),
    },
)


@st.composite
def many(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A few kinds of events, each many times over with other numbers, as traces have them."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        category = draw(
            st.sampled_from(
                ["kernel", "gpu_memcpy", "cuda_runtime", "user_annotation", "cpu_op", "Trace"]
            )
        )
        first = event(category, draw(NAMES), 1, pid=draw(st.sampled_from([7, 0, "Spans"])))
        first["args"] = draw(ARGUMENTS)
        quoted = draw(st.sampled_from([(), ("tid",), ("pid", "ts"), ("dur", "correlation")]))
        if category == "cuda_runtime":
            first["name"] = draw(st.sampled_from(["cudaGraphLaunch", "cudaLaunchKernel"]))
        if draw(st.booleans()):
            del first["dur"]
        for _ in range(draw(st.integers(1, 6))):
            one = copy.deepcopy(first)
            one["ts"] = draw(TIMES)
            if "dur" in one:
                one["dur"] = draw(TIMES)
            for key, value in one["args"].items():
                if type(value) is int:
                    one["args"][key] = draw(NUMBERS)
                if key in ("Input Dims", "Ev Idx") and draw(st.booleans()):
                    one["args"][key] = draw(LISTS if key == "Input Dims" else NUMBERS.map(str))
            for fields in (one, one["args"]):
                fields.update({key: str(fields[key]) for key in quoted if key in fields})
            if draw(st.integers(0, 3)) == 0:
                one["name"] = draw(NAMES)
            found.append(one)
    order = draw(st.randoms(use_true_random=False))
    order.shuffle(found)
    return found


def whole(trace: dict[str, Any]) -> dict[str, Any]:
    return {**trace, "traceEvents": [*trace["traceEvents"], event("cpu_op", "last", 5)]}


def read(path: Path, block: int, *, templates: bool = True) -> tuple[Recording, dict[str, Any]]:
    """Everything a file gives, with or without templates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "BLOCK", block)
        patch.setattr(window, "SMALL", min(block, window.SMALL))
        if not templates:
            patch.setattr(event_stream.EventStream, "_offer", lambda self: iter(()))
        recording: Any = None
        try:
            recording = open_recording(path)
            found = everything(recording)
        except InputError as e:
            return recording, {"error": str(e)}
    info = recording.info
    # How many events came before the damage is not to the point, and nor is who counted them.
    return recording, found | {"window": info.window, "unix": info.start_unix_ns} | {
        "notes": info.notes
    }


SETTINGS = settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SETTINGS
@given(many(), st.sampled_from(LAYOUTS), st.sampled_from(BLOCKS), st.booleans())
def test_the_answer_of_json_load(
    tmp_path: Path, events: list[dict[str, Any]], layout: Any, block: int, packed: bool
) -> None:
    text = layout(whole(document(events)))
    path = write(tmp_path / ("x.json.gz" if packed else "x.json"), text)
    recording, found = read(path, block)
    try:
        expected = by_json_load(text)
    except (ValueError, OverflowError):
        expected = {}
    _, exact = read(path, block, templates=False)
    assert found == exact
    numbers = [v for e in events for v in (e["ts"], e.get("dur", 0), *e["args"].values())]
    numbers = [float(n) if isinstance(n, str) and n.isdecimal() else n for n in numbers]
    plain = all(not isinstance(n, int | float) or abs(n) < 2**50 for n in numbers)
    if plain and layout is not shuffled:
        several = expected.pop("several")
        for side in (found, expected) if several else ():
            side["gpu"] = [(*row[:2], *row[3:]) for row in side["gpu"]]
        assert {k: found[k] for k in expected} == expected
    assert recording.info.start_unix_ns == BASE


MANGLED = st.sampled_from(["cut", "flip", "quote", "drop", "double", "bytes", "control"])


def mangle(raw: bytes, how: str, rng: random.Random) -> bytes:
    """One more thing that is wrong with a trace."""
    at = rng.randrange(len(raw))
    if how == "cut":
        return raw[:at]
    if how == "flip":
        return raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :]
    if how == "drop":
        return raw[:at] + raw[at + 1 :]
    if how == "double":
        return raw[:at] + raw[at : at + 9] + raw[at:]
    insert = {"quote": b'"', "bytes": b"\xff\xc3", "control": b"\x07"}[how]
    names = [i for i in range(len(raw)) if raw.startswith(b'"name":', i)]
    begin = raw.find(b'"', rng.choice(names) + 7) + 1 if names else at
    return raw[:begin] + b"a" + insert + b"b" + raw[begin:]


@SETTINGS
@given(
    many(),
    st.sampled_from(LAYOUTS),
    st.sampled_from(BLOCKS),
    st.lists(MANGLED, min_size=1, max_size=3),
    st.integers(0, 2**32),
)
def test_mangled_traces_read_as_without_templates(
    tmp_path: Path,
    events: list[dict[str, Any]],
    layout: Any,
    block: int,
    how: list[str],
    seed: int,
) -> None:
    rng, raw = random.Random(seed), layout(whole(document(events))).encode()
    for one in how:
        raw = mangle(raw, one, rng)
    path = tmp_path / "x.pt.trace.json"
    path.write_bytes(b'{"traceEvents":' + raw[1:] if rng.random() < 0.02 else raw)
    try:
        open_recording(path)
    except InputError:
        return  # its head is no trace's any more
    _, found = read(path, block)
    _, exact = read(path, block, templates=False)
    assert found == exact


# ------------------------------------------------------------------ that it is the fast way


@pytest.mark.parametrize("layout", [f for f in LAYOUTS if f is not shuffled])
def test_all_but_a_few_events_are_read_by_templates(tmp_path: Path, layout: Any) -> None:
    path = write(tmp_path / "x.json", long_run(layout))
    recording = open_recording(path)
    found = everything(recording)
    assert (len(found["gpu"]), len(found["launches"])) == (2999, 2999)
    assert recording.exact < 60  # type: ignore[attr-defined]
    _, exact = read(path, 1 << 22, templates=False)
    assert {k: exact[k] for k in found} == found


def test_our_own_files_are_an_array_with_an_event_a_line(tmp_path: Path) -> None:
    lines = [json.dumps(event("profilemate", f"pm1.step step={i}", i * 5)) for i in range(2000)]
    path = tmp_path / "x.json"
    for text in ("[\n" + ",\n".join(lines) + "\n]", "[\n" + ",\n".join(lines) + ",\n"):
        path.write_text(text)
        recording = open_recording(path)
        assert len(list(recording.markers())) == 2000
        assert recording.exact < 10  # type: ignore[attr-defined]


def test_a_quoted_name_costs_no_more_than_itself(tmp_path: Path) -> None:
    # torch 2.13 writes quotes in names as they are.
    names = [f'execute_{i} "x"' if i % 500 == 0 else f"execute_{i}" for i in range(2000)]
    events = [event("user_annotation", f"NAME{i}_", i) for i in range(2000)]
    text = kineto_2026(document(events))
    for i, name in enumerate(names):
        text = text.replace(f"NAME{i}_", name)
    recording = open_recording(write(tmp_path / "x.json", text))
    found = everything(recording)
    assert [m[4] for m in found["annotations"]] == names
    assert any("4 events had unescaped quotes" in note for note in recording.info.notes)
    assert recording.exact < 30  # type: ignore[attr-defined]


def test_many_kinds_of_events_do_not_crowd_out_the_frequent_ones(tmp_path: Path) -> None:
    events = [
        event("cpu_op", "op", i, args={f"key {i}": 1, "Input Dims": [[i]] * (i % 9)})
        for i in range(1500)
    ]
    events += [kernel(i, i) for i in range(5000)]
    recording = open_recording(write(tmp_path / "x.json", kineto_2026(document(events))))
    assert len(everything(recording)["gpu"]) == 5000
    assert recording.exact < 1600  # type: ignore[attr-defined]


def shapes(count: int) -> list[list[int]]:
    """The shapes of so many inputs, of one to four dimensions each."""
    return [[7] * (1 + i % 4) for i in range(count)]


@pytest.mark.parametrize(
    "more",
    [
        lambda i: {"tid": str(i)},
        lambda i: {"pid": str(i), "ts": f"{i}.125", "dur": "3"},
        lambda i: {"args": {"Input Dims": shapes(i % 200), "Input type": ["float"] * (i % 50)}},
        lambda i: {"args": {"Concrete Inputs": ["", f"{i}", [[], [None, True]]], "Ev Idx": i}},
        lambda i: {"args": {"External id": str(i), "Call stack": f"a.py({i}): f;b.py(3): g"}},
    ],
)
def test_what_differs_from_event_to_event_is_no_reason_to_decode(
    tmp_path: Path, more: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [event("user_annotation", f"execute_{i}", i) | more(i) for i in range(2000)]
    path = write(tmp_path / "x.json", document(events))
    recording = open_recording(path)
    found = everything(recording)
    assert recording.exact < 10  # type: ignore[attr-defined]
    monkeypatch.setenv(native.VARIABLE, "exact")
    decoded = open_recording(path)
    assert everything(decoded) == found
    assert decoded.exact == 2000  # type: ignore[attr-defined]


def test_what_cannot_be_learned_from_is_rarely_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {"args": {f"key {i}": i for i in range(300)}}  # more numbers than a template has holes
    events = [event("cpu_op", "a", i, **odd) for i in range(3000)]
    tried = []

    def counted(*arguments: Any) -> None:
        tried.append(arguments)

    monkeypatch.setattr(compiled, "template_of", counted)
    recording = open_recording(write(tmp_path / "x.json", document(events)))
    everything(recording)
    assert recording.exact == 3000  # type: ignore[attr-defined]
    assert 3000 / 64 < len(tried) < 3000 / 16
