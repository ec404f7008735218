"""Traces that were decoded before: the same answer, and never an old one."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from build import Export, Row, batch, custom, decode, mark
from gpu_build import GpuExport
from hypothesis import given
from hypothesis import strategies as st
from places import RECORDING
from recorded import real_traces
from same_trace import assert_same_trace
from sidecars import Recorder, make_up, nsys, sidecar, torch_trace

from profilemate.parse import pipeline
from profilemate.parse.cache import TraceCache, identity, pack, store
from profilemate.parse.cache.files import kept
from profilemate.parse.columns.pandas import IdsArray
from profilemate.parse.ingest.read_many import read_all
from profilemate.parse.pipeline import parse_session, read_trace
from profilemate.parse.readers.nsys.report import MAGIC
from profilemate.parse.trace.trace import Trace

REAL = (
    "vllm_rtx3090_gptoss20b_full_and_piecewise.pt.trace.json.gz",
    "vllm_mi300x_mixed_piecewise.json.gz",
    "vllm_b200_eager_prefill.json.gz",
    "training_v100_two_graphs_old_kineto.json.gz",
    "nsys_h100_2gpu_no_graphs.sqlite",
)


@pytest.fixture(autouse=True)
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the cache, for files that were made a moment ago too."""
    monkeypatch.delenv("PROFILEMATE_CACHE_MB", raising=False)
    monkeypatch.setattr(identity, "SETTLED_NS", 0)


@pytest.fixture
def cache(tmp_path: Path) -> TraceCache:
    return TraceCache(tmp_path / "cache", worth_s=0)


def through_file(trace: Trace, folder: Path) -> Trace:
    target = folder / "x.columns"
    store.write(target, *pack.pack(trace))
    found = store.read(target)
    assert found is not None
    return pack.unpack(*found)


def made_of(*names: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        return [real_traces() / name for name in names]

    return make


def bundled(folder: Path) -> list[Path]:
    return [RECORDING]


def ranks(folder: Path) -> list[Path]:
    """An engine and two workers, by three kinds of recorder, in a directory."""
    run = make_up(3, steps=60, workers=2)
    (folder / "in").mkdir()
    nsys(folder / "in" / "all.sqlite", run, run.said, Recorder(off=3))
    for pid in sorted({said.pid for said in run.said}):
        sidecar(folder / "in", run, pid, run.said, Recorder(off=pid))
    return [folder / "in"]


def gpu(folder: Path) -> list[Path]:
    return [GpuExport().write(folder / "gpu.sqlite")]


def hooks(folder: Path) -> list[Path]:
    """Kinds of others with every type that a column may have."""
    events = [
        custom("it", 9, i=1, f=1, b=True, s='a,"b"\n', mixed=1, nan=math.nan),
        custom("it", 8, i=-(1 << 62), f=0.5, b=False, s="\u6f22 %", mixed="x"),
        custom("it", 7),
        custom("other"),
    ]
    rows = [Row(100 * i, batch(i, 100 * i, *events)) for i in range(1, 40)]
    return [Export(rows).write(folder / "hooks.sqlite")]


MAKERS = {
    "bundled": bundled,
    "ranks": ranks,
    "gpu": gpu,
    "hooks": hooks,
    **{name.split("_")[1]: made_of(name) for name in REAL},
}


@pytest.mark.parametrize("what", MAKERS)
def test_a_trace_comes_back_to_the_last_bit(
    what: str, tmp_path: Path, cache: TraceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = MAKERS[what](tmp_path)
    plain = read_trace(paths)
    assert_same_trace(plain, read_trace(paths, decoded=cache))
    assert len(kept(cache.folder)) == 1
    monkeypatch.setattr(pipeline, "read_all", None)  # nothing is decoded any more
    again = read_trace(paths, decoded=cache)
    assert_same_trace(plain, again)
    assert cache.note is None


@pytest.mark.parametrize("what", MAKERS)
def test_a_session_is_the_same_byte_for_byte(
    what: str, tmp_path: Path, cache: TraceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = MAKERS[what](tmp_path)
    written = []
    for decoded in (None, cache, cache):
        parse_session(paths, tmp_path / "s", timeline=True, decoded=decoded)
        files = [p for p in sorted((tmp_path / "s").rglob("*")) if p.is_file()]
        written.append({str(p.relative_to(tmp_path)): p.read_bytes() for p in files})
        shutil.rmtree(tmp_path / "s")
        if decoded is not None:
            monkeypatch.setattr(pipeline, "read_all", None)
    assert len(written[0]) > 15
    assert written[0] == written[1] == written[2]


TEXTS = st.one_of(st.none(), st.text(st.characters(codec=None), max_size=5))
# Lone surrogates only where pandas itself takes them: in Python's own strings.
PROPER = st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=5))


def lists(count: int) -> st.SearchStrategy[tuple[list[Any], ...]]:
    """A list of so many of each."""
    integers = st.integers(-(1 << 63), (1 << 63) - 1)
    ids = st.lists(st.integers(0, 9), max_size=3)
    kinds: tuple[st.SearchStrategy[Any], ...] = (integers, st.booleans(), st.floats(), ids)
    each = (*(st.one_of(st.none(), kind) for kind in kinds), PROPER, TEXTS)
    return st.tuples(*(st.lists(one, min_size=count, max_size=count) for one in each))


@given(st.integers(0, 8).flatmap(lists))
def test_any_column_comes_back(columns: tuple[list[Any], ...]) -> None:
    integers, flags, floats, ids, texts, objects = columns
    data: dict[str, Any] = {
        "Int64": pd.array(integers, dtype="Int64"),
        "boolean": pd.array(flags, dtype="boolean"),
        "Float64": pd.array(floats, dtype="Float64"),
        "python": pd.array(objects, dtype=pd.StringDtype("python")),
        "arrow": pd.array(texts, dtype=pd.StringDtype("pyarrow")),
        "object": pd.Series(objects, dtype="object"),
        "ids": IdsArray._from_sequence(ids),
        "int64": np.array([i or 0 for i in integers], dtype=np.int64),
        "float64": np.array([f or 0 for f in floats], dtype=np.float64),
        "bool": np.array([bool(f) for f in flags]),
    }
    trace = Trace(
        sources=[],
        frames={"step": pd.DataFrame(data)},
        custom={"empty": pd.DataFrame({})},
        names=[t for t in objects if isinstance(t, str)],
    )
    facts, tables = pack.pack(trace)
    assert_same_trace(trace, pack.unpack(facts, tables))


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1, 2]}, index=[1, 2]),
        pd.DataFrame({"a": pd.Categorical(["x", "y"])}),
        pd.DataFrame({"a": [object(), 1]}),
        pd.DataFrame({"a": pd.to_datetime([1, 2])}),
    ],
)
def test_what_is_not_known_is_not_kept(frame: pd.DataFrame, tmp_path: Path) -> None:
    trace = Trace(sources=[], frames={"step": frame})
    with pytest.raises(pack.UnkeepableError):
        pack.pack(trace)
    cache = TraceCache(tmp_path / "cache")
    cache.keep(identity.Identity("x", 0, 1), trace)
    assert kept(cache.folder) == []


