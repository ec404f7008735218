"""`profilemate parse`: the tables of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profilemate.cli import options, show
from profilemate.cli.examples import examples
from profilemate.cli.reading import reading

EXAMPLES = examples(
    "profilemate parse run.nsys-rep -o session",
    "profilemate parse run.sqlite --json | jq .kv_cache",
    "profilemate parse /tmp/vllm_profiling/session_20260124_123456",
    "profilemate parse rank*.nsys-rep -o session --jobs 8",
)

Traces = Annotated[
    list[Path],
    options.argument(
        "TRACE...",
        "Recordings of one run: .nsys-rep, its .sqlite or parquetdir export, torch profiler traces "
        "(.json, .gz, .zst), or a directory of them, a live session for instance.",
    ),
]
Out = Annotated[
    Path | None,
    options.output(
        "DIR",
        "The session directory to write. [default: session_<start of the recording>; a "
        "live session is updated where it is]",
    ),
]
Timeline = Annotated[
    bool,
    typer.Option("--timeline", help="Write timeline.pftrace too, for `profilemate view DIR`."),
]
SafeCsv = Annotated[
    bool,
    typer.Option(
        "--safe-csv",
        help="Write an apostrophe before texts that a spreadsheet would run as a formula.",
    ),
]


def parse(
    traces: Traces,
    out: Out = None,
    force: Annotated[bool, options.force("Replace the session that DIR holds.")] = False,
    quiet: options.Quiet = False,
    as_json: Annotated[bool, options.json("the summary as JSON")] = False,
    timeline: Timeline = False,
    safe_csv: SafeCsv = False,
    nsys: options.Nsys = None,
    cache: options.CacheFolder = None,
    jobs: options.Jobs = None,
    scheduler: options.Scheduler = None,
    max_memory: options.MaxMemory = None,
    no_cache: options.NoCache = False,
) -> None:
    """Rebuild the tables of a run from its recording.

    Writes one session directory: CSV files, a summary and metadata.json.
    """
    # Imported here: `--help` and `annotate path` need no pandas.
    from profilemate.parse.pipeline import parse_session

    asked = reading(
        nsys, cache, no_cache, max_memory, jobs, scheduler, quiet=quiet, bar=not as_json
    )
    with asked as how:
        session = parse_session(
            traces, out, force=force, timeline=timeline, safe_csv=safe_csv, **how
        )
    if as_json:
        show.as_json(session.summary)
    elif not quiet:
        show.session(session)
