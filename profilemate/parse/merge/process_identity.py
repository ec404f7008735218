"""Whose messages are whose: the same process, as several recordings know it.

A recorder names a process by a number that need not be unique: two hosts, two containers, a number
used again. A *sender* is a process in one recording; senders are the same process if they hold the
same message of the same instant, or else if number and host agree and their batches go on counting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from profilemate.parse.columns.arrays import FOREVER, NONE, Ints, groups, numbered
from profilemate.parse.events.message_index import MessageIndex
from profilemate.parse.recording.contract import SourceInfo
from profilemate.parse.recording.places import Place

ALIAS = 1 << 22
"""Numbers of processes from here on are ours: Linux gives none so large. They stand for a process
whose own number another process of the trace has too, on another host or at another time."""

SAME_BOOT_NS = 1_000_000_000
"""Wall clocks of one host may differ by this between two recordings; NTP keeps them much closer."""


@dataclass(slots=True)
class Sessions:
    """What the sessions of a process say.

    Attributes:
        hosts: Names of its host, in order; more than one only where processes are mixed up.
        pids: What the process calls itself, whatever its recorder calls it.
        boots: Wall clock less monotonic clock, at each of them.
    """

    hosts: list[str] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)
    boots: list[int] = field(default_factory=list)

    def denies(self, other: Sessions) -> bool:
        """Whether the other one is of another process."""
        pids = self.pids and other.pids and not self.pids & other.pids
        hosts = self.hosts and other.hosts and not set(self.hosts) & set(other.hosts)
        return bool(pids or hosts)


class Union:
    """Sets of small numbers that grow together."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, number: int) -> int:
        """The number that stands for its set: the smallest."""
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def join(self, a: int, b: int) -> None:
        """From now on these two are in one set."""
        a, b = sorted((self.find(a), self.find(b)))
        self._parent[b] = a

    def sets(self) -> dict[int, list[int]]:
        """The members of each set, by the number that stands for it."""
        members: dict[int, list[int]] = {}
        for number in range(len(self._parent)):
            members.setdefault(self.find(number), []).append(number)
        return members


