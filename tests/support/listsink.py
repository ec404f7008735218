"""A sink that keeps what it is given, and where the stand-in for vLLM's layout is."""

from __future__ import annotations

from profilemate import schema
from profilemate.annotate.sink import Scope


class ListSink:
    """Keeps messages; ranges as they open and close."""

    name = "list"
    scope: Scope = "always"

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.ranges: list[str] = []
        self.depth = self.flushed = 0

    def mark(self, text: str) -> None:
        self.messages.append(text)

    def push(self, text: str) -> None:
        self.ranges.append(text)
        self.depth += 1

    def pop(self) -> None:
        self.depth -= 1

    def flush(self) -> None:
        self.flushed += 1

    def events(self, *kinds: str) -> list[schema.Event]:
        """The events of the batches so far, of some kinds or of all but the session's."""
        found = []
        joiner = schema.Joiner()
        for part in self.messages:
            text = joiner.feed(0, part)
            message = None if text is None else schema.decode(text)
            found += [] if message is None else message.events
        skip = () if kinds else ("session", "hook", "kv.pool")
        return [e for e in found if e.kind not in skip and (not kinds or e.kind in kinds)]
