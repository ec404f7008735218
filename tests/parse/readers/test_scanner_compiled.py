"""The compiled scanner finds what the exact decoder finds, in the same order."""

from __future__ import annotations

import ctypes
import json
import os
import random
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import build_scanner
import environments
import numpy as np
import pytest
import scanners
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installing import MARKER
from kineto_texts import document, event, kernel, launch
from test_readers_kineto_fast import LAYOUTS, MANGLED, mangle, many, whole

from profilemate.errors import InputError
from profilemate.parse.readers.kineto import compiled, native
from profilemate.parse.readers.kineto.compiled import CompiledScanner
from profilemate.parse.readers.kineto.event_stream import EventStream, Taken
from profilemate.parse.readers.kineto.found import Found


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    scanners.make_library()
    found = native.library()
    assert found is not None
    return found


class Blocks:
    """A text in blocks of some size."""

    def __init__(self, raw: bytes, size: int) -> None:
        self._raw, self._size, self._at = raw, size, 0

    def read1(self, size: int, /) -> bytes:
        block = self._raw[self._at : self._at + min(size, self._size)]
        self._at += len(block)
        return block


def everything(raw: bytes, library: ctypes.CDLL | None, size: int = 1 << 22) -> dict[str, Any]:
    """All that is put aside, by the scanner or without one, down to the numbers of names."""
    found = Found()
    taker = None if library is None else CompiledScanner(found, library)
    stream = EventStream(Blocks(raw, size), taker)
    ours: list[Any] = []
    for item in stream.events():
        if isinstance(item, Taken):
            ours += item.markers
        elif (marker := found.take(item)) is not None:
            ours.append(marker)
    records = list(found.gpu.records())
    return {
        "ours": ours,
        "annotations": found.annotations,
        "gpu": {n: np.concatenate([r[n] for r in records]).tolist() for n in records[0]}
        if records
        else {},
        "launches": {n: found.launches.column(n).tolist() for n in found.launches.names},
        "starts": {n: found.starts.column(n).tolist() for n in found.starts.names},
        "names": list(found.names.items()),
        "calls": list(found.calls.items()),
        "callers": found.callers,
        "window": (found.first, found.last),
        "used": found.window,
        "untimed": found.untimed,
        "unusable": found.unusable,
        "damage": (stream.damage, stream.repaired, stream.broken),
    }


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    many(),
    st.sampled_from(LAYOUTS),
    st.lists(MANGLED, max_size=2),
    st.integers(0, 2**32),
    st.sampled_from([64, 700, 1 << 22]),
    st.sampled_from([1, 2, 7, 1 << 14]),
    st.sampled_from([0, 3, 64]),
)
def test_both_find_the_same(
    library: ctypes.CDLL,
    events: list[dict[str, Any]],
    layout: Any,
    how: list[str],
    seed: int,
    size: int,
    room: int,
    few: int,
) -> None:
    raw = layout(whole(document(events))).encode()
    for one in how:
        raw = mangle(raw, one, random.Random(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "_ROOM", room)
        patch.setattr(compiled, "_FEW", few)
        by_library = everything(raw, library, size)
    assert by_library == everything(raw, None, size)


def test_more_kinds_than_slots(library: ctypes.CDLL) -> None:
    events = [
        {**kernel(10 * i, i), "args": {"correlation": i, f"key {i % 300}": 1}} for i in range(1500)
    ]
    raw = json.dumps(document(events)).encode()
    by_library = everything(raw, library, 5000)
    assert by_library == everything(raw, None, 5000)
    assert len(by_library["gpu"]["start"]) == 1500


def test_more_names_than_its_first_table(library: ctypes.CDLL) -> None:
    events = [{**kernel(10 * i, i), "name": f"kernel<{i}>"} for i in range(3000)]
    events += [{**launch(10 * i, i), "name": f"call<{i // 2}>"} for i in range(3000)]
    raw = json.dumps(document(events)).encode()
    by_library = everything(raw, library)
    assert by_library == everything(raw, None)
    assert len(by_library["names"]) == 3000
    assert len(by_library["calls"]) == 1500


def test_a_name_that_is_no_utf8(library: ctypes.CDLL) -> None:
    events = [event("cuda_runtime", f"cuda{i % 3}", i) for i in range(50)]
    raw = json.dumps(document(events)).encode().replace(b"cuda1", b"cu\xff\xfe1")
    by_library = everything(raw, library)
    assert by_library == everything(raw, None)
    assert ("cu\ufffd\ufffd1", 17) in by_library["calls"]


# ------------------------------------------------------------------ which one is in use


def test_the_environment_chooses(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.VARIABLE, raising=False)
    assert native.library() is library
    assert native.description() == "compiled"
    monkeypatch.setenv(native.VARIABLE, "exact")
    assert native.library() is None
    assert native.description() == (
        "none, which is slow: the compiled scanner, which is ten times as fast, "
        "is switched off by PROFILEMATE_SCANNER. Unset PROFILEMATE_SCANNER."
    )
    monkeypatch.setenv(native.VARIABLE, "rust")
    with pytest.raises(InputError, match="PROFILEMATE_SCANNER is 'rust'"):
        native.library()


def test_without_a_library_the_decoder_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(native.VARIABLE, raising=False)
    monkeypatch.setattr(native, "_LIBRARY", tmp_path / "_scan.so")
    assert native.library() is None
    assert native.description() == (
        "none, which is slow: the compiled scanner, which is ten times as fast, "
        "is not built. Install profilemate again where a C compiler is."
    )
    monkeypatch.setenv(native.VARIABLE, "compiled")
    with pytest.raises(InputError, match="asks for the compiled scanner") as raised:
        native.library()
    assert "where a C compiler is" in str(raised.value)


def test_a_library_of_another_source_is_not_used(
    library: ctypes.CDLL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(native.VARIABLE, raising=False)
    older = tmp_path / "_scan.c"
    older.write_bytes(native._SOURCE.read_bytes() + b"\n")
    monkeypatch.setattr(native, "_SOURCE", older)
    native._loaded.cache_clear()
    assert "which is ten times as fast, was built of another _scan.c." in native.description()
    native._loaded.cache_clear()


def test_what_is_no_library_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.VARIABLE, raising=False)
    broken = tmp_path / "_scan.so"
    broken.write_bytes(b"\x7fELF and nothing else")
    monkeypatch.setattr(native, "_LIBRARY", broken)
    assert "ten times as fast, cannot be loaded: " in native.description()


# ------------------------------------------------------------------ how it is built


@pytest.mark.parametrize(
    ("compiler", "why"),
    [
        ("/no/such/compiler", "/no/such/compiler cannot be run: No such file or directory"),
        ("false", "false says: "),
    ],
)
def test_without_a_compiler_there_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, why: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    assert build_scanner.build(tmp_path / "x.so") == why
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build_scanner.build(tmp_path / "x.so") == "there is no C compiler"
    assert list(tmp_path.iterdir()) == []


def test_the_compiler_has_nothing_to_warn_of(tmp_path: Path) -> None:
    scanners.make_library()
    assert build_scanner.build(tmp_path / "x.so", ("-Werror", "-Wconversion", "-pedantic")) is None


def test_setting_up_builds_what_is_missing_or_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a clone whose environment is complete, with a copy of the library's source."""
    library = tmp_path / build_scanner.LIBRARY
    library.parent.mkdir(parents=True)
    source = tmp_path / build_scanner.SOURCE
    source.write_bytes((build_scanner.ROOT / build_scanner.SOURCE).read_bytes())
    monkeypatch.setattr(build_scanner, "ROOT", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    marker = tmp_path / ".venv" / MARKER

    def set_up() -> None:
        marker.write_text(environments._venv_fingerprint(tmp_path))
        assert environments.ensure_venv(tmp_path) == python

    set_up()
    first = library.stat().st_mtime_ns
    assert build_scanner.is_current(library)
    set_up()
    assert library.stat().st_mtime_ns == first
    source.write_bytes(source.read_bytes() + b"\n")
    assert not build_scanner.is_current(library)
    set_up()
    assert build_scanner.is_current(library)
    library.write_bytes(b"\x7fELF and nothing else")
    monkeypatch.setenv("CC", "/no/such/compiler")
    set_up()
    assert "which is slow: /no/such/compiler cannot be run" in capfd.readouterr().err


def wheel(folder: Path, compiler: str) -> zipfile.ZipFile:
    """The wheel that pip makes of this clone."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*build, "-w", str(folder), str(build_scanner.ROOT)],
        env={**os.environ, "CC": compiler},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return zipfile.ZipFile(found)


def test_the_wheel_carries_it_for_every_python(library: ctypes.CDLL, tmp_path: Path) -> None:
    made = wheel(tmp_path, os.environ.get("CC", "cc"))
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert str(made.filename).endswith(f"-py3-none-{platform}.whl")
    made.extractall(tmp_path)
    folder = tmp_path / build_scanner.FOLDER
    assert {"_scan.c", "_scan.so"} <= {path.name for path in folder.iterdir()}
    installed = native._loaded(folder / "_scan.so")
    assert isinstance(installed, ctypes.CDLL)


def test_without_a_compiler_the_wheel_is_pure(library: ctypes.CDLL, tmp_path: Path) -> None:
    made = wheel(tmp_path, "false")
    assert str(made.filename).endswith("-py3-none-any.whl")
    assert not [name for name in made.namelist() if name.endswith(".so")]
