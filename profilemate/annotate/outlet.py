"""What those that make events need of the emitter, which they do not know otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from profilemate.annotate.faults import Faults
from profilemate.annotate.identity import Identity
from profilemate.annotate.sink import Sink

Encode = Callable[..., str]
"""(ns since the event began, its duration in ns or None, *its fields) -> the event, spelled."""


class Outlet(Protocol):
    """Takes events, and opens ranges; `Emitter` is the one there is.

    Attributes:
        active: Whether a sink listens.
        watching: Whether sinks come and go: then every step begins with `advance`.
        faults: Faults of our own.
        identity: What this process says of itself.
    """

    active: bool
    watching: bool
    faults: Faults
    identity: Identity

    def add(self, encode: Encode, start: int, end: int, values: tuple[Any, ...]) -> None:
        """Buffer one event: its kind's encoder, begin and end (ns, monotonic), its fields."""

    def push(self, text: str) -> tuple[Sink, ...]:
        """Open a range on the calling thread; returns the sinks that it was opened in."""

    def pop(self, sinks: tuple[Sink, ...]) -> None:
        """Close the last range of the calling thread in these sinks."""

    def advance(self, step: int) -> None:
        """A boundary between steps: sinks begin or cease to listen. `step` is what comes next."""
