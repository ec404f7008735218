"""Files of the cache: damaged, too many, written by several at once, or not writable at all."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from frames import kv_frame
from places import RECORDING
from same_trace import assert_same_trace

from profilemate.errors import InputError
from profilemate.parse.cache import TraceCache, files, identity, limit, pack, store
from profilemate.parse.cache.files import kept
from profilemate.parse.pipeline import read_trace
from profilemate.parse.trace.trace import Trace


@pytest.fixture(autouse=True)
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the cache, for files that were made a moment ago too."""
    monkeypatch.delenv("PROFILEMATE_CACHE_MB", raising=False)
    monkeypatch.setattr(identity, "SETTLED_NS", 0)


@pytest.fixture
def cache(tmp_path: Path) -> TraceCache:
    return TraceCache(tmp_path / "cache", worth_s=0)


def small() -> tuple[pack.Facts, list[pa.Table]]:
    frame = pd.DataFrame({"ts": np.arange(40), "req": pd.array(["a", None] * 20, dtype="string")})
    return pack.pack(Trace(sources=[], frames={"step": frame}, notes=["n"]))


def test_every_damaged_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.columns"
    store.write(path, *small())
    whole = path.read_bytes()
    assert store.read(path) is not None
    for place in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            spoiled = bytearray(whole)
            spoiled[place] ^= flip
            path.write_bytes(spoiled)
            assert store.read(path) is None, place
            assert not path.exists(), "what is damaged is removed"


def test_every_cut_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.columns"
    store.write(path, *small())
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert store.read(path) is None, length
        path.write_bytes(whole[:length] + bytes(len(whole) - length))  # as after a power cut
        if whole[length:].strip(b"\0"):
            assert store.read(path) is None, length
    path.write_bytes(whole + b"\0")
    assert store.read(path) is None
    path.write_bytes(whole + whole)
    assert store.read(path) is None


def test_whatever_is_damaged_the_answer_is_right(cache: TraceCache) -> None:
    plain = read_trace([RECORDING])
    read_trace([RECORDING], decoded=cache)
    ((path, size, _),) = kept(cache.folder)
    rng = random.Random(5)
    for place in [0, size - 1, *(rng.randrange(size) for _ in range(20))]:
        with path.open("r+b") as file:
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 1 << rng.randrange(8)]))
        assert_same_trace(plain, read_trace([RECORDING], decoded=cache))
        assert store.read(path) is not None, "it was made again"
    assert cache.note is None


