"""The page of two sessions side by side: `profilemate compare A B -o FILE`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from profilemate.errors import InputError
from profilemate.insight.compare import Comparison, Condition, MetricRow, spelled
from profilemate.insight.figures.base import spell
from profilemate.insight.reading import window
from profilemate.insight.report import shell
from profilemate.insight.report.compare_chart import draw
from profilemate.parse.session.saved import SavedSession

_OWN = ("directory", "session", "started", "length")
"""Facts that differ between any two sessions; a length that matters is a caveat."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a session says of itself, beside the other's."""

    name: str
    a: str
    b: str

    @property
    def differs(self) -> bool:
        """Whether the two are not the same, and could be."""
        return self.a != self.b and self.name not in _OWN


@dataclass(frozen=True, slots=True)
class Line:
    """A figure as the page has it."""

    title: str
    a: str
    b: str
    change: str
    tone: spelled.Tone
    name: str
    doc: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A condition and what became of it: `fails`, `passes`, `not judged`."""

    text: str
    word: str
    line: Line | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline figure of the comparison."""

    label: str
    figure: str
    detail: str


def write_comparison(found: Comparison, conditions: Sequence[Condition], out: Path) -> Path:
    """Write the page; an old one is replaced whole or not at all.

    Raises:
        OutputError: It cannot be written.
        ToolError: The extra `report` is not installed.
    """
    return shell.write(comparison_page(found, conditions, out.parent), out, "comparison")


def comparison_page(found: Comparison, conditions: Sequence[Condition], folder: Path) -> str:
    """The page as text.

    Args:
        found: The comparison.
        conditions: What was asked with --fail-on.
        folder: Where the page will lie: links to the sessions are relative to it.
    """
    lines = [_line(row) for row in found.metrics]
    drawn = draw(found)
    return shell.render(
        "compare.html",
        title=f"{found.a.path.name} and {found.b.path.name}",
        names=(found.a.path.name, found.b.path.name),
        caveats=found.caveats,
        facts=_facts(found.a, found.b),
        tiles=_tiles(found, conditions),
        lines=lines,
        outcomes=[_outcome(found, c, lines) for c in conditions],
        drawn=drawn,
        data=shell.data_of(drawn.drawing) if drawn.drawing else "",
        links=[shell.links(s.path, folder)("metadata.json") for s in (found.a, found.b)],
        no_link=lambda file: "",
    )


def _line(row: MetricRow) -> Line:
    unit = row.metric.unit
    text, tone = spelled.change(row)
    a, b = spell(row.a, unit), spell(row.b, unit)
    return Line(spelled.title(row.metric), a, b, text, tone, row.metric.name, row.metric.doc)


def _outcome(found: Comparison, condition: Condition, lines: Sequence[Line]) -> Outcome:
    line = next((x for x in lines if x.name == condition.metric), None)
    try:
        word = "fails" if found.check([condition]) else "passes"
    except InputError as e:
        return Outcome(condition.text, "not judged", line, e.why)
    return Outcome(condition.text, word, line)


def _tiles(found: Comparison, conditions: Sequence[Condition]) -> list[Tile]:
    rows = found.graphs.rows
    judged = sum(r.q is not None for r in rows)
    tiles = []
    replay = next((r for r in found.metrics if r.metric.name == "replay_p50"), None)
    if replay is not None:
        ab = [spell(v, "ms") for v in (replay.a, replay.b)]
        tiles.append(
            Tile("Replay, median", spelled.change(replay)[0], f"A {ab[0]} ms, B {ab[1]} ms")
        )
    for word in ("slower", "faster"):
        if judged:
            count = sum(r.outcome == word for r in rows)
            tiles.append(Tile(f"Graphs {word} in B", f"{count:,}", f"of {judged:,} tested"))
    return tiles


def _facts(a: SavedSession, b: SavedSession) -> list[Fact]:
    """What was compared: the names that either session has, in the order of the first."""
    told = [_of(s) for s in (a, b)]
    names = dict.fromkeys([*told[0], *told[1]])
    return [Fact(n, told[0].get(n, "not known"), told[1].get(n, "not known")) for n in names]


def _of(session: SavedSession) -> Mapping[str, str]:
    meta = session.metadata
    times = window(session)
    hosts = {p.host for p in meta.processes if p.host}
    found = {
        "directory": str(session.path),
        "session": meta.session_id or "not known",
        "started": meta.start_time or "not known",
        "length": "not known" if times is None else f"{times[1] - times[0]:,.3f} s",
        "machine": ", ".join(sorted(hosts)) or "not known",
    }
    return found | {n.replace("_", " "): v for n, v in meta.versions.items() if v}
