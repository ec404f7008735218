"""From recordings to a session directory: the one place that knows readers, tables and writers."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

import pandas as pd

from profilemate.errors import InputError
from profilemate.parse.cache import TraceCache
from profilemate.parse.columns.budget import Budget
from profilemate.parse.ingest.find_files import gather
from profilemate.parse.ingest.live_sessions import only_session
from profilemate.parse.ingest.read_many import read_all
from profilemate.parse.ingest.read_one import Task
from profilemate.parse.merge.merged import Merged
from profilemate.parse.merge.recordings_to_trace import put_together
from profilemate.parse.merge.runs import doubt_several, refuse_several
from profilemate.parse.recording.progress import Progress, no_progress
from profilemate.parse.session import summary as summary_
from profilemate.parse.session.metadata import metadata as metadata_of
from profilemate.parse.session.metadata import session_id
from profilemate.parse.session.tables_on_demand import Built
from profilemate.parse.session.timeline_file import FILE, Options, write_timeline
from profilemate.parse.tables import TABLES
from profilemate.parse.tables.custom import custom_tables
from profilemate.parse.trace.ranks import split_ranks
from profilemate.parse.trace.trace import Trace
from profilemate.parse.writers.csv_session import CsvSession
from profilemate.parse.writers.in_place import updated
from profilemate.parse.writers.perfetto import builder


@dataclass(slots=True)
class Session:
    """A session directory that was written, and the short answer of it.

    Attributes:
        path: The directory.
        metadata: What is in its metadata.json.
        summary: The figures of the lead rank, ready for JSON.
        warnings: What a reader of the figures must know.
        rows: Rows of each table of the lead rank.
    """

    path: Path
    metadata: dict[str, Any]
    summary: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)

    def facts(self) -> summary_.Rows:
        """What was recorded, as lines for the terminal."""
        return summary_.facts(self.summary)

    def moved(self, path: Path) -> Session:
        """The same session, which now lies somewhere else."""
        self.path, self.summary["output_dir"] = path, str(path)
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
        raise InputError("no recording was given", hint="Name one: profilemate parse run.nsys-rep")
    found = gather(paths)
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
    notes: list[str] = []

    def check(merged: Merged) -> None:
        errors = [one.error for one in reads if one.error is not None]
        if errors and len(errors) == len(reads):
            raise errors[0]
        if any(task.found for task in tasks):
            refuse_several(merged, paths)
        elif (doubt := doubt_several(merged)) is not None:
            notes.append(doubt)

    jobs = how.get("jobs", 1) or (None if limit is None else 1)
    progress = how.get("progress", no_progress)
    reads = read_all(tasks, progress, jobs=jobs, scheduler=how.get("scheduler"))
    trace = put_together(reads, check)
    trace.notes += notes
    if slot is not None:
        slot.keep(trace, time.monotonic() - start)
    return trace


def build_tables(
    trace: Trace, progress: Progress = no_progress, *, run: Trace | None = None
) -> dict[str, pd.DataFrame]:
    """Every table of a trace, by name.

    Args:
        trace: The trace of one rank.
        progress: Told how many tables there are yet to build.
        run: The trace of the whole run, where that is more.
    """
    return Built(trace, progress, run=run).frames()


def parse_session(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    force: bool = False,
    timeline: bool = False,
    **how: Unpack[How],
) -> Session:
    """Read recordings and write their session directory.

    Args:
        paths: Recordings of one run, or directories that hold some.
        out: The session directory; `session_<start of the recording>` here if not given. A live
            session alone is updated where it is.
        force: Replace a session that is there already.
        timeline: Write `timeline.pftrace` into it too.
        how: See `How`; temporary files are where TMPDIR says, or else beside the session.

    Raises:
        InputError: A recording cannot be read.
        OutputError: The session cannot be written; what was there before is untouched.
        ToolError: A program that is needed is missing or failed.
    """
    live = only_session(paths)
    if live is not None and (out is None or out.resolve() == live.resolve()):
        again = partial(parse_session, paths, timeline=timeline, **how)
        session: Session = updated(live, again)
        return session.moved(live)
    if out is not None:
        CsvSession(out, TABLES, force=force).check()  # before the work, not after it
    if timeline:
        builder()
    trace = read_trace(paths, records=False, folder=beside(out or Path("session")), **how)
    progress = how.get("progress", no_progress)
    return write_session(trace, out, force=force, timeline=timeline, progress=progress)


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
    progress: Progress = no_progress,
) -> Session:
    """Write the session directory of a trace that was read already; see `parse_session`."""
    out = Path(session_id(trace)) if out is None else out
    layout = TABLES | custom_tables(trace)
    writer = CsvSession(out, layout, force=force)
    writer.check()
    ranks = split_ranks(trace)
    lead = ranks[0].trace if ranks else trace
    figures = summary_.Figures()
    facts: dict[str, Any] = {}
    told: list[str] = []

    def rest(directory: Path) -> Mapping[str, object]:
        """What can be said once every table was written."""
        rows = {layout[name].file: count for name, count in figures.rows.items()}
        facts.update(metadata_of(trace, ranks, rows, out))
        if not timeline:
            return facts
        result = write_timeline(trace, directory / FILE, Options(), progress=progress)
        told.extend(result.warnings)
        return {**facts, "timeline": result.facts()}

    tables = Built(lead, progress, run=trace, note=figures.note)
    further = {r.rank.folder: Built(r.trace, progress, further=True) for r in ranks[1:]}
    writer.write(tables, {}, further, rest)
    return Session(
        path=out,
        metadata=facts,
        summary={**summary_.summarise(lead, figures, facts), "output_dir": str(out)},
        warnings=[*summary_.warnings(facts), *told],
        rows=figures.rows,
    )
