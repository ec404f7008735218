"""The messages of several recordings as one trace: each once, in order, on one clock."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import NONE, Bools, Ints, groups
from profilemate.parse.columns.pandas import integers
from profilemate.parse.events.messages import Messages
from profilemate.parse.merge.align import BY_WALL, UNPLACED, align
from profilemate.parse.merge.clock_map import ClockMap
from profilemate.parse.merge.custom_frames import frame as custom_frame
from profilemate.parse.merge.duplicates import repeated
from profilemate.parse.merge.event_frames import build
from profilemate.parse.merge.gpu_activity import Activity
from profilemate.parse.merge.kv_order import ordered
from profilemate.parse.merge.losses import lost_batches, unfinished
from profilemate.parse.merge.process_identity import Processes, Sessions, find_processes
from profilemate.parse.recording.contract import SourceInfo
from profilemate.parse.trace.event_columns import FRAME_NAMES, empty_frame
from profilemate.parse.trace.trace import Frames, Trace
from profilemate.schema import KINDS


class Merged:
    """Everything that was read, with each message once and on the trace's clock.

    Attributes:
        infos: The recordings.
        heard: Their messages.
        processes: The processes that these are of.
        aligned: Where they are on the trace's clock.
        activity: What else they hold.
    """

    def __init__(self, collected: Messages, infos: list[SourceInfo], activity: Activity) -> None:
        collected.settle()
        self._collected, self.infos, self.activity = collected, infos, activity
        self._heavy = activity.recordings
        self.heard = collected.heard()
        self.processes = find_processes(self.heard, _sessions(collected), infos)
        walls = [_wall(info, n, collected) for n, info in enumerate(infos)]
        self.aligned = align(self.heard, self.processes, infos, self._heavy, walls)
        worth = [int(number in self._heavy) for number in range(len(infos))]
        again = repeated(self.heard, self.aligned.ts, self.processes, worth)
        self._again = again
        collected.drop(set(np.flatnonzero(again).tolist()))

    def claims(self) -> dict[int, set[tuple[str, int, int, int]]]:
        """The role and the ranks that processes of each recording say they have."""
        session = self._collected.rows["session"]
        columns = (session.columns[name] for name in ("role", "dp", "pp", "tp"))
        found: dict[int, set[tuple[str, int, int, int]]] = {}
        for message, role, *ranks in zip(session.message, *columns, strict=True):
            dp, pp, tp = (0 if rank == NONE else rank for rank in ranks)
            here = found.setdefault(self._collected.recording[message], set())
            here |= {(part, dp, pp, tp) for part in (role or "").split("+") if part}
        return found

    def trace(self) -> Trace:
        """Make frames of it, once: what was collected is used up."""
        collected, infos = self._collected, self.infos
        messages = _Ordered(collected, self.processes, self.aligned.ts, ~self._again)
        mixed = _mixed(collected)
        log, operations = ordered(collected.kv, messages)
        numbers = operations | {name: len(rows) for name, rows in collected.rows.items()}
        counts = {name: numbers[name] for name in KINDS if numbers.get(name)}
        frames = Frames({n: self._frame(n, messages) for n in FRAME_NAMES if n != "kv"}, log)
        self._note_clocks()
        for pid, hosts in mixed.items():
            infos[0].notes.append(
                f"Number {pid} is a process on each of {', '.join(hosts)}: their events are mixed."
            )
        windows = [
            (i.window[0] + by, i.window[1] + by)
            for i, by in zip(infos, self.aligned.shift.tolist(), strict=True)
            if i.window is not None
        ]
        sources, kept = self.heard.recording[self._again], self.heard.recording[~self._again]
        return Trace(
            infos,
            frames,
            self.aligned.zero,
            (min(a for a, _ in windows), max(b for _, b in windows)) if windows else (0, 0),
            counts | collected.custom.counts(),
            collected.unknown,
            collected.broken,
            lost_batches(self.heard, self.processes, messages.pid),
            unfinished(
                collected.torn,
                np.array(collected.joined, dtype=np.int64),
                self.heard,
                self.processes,
            ),
            messages.clock_error_ns,
            placements=self.aligned.placements,
            duplicates=dict(Counter(sources.tolist())),
            aliases=self.processes.aliases,
            sources_of=_sources_of(messages.pid[~self._again], kept),
            notes=list(dict.fromkeys(self.processes.notes)),
            custom=self._custom(messages),
        )

    def _custom(self, messages: _Ordered) -> dict[str, pd.DataFrame]:
        frames: dict[str, pd.DataFrame] = {}
        for name, rows in sorted(self._collected.custom.rows.items()):
            message, place = np.array(rows.message), np.array(rows.place)
            ts, dur = messages.began(message, np.array(rows.ago)), np.array(rows.dur)
            pid, rank = messages.pid[message], messages.rank[message]
            order = np.lexsort((place, rank, pid, ts))
            given = {
                "ts": ts[order],
                "dur": integers(dur[order]),
                "pid": pid[order],
                "tid": messages.tid[message][order],
            }
            frames[name] = custom_frame(rows, order, given)
        return frames

    def _note_clocks(self) -> None:
        """Say what was not put on one clock by anything better than wall clocks."""
        infos, placements = self.infos, self.aligned.placements
        holding = set(self.heard.recording.tolist()) | self._heavy
        holding |= {number for number, _ in self.activity.ranges}
        read = sorted(holding) if len(infos) > 1 else [*range(len(infos))]
        by_wall = 0
        for number in read:
            by_wall += placements[number].how == BY_WALL
            if placements[number].how == UNPLACED:
                infos[number].notes.append(
                    "It does not say when it began: its zero is taken for the trace's."
                )
        if by_wall > 1:
            infos[0].notes.append(
                f"{by_wall} recordings were put on one time line by the wall clocks of their hosts."
            )

    def _frame(self, name: str, messages: _Ordered) -> pd.DataFrame:
        rows = self._collected.rows[name]
        if not len(rows):
            return empty_frame(name)
        message, place = np.array(rows.message), np.array(rows.place)
        ts = messages.began(message, rows.numbers("ago", 0))
        dur = rows.numbers("dur", NONE)
        del rows.columns["ago"], rows.columns["dur"]
        dur = np.where(dur == NONE, messages.lasted(message, ts), dur)
        pid = messages.pid[message]
        order = np.lexsort((place, messages.rank[message], pid, ts))
        given = {
            "ts": ts[order],
            "dur": integers(dur[order]),
            "pid": pid[order],
            "tid": messages.tid[message][order],
        }
        del message, place, ts, dur, pid  # as long as the frame itself, each of them
        return build(name, rows, order, given)


def _wall(info: SourceInfo, number: int, collected: Messages) -> int | None:
    """Wall clock of a recording's zero: what it says, or else what a process in it says."""
    if info.start_unix_ns is not None:
        return info.start_unix_ns
    session = collected.rows["session"]
    columns = (session.message, session.columns["unix_ns"], session.columns["mono_ns"])
    for message, unix, mono in zip(*columns, strict=True):
        said = NONE not in (unix, mono, collected.t[message])
        if said and collected.recording[message] == number:
            return int(unix - mono + collected.t[message] - collected.ts[message])
    return None


