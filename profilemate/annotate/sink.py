"""What a sink is: `sinks/` has them."""

from __future__ import annotations

from typing import Literal, Protocol

Scope = Literal["always", "window", "torch"]
"""When a sink records: see `Sink.scope`."""


class Sink(Protocol):
    """Where messages go. Calls come from the engine's own thread, one at a time.

    Attributes:
        name: What it is called in what we say.
    """

    name: str

    @property
    def scope(self) -> Scope:
        """When it records.

        `always`; `window`: while a recording window is open (see `window.py`); `torch`: in such a
        window, while a torch profiler runs in this process.
        """

    def mark(self, text: str) -> None:
        """Record an instant."""

    def push(self, text: str) -> None:
        """Open a range on this thread."""

    def pop(self) -> None:
        """Close the last range of this thread."""

    def flush(self) -> None:
        """Bring what was given so far to safety: a window closes, or the process ends."""
