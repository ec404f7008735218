"""`profilemate perfetto`: the timeline of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profilemate.cli import ended, show
from profilemate.cli import options as shared
from profilemate.cli.cached import decoded_traces, say_note
from profilemate.cli.examples import examples

EXAMPLES = examples(
    "profilemate perfetto run.nsys-rep -o run.pftrace",
    "profilemate perfetto run.nsys-rep -o cut.pftrace --kernels --window 12:15",
    "profilemate view run.pftrace",
)


def perfetto(
    traces: Annotated[
        list[Path],
        shared.argument("TRACE...", "Recordings of one run, as for `profilemate parse`."),
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
    force: Annotated[bool, shared.force("Replace FILE if it exists.")] = False,
    quiet: shared.Quiet = False,
    nsys: shared.Nsys = None,
    cache: shared.CacheFolder = None,
    no_cache: shared.NoCache = False,
    max_memory: shared.MaxMemory = None,
) -> None:
    """Write the timeline of a run, for Perfetto.

    Scheduler and model steps, graph launches, what the GPU did, the KV cache and its evictions,
    with an arrow from each schedule call to its step and on to the GPU. Open it with
    `profilemate view`.
    """
    from profilemate.parse.budget import memory_limit
    from profilemate.parse.project import beside, read_trace
    from profilemate.parse.timeline import file

    options = file.Options(kernels, file.window_of(window))
    file.check(out, force=force)
    decoded, limit = decoded_traces(no_cache, cache), memory_limit(max_memory)
    with ended.in_order(), show.progress(quiet) as progress:
        trace = read_trace(
            traces,
            nsys=nsys,
            cache_dir=cache,
            decoded=decoded,
            progress=progress,
            records=kernels,
            limit=limit,
            folder=beside(out),
        )
        result = file.write_timeline(trace, out, options, force=force, progress=progress)
    if not quiet:
        say_note(decoded)
        show.timeline(result)
