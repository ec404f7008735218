"""A few bytes may not ask for gigabytes: bounds on the block ids of a list and of a message."""

from __future__ import annotations

import tracemalloc

import pytest

from profilemate import schema
from profilemate.errors import SchemaError
from profilemate.parse.events.messages import Messages
from profilemate.parse.recording.contract import Marker
from profilemate.parse.recording.progress import no_progress
from profilemate.schema import MAX_IDS, MAX_MESSAGE_IDS

LAST = MAX_IDS - 1


def batch(*lists: str) -> str:
    events = "".join(f" | kv.alloc ago=0 dur=1 pool=0 used=5 ids={ids} req=r1" for ids in lists)
    return f"pm1.batch t=1000 seq=1{events}"


def read(*texts: str) -> Messages:
    messages = Messages()
    messages.read(0, (Marker(i, None, 7, 7, text) for i, text in enumerate(texts)), no_progress)
    return messages


def ids_read(messages: Messages) -> int:
    messages.kv.settle()
    kv = messages.kv
    return sum(len(kv.batch(n)["ids"].flat) for n in range(len(kv)))


@pytest.mark.parametrize(
    ("ids", "count"),
    [
        (f"0-{LAST}", MAX_IDS),
        (f"{LAST}-0", MAX_IDS),
        (f"0-{LAST - 1},7", MAX_IDS),
        (f"0-{LAST + 1}", 0),
        (f"0-{LAST},7", 0),
        (f"0-{LAST},0-{LAST}", 0),
        ("0-16777215", 0),
        (",".join(["0-16777215"] * 10), 0),
        ("0-9223372036854775807", 0),
        ("0-99999999999999999999999", 0),
    ],
)
def test_a_list_of_more_ids_than_there_are_is_broken(ids: str, count: int) -> None:
    messages = read(batch(ids))
    assert ids_read(messages) == count
    assert messages.broken == (0 if count else 1)


def test_a_message_of_more_ids_than_there_are_is_broken() -> None:
    whole = [f"0-{LAST}"] * (MAX_MESSAGE_IDS // MAX_IDS)
    assert len(schema.decode(batch(*whole)).events) == len(whole)  # type: ignore[union-attr]
    with pytest.raises(SchemaError, match="more than 4,194,304 block ids"):
        schema.decode(batch(*whole, "1"))
    messages = read(batch(*whole, "1"), batch("1-3"))
    assert (messages.broken, ids_read(messages)) == (1, 3)


def test_what_waits_is_bounded_whatever_its_lists_hold() -> None:
    texts = [batch(f"0-{LAST // 4}") for _ in range(64)]
    tracemalloc.start()
    try:
        messages = read(*texts)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert messages.broken == 0
    # 16 million ids: 134 MB as integers of 64 bits, 500 as tuples; kept are 4 bytes of each.
    assert peak < 220_000_000
