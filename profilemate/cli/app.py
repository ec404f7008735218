"""The commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import profilemate
from profilemate.cli import cache as cache_
from profilemate.cli import compare, export, hta, perfetto, report, scrub, show, view
from profilemate.cli import parse as parse_
from profilemate.cli import run as run_
from profilemate.cli.examples import examples
from profilemate.printable import printable

HELP = """What vLLM's CUDA graphs and KV cache really did.

\b
1. Record, with profilemate installed beside vLLM (it annotates by itself):
     nsys profile -t nvtx,cuda --trace-fork-before-exec=true -o run \\
         vllm serve ...
2. Parse, anywhere:
     profilemate parse run.nsys-rep -o session
3. Look at it: what it means, and what changed since the last one:
     profilemate report session
     profilemate compare before after
"""


# typer brought a click of its own from some version on: this is the class of whichever it has.
_UsageError: Any = typer.BadParameter.__mro__[1]


@contextmanager
def _usage_printable() -> Iterator[None]:
    """What was typed is quoted where it was wrong: a shell's `*` types names of files."""
    try:
        yield
    except _UsageError as error:
        error.message = printable(error.message)
        raise


class _Commands(TyperGroup):
    """All commands: words of the command line are outside text, too."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _usage_printable():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _usage_printable():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
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


def _version(value: bool) -> None:
    if value:
        from profilemate.parse.readers.kineto import native

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
    (parse_.parse, parse_.EXAMPLES, None),
    (scrub.scrub, scrub.EXAMPLES, "Copy a recording without what identifies you."),
    (run_.run, run_.EXAMPLES, None),
    (report.report, report.EXAMPLES, "Say what a session means."),
    (view.view, view.EXAMPLES, None),
    (perfetto.perfetto, perfetto.EXAMPLES, None),
    (compare.compare, compare.EXAMPLES, "Compare two sessions."),
    (export.export, export.EXAMPLES, None),
    (hta.hta, hta.EXAMPLES, None),
):
    app.command(no_args_is_help=True, epilog=_epilog, short_help=_short)(_command)
