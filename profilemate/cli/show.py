"""Words and tables on the terminal. Nothing else prints."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from profilemate.errors import ProfilemateError

if TYPE_CHECKING:
    from profilemate.cli.annotate_status import Status
    from profilemate.parse.pipeline import Session
    from profilemate.parse.session.timeline_file import Result
    from profilemate.parse.writers.perfetto import Count

SLOW_S = 1.0
"""Work that takes longer than this many seconds shows a progress bar."""


def out() -> Console:
    """The terminal or pipe that results go to."""
    # Made anew each time: tests and pipes replace sys.stdout.
    return Console(highlight=False, soft_wrap=True)


def _err() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def line(text: str) -> None:
    """Print a line as it is."""
    out().print(Text(text))


def say(text: str) -> None:
    """Print a line on stderr, which the output of a recorded command does not share."""
    _err().print(Text(text))


def raw(text: str) -> None:
    """Print a whole document, byte for byte."""
    sys.stdout.write(text)


def as_json(value: Mapping[str, Any]) -> None:
    """Print a JSON object, for machines: in ASCII, which every locale can write."""
    out().print(Text(json.dumps(value, indent=2)))


def fail(error: ProfilemateError) -> None:
    """Print what failed, where, why, and what to type next."""
    console = _err()
    head = error.what if error.path is None else f"{error.what}: {error.path}"
    console.print(f"[bold red]error:[/] {escape(head)}")
    for part in (error.why, error.hint):
        for text in wrapped(part, console.width - 2, whole_words=True) if part else ():
            console.print(f"  {escape(text)}")


@contextmanager
def progress(quiet: bool) -> Iterator[Any]:
    """A `parse.progress.Progress` that shows a bar on stderr once the work has taken a second."""
    console = _err()
    if quiet or not console.is_terminal:
        yield lambda what, done, total: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True)
    start, task = time.monotonic(), bar.add_task("", total=None)

    def tell(what: str, done: int, total: int | None) -> None:
        if not bar.live.is_started:
            if time.monotonic() - start < SLOW_S:
                return
            bar.start()
        bar.update(task, description=escape(what), completed=done, total=total)

    try:
        yield tell
    finally:
        bar.stop()


def facts(console: Console, rows: Sequence[tuple[str, str]], style: str = "dim") -> None:
    """Print names and values in two columns, wrapped; nothing is padded on the right."""
    indent = 2 + max(len(name) for name, _ in rows)
    for name, value in rows:
        first, *rest = wrapped(value, console.width - indent)
        console.print(Text.assemble((name.ljust(indent), style), first))
        for line_ in rest:
            console.print(Text(" " * indent + line_))


def sections(titled: list[tuple[str, list[tuple[str, str]]]]) -> None:
    """Titled lists of names and values, an empty line between two."""
    console = out()
    for i, (title, rows) in enumerate(titled):
        console.print(("\n" if i else "") + f"[bold]{escape(title)}[/]")
        facts(console, rows)


def wrapped(text: str, width: int, *, whole_words: bool = False) -> list[str]:
    """The text in lines; a word longer than a line is cut, or stays whole to be copied."""
    lines = textwrap.wrap(
        text, max(20, width), break_on_hyphens=False, break_long_words=not whole_words
    )
    return lines or [""]


def session(session: Session) -> None:
    """The short summary of a parsed session."""
    facts(out(), session.facts())
    line("")
    sections(session.sections())
    console = out()
    for warning in session.warnings:
        line("")
        facts(console, [("note:", warning)])
    line(f"\nwrote {session.path}")


def timeline(result: Result) -> None:
    """What went onto a timeline."""
    written = result.written
    rows = [
        (name, ", ".join(f"{n} {what}" for what, n in _events(count).items() if n))
        for name, count in written.tracks.items()
    ]
    facts(out(), rows)
    if outside := sum(result.outside.values()):
        line(f"\n{outside} events lie outside the window")
    for warning in result.warnings:
        line("")
        facts(out(), [("note:", warning)])
    line(f"\nwrote {written.path} ({written.size / 1e6:.1f} MB, {written.events} events)")


def _events(count: Count) -> dict[str, int]:
    return {
        "slices": count.slices_out,
        "instants": count.instants_out,
        "samples": count.samples_out,
    }


def annotation(status: Status) -> None:
    """What annotation would do here."""
    console = out()
    settings = status.settings
    answer = "yes" if settings.wanted else "no"
    rows = [("annotate", f"{answer}: {settings.reason}")]
    rows += [
        (name, f"{'open' if is_open else 'closed'}: {why}") for name, is_open, why in status.doors
    ]
    rows += [(name, version or "not installed here") for name, version in status.versions.items()]
    rows += [("sink", status.sink)] if status.sink else []
    rows += [("live session", status.session)] if status.session else []
    rows += [("complaint", text) for text in settings.complaints]
    facts(console, rows)
    if status.vllm is None:
        line("\nNo vLLM here: run this in vLLM's own environment to see its hooks.")
        return
    found = [h for h in status.hooks if h.state == "installed"]
    line(f"\n{len(found)} of {len(status.hooks)} hooks find their place in this vLLM.")
    if len(found) == len(status.hooks):
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("not installed", "because"):
        table.add_column(column, overflow="fold")
    for hook in status.hooks:
        if hook.state != "installed":
            table.add_row(hook.name, escape(hook.why))
    console.print(table)
