"""What two recorders saw of one process: each message counts once, and GPU work too."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profilemate.parse.columns.arrays import FOREVER, NONE, Bools, Ints, groups
from profilemate.parse.events.message_index import Heard
from profilemate.parse.merge.process_identity import Processes
from profilemate.parse.recording.contract import SourceInfo

NEAR_NS = 5_000_000
"""Two time stamps of one message without a clock of its own lie closer than this, once the
recordings are on one clock; the same text again (a drafter's next launch) is matched in order."""

SAME_CALL_NS = 100_000
"""One call in two recordings of one host, as far as their wall clocks agree; a copy agrees."""


def repeated(heard: Heard, placed: Ints, found: Processes, worth: Sequence[int]) -> Bools:
    """Which messages another recording has too, and better.

    The same message is the same text of the same process, at the same instant where it says one.
    A step says its number; two of one text are told apart by their place in time.

    Args:
        heard: The messages.
        placed: Their time stamps on the trace's clock.
        found: Their processes.
        worth: How good the time stamps of each recording are: those of the largest number stay.
    """
    drop = np.zeros(len(heard.ts), dtype=bool)
    process = np.array(found.process, dtype=np.int64)[found.of_message]
    recordings = {
        p: {found.recording[s] for s, q in enumerate(found.process) if q == p}
        for p in set(found.process)
    }
    shared = [p for p, where in recordings.items() if len(where) > 1]
    for number in shared:
        mine = np.flatnonzero(process == number)
        order = sorted(recordings[number], key=lambda r: (-worth[r], r))
        kept = mine[heard.recording[mine] == order[0]]
        for recording in order[1:]:
            more = mine[heard.recording[mine] == recording]
            again = _seen(heard, placed, kept, more)
            drop[more[again]] = True
            kept = np.concatenate([kept, more[~again]])
    return drop


def _seen(heard: Heard, placed: Ints, kept: Ints, more: Ints) -> Bools:
    """Which of `more` are among `kept`: one for one, so that what came twice stays twice."""
    both = np.concatenate([kept, more])
    code = np.unique(heard.identity[both], return_inverse=True)[1].reshape(-1)
    count = int(code.max()) + 1 if len(code) else 0
    ours, theirs = code[: len(kept)], code[len(kept) :]
    here, there = np.bincount(ours, minlength=count), np.bincount(theirs, minlength=count)
    # Nearly always: a text that there is once, with its instant or its step's number in it.
    single: Bools = (here == 1) & (there == 1)
    again: Bools = single[theirs].copy()
    at = np.full(count, -1, dtype=np.int64)
    at[ours] = placed[kept]
    stays = heard.t[more] == NONE
    far = np.abs(placed[more] - at[theirs]) > NEAR_NS
    again &= ~(stays & ~heard.told[more] & far)
    many = np.flatnonzero((here > 0) & (there > 0) & ~single)
    if len(many):
        in_ours, in_theirs = dict(groups(ours)), dict(groups(theirs))
        for text in many.tolist():
            a, b = kept[in_ours[text]], in_theirs[text]
            timed = bool((heard.t[more[b]] != NONE).all())
            again[b] = _paired(placed[a], placed[more[b]], FOREVER if timed else NEAR_NS)
    return again


def _paired(ours: Ints, theirs: Ints, near: int) -> npt.NDArray[np.bool_]:
    """Which of `theirs` stand for one of `ours`: in order where there are as many, else nearest."""
    order, mine = np.argsort(theirs, kind="stable"), np.sort(ours)
    result = np.zeros(len(theirs), dtype=bool)
    if len(mine) == len(theirs) and (np.abs(mine - theirs[order]) <= near).all():
        result[:] = True
        return result
    next_free = 0
    for place in order.tolist():
        ts = int(theirs[place])
        at = max(next_free, int(np.searchsorted(mine, ts)))
        if at > next_free and (at == len(mine) or ts - mine[at - 1] < mine[at] - ts):
            at -= 1
        if at < len(mine) and abs(int(mine[at]) - ts) <= near:
            result[place], next_free = True, at + 1
    return result


# ------------------------------------------------------------------ GPU activity


@dataclass(frozen=True, slots=True)
class Kept:
    """GPU activity without what is there twice.

    Attributes:
        columns: Columns of every kind of activity, see `collect.Collected`.
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


def one_activity(found: Mapping[str, dict[str, Ints]], infos: Sequence[SourceInfo]) -> Kept:
    """Of the GPU work of a process that two recordings saw at the same time, take one.

    That with more GPU records, or else with more calls. Recordings that do not overlap (two windows
    of a profiler) both count.
    """
    columns = dict(found)
    seen: dict[int, dict[int, tuple[int, int, int, int]]] = {}
    for name, column, last in (
        ("launches", "ts", "ts"),
        ("starts", "ts", "ts"),
        ("work", "start", "end"),
    ):
        table = columns[name]
        for pid in np.unique(table["pid"]).tolist():
            of_pid = np.flatnonzero(table["pid"] == pid)
            for recording, rows in groups(table["recording"][of_pid]):
                first, end = table[column][of_pid[rows]].min(), table[last][of_pid[rows]].max()
                a, b, records, calls = seen.setdefault(pid, {}).get(
                    recording, (FOREVER, -FOREVER, 0, 0)
                )
                count = int(table["records"][of_pid[rows]].sum()) if name == "work" else 0
                seen[pid][recording] = (
                    min(a, int(first)),
                    max(b, int(end)),
                    records + count,
                    calls + len(rows) * (name != "work"),
                )
    losers: dict[tuple[int, int], int] = {}
    for pid, by in seen.items():
        if pid >= 0 and len(by) > 1:
            losers |= {(pid, loser): winner for loser, winner in _losers(by).items()}
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
    return Kept(columns, notes, losers)


def _losers(by: Mapping[int, tuple[int, int, int, int]]) -> dict[int, int]:
    """Recordings that overlap with a better one, and that one."""
    best = sorted(by, key=lambda r: (-by[r][2], -by[r][3], r))
    winners: list[int] = []
    found: dict[int, int] = {}
    for recording in best:
        first, last, *_ = by[recording]
        over = [w for w in winners if by[w][0] <= last and first <= by[w][1]]
        if over:
            found[recording] = over[0]
        else:
            winners.append(recording)
    return found


def strangers(
    found: Mapping[str, dict[str, Ints]], known: Collection[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Processes (recording, pid) without messages whose number is another's at the same time.

    Traces of two hosts may well be of two processes of one number. One process in two recordings
    made the same calls at the same times.

    Args:
        found: Columns of `launches` and `starts`, on one clock.
        known: Those (recording, pid) that have messages: who these are is known.
    """
    columns = (found["launches"], found["starts"])
    if len({int(n) for c in columns for n in np.unique(c["recording"])}) < 2:
        return []
    calls = {
        name: np.concatenate([c[name] for c in columns])
        for name in ("recording", "pid", "correlation", "ts")
    }
    apart: list[tuple[int, int]] = []
    for pid, every in groups(calls["pid"]):
        met: list[Ints] = []
        for recording, some in groups(calls["recording"][every]):
            mine = every[some]
            alike = [_same_calls(calls, other, mine) for other in met]
            if met and not any(alike) and (recording, pid) not in known:
                apart.append((recording, pid))
            else:
                met.append(mine)
    return apart


def _same_calls(calls: Mapping[str, Ints], one: Ints, other: Ints) -> bool:
    """Whether two recordings may be of one process: its windows, or the same calls twice."""
    ts = calls["ts"]
    if max(ts[one].min(), ts[other].min()) > min(ts[one].max(), ts[other].max()):
        return True
    ids = calls["correlation"]
    _, a, b = np.intersect1d(ids[one], ids[other], return_indices=True)
    return bool(len(a)) and float(np.median(np.abs(ts[one][a] - ts[other][b]))) < SAME_CALL_NS
