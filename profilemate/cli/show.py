"""Words and tables on the terminal. Nothing else prints.

Whatever is printed goes through `text`, `wrapped` or `line`, and so through `printable`: it may
come from a recording, and a recording from anybody. Rich's own markup is never used.
"""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from profilemate.errors import ProfilemateError
from profilemate.printable import printable, printable_lines

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


def text(value: str, style: str = "") -> Text:
    """One line of text that prints as it stands: no markup, and nothing that a terminal obeys."""
    return Text(printable(value), style)


def row_of(*cells: str | Text) -> list[Text]:
    """Cells of a table; texts as they stand."""
    return [text(cell) if isinstance(cell, str) else cell for cell in cells]


def line(value: str = "", style: str = "") -> None:
    """Print a line."""
    out().print(text(value, style))


def heading(title: str, *, first: bool = False) -> None:
    """Print a title, an empty line above it unless it is the first thing."""
    if not first:
        line()
    line(title, "bold")


def say(value: str) -> None:
    """Print a line on stderr, which the output of a recorded command does not share."""
    _err().print(text(value))


def note(value: str) -> None:
    """Print on stderr what whoever typed the command should know."""
    say(f"note: {value}")


def raw(document: str) -> None:
    """Print a whole document: byte for byte, except where a terminal would obey it."""
    sys.stdout.write(printable_lines(document) if sys.stdout.isatty() else document)


def as_json(value: Mapping[str, Any]) -> None:
    """Print a JSON object, for machines: in ASCII, which every locale can write."""
    spelled = json.dumps(value, indent=2).replace("\x7f", "\\u007f")  # DEL is ASCII, too
    out().print(Text(spelled))


def fail(error: ProfilemateError) -> None:
    """Print what failed, where, why, and what to type next: that on lines of its own, uncut."""
    console = _err()
    console.print(Text.assemble(("error:", "bold red"), " ", text(error.headline)))
    for part in error.reasons:
        for words in wrapped(part, console.width - 2, whole_words=True):
            console.print(text(f"  {words}"))
    for command in error.to_type:
        console.print(text(f"  {command}"))


@contextmanager
def progress(quiet: bool) -> Iterator[Any]:
    """A `parse.progress.Progress` that shows a bar on stderr once the work has taken a second."""
    console = _err()
    if quiet or not console.is_terminal:
        yield lambda what, done, total: None
        return
    what_ = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), what_, BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True)
    start, task = time.monotonic(), bar.add_task("", total=None)

    def tell(what: str, done: int, total: int | None) -> None:
        if not bar.live.is_started:
            if time.monotonic() - start < SLOW_S:
                return
            bar.start()
        bar.update(task, description=printable(what), completed=done, total=total)

    try:
        yield tell
    finally:
        bar.stop()


def facts(console: Console, rows: Sequence[tuple[str, str]], style: str = "dim") -> None:
    """Print names and values in two columns, wrapped; nothing is padded on the right."""
    indent = 2 + max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        first, *rest = wrapped(value, console.width - indent)
        console.print(Text.assemble(text(name.ljust(indent), style), text(first)))
        for words in rest:
            console.print(text(" " * indent + words))


def sections(titled: list[tuple[str, list[tuple[str, str]]]]) -> None:
    """Titled lists of names and values, an empty line between two."""
    console = out()
    for i, (title, rows) in enumerate(titled):
        heading(title, first=not i)
        facts(console, rows)


def wrapped(value: str, width: int, *, whole_words: bool = False) -> list[str]:
    """The text in printable lines; a word longer than a line is cut, or stays whole."""
    lines = textwrap.wrap(
        printable(value), max(20, width), break_on_hyphens=False, break_long_words=not whole_words
    )
    return lines or [""]


def session(session: Session) -> None:
    """The short summary of a parsed session."""
    facts(out(), session.facts())
    line()
    sections(session.sections())
    console = out()
    for warning in session.warnings:
        line()
        facts(console, [("note:", warning)])
    line()
    line(f"wrote {session.path}")


def timeline(result: Result) -> None:
    """What went onto a timeline."""
    written = result.written
    rows = [
        (name, ", ".join(f"{n} {what}" for what, n in _events(count).items() if n))
        for name, count in written.tracks.items()
    ]
    if rows:
        facts(out(), rows)
        line()
    if outside := sum(result.outside.values()):
        line(f"{outside} events lie outside the window")
        line()
    for warning in result.warnings:
        facts(out(), [("note:", warning)])
        line()
    line(f"wrote {written.path} ({written.size / 1e6:.1f} MB, {written.events} events)")


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
    rows += [("complaint", complaint) for complaint in settings.complaints]
    facts(console, rows)
    if status.vllm is None:
        line()
        line("No vLLM here: run this in vLLM's own environment to see its hooks.")
        return
    found = [h for h in status.hooks if h.state == "installed"]
    line()
    line(f"{len(found)} of {len(status.hooks)} hooks find their place in this vLLM.")
    if len(found) == len(status.hooks):
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("not installed", "because"):
        table.add_column(column, overflow="fold")
    for hook in status.hooks:
        if hook.state != "installed":
            table.add_row(*row_of(hook.name, hook.why))
    console.print(table)
