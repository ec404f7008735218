"""The text of a packed trace, whole or damaged, by each library that unpacks it."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from profilemate.parse.readers.kineto import inflate


@pytest.fixture(params=["isal.isal_zlib", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    names = (request.param, "zlib")
    monkeypatch.setattr(inflate, "_LIBRARIES", names)
    assert inflate.library().__name__.split(".")[0] in request.param
    return str(request.param)


def unpacked(path: Path) -> tuple[bytes, str | None]:
    parts = []
    with inflate.unpacked(path) as text:
        try:
            while part := text.read1(1 << 20):
                parts.append(part)
        except inflate.DamagedError as e:
            return b"".join(parts), str(e)
    return b"".join(parts), None


def test_every_library_unpacks_the_same(tmp_path: Path, library: str) -> None:
    rng = random.Random(2)
    raw = bytes(rng.choices(b"abcdefgh", k=3_000_000))
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(raw[:1_000_000]) + gzip.compress(raw[1_000_000:]) + bytes(512))
    assert unpacked(path) == (raw, None)
    path.write_bytes(gzip.compress(b"x" * 50_000_000))
    assert unpacked(path) == (b"x" * 50_000_000, None)


def test_every_library_keeps_what_came_before_the_damage(tmp_path: Path, library: str) -> None:
    rng = random.Random(2)
    raw = bytes(rng.choices(b"abcdefgh", k=3_000_000))
    packed = gzip.compress(raw)
    path = tmp_path / "x.gz"
    path.write_bytes(packed[: len(packed) // 2])
    found, damage = unpacked(path)
    assert raw.startswith(found)
    assert len(found) > 1_400_000
    assert damage == "Compressed file ended before the end-of-stream marker was reached"
    path.write_bytes(packed[:-8] + b"\0\0\0\0" + packed[-4:])
    found, damage = unpacked(path)
    assert raw.startswith(found)
    assert damage
    path.write_bytes(packed + b"and more")
    assert unpacked(path) == (raw, "what follows its packed text is something else")


def test_whoever_stops_reading_ends_the_thread(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(random.Random(3).randbytes(60_000_000), 1))
    with inflate.unpacked(path) as text:
        assert text.read1(100)
    assert not text._thread.is_alive()  # type: ignore[attr-defined]
