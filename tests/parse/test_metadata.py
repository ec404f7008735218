"""metadata.json, typed: what was written comes back, and whatever else it holds is no traceback."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import EXPECTED

from profilemate.errors import InputError
from profilemate.hta.run import torch_traces
from profilemate.insight.compare import as_json, compare
from profilemate.insight.findings import find
from profilemate.insight.headline import headline
from profilemate.insight.metrics import families
from profilemate.insight.report import draw_all, write_page
from profilemate.parse.pipeline import parse_session
from profilemate.parse.session.metadata import Metadata
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables import TABLES
from profilemate.parse.writers.openmetrics import openmetrics_text
from profilemate.view.find import timeline_of

GOLDEN: dict[str, Any] = json.loads((EXPECTED / "metadata.json").read_text(encoding="utf-8"))
VOLATILE: dict[str, Any] = {
    "output_dir": "/somewhere/session",
    "sources": [
        {
            "path": "/somewhere/run.sqlite",
            "kind": "nsys sqlite export",
            "size": 7,
            "recorder": None,
            "window_ns": [1, 2],
            "notes": ["A note."],
        }
    ],
    "versions": {"profilemate": "0.1.0", "vllm": None},
    "timeline": {"file": "timeline.pftrace", "tracks": {"steps": {"slices": 3}}},
}
WHOLE: dict[str, Any] = {**GOLDEN, **VOLATILE}


def test_what_was_written_comes_back_and_is_written_again() -> None:
    found = Metadata.from_json(WHOLE)
    assert found.unread == ()
    assert json.dumps(found.to_json(), sort_keys=True) == json.dumps(WHOLE, sort_keys=True)


def test_of_a_live_session_that_was_not_parsed_nothing_is_missing() -> None:
    said = {"session_id": "s", "recording": True, "files": ["metadata.json"], "notes": ["Goes on."]}
    found = Metadata.from_json(said)
    assert (found.recording, found.unread) == (True, ())
    assert [w.text for w in found.warnings] == ["Goes on."]


# --------------------------------------------------------------------------- whatever JSON there is

DEEP: Any = json.loads("[" * 400 + "]" * 400)
DAMAGE: list[Any] = [[], {}, "12", "", 10**30, -1, 1.5, math.nan, math.inf, True, DEEP, [DEEP]]
DAMAGE += [[1, 2], [math.nan, 1], [2, 1], {"a": DEEP}, {"a": 10**30}, "\ud800", "x" * 5000, "a\0b"]


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in the document, the first of each list and of each mapping of names."""
    if path:
        yield path
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())[: 1 if len(value) > 12 and path else None]
    if isinstance(value, list):
        items = [(0, value[0])] if value else []
    for key, inner in items:
        yield from places(inner, (*path, key))


def broken(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(WHOLE))
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


