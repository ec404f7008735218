"""Several recordings side by side: which processes are one, on which clock, what is there twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profilemate.parse.columns.arrays import NONE, Bools
from profilemate.parse.events.message_index import MessageIndex
from profilemate.parse.events.messages import Messages
from profilemate.parse.ingest.read_one import Read
from profilemate.parse.merge.align import Aligned, align
from profilemate.parse.merge.duplicates import repeated
from profilemate.parse.merge.gpu_activity import Activity, joined_reads
from profilemate.parse.merge.process_identity import Processes, Sessions, find_processes
from profilemate.parse.recording.contract import SourceInfo


@dataclass(frozen=True, slots=True)
class AlignedRecordings:
    """Everything that was read of recordings, and where it is on one clock.

    Attributes:
        infos: The recordings.
        messages: The n messages of all of them, without the events of those that do not count.
        index: What is known of each message but its text.
        processes: The processes that the messages are of.
        aligned: Where recordings and messages are on the trace's clock.
        repeated: Messages that do not count, as another recording has them too: a mask, length n.
        activity: What else the recordings hold, each on its own clock.
    """

    infos: Sequence[SourceInfo]
    messages: Messages
    index: MessageIndex
    processes: Processes
    aligned: Aligned
    repeated: Bools
    activity: Activity

    def claims(self) -> dict[int, set[tuple[str, int, int, int]]]:
        """The role and the ranks that processes of each recording say they have."""
        session = self.messages.rows["session"]
        columns = (session.columns[name] for name in ("role", "dp", "pp", "tp"))
        claims: dict[int, set[tuple[str, int, int, int]]] = {}
        for message, role, *ranks in zip(session.message, *columns, strict=True):
            dp, pp, tp = (0 if rank == NONE else rank for rank in ranks)
            here = claims.setdefault(self.messages.recording[message], set())
            here |= {(part, dp, pp, tp) for part in (role or "").split("+") if part}
        return claims


def align_recordings(reads: Sequence[Read]) -> AlignedRecordings:
    """Put what was read of recordings side by side on one clock; it is taken from them."""
    infos = [one.info for one in reads]
    messages, activity = joined_reads(reads)
    messages.settle()
    index = messages.index()
    processes = find_processes(index, sessions_of(messages), infos)
    walls = [_wall(info, n, messages) for n, info in enumerate(infos)]
    heavy = activity.recordings
    aligned = align(index, processes, infos, heavy, walls)
    worth = [int(number in heavy) for number in range(len(infos))]
    again = repeated(index, aligned.ts, processes, worth)
    messages.drop(set(np.flatnonzero(again).tolist()))
    return AlignedRecordings(infos, messages, index, processes, aligned, again, activity)


def _wall(info: SourceInfo, number: int, messages: Messages) -> int | None:
    """Wall clock of a recording's zero: what it says, or else what a process in it says."""
    if info.start_unix_ns is not None:
        return info.start_unix_ns
    session = messages.rows["session"]
    columns = (session.message, session.columns["unix_ns"], session.columns["mono_ns"])
    for message, unix, mono in zip(*columns, strict=True):
        says_both = NONE not in (unix, mono, messages.t[message])
        if says_both and messages.recording[message] == number:
            return int(unix - mono + messages.t[message] - messages.ts[message])
    return None


def sessions_of(messages: Messages) -> dict[tuple[int, int], Sessions]:
    """What the sessions of each process of each recording say, by (recording, pid)."""
    session = messages.rows["session"]
    columns = (session.columns[name] for name in ("host", "pid", "unix_ns", "mono_ns"))
    sessions: dict[tuple[int, int], Sessions] = {}
    for message, host, pid, unix, mono in zip(session.message, *columns, strict=True):
        place = (messages.recording[message], messages.pid[message])
        here = sessions.setdefault(place, Sessions())
        if host is not None and host not in here.hosts:
            here.hosts.append(host)
        if pid != NONE:
            here.pids.add(pid)
        if NONE not in (unix, mono):
            here.boots.append(unix - mono)
    return sessions
