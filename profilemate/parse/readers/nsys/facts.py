"""What an nsys export says about itself, whatever it is stored in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from profilemate import schema
from profilemate.errors import InputError
from profilemate.parse.readers.nsys.layout import (
    EXPORT_FACTS,
    SEVERITIES,
    Found,
    Role,
    Tables,
    by_role,
    locate,
)
from profilemate.parse.recording.contract import Silence, SourceInfo, SourceKind

RECORD_HINT = (
    "Install it where vLLM runs (`pip install .` in its clone), record with PROFILEMATE=on under "
    "`nsys profile -t nvtx,cuda`, and look at `profilemate annotate status` there."
)
MAX_DIAGNOSTICS = 5


class Store(Protocol):
    """The tables of an export, in whatever kind of file."""

    def tables(self) -> Tables:
        """Its tables and their columns."""

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The rows of a small table."""

    def extent(self, table: str, first: str, last: str) -> tuple[int, int] | None:
        """Smallest and largest time stamp in two columns, None for an empty table."""


@dataclass(slots=True)
class Facts:
    """What is needed to read the messages of an export.

    Attributes:
        info: What to tell others.
        found: The tables it has.
        shift: Added to every time stamp by the export, in ns.
        open_end: The end (ns, as stored) that nsys gives to ranges it saw no end of, if known.
    """

    info: SourceInfo
    found: list[Found] = field(default_factory=list)
    shift: int = 0
    open_end: int | None = None

    def table(self, role: Role) -> Found | None:
        """The table of a role, None where the export lacks it."""
        return by_role(self.found, role)


def _number(text: object) -> int | None:
    try:
        return int(str(text))
    except ValueError:
        return None


def _named(store: Store, table: Found | None, wanted: dict[str, str]) -> dict[str, str]:
    if table is None or table.missing:
        return {}
    names = {theirs: ours for ours, theirs in wanted.items()}
    rows = store.rows(table.table, [table.columns["name"], table.columns["value"]])
    return {names[name]: str(value) for name, value in rows if name in names}


def _first(store: Store, table: Found | None, column: str) -> int | None:
    if table is None or column not in table.columns:
        return None
    for (value,) in store.rows(table.table, [table.columns[column]]):
        if (number := _number(value)) is not None:
            return number
    return None


def _recorder(export: dict[str, str]) -> str | None:
    # An export names the nsys that made it, which may be newer than the one that recorded.
    if "version" not in export:
        return None
    product = export.get("product", "Nsight Systems").removeprefix("NVIDIA ")
    layout = f", schema {export['schema']}" if "schema" in export else ""
    return f"{product} (exported by {export['version']}{layout})"


def _window(store: Store, found: Sequence[Found], shift: int) -> tuple[int, int] | None:
    extents = [
        extent
        for f in found
        if f.spec.times and f.spec.times[0] in f.columns
        for times in [[f.columns[t] for t in f.spec.times if t in f.columns]]
        if (extent := store.extent(f.table, times[0], times[-1])) is not None
    ]
    if not extents:
        return None
    return min(first for first, _ in extents) - shift, max(last for _, last in extents) - shift


def _stored_window(text: str | None) -> tuple[int, int] | None:
    first, _, last = (text or "").partition("..")
    bounds = _number(first), _number(last)
    return None if bounds[0] is None or bounds[1] is None else (bounds[0], bounds[1])


def _diagnostics(store: Store, table: Found | None) -> list[str]:
    if table is None or not {"severity", "text"} <= set(table.columns):
        return []
    rows = store.rows(table.table, [table.columns["severity"], table.columns["text"]])
    told = [f"nsys {SEVERITIES[level]}: {text}" for level, text in rows if level in SEVERITIES]
    more = len(told) - MAX_DIAGNOSTICS
    rest = [f"nsys had {more} more warnings or errors."] if more > 0 else []
    return told[:MAX_DIAGNOSTICS] + rest


def read_facts(store: Store, path: Path, kind: SourceKind, size: int) -> Facts | None:
    """Read everything but the messages; None if the store holds no nsys export at all.

    Args:
        store: The export.
        path: Where it is.
        kind: What it is called in a sentence.
        size: Its bytes.

    Raises:
        InputError: The events are there but in a layout that we do not know.
    """
    found = locate(store.tables())
    if not found:
        return None
    info = SourceInfo(path, kind, size)
    facts = Facts(info, found)
    export = _named(store, facts.table("export"), EXPORT_FACTS)
    info.recorder = _recorder(export)
    info.start_unix_ns = _first(store, facts.table("session"), "utcEpochNs")
    facts.shift = _number(export.get("shift")) or 0
    duration = _first(store, facts.table("details"), "duration")
    facts.open_end = None if duration is None else duration + facts.shift
    info.window = _stored_window(export.get("window"))
    if info.window is None:
        info.window = _window(store, found, facts.shift)
    if "scrubbed" in export:
        info.notes.append(f"Scrubbed by profilemate {export['scrubbed']}.")
    info.notes += _diagnostics(store, facts.table("diagnostics"))
    events = facts.table("events")
    if events is not None and events.missing:
        raise InputError(
            f"Cannot read the events: table {events.table} has no {', '.join(events.missing)}",
            path=path,
            why=f"Its layout is not known to profilemate. Written by: {info.recorder}.",
            hint="Look for a newer profilemate, or report this line as an issue.",
        )
    return facts


def note_absence(facts: Facts, count: int) -> None:
    """After the last message: say why there are none, and what to do about it."""
    if count:
        return
    if facts.table("events") is None:
        facts.info.notes.append(
            "No NVTX events at all: was it recorded with `nsys profile -t nvtx`, and were "
            "the tables NVTX_EVENTS and StringIds exported?"
        )
    else:
        strings = facts.table("strings")
        where = ""
        if strings is None:
            where = " It has no table StringIds, where older nsys put the messages."
        elif strings.missing:
            lacks = " and ".join(strings.missing)
            where = f" Its table StringIds, where older nsys put the messages, has no {lacks}."
        facts.info.notes.append(
            Silence(
                f"No messages of profilemate ({schema.PREFIX}*) in this recording.{where} "
                f"{RECORD_HINT}"
            )
        )