def test_a_whole_file_that_means_nothing_is_removed(cache: TraceCache) -> None:
    """Whole, but written by another version of this module, or renamed."""
    read_trace([RECORDING], decoded=cache)
    ((path, _, _),) = kept(cache.folder)
    facts, tables = store.read(path) or ({}, [])
    slot = cache.slot({RECORDING: False}, None)
    assert slot is not None
    for broken in ({}, {"identity": facts["identity"]}, {**facts, "frames": [["kv", "kv", {}]]}):
        store.write(path, broken, tables)
        assert slot.load() is None
        assert not path.exists()
    store.write(path, {**facts, "identity": "of something else"}, tables)
    assert cache.load(slot.identity) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_written_costs_a_note(
    number: int, cache: TraceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    plain = read_trace([RECORDING])
    assert_same_trace(plain, read_trace([RECORDING], decoded=cache))
    assert cache.note == f"nothing is cached in {cache.folder}: {os.strerror(number)}"
    assert [*cache.folder.iterdir()] == []


def test_a_folder_that_cannot_be_made_costs_a_note(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = TraceCache(tmp_path / "file" / "cache", worth_s=0)
    read_trace([RECORDING], decoded=cache)
    assert cache.note is not None
    assert "Not a directory" in cache.note


def test_a_disk_that_is_nearly_full_is_left_alone(
    cache: TraceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage())
    read_trace([RECORDING], decoded=cache)
    assert cache.note is not None
    assert "too little space" in cache.note
    assert [*cache.folder.iterdir()] == []


class _Usage:
    free = 1000


def test_an_interrupt_leaves_nothing_behind(
    cache: TraceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_trace([RECORDING], decoded=cache)
    assert [*cache.folder.iterdir()] == []


def test_what_a_killed_process_left_is_swept(cache: TraceCache) -> None:
    cache.folder.mkdir()
    old, new = (cache.folder / f"{'0' * 32}.{name}.part" for name in ("old", "new"))
    mine = cache.folder / "notes.part"
    for file in (old, new, mine):
        file.touch()
        os.utime(file, (0, 0) if file != new else None)
    read_trace([RECORDING], decoded=cache)
    assert not old.exists()
    assert new.exists(), "somebody may be writing it"
    assert mine.exists()


def test_half_an_export_is_swept(tmp_path: Path) -> None:
    # As `nsys_rep` calls what it has nsys write.
    old, new, whole = (
        tmp_path / f"run-{'a' * 16}{rest}"
        for rest in (".4711.part.sqlite", ".4712.part.sqlite", ".sqlite")
    )
    for file in (old, new, whole):
        file.touch()
        os.utime(file, (0, 0) if file != new else None)
    files.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([new, whole])


# ------------------------------------------------------------------ how much


def kb(name: str, folder: Path, size: int, used_s: int) -> Path:
    path = folder / f"{name * 32}.columns"
    path.write_bytes(bytes(size * 1000))
    os.utime(path, (used_s, used_s))
    return path


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    a, b, c = kb("a", tmp_path, 30, 1), kb("b", tmp_path, 30, 3), kb("c", tmp_path, 30, 2)
    (tmp_path / "x.sqlite").write_bytes(bytes(1_000_000))
    files.shrink(tmp_path, 90_000)
    assert [path for path, *_ in kept(tmp_path)] == [a, c, b]
    files.shrink(tmp_path, 89_999)
    assert [path for path, *_ in kept(tmp_path)] == [c, b]
    files.shrink(tmp_path, 30_000)
    assert [path for path, *_ in kept(tmp_path)] == [b]
    assert (tmp_path / "x.sqlite").exists()


def test_what_was_used_stays(cache: TraceCache, monkeypatch: pytest.MonkeyPatch) -> None:
    read_trace([RECORDING], decoded=cache)
    ((path, size, _),) = kept(cache.folder)
    os.utime(path, (1, 1))
    other = kb("a", cache.folder, 10, 1000)
    read_trace([RECORDING], decoded=cache)
    assert [p for p, *_ in kept(cache.folder)] == [other, path], "using it made it the youngest"
    files.shrink(cache.folder, size)
    assert [p for p, *_ in kept(cache.folder)] == [path]


def test_the_limit_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROFILEMATE_CACHE_MB", "0.05")
    small_ = TraceCache(tmp_path / "cache", worth_s=0)
    other = tmp_path / "cache" / f"{'a' * 32}.columns"
    other.parent.mkdir()
    other.write_bytes(bytes(40_000))
    read_trace([RECORDING], decoded=small_)  # which is larger than the limit alone
    assert [path for path, *_ in kept(small_.folder)] == [other], "nothing had to make room"
    monkeypatch.setenv("PROFILEMATE_CACHE_MB", "0.1")
    larger = TraceCache(tmp_path / "cache", worth_s=0)
    read_trace([RECORDING], decoded=larger)
    ((path, size, _),) = kept(larger.folder)
    assert path != other
    assert size <= 100_000


def test_a_limit_of_nothing_and_one_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROFILEMATE_CACHE_MB", "0")
    off = TraceCache(tmp_path / "cache", worth_s=0)
    assert off.slot({RECORDING: False}, None) is None
    for said in ("much", "nan", "inf", "1e999"):
        monkeypatch.setenv("PROFILEMATE_CACHE_MB", said)
        with pytest.raises(InputError, match=r"no number of megabytes"):
            limit()


def test_a_recording_that_is_quick_to_decode_is_not_kept(tmp_path: Path) -> None:
    cache = TraceCache(tmp_path / "cache", worth_s=1000)
    read_trace([RECORDING], decoded=cache)
    assert not cache.folder.exists()


# ------------------------------------------------------------------ several at once

READ = """
import sys
from pathlib import Path
from profilemate.parse.cache import TraceCache, files
from profilemate.parse.pipeline import read_trace
cache = TraceCache(Path(sys.argv[2]), worth_s=0)
for turn in range(12):
    trace = read_trace([Path(sys.argv[1])], decoded=cache)
    ts = sum(int(part.ints("ts").sum()) for part in trace.kv.slices(("ts",)))
    print(len(trace.kv), ts, cache.note)
    if turn % 3 == 2:
        for path, *_ in files.kept(cache.folder):
            files.remove(path)
    if turn % 4 == 3:
        for path, *_ in files.kept(cache.folder):
            path.write_bytes(b"pmcolumn")
"""


def test_processes_do_not_disturb_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    command = [sys.executable, "-c", READ, str(RECORDING), str(folder)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    kv = kv_frame(read_trace([RECORDING]))
    expected = [f"{len(kv)} {kv['ts'].sum()} None"] * 12
    for process in running:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert out.splitlines() == expected
    assert {path.suffix for path in folder.iterdir()} <= {files.SUFFIX}


def test_an_export_may_be_a_folder_of_parquet_files(tmp_path: Path) -> None:
    name = "0123456789abcdef"
    for stem in (f"run-{name}", f"kept-{name}", "mine"):
        (tmp_path / f"{stem}_pqtdir").mkdir()
        for table in ("NVTX_EVENTS", "StringIds"):
            (tmp_path / f"{stem}_pqtdir" / f"{table}.parquet").write_bytes(bytes(1000))
    (tmp_path / f"run-{name}.sqlite").write_bytes(bytes(300))
    (tmp_path / f"link-{name}_pqtdir").symlink_to(tmp_path / "mine_pqtdir")
    (tmp_path / f"kept-{name}_pqtdir" / "notes.txt").write_text("of somebody")
    found = files.exports(tmp_path)
    assert {(path.name, size) for path, size, _ in found} == {
        (f"run-{name}_pqtdir", 2000),
        (f"kept-{name}_pqtdir", 2000),
        (f"run-{name}.sqlite", 300),
    }
    assert [files.remove(path) for path, _, _ in found] == [size for _, size, _ in found]
    left = {path.name for path in tmp_path.rglob("*") if not path.is_dir()}
    assert left == {"notes.txt", "NVTX_EVENTS.parquet", "StringIds.parquet"}
    assert len(list((tmp_path / "mine_pqtdir").iterdir())) == 2
