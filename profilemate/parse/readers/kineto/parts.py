"""A large plain trace, cut into as many parts as there are cores, each read by its own process.

Where an event begins in the middle of a file is a guess. It is right if whoever reads the part
before it comes out exactly there; otherwise the file is read again from its beginning, by one.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from profilemate.parse.readers.kineto import native
from profilemate.parse.readers.kineto.inflate import GZIP, ZSTD
from profilemate.parse.readers.kineto.reading import Reading
from profilemate.parse.recording.contract import Marker
from profilemate.schema.live import SIDECAR

SMALLEST, SMALLEST_COMPILED = 1 << 25, 1 << 29
"""Bytes of a part for which a process is worth its start: decoded, and scanned."""

_WINDOW = 1 << 20
_HEAD = 1 << 12  # the first event of a sidecar lies in it
# What is read here while the other processes start: about a quarter of a second.
_AHEAD, _AHEAD_COMPILED = 1 << 24, 1 << 28
_EVENT = re.compile(
    rb'\}[ \t\r\n]*,[ \t\r\n]*(?=\{[ \t\r\n]*"(?:ph|name|cat|pid|tid|ts|dur|args|id)"[ \t\r\n]*:)'
)
_OBJECT, _ARRAY = b'{"traceEvents":[', b"["


def workers() -> int:
    """How many processes may read one file."""
    if multiprocessing.parent_process() is not None:
        return 1  # whoever started this process has shared out the cores already
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # other systems
        return os.cpu_count() or 1


def cuts(path: Path, most: int) -> list[int]:
    """Where to cut a file into up to so many parts; nothing if it is packed, small or a sidecar.

    Parts keep their messages until all are read. A sidecar has nothing else, and reading these
    takes much longer than finding them, which one process does for all.

    Raises:
        OSError: It cannot be read.
    """
    size, compiled = path.stat().st_size, native.library() is not None
    count = min(most, size // (SMALLEST_COMPILED if compiled else SMALLEST))
    if count < 2:
        return []
    found: list[int] = []
    ahead = min(_AHEAD_COMPILED if compiled else _AHEAD, size // 4)
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if head.startswith((GZIP, ZSTD)) or SIDECAR.encode() in head:
            return []
        for part in range(1, count):
            begin = ahead + (size - ahead) * part // count
            file.seek(begin)
            match = _EVENT.search(file.read(_WINDOW))
            if match is not None and begin + match.end() not in found:
                found.append(begin + match.end())
    return found


class _Range:
    """Some bytes of a file, with others before them."""

    def __init__(self, file: BinaryIO, before: bytes, begin: int, end: int | None) -> None:
        self._file, self._before = file, before
        self._left = sys.maxsize if end is None else end - begin
        file.seek(begin)

    def read1(self, size: int, /) -> bytes:
        """Up to so many bytes; none at the end."""
        if self._before:
            block, self._before = self._before, b""
            return block
        block = self._file.read(min(size, self._left))
        self._left -= len(block)
        return block


@dataclass(frozen=True, slots=True)
class _Part:
    """What a process is to read."""

    path: Path
    before: bytes
    begin: int
    end: int | None

    def read(self, progress: Callable[[int], None]) -> tuple[Reading, list[Marker]]:
        reading = Reading()
        with self.path.open("rb") as file:
            text = _Range(file, self.before, self.begin, self.end)
            return reading, list(reading.run(text, progress))


def read_parts(
    path: Path, at: Sequence[int], progress: Callable[[int], None]
) -> tuple[Reading, list[Marker]] | None:
    """Read a file in parts; None if it must be read in one.

    Args:
        path: A plain trace.
        at: Where to cut it.
        progress: Told now and then how many bytes were read, as far as this process sees it.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        is_array = file.read(_WINDOW).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    before = _ARRAY if is_array else _OBJECT
    ends = [*at[1:], None]
    others = [_started(_Part(path, before, b, e)) for b, e in zip(at, ends, strict=True)]
    try:
        reading, markers = _Part(path, b"", 0, at[0]).read(lambda n: progress(n * (len(at) + 1)))
        for other in others:
            result = _result(other)
            if result is None or not reading.ends_between_events:
                return None
            reading.merge(result[0])
            markers += result[1]
        return reading, markers
    finally:
        for other in others:
            other.kill()
            other.communicate()


def _started(part: _Part) -> subprocess.Popen[bytes]:
    # Not by multiprocessing: that would run the main module of whoever uses this package again.
    package = str(Path(__file__).parents[4])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "profilemate.parse.readers.kineto.parts"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert process.stdin is not None
    try:
        pickle.dump(part, process.stdin)
        process.stdin.flush()
    except OSError:  # it has ended already, which is found out later
        pass
    return process


def _result(process: subprocess.Popen[bytes]) -> tuple[Reading, list[Marker]] | None:
    assert process.stdout is not None
    try:
        return cast("tuple[Reading, list[Marker]]", pickle.load(process.stdout))
    except (EOFError, pickle.UnpicklingError):
        return None


def main() -> None:
    """Read the part that standard input names."""
    part = pickle.load(sys.stdin.buffer)
    pickle.dump(part.read(lambda _: None), sys.stdout.buffer, protocol=5)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    # The classes must have the names by which the other side knows them.
    from profilemate.parse.readers.kineto import parts

    parts.main()
