"""The true order of messages, which time stamps need not give, and when their events were."""

from __future__ import annotations

import numpy as np

from profilemate.parse.columns.arrays import NONE, Bools, Ints, groups
from profilemate.parse.events.messages import Messages
from profilemate.parse.merge.clock_map import ClockMap
from profilemate.parse.merge.process_identity import Processes


class OrderedMessages:
    """The n messages on the trace's clock and in their true order: arrays of length n.

    Attributes:
        pid: Process of each, as the trace calls it.
        tid: Thread of each.
        dur: How long its range took, ns, `NONE` where it is none.
        rank: Its place in the order of all messages of its process.
        clock_error_ns: See `Trace`.

    Args:
        raw: The messages.
        processes: Their processes.
        ts: Their time stamps on the trace's clock, ns.
        counts: Which of them count: no other recording has them too, and better.
    """

    def __init__(self, raw: Messages, processes: Processes, ts: Ints, counts: Bools) -> None:
        self.tid, self.dur, self._t, self._seq, crc = (
            np.array(column, dtype=np.int64)
            for column in (raw.tid, raw.dur, raw.t, raw.seq, raw.hash)
        )
        self._ts, sender = ts, processes.of_message
        senders = zip(processes.recording, processes.pid, strict=True)
        self.pid = np.array([processes.key[one] for one in senders], dtype=np.int64)[sender]
        self._maps: dict[int, ClockMap] = {}
        self.clock_error_ns = 0
        emitted = self._ts.copy()
        for process, every in groups(self.pid):
            # A message that counts elsewhere says nothing of the clock: it was placed by it.
            counting = every[counts[every]]
            timed = counting[self._t[counting] != NONE]
            if len(timed):
                clock = self._maps[process] = ClockMap.fit(self._t[timed], self._ts[timed])
                emitted[timed] = clock(self._t[timed])
                self.clock_error_ns = max(self.clock_error_ns, clock.error)
            # Batches are numbered in the order they left, by each recorder on its own: a later one
            # is never earlier.
            batches = counting[self._seq[counting] != NONE]
            for _, places in groups(sender[batches]):
                own = batches[places]
                own = own[np.argsort(self._seq[own], kind="stable")]
                emitted[own] = np.maximum.accumulate(emitted[own])
        order = np.lexsort((crc, self.tid, self._ts, self._seq, emitted, self.pid))
        self.rank = np.empty(len(order), dtype=np.int64)
        self.rank[order] = np.arange(len(order), dtype=np.int64)

    def began(self, message: Ints, ago: Ints) -> Ints:
        """When events began, ns on the trace's clock.

        Args:
            message: The message of each event: a row of the messages.
            ago: How long before the message was emitted it began, ns.
        """
        result = self._ts[message] - ago
        process, t = self.pid[message], self._t[message]
        for number, events in groups(process):
            timed = events[t[events] != NONE]
            if len(timed):
                result[timed] = self._maps[number](t[timed] - ago[timed])
        return result

    def lasted(self, message: Ints, began: Ints) -> Ints:
        """How long events took whose end is that of their message's range, ns; else `NONE`.

        Args:
            message: The message of each event: a row of the messages.
            began: When each began, ns on the trace's clock.
        """
        dur = self.dur[message]
        # The range opens `ago` after the event began.
        return np.where(dur == NONE, NONE, np.maximum(self._ts[message] + dur - began, dur))
