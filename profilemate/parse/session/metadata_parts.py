"""The objects of `metadata.json`: what it says of a source, a process, the clock, and what is lost.

Each is read from whatever JSON there is, and None stands for what it does not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from profilemate.parse.recording.contract import SourceKind
from profilemate.parse.session.json_fields import Fields, Number

Json = dict[str, Any]


def _plain(values: Mapping[str, int] | None) -> dict[str, int] | None:
    return None if values is None else dict(values)


@dataclass(frozen=True, slots=True)
class Source:
    """A recording that the session was made of; see `SourceInfo`.

    Attributes:
        words: Its kind in words, as the session has them.
        window_ns: First and last time stamp in it, ns since its zero.
    """

    path: str | None = None
    words: str | None = None
    size: int | None = None
    recorder: str | None = None
    window_ns: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> SourceKind | None:
        """Its kind, None for one that only another version knows."""
        return SourceKind.named(self.words)

    @property
    def by(self) -> str | None:
        """What recorded it, or else what it is."""
        return self.recorder or self.words

    @classmethod
    def read(cls, said: Fields) -> Source:
        """What metadata.json says of it."""
        return cls(
            said.text("path"),
            said.text("kind"),
            said.count("size"),
            said.text("recorder"),
            said.integers("window_ns"),
            said.texts("notes"),
        )

    def to_json(self) -> Json:
        """As metadata.json has it."""
        return {
            "path": self.path,
            "kind": self.words,
            "size": self.size,
            "recorder": self.recorder,
            "window_ns": None if self.window_ns is None else list(self.window_ns),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the recording.

    Attributes:
        rank: Folder name of the rank that its figures are in.
        events: Events of profilemate that it sent.
        faults: How often profilemate's own hooks failed in it; None where it did not say.
    """

    pid: int | None = None
    role: str | None = None
    host: str | None = None
    rank: str | None = None
    events: int | None = None
    faults: int | None = None

    @classmethod
    def read(cls, said: Fields) -> Process:
        """What metadata.json says of it."""
        return cls(
            said.integer("pid"),
            said.text("role"),
            said.text("host"),
            said.text("rank"),
            said.count("events"),
            said.count("faults"),
        )

    def to_json(self) -> Json:
        """As metadata.json has it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Unseen:
    """Events of a kind that may be missing.

    Attributes:
        pid: The process.
        kind: Kind of the events.
        why: The hook that would have seen them, and what became of it.
    """

    pid: int | None = None
    kind: str | None = None
    why: str | None = None

    @classmethod
    def read(cls, said: Fields) -> Unseen:
        """What metadata.json says of it."""
        return cls(said.integer("pid"), said.text("kind"), said.text("why"))

    def to_json(self) -> Json:
        """As metadata.json has it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was recorded and is in no table; None for what is not known.

    Attributes:
        unknown_events: Events of kinds that this version does not know, by kind.
        broken_messages: Messages that could not be decoded.
        lost_batches: Batches that are missing between two that are there, by pid.
        unfinished_messages: Messages of which parts are missing.
    """

    unknown_events: Mapping[str, int] | None = None
    broken_messages: int | None = None
    lost_batches: Mapping[str, int] | None = None
    unfinished_messages: int | None = None

    @property
    def lost(self) -> int | None:
        """Lost batches of all processes."""
        return None if self.lost_batches is None else sum(self.lost_batches.values())

    @property
    def unreadable(self) -> int | None:
        """Messages that could not be read, for either reason; None where one is not known."""
        if self.broken_messages is None or self.unfinished_messages is None:
            return None
        return self.broken_messages + self.unfinished_messages

    @classmethod
    def read(cls, said: Fields) -> Dropped | None:
        """What metadata.json says of it; None where it says nothing."""
        if not said:
            return None
        return cls(
            said.counts_or_none("unknown_events"),
            said.count("broken_messages"),
            said.counts_or_none("lost_batches"),
            said.count("unfinished_messages"),
        )

    def to_json(self) -> Json:
        """As metadata.json has it."""
        return {
            "unknown_events": _plain(self.unknown_events),
            "broken_messages": self.broken_messages,
            "lost_batches": _plain(self.lost_batches),
            "unfinished_messages": self.unfinished_messages,
        }


@dataclass(frozen=True, slots=True)
class Placed:
    """How a recording was laid on the clock of the session.

    Attributes:
        by: What told its place.
        offset_ms: What was added to its times.
        error_ms: Bound of the error of that; None where it cannot be told.
    """

    name: str | None = None
    by: str | None = None
    offset_ms: float | None = None
    error_ms: float | None = None

    @classmethod
    def read(cls, said: Fields) -> Placed:
        """What metadata.json says of it."""
        return cls(
            said.text("name"), said.text("by"), said.number("offset_ms"), said.number("error_ms")
        )

    def to_json(self) -> Json:
        """As metadata.json has it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Lockstep:
    """How long after its scheduling each model step began.

    Attributes:
        compared: Steps that both sides counted.
        early: Those that seem to begin before they were scheduled.
        distance_ms: `min`, `median` and `max` of the time between; None where it is not known.
    """

    compared: int | None = None
    early: int | None = None
    distance_ms: Mapping[str, Number | None] = field(default_factory=dict)

    @classmethod
    def read(cls, said: Fields) -> Lockstep | None:
        """What metadata.json says of it; None where it says nothing."""
        if not said:
            return None
        return cls(said.count("compared"), said.count("early"), said.numbers_or_none("distance_ms"))

    def to_json(self) -> Json:
        """As metadata.json has it."""
        return {
            "compared": self.compared,
            "early": self.early,
            "distance_ms": dict(self.distance_ms),
        }


@dataclass(frozen=True, slots=True)
class Clock:
    """What time is in the tables, and how sure it is.

    Attributes:
        source: Whose time it is, in words.
        alignment_error_ms: Bound of the error of all that was laid on that clock.
        steps: None where no step could be compared.
    """

    source: str | None = None
    alignment_error_ms: float | None = None
    recordings: tuple[Placed, ...] = ()
    steps: Lockstep | None = None

    @classmethod
    def read(cls, said: Fields) -> Clock:
        """What metadata.json says of it."""
        return cls(
            said.text("source"),
            said.number("alignment_error_ms"),
            tuple(map(Placed.read, said.parts("recordings"))),
            Lockstep.read(said.part("steps")),
        )

    def to_json(self) -> Json:
        """As metadata.json has it."""
        return {
            "source": self.source,
            "alignment_error_ms": self.alignment_error_ms,
            "recordings": [placed.to_json() for placed in self.recordings],
            "steps": None if self.steps is None else self.steps.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Hooks:
    """What became of profilemate's hooks: name to place in vLLM, or to the reason."""

    installed: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether any process said something of any hook."""
        return bool(self.installed or self.skipped or self.waiting)

    @classmethod
    def read(cls, said: Fields) -> Hooks:
        """What metadata.json says of it."""
        return cls(said.words("installed"), said.words("skipped"), said.words("waiting"))

    def to_json(self) -> Json:
        """As metadata.json has it."""
        return {name: dict(getattr(self, name)) for name in self.__slots__}
