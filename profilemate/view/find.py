"""What the user means to look at: a timeline, a session that has one, or recordings."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from profilemate.errors import InputError
from profilemate.printable import shell_word
from profilemate.schema.live import METADATA

if TYPE_CHECKING:  # a timeline that is there already needs no pandas
    from profilemate.parse.recording.progress import Progress
    from profilemate.parse.session.saved import SavedSession

_PFTRACE = ".pftrace"
REPORT = "report.html"


def report_of(paths: Sequence[Path]) -> Path:
    """The report page of a session.

    Raises:
        InputError: There is no session, or it has no page.
    """
    session = _session(paths[0])
    page = session.path / REPORT
    if not page.is_file():
        raise InputError(
            "This session has no report page yet",
            path=session.path,
            hint="Make it:",
            command=f"profilemate report {shell_word(session.path)} -o {shell_word(page)}",
        )
    return page


def _session(path: Path) -> SavedSession:
    from profilemate.parse.session.saved import SavedSession

    return SavedSession.open(path)


@contextmanager
def timeline_of(
    paths: Sequence[Path],
    nsys: Path | None,
    progress: Progress,
    *,
    cached: bool = False,
    note: Callable[[str], None] = lambda said: None,
    limit: int | None = None,
) -> Iterator[Path]:
    """The timeline of what was named; one that has to be made is removed at the end.

    With `cached` traces that were decoded before are found and new ones kept; `note` is told why
    nothing could be kept, if that is so; `limit` is the memory that may be taken, in bytes.

    Raises:
        ProfilemateError: There is nothing to make it of, or it cannot be made.
    """
    if len(paths) == 1 and (ready := _ready(paths[0])) is not None:
        yield ready
        return
    from profilemate.parse.cache import TraceCache
    from profilemate.parse.pipeline import read_trace
    from profilemate.parse.session.timeline_file import Options, write_timeline

    sources = list(paths)
    if len(paths) == 1 and (paths[0] / METADATA).is_file():
        sources = _sources(_session(paths[0]))
    with tempfile.TemporaryDirectory(prefix="profilemate-") as folder:
        made = Path(folder) / f"timeline{_PFTRACE}"
        decoded = TraceCache() if cached else None
        trace = read_trace(
            sources, nsys=nsys, decoded=decoded, progress=progress, records=False, limit=limit
        )
        if decoded is not None and decoded.note is not None:
            note(decoded.note)
        write_timeline(trace, made, Options(), progress=progress)
        yield made


def _ready(path: Path) -> Path | None:
    """A timeline that is there already."""
    if path.is_dir():
        found = path / f"timeline{_PFTRACE}"
        return found if found.is_file() else None
    if path.suffix != _PFTRACE:
        return None
    if not path.is_file():
        raise InputError(
            "There is no such timeline",
            path=path,
            hint="Make it:",
            command=f"profilemate perfetto TRACE -o {shell_word(path)}",
        )
    return path


def _sources(session: SavedSession) -> list[Path]:
    """The recordings that a session was made of, if all of them are still there."""
    named = [Path(source.path) for source in session.metadata.sources if source.path]
    gone = [path for path in named if not os.path.exists(path)]  # any text may stand there
    if gone or not named:
        where = f"{gone[0]} is no longer there." if gone else "It names no recording."
        raise InputError(
            "This session has no timeline, and none can be made",
            path=session.path,
            why=where,
            hint="Where the recording is, show it, or keep its timeline with the tables:",
            command=("profilemate view TRACE", "profilemate parse TRACE -o DIR --timeline"),
        )
    return named
