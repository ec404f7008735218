"""The commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import profilemate
from profilemate.cli import cache as cache_
from profilemate.cli import compare, export, hta, perfetto, report, show, view
from profilemate.cli import run as run_
from profilemate.cli.cached import NoCache, decoded_traces, say_note
from profilemate.cli.examples import examples
from profilemate.parse.readers.kineto import native

HELP = """What vLLM's CUDA graphs and KV cache really did.

\b
1. Record, with profilemate installed beside vLLM (it annotates by itself):
     nsys profile -t nvtx,cuda -o run vllm serve ...
2. Parse, anywhere:
     profilemate parse run.nsys-rep -o session
3. Look at it: what it means, and what changed since the last one:
     profilemate report session
     profilemate compare before after
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
annotate_app = typer.Typer(
    help="What runs inside vLLM: whether it would, and where its files are.",
    short_help="What runs inside vLLM, and whether it would.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(annotate_app, name="annotate")
app.add_typer(cache_.app, name="cache")

Nsys = Annotated[
    Path | None,
    typer.Option(
        envvar="PROFILEMATE_NSYS",
        help="The nsys that exports reports. [default: the one on PATH]",
        show_default=False,
    ),
]


def _version(value: bool) -> None:
    if value:
        show.line(f"profilemate {profilemate.__version__}")
        show.line(f"scanner of torch traces: {native.description()}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Show the version and the scanner in use.",
        ),
    ] = False,
) -> None:
    """Options of the command as a whole."""


@app.command(
    no_args_is_help=True,
    epilog=examples(
        "profilemate parse run.nsys-rep -o session",
        "profilemate parse run.sqlite --json | jq .kv_cache",
        "profilemate parse /tmp/vllm_profiling/session_20260124_123456",
        "profilemate parse rank*.nsys-rep -o session --jobs 8",
    ),
)
def parse(
    traces: Annotated[
        list[Path],
        typer.Argument(
            metavar="TRACE...",
            help="Recordings of one run: .nsys-rep, its .sqlite or parquetdir export, "
            "or a directory of them, a live session for instance.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="The session directory to write. [default: session_<start of the recording>; a "
            "live session is updated where it is]",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace the session that DIR holds.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, for machines.")
    ] = False,
    timeline: Annotated[
        bool,
        typer.Option("--timeline", help="Write timeline.pftrace too, for `profilemate view DIR`."),
    ] = False,
    nsys: Nsys = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where exports of reports and decoded recordings are kept. [default: the user's "
            "cache folder]",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            min=1,
            metavar="N",
            help="Recordings that are read at a time. [default: as many as cores and memory allow]",
            show_default=False,
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Have the workers of a Dask cluster read, for instance tcp://10.0.0.1:8786.",
            show_default=False,
        ),
    ] = None,
    no_cache: NoCache = False,
) -> None:
    """Rebuild the tables of a run from its recording.

    Writes one session directory: CSV files, a summary and metadata.json.
    """
    # Imported here: `--help` and `annotate path` need no pandas.
    from profilemate.parse.project import parse_session

    decoded = decoded_traces(no_cache, cache)
    with show.progress(quiet or as_json) as progress:
        session = parse_session(
            traces,
            out,
            force=force,
            timeline=timeline,
            nsys=nsys,
            cache_dir=cache,
            decoded=decoded,
            progress=progress,
            jobs=jobs,
            scheduler=scheduler,
        )
    if not quiet:
        say_note(decoded)
    if as_json:
        show.as_json(session.summary)
    elif not quiet:
        show.session(session)


@app.command(
    no_args_is_help=True,
    epilog=examples("profilemate scrub run.nsys-rep shareable.sqlite"),
    short_help="Copy a recording without what identifies you.",
)
def scrub(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="TRACE", help="A .nsys-rep report or its .sqlite export.", show_default=False
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUT.sqlite", help="The copy to write.", show_default=False),
    ],
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace OUT if it exists.")] = False,
    nsys: Nsys = None,
) -> None:
    """Copy a recording without what it says of your machine, to share it.

    Nsight Systems writes the environment, command lines, paths and host names into every report.
    The copy keeps what the tables are made of and nothing else.
    """
    from profilemate.parse.scrub import scrub as scrub_

    scrub_(source, target, force=force, nsys=nsys)
    show.line(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")


@annotate_app.command(
    epilog=examples("profilemate annotate status", "nsys profile profilemate annotate status")
)
def status() -> None:
    """Show whether and how vLLM would be annotated from this environment.

    Run it with the environment variables and the Python environment that vLLM will have.
    Nothing of vLLM is imported.
    """
    import os

    from profilemate.cli import annotate_status

    show.annotation(annotate_status.collect(os.environ))


@annotate_app.command(
    epilog=examples('export PYTHONPATH="$(profilemate annotate path):$PYTHONPATH"')
)
def path() -> None:
    """Print the folder to put on PYTHONPATH where profilemate is not installed beside vLLM."""
    from profilemate.annotate.plugin import door

    show.line(str(door()))


for _command, _epilog, _short in (
    (run_.run, run_.EXAMPLES, None),
    (report.report, report.EXAMPLES, "Say what a session means."),
    (view.view, view.EXAMPLES, None),
    (perfetto.perfetto, perfetto.EXAMPLES, None),
    (compare.compare, compare.EXAMPLES, "Compare two sessions."),
    (export.export, export.EXAMPLES, None),
    (hta.hta, hta.EXAMPLES, None),
):
    app.command(no_args_is_help=True, epilog=_epilog, short_help=_short)(_command)
