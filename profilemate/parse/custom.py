"""Events of kinds that others define, as they come: a frame per kind, typed by its own values."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd

from profilemate.parse.ids import NONE, Ints
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

    def columns(self, order: Ints) -> dict[str, Any]:
        """The fields as nullable columns, in the order in which the events of `order` name them."""
        every = dict.fromkeys(self._names[row] for row in order.tolist())
        return {
            name: _column(self._values[name], order)
            for name in dict.fromkeys(name for names in every for name in names)
        }


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


def _column(values: list[Scalar | None], order: Ints) -> Any:
    """One type for all: that of the values; int and float are float, any other mixture is text."""
    types = {type(value) for value in values if value is not None}
    some = [values[row] if row < len(values) else None for row in order.tolist()]
    if types == {bool}:
        return pd.array(some, dtype="boolean")
    if types == {int}:
        return pd.array(some, dtype="Int64")
    if types <= {int, float}:
        known = np.array([value is not None for value in some])
        numbers = np.array([0.0 if value is None else float(value) for value in some])
        return pd.arrays.FloatingArray(numbers, ~known)  # a NaN stays one: it was measured
    return pd.array([None if v is None else str(v) for v in some], dtype="string")


def frame(events: CustomRows, order: Ints, given: Mapping[str, Any]) -> pd.DataFrame:
    """The frame of one kind: the given columns, then its fields."""
    return pd.DataFrame({**given, **events.columns(order)})
