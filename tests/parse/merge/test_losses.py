"""What one recorder lost and another has is not lost: long messages of several parts, batches."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from build import Stored, batch, mark
from decoded import decode_recordings

from profilemate import schema
from profilemate.parse.merge.losses import Gap, together
from profilemate.parse.recording.contract import Marker, SourceInfo, SourceKind
from profilemate.parse.trace.trace import Trace
from profilemate.schema import Event

SECOND = 1_000_000_000
PARTS = 6


def long(first: int) -> Event:
    """An event of more than one message's length; no two are the same."""
    return Event("kv.free", {"ids": tuple(range(first, first + 60_000, 2))})


def texts(seq: int, number: int) -> list[list[str]]:
    """Three batches as one recorder gets them: short, long in parts, short.

    Each recorder counts batches and long messages on its own.
    """
    found = []
    events = (Event("preempt", {"req": "a"}), long(7), Event("preempt", {"req": "b"}))
    for place, event in enumerate(events):
        text = batch(seq + place, SECOND * (1 + place), event)
        found.append(schema.split(text, number=number))
    assert list(map(len, found)) == [1, PARTS, 1]
    return found


KINDS = {"a": SourceKind.TORCH, "b": SourceKind.NSYS_SQLITE}


def recording(name: str, messages: list[list[str]], *, without: set[int], pid: int = 100) -> Stored:
    """A recorder that lost these parts of the second message."""
    markers: list[Marker] = []
    for place, parts in enumerate(messages):
        for n, part in enumerate(parts, 1):
            if place != 1 or n not in without:
                markers.append(mark(SECOND * (1 + place) + 100 * n, part, pid=pid))
    random.Random(1).shuffle(markers)
    return Stored(markers, SourceInfo(Path(name), KINDS[name], 0, start_unix_ns=10**18))


ALL = set(range(1, PARTS + 1))


def told(trace: Trace) -> tuple[int, dict[int, int], int]:
    return trace.unfinished, trace.lost_batches, trace.counts.get("kv.free", 0)


@pytest.mark.parametrize("without", [{1}, {3}, {PARTS}, {1, 2, 3, 4, 5}, {2, 3, 4, 5, 6}])
@pytest.mark.parametrize("seq", [1, 99_998])  # other lengths of the number: cut at other places
def test_a_long_message_that_another_recorder_has_is_not_lost(without: set[int], seq: int) -> None:
    torn = recording("a", texts(1, 1), without=without)
    whole = recording("b", texts(seq, 9), without=set())
    assert told(decode_recordings([torn])) == (1, {100: 1}, 0)
    assert told(decode_recordings([whole])) == (0, {}, 1)
    assert told(decode_recordings([torn, whole])) == (0, {}, 1)
    assert told(decode_recordings([whole, torn])) == (0, {}, 1)


def test_what_two_recorders_lost_counts_once() -> None:
    for one, other in itertools.product(({2}, {1}), ({4}, {1, 2})):
        a = recording("a", texts(1, 1), without=one)
        b = recording("b", texts(40, 2), without=other)
        assert told(decode_recordings([a, b])) == (1, {100: 1}, 0), (one, other)


def test_one_that_nobody_has_is_not_excused_by_another_long_one() -> None:
    first = schema.split(batch(1, SECOND, long(1)), number=1)
    second = schema.split(batch(2, 2 * SECOND, long(3)), number=2)
    a = Stored(
        [mark(SECOND + n, p) for n, p in enumerate(first)]
        + [mark(2 * SECOND + n, p) for n, p in enumerate(second[:-1])],
        SourceInfo(Path("a"), KINDS["a"], 0, start_unix_ns=10**18),
    )
    b = Stored(
        [mark(SECOND + n, p) for n, p in enumerate(first)],
        SourceInfo(Path("b"), KINDS["b"], 0, start_unix_ns=10**18),
    )
    assert decode_recordings([a, b]).unfinished == 1
    # Nor by one that the first recorder has not got at all, emitted at another time.
    c = Stored(a.stored[len(first) :], a.info)
    assert told(decode_recordings([c, b]))[0] == 1


def test_another_process_s_long_message_is_no_excuse() -> None:
    torn = recording("a", texts(1, 1), without={2})
    other = recording("b", texts(1, 1), without=set(), pid=200)
    other.stored = [*other.stored, mark(5, "pm1.session host=box2 pid=200", pid=200)]
    torn.stored = [*torn.stored, mark(5, "pm1.session host=box1 pid=100")]
    assert decode_recordings([torn, other]).unfinished == 1


@pytest.mark.parametrize(
    ("gaps", "lost"),
    [
        ([], 0),
        ([Gap(0, 1, 9, 2)], 2),
        ([Gap(0, 1, 9, 2), Gap(1, 3, 4, 1)], 2),  # the same ones, as far as anybody knows
        ([Gap(0, 1, 9, 2), Gap(1, 10, 20, 3)], 5),
        # One meets two of another's: it cannot stand for both.
        ([Gap(0, 1, 9, 1), Gap(1, 5, 20, 1), Gap(0, 15, 30, 1)], 2),
        ([Gap(0, 5, 5, 1), Gap(1, 5, 5, 1), Gap(0, 5, 5, 1)], 2),
    ],
)
def test_gaps_together_by_hand(gaps: list[Gap], lost: int) -> None:
    for order in itertools.permutations(gaps):
        assert together(order) == lost
