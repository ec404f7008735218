"""Block operations as they come: in batches of packed columns, in any order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from profilemate import schema
from profilemate.parse.columns.arrays import NONE, Ints, fits
from profilemate.parse.columns.budget import Budget
from profilemate.parse.columns.id_lists import IdLists
from profilemate.parse.columns.packed import joined, pack, unpack
from profilemate.parse.columns.spool import Blocks
from profilemate.parse.events.chunk_scan import Events, Strings
from profilemate.schema import KINDS, KV_OPS, Value

_RENAMED = {"revived": "subset", "freed": "subset", "src": "ids"}

FIELDS: Mapping[str, str] = {
    _RENAMED.get(field.name, field.name): field.type
    for op in KV_OPS
    for field in (*schema.COMMON, *KINDS[op].fields)
}
"""Type of every column; operations without a field have none of it."""

_FIELD_OF = [
    {_RENAMED.get(f.name, f.name): f.name for f in (*schema.COMMON, *KINDS[op].fields)}
    for op in KV_OPS
]  # column -> field, by the number of the operation
_NUMBER = {op: number for number, op in enumerate(KV_OPS)}
_WAITING = 1 << 12  # operations that came one by one and are not in columns yet
_IDS = 1 << 20  # block ids that wait, in either form: a few operations may have most of them


class KvRows:
    """The operations of `schema.KV_OPS` that were read.

    A batch has a column per field in `FIELDS`, with the number of the message each came in, its
    `place` in that, and `op`, its number in `KV_OPS`. Integers are `NONE` and flags -1 where one
    does not say; strings are numbers of `texts`, -1 for none.

    Attributes:
        texts: The different strings and their numbers.
        broken: Messages with an integer of more than 64 bits.
        dropped: Messages whose operations do not count.
    """

    def __init__(self, budget: Budget) -> None:
        self._blocks = Blocks(budget)
        self._pending: list[dict[str, Any]] = []
        self._rows = self._ids = 0  # that are pending
        self._waiting_ids = 0
        self._waiting: list[tuple[int, int, int, Mapping[str, Value]]] = []
        self.texts: dict[str, int] = {}
        self.broken: set[int] = set()
        self.dropped: set[int] = set()

    @property
    def budget(self) -> Budget:
        """What may be kept in memory."""
        return self._blocks.budget

    def add(self, message: int, place: int, kind: str, values: Mapping[str, Value]) -> None:
        """Add an operation."""
        self._waiting.append((message, place, _NUMBER[kind], values))
        self._waiting_ids += sum(len(v) for v in values.values() if isinstance(v, tuple))
        if len(self._waiting) >= _WAITING or self._waiting_ids >= _IDS:
            self._gather()

    def add_all(self, numbers: Ints, found: Mapping[str, Events]) -> None:
        """Add the operations among events that were read in columns.

        Args:
            numbers: The number of each message that `Events.message` counts.
            found: Events by kind.
        """
        for kind in found.keys() & _NUMBER.keys():
            events, op = found[kind], _NUMBER[kind]
            count = len(events.place)
            columns = {name: events.columns.get(of) for name, of in _FIELD_OF[op].items()}
            self._take(
                {
                    "message": numbers[events.message],
                    "place": events.place,
                    "op": np.full(count, op, dtype=np.int64),
                    **{name: self._column(name, columns.get(name), count) for name in FIELDS},
                }
            )
            if self._rows >= self.budget.rows or self._ids >= _IDS:
                self._flush()

    def _column(self, name: str, values: Any, count: int) -> Any:
        kind = FIELDS[name]
        if kind == "ids":
            return IdLists.none(count) if values is None else values
        if values is None:
            return np.full(count, NONE if kind == "int" else -1, dtype=np.int64)
        if isinstance(values, Strings):
            known = [self.texts.setdefault(text, len(self.texts)) for text in values.texts]
            return np.array([*known, -1], dtype=np.int64)[values.codes]
        return values.astype(np.int64, copy=False)

    def _gather(self) -> None:
        """Put what came one by one into columns."""
        waiting, self._waiting, self._waiting_ids = self._waiting, [], 0
        if not waiting:
            return
        columns: dict[str, Any] = {
            name: np.array([row[i] for row in waiting], dtype=np.int64)
            for i, name in enumerate(("message", "place", "op"))
        }
        for name, kind in FIELDS.items():
            said = [values.get(_FIELD_OF[op].get(name, "")) for _, _, op, values in waiting]
            try:
                columns[name] = self._said(kind, said)
            except OverflowError:
                fitting = [fits(value) for value in said]
                known = [v if ok else None for v, ok in zip(said, fitting, strict=True)]
                columns[name] = self._said(kind, known)
                self.broken |= {row[0] for row, ok in zip(waiting, fitting, strict=True) if not ok}
        self._take(columns)
        if self._rows >= self.budget.rows or self._ids >= _IDS:
            self._flush()

    def _said(self, kind: str, values: list[Any]) -> Any:
        if kind == "ids":
            return IdLists.of(values)
        if kind == "str":
            texts = self.texts
            values = [None if v is None else texts.setdefault(v, len(texts)) for v in values]
        none = NONE if kind == "int" else -1
        return np.array([none if v is None else int(v) for v in values], dtype=np.int64)

    def _take(self, columns: dict[str, Any]) -> None:
        self._pending.append(columns)
        self._rows += len(columns["op"])
        self._ids += sum(len(columns[n].flat) for n, kind in FIELDS.items() if kind == "ids")

    def _flush(self) -> None:
        pending, self._pending, self._rows, self._ids = self._pending, [], 0, 0
        if pending:
            # Messages are whole in a batch, so that most often batches need no sorting.
            self._blocks.add(pack(joined(pending)))

    def settle(self) -> None:
        """Put what waits into batches, before these are looked at."""
        self._gather()
        self._flush()

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self._blocks)

    def batch(self, number: int, wanted: Collection[str] | None = None) -> dict[str, Any]:
        """Columns of a batch."""
        return unpack(self._blocks[number], wanted)

    def forget(self, number: int) -> None:
        """A batch is needed no more."""
        self._blocks.forget(number)

    def take(self, first: int, other: KvRows) -> None:
        """Take those of another one, whose messages are numbered from `first` on here."""
        self.settle()
        other.settle()
        known = [self.texts.setdefault(text, len(self.texts)) for text in other.texts]
        codes = np.array([*known, -1], dtype=np.int64)
        self.broken |= {number + first for number in other.broken}
        for number in range(len(other)):
            columns = other.batch(number)
            other.forget(number)
            columns["message"] += first
            for name, kind in FIELDS.items():
                if kind == "str":
                    columns[name] = codes[columns[name]]
            self._blocks.add(pack(columns))

    def drop(self, messages: set[int]) -> None:
        """The operations of some messages do not count."""
        self.dropped |= messages

    def __getstate__(self) -> dict[str, Any]:
        self.settle()
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
