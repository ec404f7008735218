"""`profilemate report SESSION -o report.html`: the page and its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profilemate.cli import show


def write(
    session_path: Path, out: Path | None, png: Path | None, *, quiet: bool = False
) -> list[Path]:
    """Write the page, or the pictures, or both; returns what was written.

    Raises:
        ProfilemateError: The session cannot be read, or something cannot be written.
    """
    from profilemate.parse.findings import find
    from profilemate.parse.report import draw_all, write_page, write_report_pictures
    from profilemate.parse.saved import SavedSession

    session = SavedSession.open(session_path)
    written = []
    with show.progress(quiet) as progress:
        drawn = draw_all(session, progress)
        if out is not None:
            written.append(write_page(session, out, drawn, find(session)))
        if png is not None:
            written += write_report_pictures(drawn, png)
    return written


Page = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE.html",
        help="Write the report as one page that works offline.",
        show_default=False,
    ),
]
Pictures = Annotated[
    Path | None,
    typer.Option(
        "--png", metavar="DIR", help="Write each chart as a picture.", show_default=False
    ),
]
