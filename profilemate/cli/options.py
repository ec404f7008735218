"""Options that several commands share, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def output(metavar: str, help_: str) -> Any:
    """`-o`: what a command writes."""
    return typer.Option("--output", "-o", metavar=metavar, help=help_, show_default=False)


def force(help_: str) -> Any:
    """`-f`: replace what is there."""
    return typer.Option("--force", "-f", help=help_)


def json(what: str) -> Any:
    """`--json`: the answer for machines."""
    return typer.Option("--json", help=f"Print {what}, for machines.")


def argument(metavar: str, help_: str) -> Any:
    """An argument that has to be given."""
    return typer.Argument(metavar=metavar, help=help_, show_default=False)


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]

Nsys = Annotated[
    Path | None,
    typer.Option(
        envvar="PROFILEMATE_NSYS",
        help="The nsys that exports reports. [default: the one on PATH]",
        show_default=False,
    ),
]

CacheFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where exports of reports and decoded recordings are kept. [default: the user's "
        "cache folder]",
        show_default=False,
    ),
]

NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Decode anew, and keep nothing for the next time.")
]

Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        metavar="N",
        help="Recordings that are read at a time. [default: as many as cores and memory allow]",
        show_default=False,
    ),
]

MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory to take at most, 300M or more. Block operations and what is made of them then "
        "wait in temporary files, where TMPDIR says or beside the output; pages of these that the "
        "kernel may drop do not count. Steps, launches, names of requests and single messages stay "
        "in memory. Nothing is cached, and one recording is read at a time.",
        show_default=False,
    ),
]

Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Have the workers of a Dask cluster read, for instance tcp://10.0.0.1:8786.",
        show_default=False,
    ),
]
