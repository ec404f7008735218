"""Events of kinds that others define, as they come."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from itertools import compress

from profilemate.parse.columns.arrays import NONE, Ints
from profilemate.schema import Event
from profilemate.schema.custom import PREFIX, RESERVED, Scalar, decode_scalar, is_name


class CustomRows:
    """The events of one kind.

    Attributes:
        message: Number of the message each event came in.
        place: Its place in that message.
        ago: How long before its message was emitted it began, ns.
        dur: How long it took, ns; `NONE` where it does not say.
    """

    def __init__(self) -> None:
        self.message, self.place = array("q"), array("q")
        self.ago, self.dur = array("q"), array("q")
        self._values: dict[str, list[Scalar | None]] = {}
        self._names: list[tuple[str, ...]] = []
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}

    def add(self, message: int, place: int, said: Mapping[str, str]) -> None:
        """Add an event. Never fails: what is spelled wrongly is its own text."""
        row = len(self.message)
        self.message.append(message)
        self.place.append(place)
        self.ago.append(_nanoseconds(said.get("ago"), 0))
        self.dur.append(_nanoseconds(said.get("dur"), NONE))
        given = tuple(said)
        names = self._known.get(given)
        if names is None:
            names = tuple(n for n in given if n not in RESERVED and is_name(n))
            self._known[given] = names
        self._names.append(names)
        for name in names:
            values = self._values.setdefault(name, [])
            values.extend([None] * (row - len(values)))
            values.append(decode_scalar(said[name]))

    def drop(self, messages: set[int]) -> None:
        """Forget the events of some messages."""
        keep = [number not in messages for number in self.message]
        if all(keep):
            return
        for column in (self.message, self.place, self.ago, self.dur):
            column[:] = array("q", compress(column, keep))
        self._names = [*compress(self._names, keep)]
        self._values = {name: [*compress(v, keep)] for name, v in self._values.items()}

    def values(self, order: Ints) -> dict[str, list[Scalar | None]]:
        """The fields of the events of `order`, in the order in which these name them."""
        rows = order.tolist()
        every = dict.fromkeys(self._names[row] for row in rows)
        found: dict[str, list[Scalar | None]] = {}
        for name in dict.fromkeys(name for names in every for name in names):
            values = self._values[name]
            found[name] = [values[row] if row < len(values) else None for row in rows]
        return found


def wanted(kind: str) -> bool:
    """Whether an event of this kind is one of these."""
    return kind.startswith(PREFIX) and is_name(kind.removeprefix(PREFIX))


class CustomEvents:
    """The events of all such kinds, by the name of their kind without its prefix."""

    def __init__(self) -> None:
        self.rows: dict[str, CustomRows] = {}

    def add(self, message: int, place: int, event: Event) -> None:
        """Add an event that is `wanted`."""
        name = event.kind.removeprefix(PREFIX)
        self.rows.setdefault(name, CustomRows()).add(message, place, event.extra)

    def drop(self, messages: set[int]) -> None:
        """Forget the events of some messages."""
        for rows in self.rows.values() if messages else ():
            rows.drop(messages)
        self.rows = {name: rows for name, rows in self.rows.items() if len(rows.message)}

    def counts(self) -> Counter[str]:
        """Events by kind, prefix and all."""
        return Counter({f"{PREFIX}{name}": len(r.message) for name, r in self.rows.items()})


def _nanoseconds(text: str | None, otherwise: int) -> int:
    try:
        value = otherwise if text is None else int(text)
    except ValueError:
        return otherwise
    return value if abs(value) < 1 << 62 else otherwise
