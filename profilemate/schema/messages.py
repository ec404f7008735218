"""Whole messages: one event or a batch of them, cut and joined where they are long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from profilemate.errors import SchemaError
from profilemate.schema.fields import (
    MAX_MESSAGE_IDS,
    FieldType,
    Value,
    decode_str,
    decode_value,
    encode_str,
)
from profilemate.schema.kinds import KINDS

VERSION = 1
PREFIX = f"pm{VERSION}."
MAX_MESSAGE = 32 * 1024 - 1
"""Longest message in bytes (messages are ASCII: in characters too)."""

DOMAIN = "profilemate"
"""NVTX domain of our events. Readers go by `PREFIX` and accept any domain."""


@dataclass(slots=True)
class Event:
    """A decoded event. `values` holds known fields that are not None, `extra` unknown ones."""

    kind: str
    values: dict[str, Value] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Message:
    """A decoded message: when it was emitted (ns, monotonic), its number, its events."""

    events: list[Event]
    t: int | None = None
    seq: int | None = None


def encode_event(event: Event) -> str:
    """Spell one event, without prefix: a kind of ours by its row, any other as it came."""
    kind = KINDS.get(event.kind)
    text = event.kind if kind is None else kind.encode(**event.values)
    return text + "".join(f" {key}={encode_str(value)}" for key, value in event.extra.items())


def encode(event: Event, *, t: int | None = None) -> str:
    """Spell a message of one event."""
    head, _, rest = encode_event(event).partition(" ")
    stamp = "" if t is None else f" t={t}"
    return f"{PREFIX}{head}{stamp}{' ' if rest else ''}{rest}"


def encode_batch(events: Sequence[str], *, t: int, seq: int) -> str:
    """Spell a batch of events that `Kind.encode` or `encode_event` has spelled already."""
    return f"{PREFIX}batch t={t} seq={seq} | " + " | ".join(events)


def split(text: str, *, number: int, limit: int = MAX_MESSAGE) -> list[str]:
    """Cut a message into parts of at most `limit` characters; `number` tells messages apart."""
    if len(text) <= limit:
        return [text]
    room = limit - len(f"{PREFIX}part number={number} part=999999/999999 ::")
    chunks = [text[i : i + room] for i in range(0, len(text), room)]
    head = f"{PREFIX}part number={number} part="
    return [f"{head}{i}/{len(chunks)} :{chunk}:" for i, chunk in enumerate(chunks, 1)]


class Joiner:
    """Puts the parts of long messages together again, per sender (for instance a process)."""

    def __init__(self) -> None:
        self._open: dict[tuple[object, int], dict[int, str]] = {}

    @property
    def unfinished(self) -> int:
        """Number of messages of which some part never came."""
        return len(self._open)

    def feed(self, sender: object, text: str) -> str | None:
        """Take a message; return it when it is whole, None while parts are missing.

        Raises:
            SchemaError: It says it is a part and is not spelled like one.
        """
        if not text.startswith(PREFIX + "part "):
            return text
        try:
            _, number, part, chunk = text.split(" ", 3)
            index, count = map(int, part.removeprefix("part=").split("/"))
            key = (sender, int(number.removeprefix("number=")))
        except ValueError as e:
            raise SchemaError(f"not a part of a message: {text[:80]!r}") from e
        parts = self._open.setdefault(key, {})
        parts[index] = chunk[1:-1]
        if len(parts) < count:
            return None
        del self._open[key]
        return "".join(parts[i] for i in sorted(parts))


def decode_event(text: str) -> Event:
    """Read one event without prefix. An unknown kind keeps all its keys in `extra`.

    Raises:
        SchemaError: A known field has a value that is not of its type.
    """
    name, *pairs = text.split(" ")
    event = Event(name)
    kind = KINDS.get(name)
    types: Mapping[str, FieldType] = {} if kind is None else kind.types
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise SchemaError(f"not key=value: {pair[:80]!r} in {text[:80]!r}")
        known = types.get(key)
        if known is None:
            event.extra[key] = decode_str(value)
        elif value != "None":
            event.values[key] = decode_value(known, value)
    return event


def decode(text: str) -> Message | None:
    """Read a whole message; None for text that is not ours.

    Raises:
        SchemaError: It has our prefix and breaks the wire format, or has more than
            `MAX_MESSAGE_IDS` block ids.
    """
    if not text.startswith(PREFIX):
        return None
    head, *rest = text[len(PREFIX) :].split(" | ")
    first = decode_event(head)
    try:
        t, seq = (int(first.extra.pop(key)) if key in first.extra else None for key in ("t", "seq"))
    except ValueError as e:
        raise SchemaError(f"not a time or a number in {text[:80]!r}") from e
    events = [] if first.kind == "batch" else [first]
    ids = 0
    for text_of_one in rest:
        events.append(decode_event(text_of_one))
        ids += sum(len(v) for v in events[-1].values.values() if isinstance(v, tuple))
        if ids > MAX_MESSAGE_IDS:
            raise SchemaError(f"more than {MAX_MESSAGE_IDS:,} block ids in {text[:80]!r}")
    return Message(events, t, seq)
