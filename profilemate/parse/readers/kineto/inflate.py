"""The text of a trace, unpacked in a thread of its own by the quickest library that is there.

ISA-L unpacks three times as fast as Python's zlib and lets go of the interpreter while it works.
"""

from __future__ import annotations

import importlib
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import ModuleType
from typing import BinaryIO, Protocol

from profilemate.errors import ToolError, missing_extra

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
_AHEAD = 3  # blocks that may wait for whoever reads
_WAIT = 0.2
_ENDED = "Compressed file ended before the end-of-stream marker was reached"

_INPUT = 1 << 18  # packed bytes that are unpacked at a time
_LARGEST = 1 << 22  # what they may become at once

# What unpacks gzip, the quickest first. All have the interface of Python's zlib.
_LIBRARIES = ("isal.isal_zlib", "zlib_ng.zlib_ng", "zlib")


def library() -> ModuleType:
    """The quickest library for gzip that is installed."""
    for name in _LIBRARIES[:-1]:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return zlib


def zstd() -> ModuleType:
    """What unpacks zstd.

    Raises:
        ToolError: Nothing is installed that does.
    """
    for name in ("compression.zstd", "backports.zstd"):  # the first is Python's own since 3.14
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ToolError(
        "Nothing here unpacks zstd",
        hint="Unpack it. Or install what it needs:",
        command=missing_extra("fast"),
    )


class DamagedError(Exception):
    """A packed file ends or breaks before its end."""


class Text(Protocol):
    """The text of a trace."""

    def read1(self, size: int, /) -> bytes:
        """Up to so many bytes, and fewer if that is quicker; none at the end.

        Raises:
            DamagedError: Nothing can be unpacked from here on; all before was returned.
            OSError: The file cannot be read.
        """


class Unpacked:
    """The blocks of a gzip file, which may have several members."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._library = library()
        self._rest = b""

    def __iter__(self) -> Iterator[bytes]:
        """The text in blocks.

        Raises:
            DamagedError: Nothing can be unpacked from here on.
            OSError: The file cannot be read.
        """
        while self._fill() and self._rest.startswith(GZIP[: len(self._rest)]):
            yield from self._member()
            while self._rest or self._fill():
                self._rest = self._rest.lstrip(b"\0")  # some pad files
                if self._rest:
                    break
        if self._rest:
            raise DamagedError("what follows its packed text is something else")

    def _fill(self) -> bool:
        if len(self._rest) < 2:
            self._rest += self._file.read(_INPUT)
        return bool(self._rest)

    def _member(self) -> Iterator[bytes]:
        unpack = self._library.decompressobj(16 + zlib.MAX_WBITS)
        packed = self._rest
        while not unpack.eof:
            if not packed:
                packed = self._file.read(_INPUT)
                if not packed:
                    raise DamagedError(_ENDED)
            try:
                block = unpack.decompress(packed, _LARGEST)
            except self._library.error as e:
                raise DamagedError(f"{e}".rstrip(".") or "it cannot be unpacked") from e
            packed = unpack.unconsumed_tail
            if block:
                yield block
        self._rest = unpack.unused_data


class UnpackedZstd:
    """The blocks of a zstd file, which may have several frames."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._zstd = zstd()

    def __iter__(self) -> Iterator[bytes]:
        """The text in blocks.

        Raises:
            DamagedError: Nothing can be unpacked from here on.
            OSError: The file cannot be read.
        """
        packed = self._file.read(_INPUT)
        while packed:
            unpack = self._zstd.ZstdDecompressor()
            while not unpack.eof:
                try:
                    block = unpack.decompress(packed, _LARGEST)
                except self._zstd.ZstdError as e:
                    raise DamagedError(f"{e}".rstrip(".")) from e
                if block:
                    yield block
                packed = b""
                if unpack.needs_input and not unpack.eof:
                    packed = self._file.read(_INPUT)
                    if not packed:
                        raise DamagedError(_ENDED)
            packed = unpack.unused_data or self._file.read(_INPUT)


class _Ahead:
    """Reads ahead in a thread, block by block."""

    def __init__(self, source: Iterable[bytes]) -> None:
        self._source = source
        self._blocks: Queue[bytes | Exception] = Queue(_AHEAD)
        self._stopped = Event()
        self._left = memoryview(b"")
        self._thread = Thread(target=self._run, name="profilemate-inflate", daemon=True)
        self._thread.start()

    def _put(self, block: bytes | Exception) -> None:
        while not self._stopped.is_set():
            try:
                self._blocks.put(block, timeout=_WAIT)
                return
            except Full:
                continue

    def _run(self) -> None:
        try:
            for block in self._source:
                self._put(block)
                if self._stopped.is_set():
                    return
            self._put(b"")
        except (DamagedError, OSError, MemoryError) as e:
            self._put(e)

    def read1(self, size: int, /) -> bytes:
        """See `Text`."""
        if not self._left:
            block = self._blocks.get()
            if isinstance(block, Exception):
                raise block
            if not block:
                self._blocks.put(b"")  # for whoever asks once more
            if len(block) <= size:
                return block
            self._left = memoryview(block)
        taken, self._left = self._left[:size], self._left[size:]
        return bytes(taken)

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._blocks.get_nowait()
            except Empty:
                self._thread.join(_WAIT)


@contextmanager
def unpacked(path: Path) -> Iterator[Text]:
    """A trace's text, whether it is packed or not.

    Raises:
        ToolError: It is packed with zstd, and nothing is installed that unpacks it.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(len(ZSTD))
        file.seek(0)
        if not head.startswith((GZIP, ZSTD)):
            yield file
            return
        ahead = _Ahead(Unpacked(file) if head.startswith(GZIP) else UnpackedZstd(file))
        try:
            yield ahead
        finally:
            ahead.close()


def beginning(path: Path, size: int) -> bytes:
    """The first bytes of a trace's text; none of what cannot be unpacked.

    Raises:
        ToolError: It is packed with zstd, and nothing is installed that unpacks it.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(size)
    if head.startswith(GZIP):
        try:
            return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(head, size)
        except zlib.error:
            return b""
    if head.startswith(ZSTD):
        try:
            return next(iter(UnpackedZstd(io.BytesIO(head))), b"")[:size]
        except DamagedError:
            return b""
    return head
