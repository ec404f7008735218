"""Fields of a JSON object that a stranger may have written: typed values, or None and a note.

Null and an absent key are None without a note: the writer did not know. A value of another kind
than the key is for is None too, and the note says so. There is one note for each key, however many
objects of a list have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeGuard, TypeVar

T = TypeVar("T")
_MOST = 1 << 63
"""Numbers beyond this are no figure of a recording, and not every format can hold them."""

Number = int | float


def is_number(value: object) -> TypeGuard[Number]:
    """A finite number of a size that a figure can have; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_MOST < value < _MOST if isinstance(value, int) else math.isfinite(value)


def is_integer(value: object) -> TypeGuard[int]:
    """A whole number of 64 bits."""
    return isinstance(value, int) and is_number(value)


def is_count(value: object) -> TypeGuard[int]:
    """A whole number that is not negative."""
    return is_integer(value) and value >= 0


def is_text(value: object) -> TypeGuard[str]:
    """A string."""
    return isinstance(value, str)


class Fields:
    """One object, read key by key.

    Args:
        value: What JSON gave, whatever it is; what is no object has no fields.
        name: How the notes call the object, with its dot; empty for the document itself.
        notes: Where notes go, as keys, in the order in which they came.
    """

    def __init__(self, value: object, name: str, notes: dict[str, None]) -> None:
        self._values: dict[str, Any] = value if isinstance(value, dict) else {}
        self._name, self._notes = name, notes

    def __bool__(self) -> bool:
        """Whether there is such an object, and anything in it."""
        return bool(self._values)

    def _note(self, key: str, what: str) -> None:
        self._notes[f"{self._name}{key} in metadata.json {what}"] = None

    def _one(self, key: str, fits: Callable[[object], TypeGuard[T]], what: str) -> T | None:
        value = self._values.get(key)
        if value is None:
            return None
        if fits(value):
            return value
        self._note(key, f"is no {what} and is not used")
        return None

    def text(self, key: str) -> str | None:
        """A string; halves of characters, which no file can be written with, are spelled out."""
        value = self._one(key, is_text, "text")
        return None if value is None else _whole(value)

    def moment(self, key: str) -> str | None:
        """A point in time as ISO 8601 spells it."""
        value = self._one(key, _is_moment, "time")
        return None if value is None else _whole(value)

    def number(self, key: str) -> float | None:
        """A finite number."""
        value = self._one(key, is_number, "number")
        return None if value is None else float(value)

    def integer(self, key: str) -> int | None:
        """A whole number of 64 bits."""
        return self._one(key, is_integer, "whole number")

    def count(self, key: str) -> int | None:
        """A whole number that is not negative."""
        return self._one(key, is_count, "count")

    def truth(self, key: str) -> bool | None:
        """True or False."""
        return self._one(key, _is_truth, "true or false")

    def pair(self, key: str) -> tuple[float, float] | None:
        """Two finite numbers, the second not less than the first."""
        value = self._one(key, _is_pair, "pair of numbers in order")
        return None if value is None else (float(value[0]), float(value[1]))

    def integers(self, key: str) -> tuple[int, int] | None:
        """Two whole numbers, the second not less than the first."""
        value = self._one(key, _is_integer_pair, "pair of whole numbers in order")
        return None if value is None else (value[0], value[1])

    def part(self, key: str) -> Fields:
        """An object in this one; without fields where there is none."""
        return Fields(self._one(key, _is_object, "object"), f"{self._name}{key}.", self._notes)

    def whole(self, key: str) -> dict[str, object] | None:
        """An object as it stands, for keys that nobody reads."""
        return self._one(key, _is_object, "object")

    def parts(self, key: str) -> list[Fields]:
        """The objects of a list; what is none is left out."""
        return [
            Fields(value, f"{self._name}{key}.", self._notes)
            for value in self._list(key, _is_object, "objects")
        ]

    def texts(self, key: str) -> tuple[str, ...]:
        """The strings of a list; what is none is left out."""
        return tuple(map(_whole, self._list(key, is_text, "texts")))

    def _list(self, key: str, fits: Callable[[object], TypeGuard[T]], what: str) -> list[T]:
        values = self._one(key, _is_list, f"list of {what}") or []
        fitting = [value for value in values if fits(value)]
        if len(fitting) < len(values):
            self._note(key, f"holds what are no {what}: they are left out")
        return fitting

    def counts(self, key: str) -> dict[str, int]:
        """An object of counts; what is none is left out."""
        return self.counts_or_none(key) or {}

    def counts_or_none(self, key: str) -> dict[str, int] | None:
        """An object of counts, None where it is not known; what is no count is left out."""
        return self._mapping(key, is_count, "counts")

    def words(self, key: str) -> dict[str, str]:
        """An object of strings; what is none is left out."""
        found = self._mapping(key, is_text, "texts") or {}
        return {name: _whole(v) for name, v in found.items()}

    def words_or_none(self, key: str) -> dict[str, str | None]:
        """An object of strings and nulls; what is neither is left out."""
        found = self._mapping(key, _is_text_or_none, "texts") or {}
        return {name: None if v is None else _whole(v) for name, v in found.items()}

    def numbers_or_none(self, key: str) -> dict[str, Number | None]:
        """An object of finite numbers and nulls; what is neither is left out."""
        return self._mapping(key, _is_number_or_none, "numbers") or {}

    def _mapping(
        self, key: str, fits: Callable[[object], TypeGuard[T]], what: str
    ) -> dict[str, T] | None:
        values = self._one(key, _is_object, f"object of {what}")
        if values is None:
            return None
        fitting = {_whole(name): value for name, value in values.items() if fits(value)}
        if len(fitting) < len(values):
            self._note(key, f"holds what are no {what}: they are left out")
        return fitting


def _whole(text: str) -> str:
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _is_moment(value: object) -> TypeGuard[str]:
    if not isinstance(value, str):
        return False
    try:
        return math.isfinite(datetime.fromisoformat(value).timestamp())
    except (ValueError, OverflowError, OSError):  # the last two: a year that no clock has
        return False


def _is_truth(value: object) -> TypeGuard[bool]:
    return isinstance(value, bool)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _is_pair(value: object) -> TypeGuard[list[Number]]:
    if not (isinstance(value, list) and len(value) == 2 and all(is_number(v) for v in value)):
        return False
    return bool(value[0] <= value[1])


def _is_integer_pair(value: object) -> TypeGuard[list[int]]:
    return _is_pair(value) and all(is_integer(v) for v in value)


def _is_text_or_none(value: object) -> TypeGuard[str | None]:
    return value is None or isinstance(value, str)


def _is_number_or_none(value: object) -> TypeGuard[Number | None]:
    return value is None or is_number(value)