@dataclass(slots=True)
class Processes:
    """The senders, and which of them are one process.

    Attributes:
        of_message: Sender of each message.
        recording: Recording of each sender.
        pid: What its recorder calls it.
        process: Process of each sender; senders with the same number are one.
        domain: Clock of each sender: equal for those that share one CLOCK_MONOTONIC.
        host: Host of each sender, None where none of its messages says.
        key: What a trace calls it: its pid, or from `ALIAS` on for a second process of that pid.
        notes: What was found out on the way, a sentence each.
    """

    of_message: Ints
    recording: list[int]
    pid: list[int]
    process: list[int] = field(default_factory=list)
    domain: list[int] = field(default_factory=list)
    host: list[str | None] = field(default_factory=list)
    key: dict[tuple[int, int], int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def aliases(self) -> dict[int, int]:
        """The pid of each key that is not one."""
        return {key: pid for (_, pid), key in self.key.items() if key != pid}

    def name_apart(self, recording: int, pid: int) -> int:
        """A number of its own for a process without messages."""
        key = max([ALIAS - 1, *self.key.values()]) + 1
        self.key[recording, pid] = key
        return key

    def name_apart_by_place(
        self, pids_of: Mapping[int, set[int]], infos: Sequence[SourceInfo]
    ) -> None:
        """Processes without messages whose number is that of another rank's, in a container each.

        Args:
            pids_of: The processes with activity in each recording, as that calls them.
            infos: The recordings.
        """
        known = set(self.key)
        first: dict[int, Place] = {}
        named: dict[tuple[int, Place], int] = {}
        for recording, pids in sorted(pids_of.items()):
            place = infos[recording].place
            for pid in sorted(pids) if place is not None else ():
                assert place is not None
                if first.setdefault(pid, place) == place or (recording, pid) in known:
                    continue
                if (pid, place) in named:
                    self.key[recording, pid] = named[pid, place]
                else:
                    named[pid, place] = self.name_apart(recording, pid)

    def keys(self, recording: int, pids: Ints) -> Ints:
        """Keys for pids of one recording; a pid that said nothing is its own."""
        keys = pids.copy()
        for (number, pid), key in self.key.items():
            if number == recording and pid != key:
                keys[pids == pid] = key
        return keys


def find_processes(
    messages: MessageIndex,
    sessions: Mapping[tuple[int, int], Sessions],
    infos: Sequence[SourceInfo],
) -> Processes:
    """Find out which senders are one process and which share a clock.

    Args:
        messages: The messages.
        sessions: What the sessions of each (recording, pid) say.
        infos: The recordings.
    """
    sender = numbered(messages.recording, messages.pid)
    count = int(sender.max()) + 1 if len(sender) else 0
    first = np.unique(sender, return_index=True)[1]
    recording, pid = messages.recording[first].tolist(), messages.pid[first].tolist()
    processes = Processes(sender, recording, pid)
    same = Union(count)
    _join_by_messages(messages, processes, same, sessions)
    processes.host = _hosts(processes, sessions, same)
    clocks = _clocks(messages, processes, same, sessions, infos)
    _join_by_pid(messages, processes, same, clocks, infos)
    processes.process = [same.find(s) for s in range(count)]
    # A process that did not say its host has a clock of its own.
    processes.domain = [
        count + processes.process[s] if clock is None else clock for s, clock in enumerate(clocks)
    ]
    _name(processes)
    return processes


def _join_by_messages(
    messages: MessageIndex,
    processes: Processes,
    same: Union,
    sessions: Mapping[tuple[int, int], Sessions],
) -> None:
    """A message of the same text and instant in two recordings came from one process."""
    timed = np.flatnonzero(messages.t != NONE)
    timed = timed[np.lexsort((messages.identity[timed], messages.t[timed]))]
    t, identity, owner = messages.t[timed], messages.identity[timed], processes.of_message[timed]
    recording = messages.recording[timed]
    twice = (t[1:] == t[:-1]) & (identity[1:] == identity[:-1])
    twice &= recording[1:] != recording[:-1]
    pairs = np.unique(np.stack([owner[:-1][twice], owner[1:][twice]], axis=1), axis=0)
    for a, b in pairs.tolist():
        one, other = (
            sessions.get((processes.recording[s], processes.pid[s]), Sessions()) for s in (a, b)
        )
        if not one.denies(other):
            same.join(a, b)


def _hosts(
    processes: Processes, sessions: Mapping[tuple[int, int], Sessions], same: Union
) -> list[str | None]:
    """The host of each sender, as it or the same process elsewhere says."""
    host_of: dict[int, str] = {}  # by the sender that stands for its process
    for sender, place in enumerate(zip(processes.recording, processes.pid, strict=True)):
        for name in sessions[place].hosts if place in sessions else ():
            host_of.setdefault(same.find(sender), name)
    return [host_of.get(same.find(sender)) for sender in range(len(processes.pid))]


def _clocks(
    messages: MessageIndex,
    processes: Processes,
    same: Union,
    sessions: Mapping[tuple[int, int], Sessions],
    infos: Sequence[SourceInfo],
) -> list[int | None]:
    """A number for the clock of each sender, None where its host is not known.

    CLOCK_MONOTONIC is one clock per host. Two hosts may have the same name, though (`localhost`):
    then it began to count at different moments of the wall clock, which each session says.
    """
    clocks = Union(len(processes.pid))
    for members in same.sets().values():
        for other in members[1:]:
            clocks.join(members[0], other)
    boots: dict[str, list[tuple[int | None, int]]] = {}
    for sender, rows in groups(processes.of_message):
        host = processes.host[sender]
        if host is None:
            continue
        place = (processes.recording[sender], processes.pid[sender])
        start = infos[place[0]].start_unix_ns
        timed = rows[messages.t[rows] != NONE]
        began: Sequence[int | None] = sessions[place].boots if place in sessions else ()
        if not began and start is not None and len(timed):
            began = [int(np.median(messages.ts[timed] - messages.t[timed])) + start]
        boots.setdefault(host, []).extend((boot, sender) for boot in began or [None])
    for host, entries in boots.items():
        known = sorted((b, s) for b, s in entries if b is not None)
        for (a, sender), (b, other) in pairwise(known):
            if b - a <= SAME_BOOT_NS:
                clocks.join(sender, other)
            elif clocks.find(sender) != clocks.find(other):
                processes.notes.append(
                    f"Clocks of processes on {host} differ by {(b - a) / 1e9:.0f} s between two "
                    "recordings: taken for two hosts of one name, or one that was started again."
                )
        for boot, sender in entries:
            if boot is None:
                clocks.join(entries[0][1] if not known else known[0][1], sender)
    return [None if h is None else clocks.find(s) for s, h in enumerate(processes.host)]


def _join_by_pid(
    messages: MessageIndex,
    processes: Processes,
    same: Union,
    clocks: Sequence[int | None],
    infos: Sequence[SourceInfo],
) -> None:
    """The same number on the same host, or on one that is not known, if it goes on counting."""
    by_pid: dict[int, list[int]] = {}
    for sender, pid in enumerate(processes.pid):
        by_pid.setdefault(pid, []).append(sender)
    rows_of = dict(groups(processes.of_message))  # messages of each sender
    for senders in by_pid.values():
        for place, a in enumerate(senders):
            for b in senders[place + 1 :]:
                alike = None in (clocks[a], clocks[b]) or clocks[a] == clocks[b]
                places = {infos[processes.recording[s]].place for s in (a, b)} - {None}
                alike = alike and len(places) < 2
                apart = same.find(a) != same.find(b)
                pair = (a, b)
                if (
                    alike
                    and apart
                    and _goes_on(
                        messages,
                        [rows_of[s] for s in pair],
                        [infos[processes.recording[s]] for s in pair],
                    )
                ):
                    same.join(a, b)


def _goes_on(messages: MessageIndex, parts: Sequence[Ints], infos: Sequence[SourceInfo]) -> bool:
    """Whether two senders of one number may be one process.

    At the same time they are. Else the later one goes on counting steps where the first ended, or
    batches where both have the same kind of recorder: a number that was used again begins anew.
    """
    windows = [_window(messages, rows, info) for rows, info in zip(parts, infos, strict=True)]
    # By wall clocks that may differ; no process begins under the number of another so soon.
    known = [w for w in windows if w]
    if None in windows or max(w[0] for w in known) <= min(w[1] for w in known) + SAME_BOOT_NS:
        return True
    first, then = (parts[i] for i in sorted((0, 1), key=lambda i: windows[i] or (0, 0)))
    counters = [
        c for c in messages.counters if (c[first] != NONE).any() and (c[then] != NONE).any()
    ]
    one, other = infos
    if not counters and (one.kind, one.recorder) == (other.kind, other.recorder):
        counters = [messages.seq]
    return all(
        int(c[first].max()) < int(np.where(c[then] == NONE, FOREVER, c[then]).min())
        for c in counters
    )


def _window(messages: MessageIndex, rows: Ints, info: SourceInfo) -> tuple[int, int] | None:
    """First and last message of a sender, by the wall clock; None where nothing says."""
    if info.start_unix_ns is None:
        return None
    ts = messages.ts[rows] + info.start_unix_ns
    return int(ts.min()), int(ts.max())


def _name(processes: Processes) -> None:
    """Give each process a number that no other has."""
    names: dict[int, int] = {}
    taken: set[int] = set(processes.pid)
    owner: dict[int, int] = {}
    free = ALIAS
    for sender, process in enumerate(processes.process):
        if process not in names:
            pid = processes.pid[sender]
            if owner.setdefault(pid, process) != process:
                while free in taken:
                    free += 1
                taken.add(free)
                pid = free
            names[process] = pid
        processes.key[processes.recording[sender], processes.pid[sender]] = names[process]
