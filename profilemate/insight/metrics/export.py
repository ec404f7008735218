"""Formats that a written session can be turned into: one row each in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from profilemate.errors import InputError
from profilemate.insight.metrics import families
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.writers.one_file import write_file
from profilemate.parse.writers.openmetrics import openmetrics_text, prometheus_text


@dataclass(frozen=True, slots=True)
class Format:
    """A format: its name for `--format`, what it is, and the session as its text."""

    name: str
    help: str
    text: Callable[[SavedSession], str]


FORMATS = {
    row.name: row
    for row in (
        Format("openmetrics", "what Prometheus scrapes", lambda s: openmetrics_text(families(s))),
        Format(
            "prometheus",
            "the older text format, of promtool and the node exporter's textfile collector",
            lambda s: prometheus_text(families(s)),
        ),
    )
}


def export(session: Path, name: str, out: Path | None = None, *, force: bool = False) -> str:
    """Turn a session directory into a format of `FORMATS`, and write it to `out` if given.

    Raises:
        InputError: There is no session, or no such format.
        OutputError: `out` exists and `force` is not set, or it cannot be written.
        ToolError: A package that the format needs is not installed.
    """
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        raise InputError(
            f"There is no format {name!r}", hint=f"Name one of these: --format {known}"
        )
    text = FORMATS[name].text(SavedSession.open(session))
    if out is not None:
        write_file(out, text, force=force)
    return text
