"""Traces packed with zstd: the same as unpacked ones, cut ones too, and what to say without it."""

from __future__ import annotations

import importlib
import random
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from backports import zstd
from decoded import decode_recordings
from same_trace import assert_same_trace
from sidecars import ENGINE, Recorder, make_up, sidecar

from profilemate.errors import InputError, NotThisFormatError, ToolError
from profilemate.parse.readers import find_recordings, open_recording
from profilemate.parse.readers.kineto import inflate, parts
from profilemate.parse.recording.contract import SourceInfo
from profilemate.parse.trace.trace import Trace


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    run = make_up(5, steps=60)
    (path,) = sidecar(tmp_path / "plain", run, ENGINE, run.said, Recorder())
    return path


def packed(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "t.pt.trace.json.zst"
    path.write_bytes(raw)
    return path


def read(path: Path) -> tuple[Trace, SourceInfo]:
    trace = decode_recordings([open_recording(path)])
    (info,) = trace.sources
    return trace, info


def same(trace: Trace, other: Trace) -> None:
    # The name of a file may say whose it is, and these have other names.
    assert_same_trace(trace, replace(other, sources=trace.sources, places=trace.places))


def test_it_is_the_same_as_unpacked(tmp_path: Path, plain: Path) -> None:
    raw = plain.read_bytes()
    path = packed(tmp_path, zstd.compress(raw))
    assert find_recordings(tmp_path) == [path]
    same(read(plain)[0], read(path)[0])
    assert parts.cuts(path, 4) == []
    frames = [raw[at : at + 999] for at in range(0, len(raw), 999)]
    packed(tmp_path, b"".join(map(zstd.compress, frames)))  # as pzstd writes it
    same(read(plain)[0], read(path)[0])


def test_blocks_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflate, "_LARGEST", 1000)
    monkeypatch.setattr(inflate, "_INPUT", 100)
    text = random.Random(1).randbytes(5000) + bytes(100_000)
    path = packed(tmp_path, zstd.compress(text))
    with path.open("rb") as file:
        blocks = [*inflate.UnpackedZstd(file)]
    assert b"".join(blocks) == text
    assert max(map(len, blocks)) <= 1000


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_file_keeps_what_came(tmp_path: Path, plain: Path, share: float) -> None:
    raw = plain.read_bytes()
    frames = [zstd.compress(raw[at : at + 2000]) for at in range(0, len(raw), 2000)]
    whole = b"".join(frames)
    cut = int(len(whole) * share)
    trace, info = read(packed(tmp_path, whole[:cut]))
    inside = [sum(map(len, frames[: n + 1])) <= cut for n in range(len(frames))]
    kept = raw[: 2000 * sum(inside)]
    messages = kept.count(b'"name":"pm') - 1  # the last one may not be whole
    known, _ = read(plain)
    assert messages - 1 <= sum(trace.counts.values()) <= sum(known.counts.values())
    assert len(trace.kv) > 0
    assert any("cut short" in note or "has no end" in note for note in info.notes)


def test_a_damaged_file_keeps_what_came(tmp_path: Path, plain: Path) -> None:
    raw = plain.read_bytes()
    first = zstd.compress(raw[: len(raw) // 2])
    trace, info = read(packed(tmp_path, first + b"\x28\xb5\x2f\xfd" + b"\xff" * 50))
    assert len(trace.kv) > 0
    assert info.notes
    with pytest.raises(InputError):
        read(packed(tmp_path, b"\x28\xb5\x2f\xfd" + b"\xff" * 50))


def test_other_files_of_zstd_are_named(tmp_path: Path) -> None:
    path = packed(tmp_path, zstd.compress(b"hello " * 99)).rename(tmp_path / "model.zst")
    with pytest.raises(NotThisFormatError, match="a zstd file"):
        open_recording(path)


def test_without_a_library_it_says_what_to_type(
    tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = importlib.import_module

    def without(name: str) -> ModuleType:
        if "zstd" in name:
            raise ImportError(name)
        return usual(name)

    path = packed(tmp_path, zstd.compress(plain.read_bytes()))
    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ToolError) as caught:
        open_recording(path)
    assert "backports.zstd" in caught.value.commands[0]
    assert len(read(plain)[0].kv) > 0
