"""What happened to blocks, a part of them at a time, so that only so much has to be sorted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.columns.budget import Budget
from profilemate.parse.columns.partition import Divided
from profilemate.parse.tables.block_log import BlockLog, block_log

_LARGE = 1 << 28
"""Ids of blocks from here on are replaced by smaller numbers. No real pool has so many blocks:
these would be petabytes."""


@dataclass(frozen=True, slots=True)
class Part:
    """All that happened to some blocks.

    Attributes:
        log: What happened, by block and time.
        stream, block: Which block each entry is of; block ids as vLLM has them.
    """

    log: BlockLog
    stream: Ints
    block: Ints


class BlockParts:
    """Entries as they come (see `entries_of`), given back by block."""

    def __init__(self, budget: Budget) -> None:
        self._entries = Divided(budget, budget.entries)
        self._span = 0
        self._labels: Ints | None = None

    def add(self, entries: Mapping[str, Ints]) -> None:
        """Take entries."""
        self._span = max(self._span, int(entries["block"].max(initial=-1)) + 1)
        self._entries.add(entries)

    def parts(self) -> Iterator[Part]:
        """All that was taken, in the order of (stream, block, time); it is kept no longer."""
        if self._span > _LARGE:
            labels = np.empty(0, dtype=np.int64)
            for block in self._entries.column("block"):
                labels = np.union1d(labels, block)
            self._labels, self._span = labels, len(labels)
        for entries in self._entries.parts(self._owner):
            log = block_log(self._owner(entries), entries["row"], entries["what"])
            stream, code = np.divmod(log.owner, self._span)
            yield Part(log, stream, code if self._labels is None else self._labels[code])

    def _owner(self, entries: Mapping[str, Ints]) -> Ints:
        """A number for the block of each entry, in the order of (stream, block)."""
        block = entries["block"]
        code = block if self._labels is None else np.searchsorted(self._labels, block)
        return entries["stream"] * self._span + code
