"""The files of one process's sidecar: one segment after the other, under a cap.

Segments are opened through a descriptor of their folder, so that it may be moved meanwhile. Each is
locked as long as it is written: that is how others know that its process lives.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from profilemate.schema.live import SIDECAR_END

SEGMENTS = 8
"""Segments in a full sidecar: with one more the oldest goes, an eighth of what is kept."""


_LONGEST = 1 << 16
"""Bytes that a line may have: a message has half as many."""


class Segments:
    """Writes text to the current segment.

    Args:
        folder: Where the segments go.
        stem: Their name, up to the number.
        packed: Pack them with gzip.
        cap: Bytes that all of them may have together; 0 for no end.
        head: Makes the text that a segment begins with.

    Attributes:
        number: Of the current segment, from 1.
        size: Bytes in it.
        dropped: Segments that were removed.
        dropped_bytes: Bytes in these.
    """

    def __init__(
        self, folder: Path, stem: str, *, packed: bool, cap: int, head: Callable[[], str]
    ) -> None:
        self._stem, self._packed, self._cap, self._head = stem, packed, cap, head
        self.number = 0
        self.size = self.dropped = self.dropped_bytes = 0
        self._closed: list[tuple[str, int]] = []
        self._file = -1
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._next()

    @property
    def full(self) -> bool:
        """Whether the current segment has its share of the cap."""
        return bool(self._cap) and self.size >= self._cap // SEGMENTS

    @property
    def overfull(self) -> bool:
        """Whether it has half as much again."""
        return bool(self._cap) and self.size >= self._cap // SEGMENTS * 3 // 2

    def _next(self) -> None:
        self.number += 1
        self._name = self._free_name(self._stem)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._name, flags, 0o600, dir_fd=self._folder)
        with suppress(OSError):  # a file system without locks: nobody waits for us then
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.size = 0
        # Level 1: this runs in the engine's process.
        self._pack = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        self._put("[\n" + self._head())

    def _free_name(self, stem: str) -> str:
        """A name nobody has: the process's number may have been another's before it."""
        end = ("" if self.number == 1 else f".{self.number}") + ".trace.json"
        end += ".gz" if self._packed else ""
        name, more = stem + end, 1
        while self._exists(name):
            more += 1
            name = f"{stem}-{more}{end}"
        return name

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def write(self, text: str) -> None:
        """Give text to the kernel: from then on it is there whatever happens to the process.

        Raises:
            OSError: It cannot be written.
        """
        self._put(text)

    def _put(self, text: str) -> None:
        data = text.encode("ascii", errors="replace")
        if self._packed:
            data = self._pack.compress(data) + self._pack.flush(zlib.Z_SYNC_FLUSH)
        left = memoryview(data)
        while left:
            done = os.write(self._file, left)
            self.size += done
            left = left[done:]

    def rename(self, stem: str) -> None:
        """Rename: it has turned out whose file it is."""
        name = self._free_name(stem)
        os.rename(self._name, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._stem, self._name = stem, name

    def rotate(self, end: str) -> None:
        """End this segment and begin the next; drop the oldest that the cap leaves no room for.

        Raises:
            OSError: It cannot be written.
        """
        self._end(end)
        self._closed.append((self._name, self.size))
        room = self._cap - self._cap // SEGMENTS
        while self._closed and sum(size for _, size in self._closed) > room:
            name, size = self._closed.pop(0)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)
            self.dropped += 1
            self.dropped_bytes += size
        self._next()

    def _end(self, end: str) -> None:
        self._put(end)
        if self._packed:
            os.write(self._file, self._pack.flush(zlib.Z_FINISH))
        os.close(self._file)
        self._file = -1

    def close(self, end: str) -> None:
        """End the last segment.

        Raises:
            OSError: It cannot be written.
        """
        try:
            self._end(end)
        finally:
            self.abandon()

    def stop(self, end: str) -> None:
        """No more can be written: the last lines become `end`, which takes no room.

        A packed file stays as it is.
        """
        with suppress(OSError):
            if not self._packed:
                self._overwrite(end.encode("ascii", errors="replace"))
        self.abandon()

    def _overwrite(self, end: bytes) -> None:
        file = os.open(self._name, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            size = os.fstat(file).st_size
            first = max(size - len(end) - _LONGEST, 0)
            text = os.pread(file, size - first, first)
            # In front of it whole lines are left.
            place = text.rfind(b"\n", 0, max(len(text) - len(end), 0)) + 1
            if not place:
                return
            os.pwrite(file, end, first + place)
            os.ftruncate(file, first + place + len(end))
        finally:
            os.close(file)

    def abandon(self) -> None:
        """Let go of the files as they are."""
        for number in (self._file, self._folder):
            if number >= 0:
                with suppress(OSError):
                    os.close(number)
        self._file = self._folder = -1


def end_of(pid: int, messages: int, stopped: str | None = None, unix_ns: int = 0) -> str:
    """The last lines of a segment; `stopped` says why its process could write no more, and when."""
    event = {"ph": "M", "cat": "profilemate", "name": SIDECAR_END, "pid": pid, "tid": 0}
    args: dict[str, int | str] = {"messages": messages}
    if stopped is not None:
        args |= {"stopped": stopped, "unix_ns": unix_ns}
    return json.dumps({**event, "args": args}, separators=(",", ":")) + "\n]\n"
