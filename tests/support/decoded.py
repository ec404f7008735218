"""From opened recordings to a trace, without files and caches."""

from __future__ import annotations

from collections.abc import Sequence

from profilemate.parse.ingest.read_one import Read, read_recording
from profilemate.parse.merge.aligned_recordings import align_recordings
from profilemate.parse.merge.recordings_to_trace import make_trace
from profilemate.parse.recording.contract import Recording
from profilemate.parse.recording.progress import Progress, no_progress
from profilemate.parse.trace.trace import Trace


def decode_recordings(
    recordings: Sequence[Recording], *, progress: Progress = no_progress
) -> Trace:
    """The trace of recordings of one run, of which nothing was read yet."""
    return merge([read_recording(r, progress, records=True) for r in recordings])


def merge(reads: Sequence[Read]) -> Trace:
    """What was read of recordings of one run as a trace; it is taken from them."""
    return make_trace(align_recordings(reads))
