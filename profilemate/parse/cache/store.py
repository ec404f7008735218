"""A trace in a file: whole or not there.

A file is Arrow IPC streams, one per table, then facts as JSON, then a trailer with a checksum of
all of it. It is written under another name and renamed; one that is damaged counts as none and is
removed.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import pyarrow as pa

from profilemate.parse.cache.files import PART, remove, sweep
from profilemate.parse.cache.pack import Facts

_MAGIC = b"pmcolumn"
_TRAILER = struct.Struct("<8sQQ")  # magic, where the facts begin, how long they are
_SUM = struct.Struct("<I")
_BATCH = 1 << 20  # rows


class _Summed:
    """A file that is written from its begin to its end, and the checksum of that."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sum, self.length, self.closed = 0, 0, False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._file.write(view)
        self.sum = crc32(view, self.sum)
        self.length += len(view)
        return len(view)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """The file is closed by whoever opened it."""


def write(target: Path, facts: Facts, tables: Sequence[pa.Table]) -> int:
    """Write a file whole or not at all; return its bytes.

    Raises:
        OSError: It cannot be written; nothing was left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent)
    needed = sum(table.nbytes for table in tables)
    if needed > shutil.disk_usage(target.parent).free // 2:
        raise OSError("too little space is left there")
    number, name = tempfile.mkstemp(PART, f"{target.stem}.", target.parent)
    part = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            size = _fill(_Summed(file), facts, tables)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    return size


def _fill(file: _Summed, facts: Facts, tables: Sequence[pa.Table]) -> int:
    packed = "lz4" if pa.Codec.is_available("lz4") else None
    options = pa.ipc.IpcWriteOptions(compression=packed)
    streams = []
    file.write(_MAGIC)
    for table in tables:
        begin = file.length
        sink = pa.PythonFile(file, mode="w")
        with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
            stream.write_table(table, max_chunksize=_BATCH)
        streams.append([begin, file.length - begin])
    text = json.dumps({"facts": facts, "streams": streams}).encode()
    begin = file.length
    file.write(text)
    file.write(_TRAILER.pack(_MAGIC, begin, len(text)))
    file.write(_SUM.pack(file.sum))
    return file.length


def read(path: Path) -> tuple[Facts, list[pa.Table]] | None:
    """What `write` was given; None where there is no such file, or one that is damaged.

    A damaged file is removed. A file that was read is the youngest from now on.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return None
    try:
        found = _parsed(content)
    except (ValueError, KeyError, TypeError, IndexError, struct.error, pa.ArrowException):
        remove(path)
        return None
    with suppress(OSError):
        os.utime(path)
    return found


def _parsed(content: bytes) -> tuple[Facts, list[pa.Table]]:
    body = memoryview(content)[: -_SUM.size]
    (said,) = _SUM.unpack(content[-_SUM.size :])
    if crc32(body) != said:
        raise ValueError("damaged")
    magic, begin, length = _TRAILER.unpack(body[-_TRAILER.size :])
    if magic != _MAGIC or begin + length + _TRAILER.size != len(body):
        raise ValueError("of another program")
    listed = json.loads(bytes(body[begin : begin + length]))
    whole = pa.py_buffer(content)
    tables = [
        pa.ipc.open_stream(whole.slice(start, size)).read_all() for start, size in listed["streams"]
    ]
    return listed["facts"], tables
