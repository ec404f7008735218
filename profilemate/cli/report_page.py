"""What `profilemate report` writes: the page and its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from profilemate.insight.findings import Verdict
    from profilemate.parse.recording.progress import Progress
    from profilemate.parse.session.saved import SavedSession

Page = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE.html",
        help="Write the report as one page, with charts and tables.",
        show_default=False,
    ),
]
Pictures = Annotated[
    Path | None,
    typer.Option(
        "--png",
        metavar="DIR",
        help="Write each chart as a picture, for papers.",
        show_default=False,
    ),
]


def pages(
    session: SavedSession,
    verdict: Verdict,
    page: Path | None,
    png: Path | None,
    progress: Progress,
) -> list[Path]:
    """Write what is asked for; returns what was written.

    Raises:
        ProfilemateError: A table cannot be read, or something cannot be written.
    """
    if page is None and png is None:
        return []
    from profilemate.insight.report import draw_all, write_page, write_pictures

    drawn = draw_all(session, progress)
    written = [] if page is None else [write_page(session, page, drawn, verdict)]
    return written if png is None else [*written, *write_pictures(drawn, png)]
