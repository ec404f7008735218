"""From recordings to a session directory: the one place that knows readers, tables and writers."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

from profilemate.errors import InputError
from profilemate.parse.cache import TraceCache
from profilemate.parse.columns.budget import Budget
from profilemate.parse.ingest.find_files import gather, vanished
from profilemate.parse.ingest.left_out import left_out
from profilemate.parse.ingest.live_sessions import only_session
from profilemate.parse.ingest.read_many import read_all
from profilemate.parse.ingest.read_one import Task
from profilemate.parse.merge.aligned_recordings import AlignedRecordings, align_recordings
from profilemate.parse.merge.recordings_to_trace import make_trace
from profilemate.parse.merge.runs import doubt_several, refuse_several
from profilemate.parse.recording.progress import Progress, no_progress
from profilemate.parse.session import summary as summary_
from profilemate.parse.session.describe import describe, session_id
from profilemate.parse.session.metadata import Metadata
from profilemate.parse.session.tables_on_demand import Built
from profilemate.parse.session.timeline_file import FILE, Options, write_timeline
from profilemate.parse.session.warnings import SessionWarning
from profilemate.parse.tables import TABLES
from profilemate.parse.tables.custom import custom_tables
from profilemate.parse.trace.ranks import split_ranks
from profilemate.parse.trace.trace import Trace
from profilemate.parse.writers.csv_session import CsvSession
from profilemate.parse.writers.in_place import updated
from profilemate.parse.writers.perfetto import builder

_LISTINGS = 5
"""How often the recordings of directories are listed before one that vanished is an error: a live
session drops its oldest segments while it is read."""


@dataclass(slots=True)
class Session:
    """A session directory that was written, and the short answer of it.

    Attributes:
        path: The directory.
        metadata: What is in its metadata.json.
        summary: The figures of the lead rank, ready for JSON.
        rows: Rows of each table of the lead rank.
    """

    path: Path
    metadata: Metadata
    summary: dict[str, Any]
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """What a reader of the figures must know, a sentence each."""
        return [warning.text for warning in self.metadata.warnings]

    def facts(self) -> summary_.Rows:
        """What was recorded, as lines for the terminal."""
        return summary_.facts(self.summary)

    def moved(self, path: Path) -> Session:
        """The same session, which now lies somewhere else."""
        self.path, self.summary["output_dir"] = path, str(path)
        self.metadata = replace(self.metadata, session_id=path.name, output_dir=str(path))
        return self

    def sections(self) -> list[tuple[str, summary_.Rows]]:
        """The figures, as titled lines for the terminal."""
        return summary_.sections(self.summary)


class How(TypedDict, total=False):
    """How recordings are read; what is not said is as in `read_trace`.

    Attributes:
        nsys: The nsys that exports reports.
        cache_dir: Where exports are kept.
        decoded: Where traces that were decoded before are found and new ones kept; not at all if
            not given.
        progress: Told about work that takes its time.
        jobs: Processes that read at a time, one if not given; None for as many as cores and memory
            allow.
        scheduler: Address of a Dask scheduler whose workers are to read instead.
        limit: Bytes of memory that each process may take; what is more goes into temporary files.
            Nothing is kept in a cache then, and one process reads if `jobs` says nothing.
    """

    nsys: Path | None
    cache_dir: Path | None
    decoded: TraceCache | None
    progress: Progress
    jobs: int | None
    scheduler: str | None
    limit: int | None


def read_trace(
    paths: Sequence[Path], *, records: bool = True, folder: Path | None = None, **how: Unpack[How]
) -> Trace:
    """Read recordings of one run onto one clock.

    Args:
        paths: Recordings, or directories that hold some.
        records: Keep every GPU record in `Trace.gpu`, which tables do not need.
        folder: Where temporary files are; None for where Python puts them.
        how: See `How`.

    Raises:
        ProfilemateError: One of them cannot be read.
    """
    if not paths:
        raise InputError(
            "no recording was given", hint="Name one:", command="profilemate parse run.nsys-rep"
        )
    for _ in range(_LISTINGS - 1):
        found = gather(paths)
        try:
            trace = _read_found(found, paths, records, folder, how, changing=True)
        except InputError:
            if not vanished(found):
                raise
        else:
            return _with_left_out(trace, paths, found)
    found = gather(paths)
    trace = _read_found(found, paths, records, folder, how, changing=False)
    return _with_left_out(trace, paths, found)


def _with_left_out(trace: Trace, paths: Sequence[Path], found: Mapping[Path, bool]) -> Trace:
    """The trace with a note on each file that lies there and is not read."""
    searched = [path for path in paths if path.is_dir() and path not in found]
    notes = left_out(searched, found)
    return replace(trace, notes=[*trace.notes, *notes]) if notes else trace


def _read_found(
    found: dict[Path, bool],
    paths: Sequence[Path],
    records: bool,
    folder: Path | None,
    how: How,
    *,
    changing: bool,
) -> Trace:
    """Read what was found; if it is `changing`, one that vanished meanwhile is an error.

    Raises:
        ProfilemateError: One of them cannot be read.
    """
    nsys, limit, decoded = how.get("nsys"), how.get("limit"), how.get("decoded")
    # A trace is put into the cache, and taken out of it, as a whole.
    slot = None
    if decoded is not None and limit is None:
        slot = decoded.slot(found, nsys, records=records)
    if slot is not None and (kept := slot.load()) is not None:
        return kept
    start = time.monotonic()
    budget = Budget.of(limit, None if folder is None else str(folder))
    tasks = [
        Task(path, searched, nsys, how.get("cache_dir"), records, budget)
        for path, searched in found.items()
    ]
    jobs = how.get("jobs", 1) or (None if limit is None else 1)
    progress = how.get("progress", no_progress)
    reads = read_all(tasks, progress, jobs=jobs, scheduler=how.get("scheduler"))
    lost = [one.error for one in reads if one.error and not one.info.path.exists()]
    if changing and lost:
        raise lost[0]
    errors = [one.error for one in reads if one.error is not None]
    if errors and len(errors) == len(reads):
        raise errors[0]
    recordings = align_recordings(reads)
    doubts = _doubts(recordings, paths, found_in_folder=any(task.found for task in tasks))
    trace = make_trace(recordings, doubts)
    if slot is not None:
        slot.keep(trace, time.monotonic() - start)
    return trace


def _doubts(
    recordings: AlignedRecordings, paths: Sequence[Path], *, found_in_folder: bool
) -> list[str]:
    """What makes it doubtful that these are recordings of one run, a sentence each.

    Raises:
        InputError: They are of several, and some were found in folders, not named.
    """
    if found_in_folder:
        refuse_several(recordings, paths)
        return []
    doubt = doubt_several(recordings)
    return [] if doubt is None else [doubt]


def parse_session(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    force: bool = False,
    timeline: bool = False,
    safe_csv: bool = False,
    **how: Unpack[How],
) -> Session:
    """Read recordings and write their session directory.

    Args:
        paths: Recordings of one run, or directories that hold some.
        out: The session directory; `session_<start of the recording>` here if not given. A live
            session alone is updated where it is.
        force: Replace a session that is there already.
        timeline: Write `timeline.pftrace` into it too.
        safe_csv: Guard texts in the tables that a spreadsheet would run; see `safe_cells`.
        how: See `How`; temporary files are where TMPDIR says, or else beside the session.

    Raises:
        InputError: A recording cannot be read.
        OutputError: The session cannot be written; what was there before is untouched.
        ToolError: A program that is needed is missing or failed.
    """
    live = only_session(paths)
    if live is not None and (out is None or out.resolve() == live.resolve()):
        again = partial(parse_session, paths, timeline=timeline, safe_csv=safe_csv, **how)
        session: Session = updated(live, again)
        return session.moved(live)
    if out is not None:
        CsvSession(out, TABLES, force=force).check()  # before the work, not after it
    if timeline:
        builder()
    trace = read_trace(paths, records=False, folder=beside(out or Path("session")), **how)
    progress = how.get("progress", no_progress)
    return write_session(
        trace, out, force=force, timeline=timeline, safe_csv=safe_csv, progress=progress
    )


def beside(out: Path) -> Path | None:
    """Where temporary files of a result are; None for where Python puts them.

    Not in /tmp, which often is memory itself, unless TMPDIR says so.
    """
    place = Path(os.path.realpath(out)).parent
    if "TMPDIR" in os.environ or not os.access(place, os.W_OK):
        return None
    return place


def write_session(
    trace: Trace,
    out: Path | None = None,
    *,
    force: bool = False,
    timeline: bool = False,
    safe_csv: bool = False,
    progress: Progress = no_progress,
) -> Session:
    """Write the session directory of a trace that was read already; see `parse_session`."""
    out = Path(session_id(trace)) if out is None else out
    layout = TABLES | custom_tables(trace)
    writer = CsvSession(out, layout, force=force, safe=safe_csv)
    writer.check()
    ranks = split_ranks(trace)
    lead = ranks[0].trace if ranks else trace
    figures = summary_.Figures()
    described: list[Metadata] = []

    def rest(directory: Path) -> Mapping[str, object]:
        """What can be said once every table was written."""
        rows = {layout[name].file: count for name, count in figures.rows.items()}
        said = replace(describe(trace, ranks, rows, out), safe_csv=safe_csv or None)
        if timeline:
            result = write_timeline(trace, directory / FILE, Options(), progress=progress)
            more = (SessionWarning("timeline", text) for text in result.warnings)
            said = replace(said, timeline=result.facts(), warnings=(*said.warnings, *more))
        described.append(said)
        return said.to_json()

    tables = Built(lead, progress, run=trace, note=figures.note)
    further = {r.rank.folder: Built(r.trace, progress, further=True) for r in ranks[1:]}
    writer.write(tables, {}, further, rest)
    (said,) = described
    return Session(
        path=out,
        metadata=said,
        summary={**summary_.summarise(lead, figures, said), "output_dir": str(out)},
        rows=figures.rows,
    )
