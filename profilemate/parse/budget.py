"""How much of a recording is kept in memory, and what of it goes into a temporary file."""

from __future__ import annotations

from dataclasses import dataclass

MB = 1 << 20

FLOOR = 250 * MB
"""The least that can be asked for: what Python and its packages take, and a slice to work on."""

_PROGRAM = 190 * MB  # the interpreter, pandas and pyarrow, and what one message or batch needs
_ROWS, _ENTRIES = 1 << 16, 1 << 21
_A_ROW = 1600  # bytes that a row of the largest table takes while it is spelled, and all before it
_AN_ENTRY = 150  # bytes that the operation of a block takes while lives are found


@dataclass(slots=True)
class Budget:
    """What may be kept, shared by all that is put aside for one trace.

    Attributes:
        held: Bytes that may wait in memory before the rest goes into a file.
        rows: Rows that are worked on at a time.
        entries: Operations of single blocks that are sorted at a time.
        strict: A limit was asked for: a file that cannot be written is an error, not a reason to
            keep everything.
        used: Bytes that wait in memory now.
    """

    held: int = 512 * MB
    rows: int = _ROWS
    entries: int = _ENTRIES
    strict: bool = False
    used: int = 0

    @classmethod
    def of(cls, limit: int | None) -> Budget:
        """The budget for a limit on the memory of the process, in bytes; None for no limit."""
        if limit is None:
            return cls()
        room = max(limit - _PROGRAM, FLOOR - _PROGRAM)
        return cls(
            held=room // 4,
            rows=min(_ROWS, max(1 << 10, room // 2 // _A_ROW)),
            entries=min(_ENTRIES, max(1 << 12, room // 2 // _AN_ENTRY)),
            strict=True,
        )
