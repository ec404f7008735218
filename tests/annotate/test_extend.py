"""Hooks of others: what they record, what their faults do, and where their code is found."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from extending import Make, add
from listsink import ListSink
from places import LAYOUTS, ROOT

from profilemate import annotate
from profilemate.annotate import current, extend
from profilemate.annotate.extend import track
from profilemate.annotate.settings import Settings
from profilemate.schema import custom

ADD = "vllm.v1.core.sched.scheduler:Scheduler.add_request"
pytestmark = pytest.mark.usefixtures("nothing_registered")


def fields(owner: Any, arguments: Mapping[str, Any], result: Any) -> dict[str, Any]:
    return {"req": arguments["request"].request_id, "waiting": len(owner.waiting)}


def texts(sink: ListSink) -> list[str]:
    """Custom events as they were spelled, without their times."""
    assert current.emitter is not None
    current.emitter.flush()
    events = [e for e in sink.events() if e.kind.startswith("custom.")]
    for event in events:
        assert int(event.extra.pop("ago")) >= int(event.extra.pop("dur")) >= 0
    return [f"{e.kind} {e.extra}" for e in events]


def test_a_hook_records_calls_with_its_fields(
    layout: None, sink: ListSink, on: Settings, request_of: Make
) -> None:
    track(ADD, kind="arrival", fields=fields)
    annotate.install(on)
    scheduler = add(request_of, "a b", "ü%")
    assert [r.request_id for r in scheduler.waiting] == ["a b", "ü%"]
    assert texts(sink) == [
        "custom.arrival {'req': 's:a b', 'waiting': 'i:1'}",
        "custom.arrival {'req': 's:ü%', 'waiting': 'i:2'}",
    ]
    # What we record of the same method goes on.
    assert len(sink.events("request")) == 2
    status = {h.name: h for h in annotate.status()}["custom.arrival Scheduler.add_request"]
    assert (status.state, status.target) == ("installed", ADD)


def test_it_can_come_after_vllm_and_after_us(
    layout: None, sink: ListSink, on: Settings, request_of: Make
) -> None:
    annotate.install(on)
    add(request_of, "before")
    track(ADD, kind="arrival", fields=fields)
    track(ADD, kind="arrival", fields=fields)
    add(request_of, "after")
    assert texts(sink) == ["custom.arrival {'req': 's:after', 'waiting': 'i:1'}"]
    annotate.uninstall()
    from vllm.v1.core.sched.scheduler import Scheduler

    assert not hasattr(Scheduler.add_request, "__wrapped__")


def test_nothing_is_wrapped_or_imported_when_nobody_records(
    layout: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_of: Make
) -> None:
    (tmp_path / "my_plugin.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    track(ADD, kind="arrival", fields=fields)
    assert annotate.install(env={"PROFILEMATE_PLUGINS": "my_plugin"}) == []
    add(request_of, "a")
    from vllm.v1.core.sched.scheduler import Scheduler

    assert not hasattr(Scheduler.add_request, "__wrapped__")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda *_: 1 / 0, "ZeroDivisionError"),
        (lambda *_: {"x": object()}, "x is of type object; give an int, float, bool, str or None"),
        (lambda *_: {"ago": 1}, "no name for a field: 'ago'"),
        (lambda *_: {"Bad Name": 1}, "no name for a field"),
        (lambda *_: {1: 1}, "TypeError"),
        (lambda *_: 7, "AttributeError"),
    ],
)
def test_a_fault_of_theirs_is_said_once_and_vllm_goes_on(
    bad: Any,
    said: str,
    layout: None,
    sink: ListSink,
    on: Settings,
    request_of: Make,
    capsys: pytest.CaptureFixture[str],
) -> None:
    track(ADD, kind="arrival", fields=bad)
    annotate.install(on)
    assert len(add(request_of, "a", "b").waiting) == 2
    assert current.emitter is not None
    assert texts(sink) == []
    assert current.emitter.faults.count == 2
    err = capsys.readouterr().err
    assert err.count("custom.arrival") == 1
    assert said in err
    assert len(sink.events("request")) == 2


def test_none_is_no_event(layout: None, sink: ListSink, on: Settings, request_of: Make) -> None:
    track(ADD, kind="arrival", fields=lambda *_: None)
    annotate.install(on)
    add(request_of, "a")
    assert texts(sink) == []


CODE = """
from functools import lru_cache
class C:
    def plain(self, a, b=2, *, c=3): return (a, b, c)
    async def later(self): ...
    def many(self): yield 1
    @staticmethod
    def static(a): return a
    @classmethod
    def of_class(cls, a): return (cls.__name__, a)
    @property
    def value(self): return 5
    cached = lru_cache(lambda self: 6)
