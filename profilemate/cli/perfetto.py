"""`profilemate perfetto`: the timeline of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profilemate.cli import options, show
from profilemate.cli.examples import examples
from profilemate.cli.reading import reading

EXAMPLES = examples(
    "profilemate perfetto run.nsys-rep -o run.pftrace",
    "profilemate perfetto run.nsys-rep -o cut.pftrace --kernels --window 12:15",
    "profilemate view run.pftrace",
)


def perfetto(
    traces: Annotated[
        list[Path],
        options.argument("TRACE...", "Recordings of one run, as for `profilemate parse`."),
    ],
    out: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The .pftrace file to write."),
    ] = Path("timeline.pftrace"),
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels",
            help="Show every GPU kernel, copy and set too. All of them are held in memory, those "
            "outside the window too, whatever --max-memory says.",
        ),
    ] = False,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="A:B",
            help="Only what lies between these seconds of the recording, or reaches into them.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, options.force("Replace FILE if it exists.")] = False,
    quiet: options.Quiet = False,
    nsys: options.Nsys = None,
    cache: options.CacheFolder = None,
    no_cache: options.NoCache = False,
    max_memory: options.MaxMemory = None,
) -> None:
    """Write the timeline of a run, for Perfetto.

    Scheduler and model steps, graph launches, what the GPU did, the KV cache and its evictions,
    with an arrow from each schedule call to its step and on to the GPU. Open it with
    `profilemate view`.
    """
    from profilemate.parse.pipeline import beside, read_trace
    from profilemate.parse.session import timeline_file

    shown = timeline_file.Options(kernels, timeline_file.window_of(window))
    timeline_file.check(out, force=force)
    with reading(nsys, cache, no_cache, max_memory, quiet=quiet) as how:
        trace = read_trace(traces, records=kernels, folder=beside(out), **how)
        result = timeline_file.write_timeline(
            trace, out, shown, force=force, progress=how["progress"]
        )
    if not quiet:
        show.timeline(result)
