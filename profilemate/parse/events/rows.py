"""Events as they come, an array or a list per field."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from itertools import chain, compress
from typing import Any, Self

import numpy as np

from profilemate import schema
from profilemate.parse.columns.arrays import NONE, Ints, fits
from profilemate.parse.columns.id_lists import IdLists
from profilemate.parse.events.chunk_scan import Events, Strings
from profilemate.schema import Kind, Value

_CODES: Mapping[str, tuple[str, int]] = {"int": ("q", NONE), "bool": ("b", -1)}

# Events whose fields wait as dicts until the columns are filled, one by one: a third faster than
# field by field. More of them no longer fit the processor's cache, which costs more than it saves.
_CHUNK = 1 << 7


class Lists:
    """Tuples of integers or None, as they come."""

    def __init__(self) -> None:
        self._flat, self._lengths = array("q"), array("q")

    def __len__(self) -> int:
        return len(self._lengths)

    def extend(self, rows: list[Value | None]) -> None:
        """Add rows.

        Raises:
            OverflowError: An integer has more than 64 bits; nothing was added.
        """
        lengths = [len(row) if isinstance(row, tuple) else NONE for row in rows]
        ids = chain.from_iterable(row for row in rows if isinstance(row, tuple))
        flat = array("q", list(ids))
        self._flat.extend(flat)
        self._lengths.extend(lengths)

    def add(self, ids: IdLists) -> None:
        """Add rows."""
        self._flat.frombytes(ids.flat.tobytes())
        self._lengths.frombytes(np.where(ids.missing, NONE, ids.lengths).tobytes())

    def ids(self) -> IdLists:
        """All rows."""
        lengths = np.array(self._lengths, dtype=np.int64)
        missing = lengths == NONE
        flat = np.array(self._flat, dtype=np.int64)
        return IdLists(flat, np.where(missing, 0, lengths), missing)

    def kept(self, keep: list[bool]) -> Self:
        """Only some of the rows."""
        kept = type(self)()
        kept.add(self.ids()[np.array(keep, dtype=bool)])
        return kept


class Rows:
    """The events of one kind, as they come: 8 bytes an integer, a list for strings.

    Attributes:
        kind: Their kind.
        message: Number of the message each event came in.
        place: Its place in that message.
        columns: Field name -> values, with `NONE`, -1 or None for what an event does not say.
        broken: Messages with an integer of more than 64 bits.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.message = array("q")
        self.place = array("q")
        self.columns: dict[str, Any] = {}
        self.broken: set[int] = set()
        self._none: dict[str, Value | None] = {}
        self._strings: dict[str, dict[Any, Any]] = {}
        self._waiting: list[Mapping[str, Value]] = []
        for field in (*schema.COMMON, *kind.fields):
            code = _CODES.get(field.type)
            other: Lists | list[Any] = Lists() if field.type == "ids" else []
            self.columns[field.name] = other if code is None else array(code[0])
            self._none[field.name] = None if code is None else code[1]
            if field.type == "str":
                self._strings[field.name] = {}

    def __len__(self) -> int:
        return len(self.message)

    def add(self, message: int, place: int, values: Mapping[str, Value]) -> None:
        """Add an event."""
        self.message.append(message)
        self.place.append(place)
        self._waiting.append(values)
        if len(self._waiting) == _CHUNK:
            self.settle()

    def settle(self) -> None:
        """Put what waits into the columns, before these are looked at."""
        waiting, self._waiting = self._waiting, []
        first = len(self.message) - len(waiting)
        for name, column in self.columns.items():
            none = self._none[name]
            values = [said.get(name, none) for said in waiting]
            if name in self._strings:
                # A request is named by each of its events: one string will do for all of them.
                known = self._strings[name]
                values = [known.setdefault(value, value) for value in values]
            try:
                column.extend(values)
            except OverflowError:
                if isinstance(column, array):
                    del column[first:]
                fitting = [fits(v) for v in values]
                column.extend([v if ok else none for v, ok in zip(values, fitting, strict=True)])
                self.broken |= {self.message[first + i] for i, ok in enumerate(fitting) if not ok}

    def add_all(self, numbers: Ints, events: Events) -> None:
        """Add events that were read in columns.

        Args:
            numbers: The number of each message that `Events.message` counts.
            events: The events.
        """
        self.settle()
        self.message.frombytes(numbers[events.message].tobytes())
        self.place.frombytes(events.place.tobytes())
        count = len(events.place)
        for name, column in self.columns.items():
            values = events.columns.get(name)
            if isinstance(column, Lists):
                column.add(IdLists.none(count) if values is None else values)
            elif isinstance(column, array):
                none = np.full(count, self._none[name], dtype=column.typecode)
                column.frombytes((none if values is None else values).tobytes())
            else:
                known = self._strings[name]
                none_: list[str | None] = [None] * count
                column += none_ if values is None else _shared(known, values)

    def take(self, first: int, other: Rows) -> None:
        """Take the events of another one, whose messages are numbered from `first` on here."""
        self.settle()
        other.settle()
        self.message.frombytes((np.array(other.message, dtype=np.int64) + first).tobytes())
        self.place.extend(other.place)
        self.broken |= {number + first for number in other.broken}
        for name, column in self.columns.items():
            theirs = other.columns[name]
            if isinstance(column, Lists):
                column.add(theirs.ids())
            elif isinstance(column, array):
                column.extend(theirs)
            else:
                known = self._strings[name]
                column += [known.setdefault(value, value) for value in theirs]

    def __getstate__(self) -> dict[str, Any]:
        """Strings as numbers of the different ones: a list of strings would be large."""
        self.settle()
        columns = {}
        for name, column in self.columns.items():
            columns[name] = column
            if name in self._strings:
                known = {text: number for number, text in enumerate(dict.fromkeys(column))}
                columns[name] = (array("i", [known[text] for text in column]), list(known))
        kept = ("message", "place", "broken")
        return {"kind": self.kind.name, "columns": columns} | {n: getattr(self, n) for n in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(schema.KINDS[state["kind"]])  # type: ignore[misc]
        self.message, self.place, self.broken = (state[n] for n in ("message", "place", "broken"))
        for name, column in state["columns"].items():
            if name in self._strings:
                numbers, known = column
                self._strings[name] = {text: text for text in known}
                self.columns[name] = [known[number] for number in numbers]
            else:
                self.columns[name] = column

    def drop(self, messages: set[int]) -> None:
        """Forget the events of some messages."""
        keep = [number not in messages for number in self.message]
        if not all(keep):
            for column in (self.message, self.place, *self.columns.values()):
                if isinstance(column, array):
                    column[:] = array(column.typecode, compress(column, keep))
                elif isinstance(column, list):
                    column[:] = compress(column, keep)
            for name, column in self.columns.items():
                if isinstance(column, Lists):
                    self.columns[name] = column.kept(keep)

    def numbers(self, name: str, none: int) -> Ints:
        """A column of integers, with another stand-in for None."""
        values = np.array(self.columns[name], dtype=np.int64)
        return np.where(values == NONE, none, values)


def _shared(known: dict[Any, Any], values: Strings) -> list[str | None]:
    texts = [known.setdefault(text, text) for text in values.texts]
    return Strings(values.codes, texts).tolist()