# ------------------------------------------------------------------ never an old answer


def seen(paths: list[Path], cache: TraceCache) -> Trace | None:
    """What the cache has for these recordings."""
    slot = cache.slot(dict.fromkeys(paths, False), None)
    return None if slot is None else slot.load()


def recording(path: Path, marks: int) -> Path:
    path.unlink(missing_ok=True)
    return Export([Row(10 * i, batch(i, 10 * i, custom("it"))) for i in range(1, marks)]).write(
        path
    )


def tick() -> None:
    """Let the file system's clock go on: it counts in steps of a few ms."""
    time.sleep(0.02)


def test_a_byte_in_the_middle_with_the_old_time_put_back(tmp_path: Path, cache: TraceCache) -> None:
    path = recording(tmp_path / "x.sqlite", 3000)
    facts = path.stat()
    assert facts.st_size > 3 * identity._ENDS
    read_trace([path], decoded=cache)
    assert seen([path], cache) is not None
    tick()
    with path.open("r+b") as file:
        file.seek(facts.st_size // 2)
        byte = file.read(1)
        file.seek(facts.st_size // 2)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    now = path.stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (
        facts.st_size,
        facts.st_mtime_ns,
        facts.st_ino,
    )
    assert seen([path], cache) is None


def test_another_file_of_the_same_name_size_and_time(tmp_path: Path, cache: TraceCache) -> None:
    path, other = recording(tmp_path / "x.sqlite", 50), recording(tmp_path / "y.sqlite", 50)
    read_trace([path], decoded=cache)
    facts = path.stat()
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert other.stat().st_size == facts.st_size
    other.replace(path)
    assert seen([path], cache) is None


def test_a_recording_that_grew_or_has_a_log_beside_it(tmp_path: Path, cache: TraceCache) -> None:
    path = recording(tmp_path / "x.sqlite", 50)
    read_trace([path], decoded=cache)
    log = Path(f"{path}-wal")
    log.write_bytes(b"")
    assert seen([path], cache) is None
    log.unlink()
    assert seen([path], cache) is not None
    with path.open("ab") as file:
        file.write(b"\0")
    assert seen([path], cache) is None


def test_a_directory_with_one_recording_more(tmp_path: Path, cache: TraceCache) -> None:
    run = make_up(3, steps=20, workers=1)
    folder = tmp_path / "in"
    folder.mkdir()
    pids = sorted({said.pid for said in run.said})
    sidecar(folder, run, pids[0], run.said, Recorder())
    one = read_trace([folder], decoded=cache)
    sidecar(folder, run, pids[1], run.said, Recorder())
    both = read_trace([folder], decoded=cache)
    assert len(both.sources) == len(one.sources) + 1
    assert_same_trace(both, read_trace([folder], decoded=cache))
    torch_trace(folder / "t.pt.trace.json", run, pids[1], run.said, Recorder())
    assert len(read_trace([folder], decoded=cache).sources) == len(both.sources) + 1


def test_order_and_spelling_of_the_paths_count(
    tmp_path: Path, cache: TraceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recording(tmp_path / "x.sqlite", 50)
    read_trace([path], decoded=cache)
    monkeypatch.chdir(tmp_path)
    relative = read_trace([Path("x.sqlite")], decoded=cache)
    assert relative.sources[0].path == Path("x.sqlite")
    assert read_trace([Path("x.sqlite")], decoded=cache).sources[0].path == Path("x.sqlite")
    assert read_trace([path], decoded=cache).sources[0].path == path


def test_a_file_that_changed_a_moment_ago_is_not_kept(
    tmp_path: Path, cache: TraceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "SETTLED_NS", 60_000_000_000)
    path = recording(tmp_path / "x.sqlite", 50)
    read_trace([path], decoded=cache)
    assert kept(cache.folder) == []


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, cache: TraceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recording(tmp_path / "x.sqlite", 50)

    def meanwhile(*given: object, **named: object) -> object:
        reads = read_all(*given, **named)  # type: ignore[arg-type]
        tick()
        with path.open("ab") as file:
            file.write(b"\0")
        return reads

    monkeypatch.setattr(pipeline, "read_all", meanwhile)
    read_trace([path], decoded=cache)
    assert kept(cache.folder) == []


def test_a_live_session_that_is_being_written_is_always_read(
    tmp_path: Path, cache: TraceCache
) -> None:
    run = make_up(3, steps=20, workers=1)
    markers = tmp_path / "session" / "markers"
    markers.mkdir(parents=True)
    for pid in sorted({said.pid for said in run.said}):
        sidecar(markers, run, pid, run.said, Recorder())
    one = sorted(markers.iterdir())[0]
    with one.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        parse_session([tmp_path / "session"], decoded=cache)
        assert kept(cache.folder) == []
        fcntl.flock(writer, fcntl.LOCK_UN)
    parse_session([tmp_path / "session"], decoded=cache)
    assert len(kept(cache.folder)) == 1
    with one.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert cache.slot({one: True}, None) is None


def test_other_code_or_another_nsys_is_another_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recording(tmp_path / "x.sqlite", 50)
    report = tmp_path / "x.nsys-rep"
    report.write_bytes(MAGIC + b"2023.4.4\n")
    tool = tmp_path / "nsys"
    tool.write_text("#!/bin/sh\necho NVIDIA Nsight Systems version $VERSION\n")
    tool.chmod(0o755)
    monkeypatch.setenv("VERSION", "2023.4.4.54")

    def text() -> str:
        found = identity.identity({path: False, report: False}, tool)
        assert found is not None
        return found.text

    first = text()
    assert text() == first
    copy = tmp_path / "nsys2"
    shutil.copy(tool, copy)
    tool = copy
    monkeypatch.setenv("VERSION", "2024.1.1.59")
    assert "2024.1.1" in text() != first
    before = text()
    monkeypatch.setattr(identity, "sources", lambda: "changed")
    assert text() != before
    before = text()
    monkeypatch.setattr(identity, "FORMAT", 99)
    assert text() != before


def test_without_pyarrow_there_is_no_cache(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\n"
        "from profilemate.parse.cache import TraceCache\n"
        "from profilemate.parse.pipeline import read_trace\n"
        f"cache = TraceCache(Path({str(tmp_path / 'cache')!r}), worth_s=0)\n"
        f"trace = read_trace([Path({str(RECORDING)!r})], decoded=cache)\n"
        "print(len(trace.kv), cache.note)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(read_trace([RECORDING]).kv)), "None"]
    assert done.stderr == ""
    assert not (tmp_path / "cache").exists()


def test_a_decoded_marker_is_a_trace_too(tmp_path: Path) -> None:
    trace = decode(mark(100, batch(1, 100, custom("it", s="1"))))
    assert_same_trace(trace, through_file(trace, tmp_path))
