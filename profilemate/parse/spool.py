"""Rows that are put aside: in memory while they are few, in a temporary file from then on."""

from __future__ import annotations

import pickle
import tempfile
from typing import IO, Any

IN_MEMORY = 1 << 23
"""Bytes that are kept in memory."""


class Spool:
    """Objects in the order in which they came, each of which can be read again.

    Where no temporary file can be written all stay in memory.
    """

    def __init__(self) -> None:
        self._blocks: list[bytes | tuple[int, int]] = []  # or where it is in the file: place, size
        self._held = 0
        self._file: IO[bytes] | None = None
        self._end = 0
        self._refused = False

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self._blocks)

    def append(self, item: object) -> None:
        """Put an object aside."""
        self._append(pickle.dumps(item, protocol=5))

    def _append(self, block: bytes) -> None:
        self._blocks.append(block)
        self._held += len(block)
        if self._held > IN_MEMORY and not self._refused:
            self._write()

    def _write(self) -> None:
        """Put everything into the file."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - kept open
            for number, block in enumerate(self._blocks):
                if isinstance(block, bytes):
                    self._file.seek(self._end)
                    if self._file.write(block) != len(block):
                        raise OSError("no space left")
                    self._blocks[number] = (self._end, len(block))
                    self._end += len(block)
                    self._held -= len(block)
        except OSError:
            self._refused = True

    def _bytes(self, number: int) -> bytes:
        block = self._blocks[number]
        if isinstance(block, bytes):
            return block
        assert self._file is not None
        place, size = block
        self._file.seek(place)
        return self._file.read(size)

    def __getitem__(self, number: int) -> Any:
        """The object that was put aside as this one."""
        return pickle.loads(self._bytes(number))

    def __getstate__(self) -> list[bytes]:
        """For another process: everything, since it cannot have the file."""
        return [self._bytes(number) for number in range(len(self))]

    def __setstate__(self, blocks: list[bytes]) -> None:
        self.__init__()  # type: ignore[misc]
        for block in blocks:
            self._append(block)

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()
