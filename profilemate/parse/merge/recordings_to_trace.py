"""From what was read of recordings to a trace: put together, attribute."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from profilemate.parse.columns.allocator import give_back
from profilemate.parse.ingest.read_one import Read
from profilemate.parse.merge.gpu_activity import add_activity, gather_up
from profilemate.parse.merge.merged import Merged
from profilemate.parse.merge.sources import sort_out
from profilemate.parse.trace.trace import Trace

Check = Callable[[Merged], None]


def put_together(reads: Sequence[Read], check: Check | None = None) -> Trace:
    """Put what was read of recordings of one run on one clock.

    The order of the markers makes no difference. An event began `ago` before its message was
    emitted; that instant is mapped from the monotonic clock of its process (see `ClockMap`). What
    carries no clock of its own has the recorder's time stamp. A message that two recordings hold
    counts once.

    Args:
        reads: The recordings; what they hold is taken from them.
        check: Called before they are put together; may refuse.
    """
    messages, activity = gather_up(reads)
    merged = Merged(messages, [one.info for one in reads], activity)
    if check is not None:
        check(merged)
    sort_out(merged)
    trace = merged.trace()
    give_back()
    add_activity(trace, activity, merged.aligned.shift, merged.processes, trace.sources)
    return trace
