"""Texts that a trace says once and then calls by number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

_FIELDS = {
    "name": "event_names",
    "category": "event_categories",
    "argument": "debug_annotation_names",
    "text": "debug_annotation_string_values",
}
LIMIT = 1 << 16
"""Texts that are remembered at once: beyond it everything is forgotten and said anew."""


class Interner:
    """Numbers texts, and tells the trace about those that are new.

    A packet that uses a number comes after the packet, made by `tell`, that says what it means.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, dict[str, int]] = {kind: {} for kind in _FIELDS}
        self._new: list[tuple[str, int, str]] = []
        self._cleared = True  # a reader knows nothing yet

    def number(self, kind: str, text: str) -> int:
        """The number of a text, from 1."""
        known = self._numbers[kind]
        found = known.get(text)
        if found is None:
            found = known[text] = len(known) + 1
            self._new.append((kind, found, text))
        return found

    def numbers(self, kind: str, texts: Iterable[str | None]) -> list[int | None]:
        """The numbers of some texts; None stays None."""
        return [None if text is None else self.number(kind, text) for text in texts]

    def chosen(self, kind: str, texts: Any, of: npt.NDArray[np.int64]) -> list[int]:
        """The numbers of `texts[i]` for each i in `of`."""
        used, place = np.unique(of, return_inverse=True)
        numbers = np.array([self.number(kind, texts[i]) for i in used.tolist()], dtype=np.int64)
        return list(numbers[place].tolist())

    def make_room(self) -> None:
        """Forget everything if there is too much of it; between packets only."""
        if sum(map(len, self._numbers.values())) > LIMIT:
            for known in self._numbers.values():
                known.clear()
            self._cleared = True

    @property
    def has_news(self) -> bool:
        """Whether there is anything to tell before the numbers may be used."""
        return bool(self._new) or self._cleared

    def tell(self, packet: Any) -> None:
        """Put what is new into a packet."""
        if self._cleared:
            packet.sequence_flags = packet.SEQ_INCREMENTAL_STATE_CLEARED
        said = {kind: getattr(packet.interned_data, field) for kind, field in _FIELDS.items()}
        for kind, number, text in self._new:
            if kind == "text":
                said[kind].add(iid=number, str=text.encode("utf-8", "backslashreplace"))
            else:
                said[kind].add(iid=number, name=text)
        self._new, self._cleared = [], False
