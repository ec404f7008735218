"""From recordings to what a trace knows of the GPU: read, put on one clock, attributed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from profilemate.parse import activity
from profilemate.parse.activity import Collected, Ints
from profilemate.parse.attribution import match
from profilemate.parse.trace import Marker, Recording, Trace
from profilemate.parse.unmarked import add_steps


def add_activity(
    trace: Trace, recordings: Sequence[Recording], shift: Ints, marked: Collection[int]
) -> None:
    """Read the GPU activity of recordings into their trace.

    Args:
        trace: Their decoded messages.
        recordings: Recordings of which all messages were read.
        shift: What to add to the times of each, ns.
        marked: Numbers of the recordings with steps of ours; of the others, the engine's own
            annotations make the steps.

    Raises:
        InputError: A recording is damaged beyond reading.
    """
    collected = Collected()
    ranges: list[tuple[int, Marker]] = []
    for number, recording in enumerate(recordings):
        by = int(shift[number])
        collected.begin(number, by)
        recording.activity(collected)
        if number not in marked:
            ranges += ((m.ts + by, m) for m in recording.annotations())
    trace.names = collected.every_name
    trace.api_calls = None if collected.api_calls is None else dict(collected.api_calls)
    launches, starts, gpu = (collected.columns(k) for k in ("launches", "starts", "gpu"))
    trace.launches, trace.gpu = match(launches, starts, gpu, trace.names)
    ranges.sort(key=lambda item: (item[0], -(item[1].dur or 0), item[1].text))
    trace.annotations = activity.frame(
        activity.ANNOTATIONS,
        {
            "ts": np.array([ts for ts, _ in ranges], dtype=np.int64),
            "dur": np.array([-1 if m.dur is None else m.dur for _, m in ranges], dtype=np.int64),
            "pid": np.array([m.pid for _, m in ranges], dtype=np.int64),
            "tid": np.array([m.tid for _, m in ranges], dtype=np.int64),
            "text": np.array([m.text for _, m in ranges], dtype=object),
        },
    )
    add_steps(trace)
