"""What two recorders saw of one process: each message counts once, and GPU work too."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import FOREVER, NONE, Bools, Ints, groups
from profilemate.parse.events.message_index import MessageIndex
from profilemate.parse.merge.process_identity import Processes
from profilemate.parse.recording.contract import SourceInfo

NEAR_NS = 5_000_000
"""Two time stamps of one message without a clock of its own lie closer than this, once the
recordings are on one clock; the same text again (a drafter's next launch) is matched in order."""

SAME_CALL_NS = 100_000
"""One call in two recordings of one host, as far as their wall clocks agree; a copy agrees."""


def repeated(
    messages: MessageIndex, placed: Ints, processes: Processes, worth: Sequence[int]
) -> Bools:
    """Which messages another recording has too, and better.

    The same message is the same text of the same process, at the same instant where it says one.
    A step says its number; two of one text are told apart by their place in time.

    Args:
        messages: The n messages.
        placed: Their time stamps on the trace's clock, ns, length n.
        processes: Their processes.
        worth: How good the time stamps of each recording are: those of the largest number stay.

    Returns:
        A mask of length n.
    """
    drop = np.zeros(len(messages.ts), dtype=bool)
    process = np.array(processes.process, dtype=np.int64)[processes.of_message]
    recordings = {
        p: {processes.recording[s] for s, q in enumerate(processes.process) if q == p}
        for p in set(processes.process)
    }
    shared = [p for p, where in recordings.items() if len(where) > 1]
    for number in shared:
        rows = np.flatnonzero(process == number)
        order = sorted(recordings[number], key=lambda r: (-worth[r], r))
        counted = rows[messages.recording[rows] == order[0]]
        for recording in order[1:]:
            candidates = rows[messages.recording[rows] == recording]
            again = _seen(messages, placed, counted, candidates)
            drop[candidates[again]] = True
            counted = np.concatenate([counted, candidates[~again]])
    return drop


def _seen(messages: MessageIndex, placed: Ints, counted: Ints, candidates: Ints) -> Bools:
    """Which candidates are among those that count: one for one, so that what came twice stays so.

    Args:
        messages: All n messages.
        placed: Their time stamps on the trace's clock, ns, length n.
        counted: Those that count so far: rows of `messages`.
        candidates: Those of another recording: rows of `messages`.

    Returns:
        A mask of the length of `candidates`.
    """
    both = np.concatenate([counted, candidates])
    text = np.unique(messages.identity[both], return_inverse=True)[1].reshape(-1)
    texts = int(text.max()) + 1 if len(text) else 0
    ours, theirs = text[: len(counted)], text[len(counted) :]
    here, there = np.bincount(ours, minlength=texts), np.bincount(theirs, minlength=texts)
    # Nearly always: a text that there is once, with its instant or its step's number in it.
    single: Bools = (here == 1) & (there == 1)
    again: Bools = single[theirs].copy()
    at = np.full(texts, -1, dtype=np.int64)
    at[ours] = placed[counted]
    untimed = messages.t[candidates] == NONE
    far = np.abs(placed[candidates] - at[theirs]) > NEAR_NS
    again &= ~(untimed & ~messages.says_step[candidates] & far)
    several = np.flatnonzero((here > 0) & (there > 0) & ~single)
    if len(several):
        in_ours, in_theirs = dict(groups(ours)), dict(groups(theirs))
        for number in several.tolist():
            a, b = counted[in_ours[number]], in_theirs[number]
            timed = bool((messages.t[candidates[b]] != NONE).all())
            again[b] = _paired(placed[a], placed[candidates[b]], FOREVER if timed else NEAR_NS)
    return again


def _paired(ours: Ints, theirs: Ints, near: int) -> npt.NDArray[np.bool_]:
    """Which of `theirs` stand for one of `ours`: in order where there are as many, else nearest.

    Args:
        ours: Time stamps on the trace's clock, ns.
        theirs: Time stamps on the same clock, ns.
        near: How far apart two that are one may be, ns.

    Returns:
        A mask of the length of `theirs`.
    """
    order, sorted_ours = np.argsort(theirs, kind="stable"), np.sort(ours)
    result = np.zeros(len(theirs), dtype=bool)
    if len(ours) == len(theirs) and (np.abs(sorted_ours - theirs[order]) <= near).all():
        result[:] = True
        return result
    next_free = 0
    for place in order.tolist():
        ts = int(theirs[place])
        at = max(next_free, int(np.searchsorted(sorted_ours, ts)))
        if at > next_free and (at == len(ours) or ts - sorted_ours[at - 1] < sorted_ours[at] - ts):
            at -= 1
        if at < len(ours) and abs(int(sorted_ours[at]) - ts) <= near:
            result[place], next_free = True, at + 1
    return result


# ------------------------------------------------------------------ GPU activity


@dataclass(frozen=True, slots=True)
class OneActivity:
    """GPU activity without what is there twice.

    Attributes:
        columns: Columns of every kind of activity, see `collected.Collected.columns`.
        notes: Which recording was taken for what, a sentence each.
        losers: Process and recording whose activity was left out, and the recording that has it.
    """

    columns: dict[str, dict[str, Ints]]
    notes: list[str]
    losers: dict[tuple[int, int], int]

    def ranges(self, each: Sequence[tuple[int, int]]) -> list[bool]:
        """Which ranges count once too.

        Args:
            each: Process and recording of each. Those of a recording whose activity was left out
                stay where the other one has none of the process.
        """
        there = set(each)
        return [(one[0], self.losers.get(one, -1)) not in there for one in each]


def one_activity(
    activity: Mapping[str, dict[str, Ints]], infos: Sequence[SourceInfo]
) -> OneActivity:
    """Of the GPU work of a process that two recordings saw at the same time, take one.

    That with more GPU records, or else with more calls. Recordings that do not overlap (two windows
    of a profiler) both count.

    Args:
        activity: Columns of each kind, see `gpu_activity.Activity`; times on the trace's clock.
        infos: The recordings.
    """
    columns = dict(activity)
    # By process and recording: begin and end of its activity, GPU records, calls.
    extents: dict[int, dict[int, tuple[int, int, int, int]]] = {}
    for name, column, last in (
        ("launches", "ts", "ts"),
        ("starts", "ts", "ts"),
        ("work", "start", "end"),
    ):
        table = columns[name]
        for pid in np.unique(table["pid"]).tolist():
            pid_rows = np.flatnonzero(table["pid"] == pid)
            for recording, places in groups(table["recording"][pid_rows]):
                rows = pid_rows[places]
                first, end = table[column][rows].min(), table[last][rows].max()
                a, b, records, calls = extents.setdefault(pid, {}).get(
                    recording, (FOREVER, -FOREVER, 0, 0)
                )
                count = int(table["records"][rows].sum()) if name == "work" else 0
                extents[pid][recording] = (
                    min(a, int(first)),
                    max(b, int(end)),
                    records + count,
                    calls + len(rows) * (name != "work"),
                )
    losers: dict[tuple[int, int], int] = {}
    for pid, by_recording in extents.items():
        if pid >= 0 and len(by_recording) > 1:
            losers |= {(pid, loser): winner for loser, winner in _losers(by_recording).items()}
    for name, table in columns.items() if losers else ():
        out = np.zeros(len(table["pid"]), dtype=bool)
        for pid, recording in losers:
            out |= (table["pid"] == pid) & (table["recording"] == recording)
        columns[name] = {c: v[~out] for c, v in table.items()}
    notes = []
    for (pid, loser), winner in losers.items():
        one, other = infos[winner].path, infos[loser].path
        first, second = (one, other) if one.name == other.name else (one.name, other.name)
        notes.append(
            f"Activity of process {pid} is in {first} and in {second}: only that of the first is "
            "counted."
        )
    return OneActivity(columns, notes, losers)


def _losers(extents: Mapping[int, tuple[int, int, int, int]]) -> dict[int, int]:
    """Recordings that overlap with a better one, and that one.

    Args:
        extents: By recording: begin and end of the activity, ns, GPU records, calls.
    """
    best = sorted(extents, key=lambda r: (-extents[r][2], -extents[r][3], r))
    winners: list[int] = []
    losers: dict[int, int] = {}
    for recording in best:
        first, last, *_ = extents[recording]
        over = [w for w in winners if extents[w][0] <= last and first <= extents[w][1]]
        if over:
            losers[recording] = over[0]
        else:
            winners.append(recording)
    return losers


def strangers(
    activity: Mapping[str, dict[str, Ints]], known: Collection[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Processes (recording, pid) without messages whose number is another's at the same time.

    Traces of two hosts may well be of two processes of one number. One process in two recordings
    made the same calls at the same times.

    Args:
        activity: Columns of `launches` and `starts`, on one clock.
        known: Those (recording, pid) that have messages: who these are is known.
    """
    columns = (activity["launches"], activity["starts"])
    if len({int(n) for c in columns for n in np.unique(c["recording"])}) < 2:
        return []
    calls = {
        name: np.concatenate([c[name] for c in columns])
        for name in ("recording", "pid", "correlation", "ts")
    }
    apart: list[tuple[int, int]] = []
    for pid, every in groups(calls["pid"]):
        processes: list[Ints] = []  # calls of each process of this number so far
        for recording, places in groups(calls["recording"][every]):
            rows = every[places]
            alike = [_same_calls(calls, other, rows) for other in processes]
            if processes and not any(alike) and (recording, pid) not in known:
                apart.append((recording, pid))
            else:
                processes.append(rows)
    return apart


def _same_calls(calls: Mapping[str, Ints], one: Ints, other: Ints) -> bool:
    """Whether two recordings may be of one process: its windows, or the same calls twice."""
    ts = calls["ts"]
    if max(ts[one].min(), ts[other].min()) > min(ts[one].max(), ts[other].max()):
        return True
    ids = calls["correlation"]
    _, a, b = np.intersect1d(ids[one], ids[other], return_indices=True)
    return bool(len(a)) and float(np.median(np.abs(ts[one][a] - ts[other][b]))) < SAME_CALL_NS
