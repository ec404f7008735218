"""What both parts of bench_overhead that vLLM's own interpreter runs install: hooks, and a sink."""

from __future__ import annotations

from typing import Any


class Null:
    """A sink that counts and forgets; counting events takes time, so only where it is asked."""

    name = "null"
    counts_events = False
    scope = "always"

    def __init__(self) -> None:
        self.messages = 0
        self.characters = 0
        self.events = 0

    def mark(self, text: str) -> None:
        """Count a batch."""
        self.messages += 1
        self.characters += len(text)
        if self.counts_events:
            self.events += text.count(" | ")

    def push(self, text: str) -> None:
        """Count a range."""
        self.messages += 1

    def pop(self) -> None:
        """Ends with its push: counted there."""

    def flush(self) -> None:
        """Nothing waits."""


def annotate(sink: Any) -> Any:
    """Install the hooks with this sink; returns the package."""
    from profilemate import annotate
    from profilemate.annotate import sinks
    from profilemate.annotate.settings import Settings

    sinks.open_sinks = lambda settings, env: ([sink], "")
    annotate.install(Settings(wanted=True))
    return annotate
