"""`profilemate report`: what a session means, in the terminal."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from profilemate.cli import options, show
from profilemate.cli.examples import examples
from profilemate.cli.report_page import Page, Pictures, pages

EXAMPLES = examples(
    "profilemate report session",
    "profilemate report session -o report.html       # one page, works offline",
    "profilemate report session --png pictures",
    "profilemate report session --fail-on warning    # exit code 1, for CI",
    "profilemate report session --threshold kv_usage_low=0.3",
    "profilemate report session --json | jq '.findings[].title'",
    "profilemate report --thresholds                 # their names and defaults",
)


class FailOn(StrEnum):
    """Severities that CI may fail on."""

    warning = "warning"
    critical = "critical"


def _list_thresholds(value: bool) -> None:
    if value:
        from profilemate.cli.show_report import thresholds

        thresholds()
        raise typer.Exit


Severity = Annotated[
    FailOn | None,
    typer.Option(
        "--fail-on",
        metavar="warning|critical",
        help="Exit with 1 on a finding that is as bad as this, or worse.",
    ),
]
Threshold = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=N",
        help="Set a threshold; or name a TOML file of such lines. May be repeated.",
    ),
]


def report(
    session: Annotated[
        Path, options.argument("SESSION", "A session directory of profilemate parse.")
    ],
    fail_on: Severity = None,
    threshold: Threshold = None,
    details: Annotated[
        bool, typer.Option("--all", "-a", help="Give the evidence of what is good, too.")
    ] = False,
    as_json: Annotated[bool, options.json("findings.json")] = False,
    page: Page = None,
    png: Pictures = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write findings.json into the session.")
    ] = False,
    thresholds: Annotated[
        bool,
        typer.Option(
            "--thresholds", callback=_list_thresholds, is_eager=True, help="List all thresholds."
        ),
    ] = False,
) -> None:
    """Say what a session means: figures, findings, and the flags to turn.

    A finding is critical, a warning, a note, or ok. What the recording cannot
    tell is not judged, and the reason is given. With -o the same goes into one
    page with charts and tables; that and --png need the extra `report`.
    """
    from profilemate.cli.show_report import verdict as show_verdict
    from profilemate.insight.findings import Thresholds, find
    from profilemate.insight.findings import as_json as findings_json
    from profilemate.insight.headline import headline
    from profilemate.parse.session.saved import SavedSession
    from profilemate.parse.writers.one_file import write_file

    limits = Thresholds.parse(threshold or ())
    saved = SavedSession.open(session)
    with show.progress(as_json) as progress:
        progress(f"reading {session.name}", 0, None)
        verdict = find(saved, limits)
        written = pages(saved, verdict, page, png, progress)
    if write:
        text = json.dumps(findings_json(verdict), indent=2) + "\n"
        hint = "print them instead, and write them where you may: --json > findings.json"
        write_file(session / "findings.json", text, force=True, what="findings", hint=hint)
    if as_json:
        show.as_json(findings_json(verdict))
    else:
        show_verdict(saved, headline(saved), verdict, details=details)
        for path in written:
            show.line(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if fail_on is not None and verdict.at_least(fail_on.value):
        raise typer.Exit(1)