def typed(value: object) -> None:
    """Nothing in it is another kind of value than metadata can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            typed(getattr(value, field.name))
    elif isinstance(value, tuple):
        for inner in value:
            typed(inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            typed(name)
            assert not isinstance(inner, list | dict | tuple)
            typed(inner)
    elif isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, int):
        assert abs(value) < 1 << 63
    elif isinstance(value, str):
        value.encode("utf-8")
    else:
        assert value is None, value


@pytest.mark.parametrize("path", list(places(WHOLE)), ids=lambda p: ".".join(map(str, p)))
def test_a_value_of_another_kind_is_none_and_is_named(path: tuple[str | int, ...]) -> None:
    for value in DAMAGE:
        found = Metadata.from_json(broken(path, value))
        typed(replace(found, timeline=None))  # that one is as it stands: nobody reads it
        json.dumps({**found.to_json(), "timeline": None}, allow_nan=False).encode("utf-8")
        if value is DEEP and path[0] not in ("files", "timeline"):
            assert any(str(path[0]) in note for note in found.unread), (path, found.unread)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(WHOLE)), ANY))
def test_any_document_can_be_read_and_written(document: dict[str, Any]) -> None:
    found = Metadata.from_json(document)
    assert json.dumps({**found.to_json(), "timeline": None}, allow_nan=False)
    again = Metadata.from_json(found.to_json())
    assert [w.text for w in found.warnings] == [
        w.text for w in again.warnings[: len(found.warnings)]
    ]


def test_a_key_that_is_missing_is_named() -> None:
    for key in sorted({*WHOLE} - {"files", "timeline", "warnings"}):
        found = Metadata.from_json({k: v for k, v in WHOLE.items() if k != key})
        assert found.unread == (
            f"metadata.json has no {key}: another version of profilemate wrote it",
        )


@pytest.fixture(scope="module")
def frames() -> dict[str, Any]:
    session = SavedSession.open(EXPECTED)
    return {name: session.table(name) for name in TABLES}


def use(session: SavedSession, out: Path) -> None:
    """Everything that is made of a session."""
    whole = SavedSession.open(EXPECTED)
    verdict = find(session)
    headline(session)
    for pair in ((session, whole), (whole, session)):
        json.dumps(as_json(compare(*pair)), allow_nan=False)
    openmetrics_text(families(session))
    write_page(session, out, draw_all(session), verdict)


@pytest.mark.parametrize("value", DAMAGE, ids=[str(n) for n in range(len(DAMAGE))])
def test_every_reader_takes_what_is_damaged(
    value: Any, tmp_path: Path, frames: dict[str, Any]
) -> None:
    document = {key: value for key in WHOLE if key != "files"}
    use(SavedSession(EXPECTED, Metadata.from_json(document), dict(frames)), tmp_path / "a.html")
    # The same one level down, where it is an object or a list of them.
    inner = {
        key: dict.fromkeys(said, value)
        if isinstance(said, dict)
        else [dict.fromkeys(said[0], value)]
        for key, said in WHOLE.items()
        if isinstance(said, dict) or (said and isinstance(said, list) and isinstance(said[0], dict))
    }
    session = SavedSession(EXPECTED, Metadata.from_json({**WHOLE, **inner}), dict(frames))
    use(session, tmp_path / "b.html")


@pytest.mark.parametrize("value", [*DAMAGE, [{"path": "x" * 5000, "kind": "torch profiler trace"}]])
def test_what_looks_for_the_recordings_of_a_session_finds_none(value: Any, tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_text(json.dumps({"session_id": "s", "sources": value}))
    with pytest.raises(InputError):
        torch_traces(tmp_path)
    with pytest.raises(InputError), timeline_of([tmp_path], None, lambda *_: None):
        pass


# --------------------------------------------------------------------------- on the disk

FILES = ["", "[]", "null", "5", '"x"', "{", "\x00", "[" * 100_000, '{"a":' * 100_000, "NaN"]


@pytest.mark.parametrize("text", FILES, ids=[str(n) for n in range(len(FILES))])
def test_a_file_that_is_no_object_is_refused_by_readers(text: str, tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_text(text)
    with pytest.raises(InputError) as caught:
        SavedSession.open(tmp_path)
    assert caught.value.exit_code == 2
    assert caught.value.path == str(tmp_path / "metadata.json")


MARKERS = """[
{"ph":"M","cat":"profilemate","pid":7,"tid":0,"name":"profilemate_sidecar","args":{"role":"engine"}},
{"ph":"i","pid":7,"tid":7,"ts":1795000000000000.000,"s":"t","name":"pm1.batch t=1000 seq=1 | \
session ago=0 role=engine pid=7 host=h dp=0 unix_ns=1795000000000000000 mono_ns=1000 faults=0"},
{"ph":"i","pid":7,"tid":7,"ts":1795000000002000.000,"s":"t","name":"pm1.batch t=1003 seq=2 | \
kv.alloc ago=0 dur=1 pool=0 used=2 ids=0-1 req=r1"},
{"ph":"M","cat":"profilemate","pid":7,"tid":0,"name":"profilemate_end","args":{"messages":2}}
]"""
LISTS = ['{"files":5}', '{"files":null}', '{"session_id":"s","files":[5,{},null]}']


@pytest.mark.parametrize("text", [*FILES, *LISTS], ids=[str(n) for n in range(len(FILES + LISTS))])
def test_a_live_session_is_parsed_whatever_its_metadata_holds(text: str, tmp_path: Path) -> None:
    (tmp_path / "s" / "markers").mkdir(parents=True)
    (tmp_path / "s" / "markers" / "engine_dp0_pp0_tp0_7.trace.json").write_text(MARKERS)
    (tmp_path / "s" / "metadata.json").write_text(text)
    done = parse_session([tmp_path / "s"])
    found = SavedSession.open(tmp_path / "s")
    assert (found.metadata.session_id, found.metadata.unread) == ("s", ())
    assert found.metadata.output_dir == done.metadata.output_dir == str(tmp_path / "s")
    assert found.table("kv_block_events")["op"].tolist() == ["alloc"]