def function(a, *rest, k=1): return (a, rest, k)
def nothing(): return 7
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = ModuleType("my_module")
    exec(CODE, vars(found))
    monkeypatch.setitem(sys.modules, "my_module", found)
    return found


def test_arguments_come_by_name_and_functions_have_no_self(
    sink: ListSink, on: Settings, module: Any
) -> None:
    seen: list[Any] = []

    def look(owner: Any, arguments: Mapping[str, Any], result: Any) -> dict[str, Any]:
        seen.append((type(owner).__name__, dict(arguments), result))
        return {}

    track("my_module:C.plain", kind="plain", fields=look)
    track("my_module:function", kind="function", fields=look)
    annotate.install(on)
    assert module.C().plain(1, c=9) == (1, 2, 9)
    assert module.function(4, 5, 6, k=7) == (4, (5, 6), 7)
    assert seen == [
        ("C", {"a": 1, "b": 2, "c": 9}, (1, 2, 9)),
        ("NoneType", {"a": 4, "rest": (5, 6), "k": 7}, (4, (5, 6), 7)),
    ]
    assert texts(sink) == ["custom.plain {}", "custom.function {}"]


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("C.later", "coroutine"),
        ("C.many", "generator"),
        ("C.static", "no plain method"),
        ("C.of_class", "no plain method"),
        ("C.value", "has no value"),
        ("C.cached", "no function written in Python"),
        ("C", "no plain method"),
        ("nothing", "takes no arguments"),
        ("absent", "has no absent"),
    ],
)
def test_what_cannot_be_wrapped_is_left_as_it_is(
    place: str, why: str, sink: ListSink, on: Settings, module: Any
) -> None:
    before = dict(vars(module.C)), dict(vars(module))
    track(f"my_module:{place}", kind="it", fields=lambda *_: {})
    annotate.install(on)
    status = {h.name: h for h in annotate.status()}[f"custom.it {place}"]
    assert status.state == ("skipped" if why.startswith("has no") else "failed")
    assert why in status.why
    assert (dict(vars(module.C)), dict(vars(module))) == before


def test_the_first_candidate_that_exists_is_taken(
    sink: ListSink, on: Settings, module: Any
) -> None:
    track(
        ("my_module:Newer.plain", "my_module:C.plain"), kind="it", fields=lambda *_: {"seen": True}
    )
    annotate.install(on)
    module.C().plain(1)
    assert texts(sink) == ["custom.it {'seen': 'b:True'}"]


@pytest.mark.parametrize("kind", ["", "Upper", "a b", "a.b", "../x", "1a", "a" * 65])
def test_a_kind_is_a_plain_name(kind: str) -> None:
    with pytest.raises(ValueError, match="no name for a kind"):
        track(ADD, kind=kind, fields=fields)


@pytest.mark.parametrize("place", ["", "module", "module:", "m:a b", ":x"])
def test_a_target_is_a_place(place: str) -> None:
    with pytest.raises(ValueError, match="no target"):
        track(place, kind="it", fields=fields)


