"""One pass over a trace, or over a part of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from profilemate.parse.columns.allocator import keep_freed_blocks
from profilemate.parse.readers.kineto.compiled import CompiledScanner
from profilemate.parse.readers.kineto.event_stream import (
    DISTRIBUTED,
    TO_THE_END,
    EventStream,
    Taken,
)
from profilemate.parse.readers.kineto.found import Found
from profilemate.parse.readers.kineto.inflate import Text
from profilemate.parse.readers.kineto.native import library
from profilemate.parse.recording.contract import Marker

_TOLD_EVERY = 1 << 14  # events

TORCH = ("schemaVersion", "deviceProperties", "baseTimeNanoseconds")
"""Members of a trace that only torch's profiler writes."""

VIZTRACER = "viztracer_metadata"
_HEADER = frozenset((*TORCH, VIZTRACER, DISTRIBUTED, "vllm_version"))


def scanner(found: Found) -> CompiledScanner | None:
    """What takes events off the text the quickest; None where each has to be decoded."""
    compiled = library()
    return None if compiled is None else CompiledScanner(found, compiled)


@dataclass(slots=True)
class Reading:
    """What a pass found.

    Attributes:
        found: Everything that is wanted but our messages.
        count: Events.
        exact: Those that were decoded one by one.
        ours: Our messages.
        header: Members of the trace that are asked for.
        damage: Why the text ends before its end.
        repaired: Events whose name was put right.
        broken: Events that could not be read.
    """

    found: Found = field(default_factory=Found)
    count: int = 0
    exact: int = 0
    ours: int = 0
    header: dict[str, Any] = field(default_factory=dict)
    damage: str | None = None
    repaired: int = 0
    broken: int = 0

    def run(self, text: Text, progress: Callable[[int], None]) -> Iterator[Marker]:
        """Read a text; our messages come out, the rest is put aside.

        Args:
            text: The text.
            progress: Told now and then how many bytes were read.

        Raises:
            OSError: The file cannot be read.
        """
        keep_freed_blocks()
        stream = EventStream(text, scanner(self.found), _HEADER)
        told = 0
        for item in stream.events():
            if isinstance(item, Taken):
                self.count += item.events
                self.exact += item.exact
                markers = item.markers
            else:
                self.count += 1
                self.exact += 1
                marker = self.found.take(item)
                markers = [] if marker is None else [marker]
            if self.count - told >= _TOLD_EVERY:
                told = self.count
                progress(stream.read)
            self.ours += len(markers)
            yield from markers
        self.header, self.damage = stream.header, stream.damage
        self.repaired, self.broken = stream.repaired, stream.broken

    def ends_between_events(self) -> bool:
        """Whether a part ended where an event begins, and nothing in it had to be guessed."""
        return self.damage == TO_THE_END and not self.repaired and not self.broken

    def merge(self, other: Reading) -> None:
        """Take over what was found in the part that comes next."""
        self.found.merge(other.found)
        self.count += other.count
        self.exact += other.exact
        self.ours += other.ours
        self.header |= other.header
        self.damage = other.damage
        self.repaired += other.repaired
        self.broken += other.broken
