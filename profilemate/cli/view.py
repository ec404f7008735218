"""`profilemate view`: a timeline in the browser."""

from __future__ import annotations

import os
import socket
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from profilemate.cli import ended, options, show
from profilemate.cli.examples import examples
from profilemate.printable import shell_word

EXAMPLES = examples(
    "profilemate view session",
    "profilemate view run.nsys-rep",
    "profilemate view session --report",
    "profilemate view session --no-browser --port 8090    # through a tunnel",
)


def view(
    what: Annotated[
        list[Path],
        options.argument(
            "SESSION|TRACE...|FILE.pftrace",
            "A session directory, recordings of one run, or a timeline.",
        ),
    ],
    report: Annotated[
        bool, typer.Option("--report", help="Open the session's report page instead.")
    ] = False,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, open nothing.")
    ] = False,
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            help="The port to serve on, for a tunnel: ssh -L PORT:127.0.0.1:PORT HOST. "
            "[default: any free one]",
            show_default=False,
        ),
    ] = 0,
    nsys: options.Nsys = None,
    no_cache: options.NoCache = False,
    max_memory: options.MaxMemory = None,
) -> None:
    """Open a timeline in the browser.

    With the extra `view` everything is on this machine and works offline: the Perfetto
    UI is served to this machine alone until its tab is closed, or until Ctrl-C. Without it the
    page is ui.perfetto.dev, which fetches the trace from here; nothing is uploaded. The address
    holds a secret: without it nobody else on this machine gets anything.
    """
    from profilemate.parse.columns.budget import memory_limit
    from profilemate.view.find import report_of, timeline_of
    from profilemate.view.server import Server
    from profilemate.view.site import shipped_ui, site_of

    if report:
        page = report_of(what).resolve().as_uri()
        _open(page, no_browser)
        return
    limit = memory_limit(max_memory)
    with (
        ended.in_order(),
        show.progress(quiet=False) as progress,
        timeline_of(
            what, nsys, progress, cached=not no_cache, note=show.note, limit=limit
        ) as trace,
    ):
        server = Server(site_of(trace, shipped_ui(), port))
        try:
            _open(server.url, no_browser)
            _say_how_to_reach(server.port)
            server.run()
        except KeyboardInterrupt:
            show.line()


def _say_how_to_reach(port: int) -> None:
    if os.environ.get("SSH_CONNECTION"):
        show.line("from another machine, and then open the address there:")
        show.line(f"  ssh -L {port}:127.0.0.1:{port} {shell_word(socket.gethostname())}")
    show.line("close the tab, or press Ctrl-C here, to end")


def _open(address: str, no_browser: bool) -> None:
    show.line(address)
    if not no_browser and not webbrowser.open(address):
        show.line("no browser could be opened here: open this address yourself")
