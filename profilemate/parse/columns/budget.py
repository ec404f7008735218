"""How much of a recording is kept in memory, and what of it goes into a temporary file."""

from __future__ import annotations

import re
from dataclasses import dataclass

from profilemate.errors import InputError

MB = 1 << 20

FLOOR = 300 * MB
"""The least that can be asked for: what Python, its packages and a slice to work on take."""

_PROGRAM = 200 * MB  # the interpreter, pandas and pyarrow, and a block of the recording
_ROWS, _ENTRIES = 1 << 16, 1 << 19
_A_ROW = 2000  # bytes that a row of the largest table takes while it is made and spelled
_AN_ENTRY = 160  # bytes that the operation of a block takes while lives are found

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", re.IGNORECASE)
_UNITS = " KMGT"


@dataclass(slots=True)
class Budget:
    """What may be kept, shared by all that is put aside for one trace.

    Attributes:
        held: Bytes that may wait in memory before the rest goes into a file.
        rows: Rows that are worked on at a time.
        entries: Operations of single blocks that are sorted at a time.
        strict: A limit was asked for: a file that cannot be written is an error, not a reason to
            keep everything.
        folder: Where the files are; None for where Python puts them.
        used: Bytes that wait in memory now.
    """

    held: int = 512 * MB
    rows: int = _ROWS
    entries: int = _ENTRIES
    strict: bool = False
    folder: str | None = None
    used: int = 0

    @classmethod
    def of(cls, limit: int | None, folder: str | None = None) -> Budget:
        """The budget for a limit on the memory of the process.

        Args:
            limit: Bytes, `FLOOR` or more; None for no limit.
            folder: Where temporary files are to be.
        """
        if limit is None:
            return cls()
        room = max(limit, FLOOR) - _PROGRAM
        return cls(
            held=room // 4,
            rows=min(_ROWS, room // 2 // _A_ROW),
            entries=min(_ENTRIES, room // 2 // _AN_ENTRY),
            strict=True,
            folder=folder,
        )


def memory_limit(text: str | None) -> int | None:
    """Bytes of a size such as `500M` or `1.5G`; None for None.

    Raises:
        InputError: It is no size, or too small.
    """
    if text is None:
        return None
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InputError(
            f"--max-memory {text} is no amount of memory", hint="For instance: --max-memory 2G"
        )
    size = int(float(found[1]) * 1024 ** _UNITS.index(found[2].upper() or " "))
    if size < FLOOR:
        raise InputError(
            f"--max-memory {text} is too little",
            why="Python and its packages take most of that before anything is read.",
            hint=f"The least is --max-memory {FLOOR // MB}M",
        )
    return size
