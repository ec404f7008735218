"""What recordings lack: batches that never came, long messages of which a part is missing.

What one recorder lost and another one of the same process has is not lost. What both lost at the
same time is lost once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from profilemate.parse.columns.arrays import FOREVER, NONE, Ints, groups
from profilemate.parse.events.message_index import MessageIndex, Torn
from profilemate.parse.merge.process_identity import Processes


@dataclass(frozen=True, slots=True)
class Gap:
    """Where a sender lacks something: between which times, ends included, and how much."""

    sender: int
    begin: int
    end: int
    missing: int


def lost_batches(messages: MessageIndex, processes: Processes, process: Ints) -> dict[int, int]:
    """Batches that are missing inside a recording and that no other one has, by process.

    Args:
        messages: The messages.
        processes: Their senders.
        process: What the process of each message is called.
    """
    lost: dict[int, int] = {}
    for pid, every in groups(process):
        batches = every[messages.seq[every] != NONE]
        gaps: list[Gap] = []
        for sender, places in groups(processes.of_message[batches]):
            own = batches[places]
            others = _lacking(messages, batches, own)
            gaps += _gaps(messages, sender, own, np.unique(messages.t[others]))
        lost[pid] = together(gaps)
    return {pid: n for pid, n in sorted(lost.items()) if n}


def _lacking(messages: MessageIndex, every: Ints, own: Ints) -> Ints:
    """Which messages of a process one of its senders does not have.

    Args:
        messages: All messages.
        every: Those of the process: rows of `messages`.
        own: Those of the sender: some of `every`.

    Returns:
        Those of `every` with a text that no message of `own` has.
    """
    rest = np.setdiff1d(every, own)
    return np.asarray(rest[~np.isin(messages.identity[rest], messages.identity[own])])


def _gaps(messages: MessageIndex, sender: int, own: Ints, others: Ints) -> list[Gap]:
    """Where the numbers of a sender leave some out.

    Args:
        messages: All messages.
        sender: The sender.
        own: Its batches: rows of `messages`.
        others: Times (CLOCK_MONOTONIC, ns) of batches that it does not have, which fill a gap.
    """
    own = own[np.argsort(messages.seq[own], kind="stable")]
    seq, t = messages.seq[own], messages.t[own]
    gaps = []
    for at in np.flatnonzero(np.diff(seq) > 1).tolist():
        begin, end = int(t[at]), int(t[at + 1])
        filled = np.searchsorted(others, end, "right") - np.searchsorted(others, begin)
        missing = int(seq[at + 1] - seq[at]) - 1 - int(filled)
        if missing > 0:
            # The batches at its ends are there; those of one flush say one time.
            inside = (begin + 1, max(begin + 1, end - 1)) if end > begin else (begin, end)
            gaps.append(Gap(sender, *inside, missing))
    return gaps


def unfinished(
    torn: Sequence[Torn], joined: Ints, messages: MessageIndex, processes: Processes
) -> int:
    """Long messages that no recording of their process has whole.

    Args:
        torn: Those that a recording has only in part.
        joined: Messages that were put together from all of their parts.
        messages: All messages.
        processes: Their senders.
    """
    number = {
        place: n for n, place in enumerate(zip(processes.recording, processes.pid, strict=True))
    }
    by_process: dict[int, dict[int, list[Torn]]] = {}
    count = 0
    for one in torn:
        sender = number.get((one.recording, one.pid))
        if sender is None:  # there is nothing else of it: nobody knows whose it is
            count += 1
            continue
        by_process.setdefault(processes.process[sender], {}).setdefault(sender, []).append(one)
    process = np.array(processes.process, dtype=np.int64)[processes.of_message]
    long = joined[messages.t[joined] != NONE]
    for key, by_sender in by_process.items():
        every = np.flatnonzero(process == key)
        whole = long[process[long] == key]
        gaps: list[Gap] = []
        for sender, incomplete in by_sender.items():
            own = every[processes.of_message[every] == sender]
            timed = own[messages.t[own] != NONE]
            others = np.setdiff1d(_lacking(messages, every, own), own)
            spans = [_span(one, messages.ts[timed], messages.t[timed]) for one in incomplete]
            times = np.unique(messages.t[np.intersect1d(whole, others)]).tolist()
            gaps += [Gap(sender, *span, 1) for span in _not_filled(spans, times)]
        count += together(gaps)
    return count


def _span(one: Torn, ts: Ints, t: Ints) -> tuple[int, int]:
    """When it was emitted: at the time it says, or else between what its sender has around it."""
    if one.t != NONE:
        return one.t, one.t
    before, after = t[ts <= one.ts], t[ts > one.ts]
    return int(before.max(initial=-FOREVER)), int(after.min(initial=FOREVER))


def _not_filled(spans: Iterable[tuple[int, int]], times: Sequence[int]) -> list[tuple[int, int]]:
    """The spans that are left when each of the times fills one at the most."""
    free = sorted(times)
    left = []
    for begin, end in sorted(spans, key=lambda span: (span[1], span[0])):
        at = bisect_left(free, begin)
        if at < len(free) and free[at] <= end:
            del free[at]
        else:
            left.append((begin, end))
    return left


def together(gaps: Iterable[Gap]) -> int:
    """What is lost in all gaps; where those of several senders meet, what the worst one lacks."""
    total, reached = 0, -2 * FOREVER
    worst: dict[int, int] = {}
    for gap in sorted(gaps, key=lambda g: (g.begin, g.end)):
        if gap.begin > reached:
            total, worst = total + max(worst.values(), default=0), {}
        worst[gap.sender] = worst.get(gap.sender, 0) + gap.missing
        reached = max(reached, gap.end)
    return total + max(worst.values(), default=0)
