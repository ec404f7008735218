"""`profilemate cache`: what is kept so that the next question is answered at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profilemate.cli import show
from profilemate.cli.examples import examples

EXAMPLES = examples(
    "profilemate cache                               # how much, and where",
    "profilemate cache clear",
    "PROFILEMATE_CACHE_MB=500 profilemate parse run.nsys-rep   # keep no more than this",
)

app = typer.Typer(
    help="Recordings that were decoded before, and exports of nsys reports: how much is kept, and "
    "where. Without a command this is shown and nothing is changed.",
    short_help="What is kept of recordings, and where.",
    invoke_without_command=True,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Folder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="The folder that --cache of other commands named. [default: the user's cache folder]",
        show_default=False,
    ),
]


@app.callback()
def cache(context: typer.Context, folder: Folder = None) -> None:
    """Show how much is kept."""
    if context.invoked_subcommand is None:
        from profilemate.parse.cache import limit
        from profilemate.parse.cache.files import NO_HOME, places

        found = places(folder)
        if not found:
            show.note(NO_HOME)
        for place in found:
            most = f", at most {limit() / 1e6:g} MB" if place.bounded else ""
            show.line(f"{place.what}: {_amount(len(place.files), place.size)}{most}")
            show.line(f"  {place.folder}")


@app.command(epilog=examples("profilemate cache clear"))
def clear(folder: Folder = None) -> None:
    """Remove all of it. It is made again when it is needed."""
    from profilemate.parse.cache.files import NO_HOME, places, remove, sweep

    found = places(folder)
    if not found:
        show.note(NO_HOME)
    for place in found:
        freed = [remove(path) for path, _, _ in place.files]
        sweep(place.folder)
        show.line(f"removed {_amount(len(freed), sum(freed))} of {place.what}")


def _amount(files: int, size: int) -> str:
    return f"{files} file{'' if files == 1 else 's'}, {size / 1e6:.1f} MB"
