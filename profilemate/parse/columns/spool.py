"""What is put aside: in memory while it is little, in a temporary file from then on.

The file has no name, so that nothing is left behind however the program ends.
"""

from __future__ import annotations

import os
import tempfile
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from profilemate.errors import OutputError
from profilemate.parse.columns.budget import Budget


class Blocks:
    """Bytes in the order in which they came, each of which can be read again.

    Where no temporary file can be written all stay in memory, unless the budget forbids it.

    Args:
        budget: What may be kept in memory, shared with others.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._blocks: list[bytes | tuple[int, int]] = []  # or where it is in the file: place, size
        self._held = 0
        self._file: IO[bytes] | None = None
        self._end = 0
        self._refused = False

    def __len__(self) -> int:
        """How many there are."""
        return len(self._blocks)

    @property
    def in_file(self) -> bool:
        """Whether some were put into a file."""
        return self._file is not None

    def add(self, block: bytes) -> int:
        """Put bytes aside; returns their number.

        Raises:
            OutputError: They can neither be kept nor written.
        """
        self._blocks.append(block)
        self._held += len(block)
        self.budget.used += len(block)
        if self.budget.used > self.budget.held and not self._refused:
            self._write()
        return len(self._blocks) - 1

    def _write(self) -> None:
        """Put everything into the file."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(  # noqa: SIM115 - kept open
                    buffering=0, dir=self.budget.folder
                )
            for number, block in enumerate(self._blocks):
                if isinstance(block, bytes) and block:
                    self._file.seek(self._end)
                    if self._file.write(block) != len(block):
                        raise OSError("no space left")
                    self._blocks[number] = (self._end, len(block))
                    self._end += len(block)
                    self._release(len(block))
        except OSError as e:
            if self.budget.strict:
                raise _full(e, self.budget) from e
            self._refused = True

    def _release(self, size: int) -> None:
        self._held -= size
        self.budget.used -= size

    def __getitem__(self, number: int) -> bytes:
        """The bytes of this number."""
        block = self._blocks[number]
        if isinstance(block, bytes):
            return block
        assert self._file is not None
        place, size = block
        self._file.seek(place)
        return self._file.read(size)

    def forget(self, number: int) -> None:
        """These bytes are needed no more."""
        block, self._blocks[number] = self._blocks[number], b""
        if isinstance(block, bytes):
            self._release(len(block))

    def __getstate__(self) -> tuple[Budget, list[bytes]]:
        """For another process: everything, since it cannot have the file."""
        return self.budget, [self[number] for number in range(len(self))]

    def __setstate__(self, state: tuple[Budget, list[bytes]]) -> None:
        budget, blocks = state
        budget.used = 0
        self.__init__(budget)  # type: ignore[misc]
        for block in blocks:
            self.add(block)

    def __del__(self) -> None:
        self._release(self._held)
        if self._file is not None:
            self._file.close()


def array(rows: int, dtype: str, budget: Budget) -> npt.NDArray[Any]:
    """An array of its own, in a file where it is more than may be kept.

    Raises:
        OutputError: It can be neither.
    """
    size = rows * np.dtype(dtype).itemsize
    if not size or budget.used + size <= budget.held:
        return np.empty(rows, dtype=dtype)
    try:
        with tempfile.TemporaryFile(dir=budget.folder) as file:
            # Without space for a page that is written later the kernel would end the program.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # macOS
                file.truncate(size)
            return np.memmap(file, dtype=dtype, mode="r+", shape=(rows,))
    except OSError as e:
        if budget.strict:
            raise _full(e, budget) from e
        return np.empty(rows, dtype=dtype)


def _full(error: OSError, budget: Budget) -> OutputError:
    return OutputError(
        "cannot put data aside",
        path=budget.folder or tempfile.gettempdir(),
        why=error.strerror or str(error),
        hint="Name a folder with more space in TMPDIR, or allow more with --max-memory.",
    )
