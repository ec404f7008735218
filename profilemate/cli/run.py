"""`profilemate run`: record a command and parse what was recorded."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from profilemate.cli import ended, options, show
from profilemate.cli.examples import examples
from profilemate.errors import InputError, ProfilemateError, ToolError
from profilemate.printable import shell_word
from profilemate.record.plan import Plan, Recorder, choose, make_plan
from profilemate.record.start import run as start
from profilemate.record.start import settle
from profilemate.record.target import look

EXAMPLES = examples(
    "profilemate run -- vllm serve MODEL",
    "profilemate run --nsys --steps 201:50 -o run1 -- vllm serve MODEL",
    "profilemate run --live -- python offline.py",
)


Steps = Annotated[
    str | None,
    typer.Option(metavar="START:COUNT", help="Record these engine steps only.", show_default=False),
]
Out = Annotated[
    Path | None, options.output("DIR", "Folder for all of it. [default: profilemate_<now>]")
]
NsysPath = Annotated[
    Path | None,
    typer.Option(
        envvar="PROFILEMATE_NSYS",
        metavar="PROGRAM",
        help="The nsys to use. [default: the one on PATH]",
        show_default=False,
    ),
]


def run(
    command: Annotated[
        list[str], options.argument("COMMAND", "What to record, as you would type it.")
    ],
    nsys: Annotated[bool, typer.Option("--nsys", help="Record with Nsight Systems.")] = False,
    torch: Annotated[bool, typer.Option("--torch", help="Use vLLM's torch profiler.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Record with profilemate alone: no GPU times.")
    ] = False,
    steps: Steps = None,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="With nsys: every kernel of a CUDA graph.")
    ] = False,
    out: Out = None,
    parse: Annotated[bool, typer.Option(help="Parse at the end.")] = True,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Print the command; start nothing.")
    ] = False,
    nsys_path: NsysPath = None,
) -> None:
    """Record a run of vLLM and parse the recording.

    Puts the environment and the recorder's flags together, prints the command, runs it, and
    parses what it left into DIR/session. Ctrl-C ends vLLM in order; the recording is kept.
    """
    asked: list[Recorder] = []
    asked += ["nsys"] if nsys else []
    asked += ["torch"] if torch else []
    asked += ["live"] if live else []
    if len(asked) > 1:
        raise InputError(
            "Only one of --nsys, --torch, --live can record", hint="Leave the others out."
        )
    folder = out or Path(f"profilemate_{datetime.now():%Y%m%d_%H%M%S}")
    plan = _plan(command, asked[0] if asked else choose(nsys_path), folder, steps, nodes, nsys_path)
    for note in plan.notes:
        show.note(note)
    show.say(f"$ {plan.line()}")
    if dry:
        return
    code = start(plan, show.say)
    if parse:
        _parse(plan, code, nsys_path)
    raise typer.Exit(code)


def _plan(
    command: list[str],
    recorder: Recorder,
    folder: Path,
    steps: str | None,
    nodes: bool,
    nsys: Path | None,
) -> Plan:
    from profilemate.annotate.plugin import door

    return make_plan(
        look(command),
        recorder,
        folder,
        steps=steps,
        nodes=nodes,
        nsys=nsys,
        door=door(),
        pythonpath=os.environ.get("PYTHONPATH", ""),
    )


def _parse(plan: Plan, code: int, nsys: Path | None) -> None:
    from profilemate.parse.pipeline import parse_session

    settle(plan.session)
    found = [trace for trace in plan.traces if trace.exists()]
    if not found:
        why = f"The command ended with exit code {code}." if code else "It may have been killed."
        raise ToolError("The recorder left no recording", path=plan.folder, why=why)
    try:
        with ended.in_order(), show.progress(False) as progress:
            session = parse_session(found, plan.session, force=True, nsys=nsys, progress=progress)
    except ProfilemateError as e:
        if not e.commands:
            e.hint = f"{e.hint} The recording is kept:".lstrip()
            e.commands = (f"profilemate parse {shell_word(found[0])}",)
        raise
    show.session(session)