def test_a_plugin_that_fails_is_said_and_the_others_are_loaded(
    layout: None,
    sink: ListSink,
    on: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request_of: Make,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "my_broken.py").write_text("1 / 0\n")
    call = f"track({ADD!r}, kind='mine', fields=lambda s, a, r: {{'n': len(a)}})"
    (tmp_path / "my_plugin.py").write_text(f"from profilemate.extend import track\n{call}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    annotate.install(on, env={"PROFILEMATE_PLUGINS": "my_absent, my_broken ,my_plugin,"})
    add(request_of, "a")
    assert texts(sink) == ["custom.mine {'n': 'i:1'}"]
    err = capsys.readouterr().err
    assert "the plugin my_broken" in err
    assert "ZeroDivisionError" in err
    assert "No module named 'my_absent'" in err


def test_a_package_announces_its_hooks(tmp_path: Path) -> None:
    """As pip leaves it: a module, and metadata with the entry point; in a process of its own."""
    (tmp_path / "my_package.py").write_text(
        "from profilemate.extend import track\n"
        "def hooks():\n"
        f"    track({ADD!r}, kind='mine', fields=lambda *_: {{}})\n"
    )
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[profilemate.hooks]\nmine = my_package:hooks\n")
    code = (
        "import sys; from profilemate import annotate; annotate.install();"
        "import vllm.v1.core.sched.scheduler;"
        "print([h.state for h in annotate.status() if h.name.startswith('custom.mine')])"
    )
    path = ":".join(map(str, (tmp_path, ROOT, LAYOUTS)))
    for mode, said in (("on", "['installed']\n"), ("off", "[]\n")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": path, "PROFILEMATE": mode},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == said


def test_status_shows_them_before_anything_runs(tmp_path: Path) -> None:
    calls = [f"track({p!r}, kind='it', fields=print)" for p in (ADD, "vllm.core:Gone.by", "m:C.f")]
    lines = ["from profilemate.extend import track", *calls]
    (tmp_path / "my_plugin.py").write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, "-m", "profilemate", "annotate", "status"],
        env={
            "PYTHONPATH": ":".join(map(str, (tmp_path, ROOT, LAYOUTS))),
            "PROFILEMATE_PLUGINS": "my_plugin",
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert "custom.it Scheduler.add_request" not in done.stdout  # it finds its place
    assert re.search(r"custom\.it Gone\.by +there is no vllm\.core", done.stdout)
    assert re.search(r"custom\.it C\.f +there is no m to look at", done.stdout)


def test_where_no_step_ever_ends_events_leave_all_the_same(
    sink: ListSink, on: Settings, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extend, "FLUSH_EVERY_NS", 0)
    track("my_module:C.plain", kind="it", fields=lambda *_: {})
    annotate.install(on)
    module.C().plain(1)
    assert [e.kind for e in sink.events()] == ["custom.it"]


# ---------------------------------------------------------------------- values


class Scalar:
    """As numpy's scalars are, which the package that runs inside vLLM does not import."""

    __module__ = "numpy"

    def item(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (35, 35),
        (-(1 << 63), -(1 << 63)),
        (True, True),
        (False, False),
        (0.1, 0.1),
        (1e300, 1e300),
        (float("inf"), float("inf")),
        (Scalar(), 0.5),
        ("", ""),
        ("i:7", "i:7"),
        ("None", "None"),
        ('a | b=1 "\\ \n', 'a | b=1 "\\ \n'),
        ("\ud800", "\ud800"),
        (1 << 70, float(1 << 70)),
    ],
)
def test_values_come_back(value: Any, back: Any) -> None:
    from profilemate import schema

    text = custom.encode(5, 3, "it", custom.encode_fields("it", {"x": value, "none": None}))
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set("\"\\'")
    message = schema.decode(schema.encode_batch([text], t=9, seq=1))
    assert message is not None
    (event,) = message.events
    assert (event.kind, set(event.extra)) == ("custom.it", {"ago", "dur", "x"})
    found = custom.decode_scalar(event.extra["x"])
    assert (found, type(found)) == (back, type(back))