def _sessions(collected: Messages) -> dict[tuple[int, int], Sessions]:
    """What the sessions of each process of each recording say."""
    session = collected.rows["session"]
    columns = (session.columns[name] for name in ("host", "pid", "unix_ns", "mono_ns"))
    found: dict[tuple[int, int], Sessions] = {}
    for message, host, pid, unix, mono in zip(session.message, *columns, strict=True):
        place = (collected.recording[message], collected.pid[message])
        here = found.setdefault(place, Sessions())
        if host is not None and host not in here.hosts:
            here.hosts.append(host)
        if pid != NONE:
            here.pids.add(pid)
        if NONE not in (unix, mono):
            here.boots.append(unix - mono)
    return found


def _mixed(collected: Messages) -> dict[int, list[str]]:
    """Process numbers that are of several hosts in one recording, and the hosts."""
    said = sorted(_sessions(collected).items(), key=lambda item: item[0])
    return {pid: sorted(s.hosts) for (_, pid), s in said if len(s.hosts) > 1}


def _sources_of(pid: Ints, recording: Ints) -> dict[int, list[int]]:
    """Recordings with messages of each process, those with the most of them first."""
    return {
        process: [r for r, _ in Counter(recording[mine].tolist()).most_common()]
        for process, mine in groups(pid)
    }


class _Ordered:
    """The messages as numpy arrays, on the trace's clock and in their true order.

    Attributes:
        pid: Process of each.
        tid: Thread of each.
        dur: How long its range took, `NONE` where it is none.
        rank: Its place in the order of all messages of its process.
        clock_error_ns: See `Trace`.
    """

    def __init__(self, raw: Messages, found: Processes, ts: Ints, counts: Bools) -> None:
        self.tid, self.dur, self._t, self._seq, crc = (
            np.array(column, dtype=np.int64)
            for column in (raw.tid, raw.dur, raw.t, raw.seq, raw.hash)
        )
        self._ts, self._sender = ts, found.of_message
        names = [found.key[place] for place in zip(found.recording, found.pid, strict=True)]
        self.pid = np.array(names, dtype=np.int64)[self._sender]
        self._maps: dict[int, ClockMap] = {}
        self.clock_error_ns = 0
        emitted = self._ts.copy()
        for process, every in groups(self.pid):
            # A message that counts elsewhere says nothing of the clock: it was placed by it.
            mine = every[counts[every]]
            timed = mine[self._t[mine] != NONE]
            if len(timed):
                clock = self._maps[process] = ClockMap.fit(self._t[timed], self._ts[timed])
                emitted[timed] = clock(self._t[timed])
                self.clock_error_ns = max(self.clock_error_ns, clock.error)
            # Batches are numbered in the order they left, by each recorder on its own: a later one
            # is never earlier.
            numbered = mine[self._seq[mine] != NONE]
            for _, some in groups(self._sender[numbered]):
                one = numbered[some]
                one = one[np.argsort(self._seq[one], kind="stable")]
                emitted[one] = np.maximum.accumulate(emitted[one])
        order = np.lexsort((crc, self.tid, self._ts, self._seq, emitted, self.pid))
        self.rank = np.empty(len(order), dtype=np.int64)
        self.rank[order] = np.arange(len(order), dtype=np.int64)

    def began(self, message: Ints, ago: Ints) -> Ints:
        """When events began, from their messages and how long before these they began."""
        result = self._ts[message] - ago
        process, t = self.pid[message], self._t[message]
        for number, mine in groups(process):
            timed = mine[t[mine] != NONE]
            if len(timed):
                result[timed] = self._maps[number](t[timed] - ago[timed])
        return result

    def lasted(self, message: Ints, began: Ints) -> Ints:
        """How long events took whose end is that of their message's range."""
        dur = self.dur[message]
        # The range opens `ago` after the event began.
        return np.where(dur == NONE, NONE, np.maximum(self._ts[message] + dur - began, dur))
