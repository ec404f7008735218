"""From recordings to a trace: side by side on one clock, each event once, GPU work attributed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from profilemate.parse.columns.allocator import give_back
from profilemate.parse.columns.arrays import NONE, Ints, groups
from profilemate.parse.columns.pandas import integers
from profilemate.parse.events.messages import Messages
from profilemate.parse.merge.align import BY_WALL, UNPLACED
from profilemate.parse.merge.aligned_recordings import (
    AlignedRecordings,
    sessions_of,
)
from profilemate.parse.merge.custom_frames import frame as custom_frame
from profilemate.parse.merge.event_frames import build
from profilemate.parse.merge.gpu_activity import attribute, callers_of
from profilemate.parse.merge.kv_order import kv_log
from profilemate.parse.merge.losses import lost_batches, unfinished
from profilemate.parse.merge.message_order import OrderedMessages
from profilemate.parse.merge.places import place_processes
from profilemate.parse.merge.sources import leave_out_strangers, name_sources
from profilemate.parse.merge.unmarked_steps import with_unmarked_steps
from profilemate.parse.trace.event_columns import FRAME_NAMES, empty_frame
from profilemate.parse.trace.trace import Trace
from profilemate.schema import KINDS


def make_trace(recordings: AlignedRecordings, doubts: Sequence[str] = ()) -> Trace:
    """The trace of recordings of one run.

    The order of the markers makes no difference. An event began `ago` before its message was
    emitted; that instant is mapped from the monotonic clock of its process (see `ClockMap`). What
    carries no clock of its own has the recorder's time stamp. A message that two recordings hold
    counts once.

    Args:
        recordings: The recordings; what they hold is used up.
        doubts: What else to say in `Trace.notes`.
    """
    name_sources(recordings)
    activity = leave_out_strangers(recordings)
    trace = _trace_of_messages(recordings)
    give_back()
    shift, processes = recordings.aligned.shift, recordings.processes
    pids_of = {number: set[int]() for number, _ in processes.key} | callers_of(activity)
    gpu = attribute(activity, shift, processes, recordings.infos)
    placed = place_processes(pids_of, processes, recordings.infos)
    return replace(
        trace,
        frames=with_unmarked_steps(trace.frames, gpu),
        launches=gpu.launches,
        gpu=gpu.gpu,
        work=gpu.work,
        annotations=gpu.annotations,
        names=gpu.names,
        api_calls=gpu.api_calls,
        aliases=processes.aliases | placed.aliases,
        sources_of=placed.sources | trace.sources_of,
        places=placed.places,
        notes=[*trace.notes, *gpu.notes, *doubts],
    )


def _trace_of_messages(recordings: AlignedRecordings) -> Trace:
    """The trace without activity: what the messages of recordings say; their events are used up."""
    infos, index, processes = recordings.infos, recordings.index, recordings.processes
    raw, aligned, counts = recordings.messages, recordings.aligned, ~recordings.repeated
    messages = OrderedMessages(raw, processes, aligned.ts, counts)
    mixed = _mixed(raw)
    log, operations = kv_log(raw.kv, messages)
    numbers = operations | {name: len(rows) for name, rows in raw.rows.items()}
    event_counts = {name: numbers[name] for name in KINDS if numbers.get(name)}
    frames = {name: _frame(raw, name, messages) for name in FRAME_NAMES}
    _note_clocks(recordings)
    for pid, hosts in mixed.items():
        infos[0].notes.append(
            f"Number {pid} is a process on each of {', '.join(hosts)}: their events are mixed."
        )
    joined = np.array(raw.joined, dtype=np.int64)
    return Trace(
        sources=list(infos),
        frames=frames,
        kv=log,
        start_unix_ns=aligned.zero,
        window=_window(recordings),
        counts=event_counts | raw.custom.counts(),
        unknown=raw.unknown,
        broken=raw.broken,
        lost_batches=lost_batches(index, processes, messages.pid),
        unfinished=unfinished(raw.torn, joined, index, processes),
        clock_error_ns=messages.clock_error_ns,
        placements=aligned.placements,
        duplicates=dict(Counter(index.recording[~counts].tolist())),
        sources_of=_sources_of(messages.pid[counts], index.recording[counts]),
        notes=list(dict.fromkeys(processes.notes)),
        custom=_custom(raw, messages),
    )


def _window(recordings: AlignedRecordings) -> tuple[int, int]:
    """First and last instant of all recordings, ns on the trace's clock; (0, 0) for none."""
    windows = [
        (info.window[0] + shift, info.window[1] + shift)
        for info, shift in zip(recordings.infos, recordings.aligned.shift.tolist(), strict=True)
        if info.window is not None
    ]
    return (min(a for a, _ in windows), max(b for _, b in windows)) if windows else (0, 0)


