"""What one recording holds, read into columns: the work that is done for each file by itself.

Everything in a `Read` can be pickled, and nearly all of it is arrays: it is the same whether it was
read here, in another process or on another machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from profilemate.errors import InputError
from profilemate.parse.columns.allocator import give_back
from profilemate.parse.columns.budget import Budget
from profilemate.parse.events.messages import Messages
from profilemate.parse.gpu.collected import Collected
from profilemate.parse.ingest.find_files import Tolerant, Unopened
from profilemate.parse.readers import find_reader, open_recording
from profilemate.parse.readers.refusals import unreadable
from profilemate.parse.recording.contract import Marker, Recording, SourceInfo, SourceKind
from profilemate.parse.recording.progress import Progress, no_progress
from profilemate.parse.recording.worker_processes import Share


@dataclass(slots=True)
class Read:
    """One recording in columns, on its own clock.

    Attributes:
        info: Facts about it.
        messages: Its messages.
        activity: What it knows of the GPU.
        ranges: The engine's own annotations; none where there are steps of ours.
        error: Why it was left out, None if it was not.
    """

    info: SourceInfo
    messages: Messages
    activity: Collected
    ranges: list[Marker] = field(default_factory=list)
    error: InputError | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A recording that is to be read.

    Attributes:
        path: Where it is.
        found: It was found in a directory, not named: one that cannot be read is left out.
        nsys: The nsys that exports reports.
        cache_dir: Where exports are kept.
        records: Keep every GPU record, not only what they are folded to.
        budget: What may be kept in memory.
        share: What this process and those that it starts may use of the machine; None for all.
    """

    path: Path
    found: bool = False
    nsys: Path | None = None
    cache_dir: Path | None = None
    records: bool = True
    budget: Budget = field(default_factory=Budget)
    share: Share | None = None

    def open(self, progress: Progress = no_progress) -> Recording:
        """Open it.

        Raises:
            ProfilemateError: It cannot be opened.
        """
        try:
            one = open_recording(
                self.path,
                cache_dir=self.cache_dir,
                nsys=self.nsys,
                progress=progress,
                streamed=self.budget.strict,
                share=self.share,
            )
        except InputError as e:
            if not self.found or not self.path.exists():
                raise
            one = Unopened(self.path, SourceKind(find_reader(self.path).name), e)
        return Tolerant(one) if self.found else one

    def run(self, progress: Progress = no_progress, /) -> Read:
        """Open it and read it.

        Raises:
            ProfilemateError: It cannot be read.
        """
        one = self.open(progress)
        return read_recording(one, progress, records=self.records, budget=self.budget)


def read_recording(
    recording: Recording,
    progress: Progress = no_progress,
    *,
    records: bool = True,
    budget: Budget | None = None,
) -> Read:
    """Read a recording that was opened, to its end.

    Raises:
        InputError: It is damaged beyond reading.
    """
    messages, activity = Messages(budget), Collected(records=records)
    try:
        messages.read(0, recording.markers(), progress)
        activity.read(0, recording)
        marked = len(messages.rows["step"]) > 0
        ranges = [] if marked else list(recording.annotations())
    except OSError as e:  # it was removed meanwhile, or its disk fails
        raise unreadable(recording.info.path, e) from e
    give_back()
    error = recording.error if isinstance(recording, Tolerant) else None
    return Read(recording.info, messages, activity, ranges, error)
