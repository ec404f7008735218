"""A large plain trace, cut into as many parts as the share has cores, each read by its own process.

Where an event begins in the middle of a file is a guess. It is right if whoever reads the part
before it comes out exactly there; otherwise the file is read again from its beginning, by one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from profilemate.parse.readers.kineto import native
from profilemate.parse.readers.kineto.inflate import GZIP, ZSTD
from profilemate.parse.readers.kineto.reading import Reading
from profilemate.parse.recording.contract import Marker
from profilemate.parse.recording.progress import Progress
from profilemate.parse.recording.worker_processes import WorkerEndedError, Workers
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

    def run(self, _progress: Progress, /) -> tuple[Reading, list[Marker]]:
        """Read it in a process of its own."""
        return self.read(lambda _: None)

    def read(self, progress: Callable[[int], None]) -> tuple[Reading, list[Marker]]:
        """Read it.

        Args:
            progress: Told now and then how many bytes were read.

        Returns:
            What was found, and our messages.
        """
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
    others = [_Part(path, before, begin, end) for begin, end in zip(at, ends, strict=True)]
    try:
        with Workers(f"reading {path.name}", others, len(others)) as workers:
            first = _Part(path, b"", 0, at[0])
            reading, markers = first.read(lambda done: progress(done * (len(at) + 1)))
            if not reading.ends_between_events():
                return None  # as soon as it is known
            for found, further in workers.results():
                # Each part would number the processes of a merged file by itself.
                if not reading.ends_between_events() or reading.found.pids or found.found.pids:
                    return None
                reading.merge(found)
                markers += further
            return reading, markers
    except WorkerEndedError:
        return None
