"""Whether what happens to a block can follow what happened to it before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.tables.base import Bools
from profilemate.parse.tables.block_log import ALLOC, FREE, TOUCH
from profilemate.parse.tables.block_parts import Part


@dataclass(frozen=True, slots=True)
class Case:
    """How often something happened in a stream, and the first time.

    Attributes:
        stream: The stream, see `Pools`.
        count: How often.
        block, row: Block and row of the log of the first case.
    """

    stream: int
    count: int
    block: int
    row: int


class BlockOrder:
    """What cannot follow each other, of all blocks.

    Attributes:
        allocated_in_use: Allocations of a block that an earlier entry left in use.
    """

    def __init__(self) -> None:
        self.allocated_in_use: list[Case] = []
        self._freed_twice: list[Case] = []
        self._freed_first: list[Case] = []

    def take(self, part: Part) -> None:
        """Look at all that happened to some blocks."""
        log = part.log
        says = np.flatnonzero(np.isin(log.kind, (ALLOC, TOUCH, FREE)))
        kind, frees, owner = log.kind[says], log.changed[says], log.owner[says]
        follows = np.zeros(len(says), dtype=bool)
        follows[1:] = owner[1:] == owner[:-1]
        was_free = np.zeros(len(says), dtype=bool)
        was_free[1:] = (kind[:-1] == FREE) & frees[:-1]
        self.allocated_in_use += _cases(part, says[(kind == ALLOC) & follows & ~was_free])
        self._freed_twice += _cases(part, says[(kind == FREE) & follows & was_free])
        self._freed_first += _cases(part, says[(kind == FREE) & log.first[says]])

    def freed_while_free(self, empty: Bools) -> list[Case]:
        """Frees of a block that an earlier entry left free, or that was free from the first.

        Args:
            empty: Streams of which no block was in use when the recording began.
        """
        return [*self._freed_twice, *(c for c in self._freed_first if empty[c.stream])]


def _cases(part: Part, entries: Ints) -> list[Case]:
    """Some entries by stream."""
    found = []
    for stream in np.unique(part.stream[entries]).tolist():
        mine = entries[part.stream[entries] == stream]
        first = mine[np.argmin(part.log.row[mine])]
        found.append(Case(stream, len(mine), int(part.block[first]), int(part.log.row[first])))
    return found
