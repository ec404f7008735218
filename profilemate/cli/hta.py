"""`profilemate hta`: Meta's HTA on the torch traces of a run, beside our figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from profilemate.cli import options, show
from profilemate.cli.examples import examples
from profilemate.cli.reading import decoded_traces, say_if_uncached

EXAMPLES = examples(
    "profilemate hta session",
    "profilemate hta worker.pt.trace.json.gz -o breakdown",
)


def hta(
    source: Annotated[
        Path,
        options.argument(
            "SESSION_OR_TRACE",
            "A session directory that was made of torch profiler traces, or such a trace.",
        ),
    ],
    out: Annotated[
        Path | None,
        options.output(
            "DIR", "Where to write hta_*.csv and hta_summary.json. [default: the session]"
        ),
    ] = None,
    force: Annotated[bool, options.force("Replace an older result in DIR.")] = False,
    no_cache: options.NoCache = False,
) -> None:
    """Break the time of a run down with HTA (Holistic Trace Analysis).

    Temporal, kernel, idle-time and launch breakdowns of the torch traces of a session. HTA knows no
    CUDA graph launches: what it leaves out is said, with our coverage beside its figures. Needs
    the extra `hta`.
    """
    from profilemate.errors import OutputError
    from profilemate.hta import run as hta_
    from profilemate.printable import shell_word

    if out is None:
        if not source.is_dir():
            raise OutputError(
                "there is no session to write to",
                path=source,
                why="this is a trace",
                hint="Name a directory:",
                command=f"profilemate hta {shell_word(source)} -o DIR",
            )
        out = source
    decoded = decoded_traces(no_cache)
    result = hta_.hta(source, out, force=force, decoded=decoded)
    say_if_uncached(decoded)
    show.sections(hta_.sections(result))
    show.line()
    show.line(f"wrote {out / hta_.SUMMARY} and hta_*.csv")