def _frame(raw: Messages, name: str, messages: OrderedMessages) -> pd.DataFrame:
    """The frame of a kind of event, whose columns are taken out of what was read."""
    rows = raw.rows[name]
    if not len(rows):
        return empty_frame(name)
    message, place = np.array(rows.message), np.array(rows.place)
    ts = messages.began(message, rows.numbers("ago", 0))
    dur = rows.numbers("dur", NONE)
    del rows.columns["ago"], rows.columns["dur"]
    dur = np.where(dur == NONE, messages.lasted(message, ts), dur)
    order, given = _in_order(messages, message, place, ts, dur)
    del message, place, ts, dur  # as long as the frame itself, each of them
    return build(name, rows, order, given)


def _custom(raw: Messages, messages: OrderedMessages) -> dict[str, pd.DataFrame]:
    """The frames of kinds of event that others define, by name."""
    frames: dict[str, pd.DataFrame] = {}
    for name, rows in sorted(raw.custom.rows.items()):
        message, place = np.array(rows.message), np.array(rows.place)
        ts, dur = messages.began(message, np.array(rows.ago)), np.array(rows.dur)
        order, given = _in_order(messages, message, place, ts, dur)
        frames[name] = custom_frame(rows, order, given)
    return frames


def _in_order(
    messages: OrderedMessages, message: Ints, place: Ints, ts: Ints, dur: Ints
) -> tuple[Ints, dict[str, object]]:
    """The order of n events by time and process, and the columns that all kinds have, in it.

    Args:
        messages: The messages.
        message: The message of each event: a row of the messages.
        place: Its place in that.
        ts: When it began, ns on the trace's clock.
        dur: How long it took, ns, `NONE` where that is not known.
    """
    pid = messages.pid[message]
    order = np.lexsort((place, messages.rank[message], pid, ts))
    return order, {
        "ts": ts[order],
        "dur": integers(dur[order]),
        "pid": pid[order],
        "tid": messages.tid[message][order],
    }


def _note_clocks(recordings: AlignedRecordings) -> None:
    """Say what was not put on one clock by anything better than wall clocks."""
    infos, placements = recordings.infos, recordings.aligned.placements
    holding = set(recordings.index.recording.tolist()) | recordings.activity.recordings
    holding |= {number for number, _ in recordings.activity.ranges}
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


def _mixed(raw: Messages) -> dict[int, list[str]]:
    """Process numbers that are of several hosts in one recording, and the hosts."""
    sessions = sorted(sessions_of(raw).items(), key=lambda item: item[0])
    return {pid: sorted(s.hosts) for (_, pid), s in sessions if len(s.hosts) > 1}


def _sources_of(pid: Ints, recording: Ints) -> dict[int, list[int]]:
    """Recordings with messages of each process, those with the most of them first.

    Args:
        pid: Process of each message that counts.
        recording: Recording of each of them.
    """
    return {
        process: [r for r, _ in Counter(recording[rows].tolist()).most_common()]
        for process, rows in groups(pid)
    }
