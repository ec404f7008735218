"""The process that writes the tables of a live session at its end."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from profilemate.errors import ProfilemateError
from profilemate.parse.ingest.live_sessions import being_written
from profilemate.parse.pipeline import parse_session
from profilemate.printable import printable, printable_lines
from profilemate.schema.live import MARKERS, RUN_LINK

WAIT_S = 120
"""How long the processes of a session may take to end after the first of them did."""


def main(session: str) -> int:
    """Wait until nobody writes into a session any more, then write its tables.

    Started by `profilemate.annotate.finish`, with the session's lock; what is said goes to its log.
    Whoever still writes when the time is up will start this again at its own end.
    """
    path = Path(session)
    os.umask(0o077)  # what a run did is nobody else's business until its owner says so
    with suppress(OSError):
        os.nice(10)
    deadline = time.monotonic() + WAIT_S
    folder = path / MARKERS
    while busy := being_written(folder):
        if time.monotonic() > deadline:
            _log(f"after {WAIT_S} s these are still being written: {printable(', '.join(busy))}")
            return 1
        time.sleep(0.05)
    try:
        done = parse_session([path])
    except ProfilemateError as error:
        _log(f"error: {error}")
        return error.exit_code
    for warning in done.warnings:
        _log(f"note: {printable(warning)}")
    _log(f"wrote the tables of {printable(path)}")
    _forget_run(path)
    return 0


def _forget_run(session: Path) -> None:
    """Remove the name by which the processes of the run found their session."""
    for link in session.parent.glob(f"{RUN_LINK}*"):
        with suppress(OSError):
            if os.readlink(link) == session.name:
                link.unlink()


def _log(text: str) -> None:
    """Add to the log, which people read on terminals; only an error of ours has several lines."""
    sys.stderr.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {printable_lines(text)}\n")
