"""`profilemate export`: a session in the format of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profilemate.cli import options, show
from profilemate.cli.examples import examples

EXAMPLES = examples(
    "profilemate export session --format openmetrics -o session.om",
    "profilemate export session -f prometheus | promtool check metrics",
)


def _complete(incomplete: str) -> list[tuple[str, str]]:
    from profilemate.insight.metrics.export import FORMATS

    return [(f.name, f.help) for f in FORMATS.values() if f.name.startswith(incomplete)]


def export(
    session: Annotated[
        Path,
        options.argument("SESSION", "A session directory, as `profilemate parse` writes it."),
    ],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            autocompletion=_complete,
            help="openmetrics: what Prometheus scrapes; prometheus: the older text format, of "
            "promtool and the node exporter.",
        ),
    ] = "openmetrics",
    out: Annotated[
        Path | None,
        options.output("FILE", "The file to write. [default: standard output]"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> None:
    """Write the figures of a session in the format of another tool.

    A metric that is not there was not recorded. The samples have no time, as the run is over:
    Prometheus takes the time of the scrape. Every one has the session's id as a label.
    """
    from profilemate.insight.metrics.export import export as export_

    text = export_(session, format_, out, force=force)
    if out is None:
        show.raw(text)
    else:
        show.line(f"wrote {out} ({len(text.splitlines())} lines)")
