"""`profilemate scrub`: a recording to share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from profilemate.cli import options, show
from profilemate.cli.examples import examples

EXAMPLES = examples("profilemate scrub run.nsys-rep shareable.sqlite")


def scrub(
    source: Annotated[Path, options.argument("TRACE", "A .nsys-rep report or its .sqlite export.")],
    target: Annotated[Path, options.argument("OUT.sqlite", "The copy to write.")],
    force: Annotated[bool, options.force("Replace OUT if it exists.")] = False,
    nsys: options.Nsys = None,
) -> None:
    """Copy a recording without what it says of your machine, to share it.

    Nsight Systems writes the environment, command lines, paths and host names into every report.
    The copy keeps what the tables are made of and nothing else.
    """
    from profilemate.scrub.scrub import scrub as scrub_

    scrub_(source, target, force=force, nsys=nsys)
    show.line(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")
