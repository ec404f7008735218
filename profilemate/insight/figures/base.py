"""What a figure is: a name, a unit, a definition, and the function that a session is given to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from profilemate.insight.reading import Floats, NoData
from profilemate.parse.session.saved import SavedSession
from profilemate.parse.tables import TABLES
from profilemate.parse.tables.invariants import doubted_tables

Better = Literal["lower", "higher", ""]


@dataclass(frozen=True, slots=True)
class Value:
    """A figure of a session; None where the session cannot tell, and then `why` says so.

    Attributes:
        doubts: What cannot be in the tables that it was made of, a sentence each.
    """

    value: float | None
    why: str = ""
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a session: this is its only definition.

    Attributes:
        name: Its name, as --fail-on has it.
        title: As a table has it.
        unit: `ms`, `%` (0 to 100), `/s`, `s`, or empty for a count.
        doc: What it is, in one sentence.
        of: The figure, in its unit; raises NoData where the session cannot tell.
        better: Which way is better, empty where neither is.
        reads: Tables whose facts it has from metadata.json instead of from their rows.
    """

    name: str
    title: str
    unit: str
    doc: str
    of: Callable[[SavedSession], float]
    better: Better = ""
    reads: tuple[str, ...] = ()

    def value(self, session: SavedSession) -> Value:
        """The figure of a session, or the reason why it has none.

        Raises:
            InputError: A table of the session cannot be read.
        """
        asked = set(self.reads)
        try:
            value, why = self.of(session.noting(asked)), ""
        except NoData as reason:
            value, why = None, str(reason)
        session.note(asked)
        if unseen := missed(session, asked):
            value, why = None, unseen
        return Value(value, why, doubts_on(session, asked))


def missed(session: SavedSession, tables: Iterable[str]) -> str:
    """Why events that these tables are made of may be missing, or nothing.

    A hook that failed, that was off or that found no place makes unknown what it feeds, in the
    processes of the rank whose tables these are; a number of the others would pass for all.
    """
    said, rank = session.metadata, rank_name(session)
    kinds = {kind for table in tables for kind in TABLES[table].events}
    pids = {process.pid for process in said.processes if process.rank == rank}
    for one in said.unseen:
        if one.kind in kinds and (one.pid in pids or one.pid is None):
            return f"{one.kind} events of process {one.pid} may be missing: {one.why}"
    return ""


def doubts_on(session: SavedSession, tables: Iterable[str]) -> tuple[str, ...]:
    """What cannot be in any of these tables, in the words of the warnings."""
    asked = frozenset(tables)
    warnings = session.metadata.warnings
    return tuple(w.text for w in warnings if asked & doubted_tables([w.id]))


def spell(value: float | None, unit: str) -> str:
    """A figure in the digits of its unit, `-` where it is not known."""
    if value is None:
        return "-"
    digits = {"ms": 3, "%": 2, "/s": 1, "s": 3}.get(unit, 0)
    return f"{value:,.{digits}f}"


def ranked(values: Floats, percent: int) -> float | None:
    """The percentile by nearest rank, as the tables have it; None of no values."""
    if not len(values):
        return None
    return float(np.sort(values)[max(-(-len(values) * percent // 100), 1) - 1])


def rank_name(session: SavedSession) -> str:
    """Name of the rank whose tables these are: that of its folder, or of the lead rank."""
    if session.path.parent.name == "ranks":
        return session.path.name
    names = (process.rank for process in session.metadata.processes if process.rank)
    further = session.ranks()
    return next((name for name in names if name not in further), "process_1")


def watched(session: SavedSession, role: str, *hooks: str) -> bool:
    """Whether no event means that there was none: a hook is in, in a process of that role."""
    said, rank = session.metadata, rank_name(session)
    roles = [process.role or "" for process in said.processes if process.rank == rank]
    return any(h in said.hooks.installed for h in hooks) and any(role in words for words in roles)


def counted(number: float, session: SavedSession, role: str, *hooks: str) -> float:
    """A number of events, of which 0 is one only where a hook was there to see them.

    Raises:
        NoData: It is 0, and nobody watched.
    """
    if not number and not watched(session, role, *hooks):
        raise NoData(_unwatched(session, role, hooks))
    return float(number)


def _unwatched(session: SavedSession, role: str, hooks: tuple[str, ...]) -> str:
    """Why nobody watched."""
    if not session.metadata.events:
        return "the recording holds no profilemate events"
    skipped = session.metadata.hooks.skipped
    reasons = [f"the hook {hook} was skipped: {skipped[hook]}" for hook in hooks if hook in skipped]
    return next(iter(reasons), f"no {role} was recorded with the hook {hooks[0]} installed")
